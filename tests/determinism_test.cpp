// The same bytes whatever the thread count, prefetching, evaluation or neighbours; twins that share all they can.
#include <map>
#include <thread>

#include "catch.hpp"
#include "helpers.h"
#include "tandem/core/ops.h"
#include "tandem/core/threads.h"
#include "tandem/data/data_loader.h"
#include "tandem/data/digits.h"
#include "tandem/layers/build.h"
#include "tandem/optim/optimizer.h"
#include "training.h"

using namespace tandem;
using namespace tandem::test;

namespace {

const Dataset& digits() {
  static const Dataset data = make_digits(1000, 5);
  return data;
}

struct Threads {
  explicit Threads(int n) { set_threads(n); }
  ~Threads() { set_threads(before); }
  int before = threads();
};

std::vector<uint8_t> trained_bytes(const TrainOptions& options) { return state_bytes(*train(digits(), options).model); }

}  // namespace

TEST_CASE("Training gives the same bytes on any number of threads", "[determinism]") {
  for (const char* model : {"w1", "w2", "lenet"}) {
    for (bool batch_norm : {false, true}) {
      INFO(model << (batch_norm ? " with batch norm" : ""));
      const TrainOptions options{.model = model, .batch_norm = batch_norm, .lr = 0.05};
      std::vector<uint8_t> alone;
      {
        const Threads one(1);
        alone = trained_bytes(options);
      }
      for (int n : {2, 4}) {
        const Threads several(n);
        CHECK((n > 0 && trained_bytes(options) == alone));
      }
    }
  }
}

TEST_CASE("Two runs of one seed give the same bytes, another seed does not", "[determinism]") {
  const TrainOptions options;
  const auto first = trained_bytes(options);
  CHECK(trained_bytes(options) == first);
  CHECK_FALSE(trained_bytes({.seed = 2}) == first);
}

TEST_CASE("Prefetching changes no byte", "[determinism]") {
  CHECK(trained_bytes({.epochs = 2, .prefetch = true}) == trained_bytes({.epochs = 2}));
}

TEST_CASE("Evaluating more often changes no byte of training", "[determinism]") {
  for (bool batch_norm : {false, true}) {
    const auto plain = trained_bytes({.batch_norm = batch_norm});
    CHECK(trained_bytes({.batch_norm = batch_norm, .evaluate_every = 1}) == plain);
    CHECK(trained_bytes({.batch_norm = batch_norm, .evaluate_every = 3}) == plain);
  }
}

TEST_CASE("Two host threads train two models and equal their single runs", "[determinism]") {
  const TrainOptions a{.model = "w2", .seed = 3}, b{.model = "lenet", .seed = 4, .lr = 0.05};
  const auto alone_a = trained_bytes(a), alone_b = trained_bytes(b);
  std::vector<uint8_t> together_a, together_b;
  std::thread other([&] { together_b = trained_bytes(b); });
  together_a = trained_bytes(a);
  other.join();
  CHECK(together_a == alone_a);
  CHECK(together_b == alone_b);

  std::thread single([&] {
    const SingleThreaded only_one_core;
    together_b = trained_bytes(b);
  });
  together_a = trained_bytes(a);
  single.join();
  CHECK(together_a == alone_a);
  CHECK(together_b == alone_b);
}

TEST_CASE("Twins start with the same weights and see the same batches", "[determinism]") {
  for (const char* name : {"mlp", "w1", "w2", "w3", "lenet"}) {
    INFO(name);
    std::map<std::string, std::vector<uint8_t>> plain, normed;
    for (bool batch_norm : {false, true}) {
      const ModelText text = model_text(name, batch_norm);
      const auto model = build(text.layers, {28, 28, 1}, {.seed = 7, .init = text.init});
      for (const Parameter& p : model->parameters()) (batch_norm ? normed : plain)[p.name] = bytes(p.tensor);
    }
    int shared = 0;
    for (const auto& [parameter, value] : plain) {
      if (!normed.count(parameter)) continue;
      INFO(parameter);
      CHECK(normed.at(parameter) == value);
      ++shared;
    }
    CHECK(shared >= 4);  // every weight
    CHECK(normed.size() > plain.size() - 4);
  }
  const DataLoader a(digits(), {.seed = 7}), b(digits(), {.seed = 7});
  CHECK(a.order(3) == b.order(3));
}

TEST_CASE("A/A: two arms that are the same differ by exactly nothing", "[determinism]") {
  const Trained a = train(digits(), {.epochs = 2}), b = train(digits(), {.epochs = 2});
  CHECK(a.losses == b.losses);
  CHECK(state_bytes(*a.model) == state_bytes(*b.model));
  CHECK(accuracy(*a.model, digits()) == accuracy(*b.model, digits()));
}

TEST_CASE("Training asks the operating system for no tensor memory after its second step", "[determinism][memory]") {
  for (const char* name : {"w1", "w2", "w3", "lenet"}) {
    for (bool prefetch : {false, true}) {
      INFO(name << (prefetch ? ", prefetching" : ""));
      const ModelText text = model_text(name, true);
      const auto model = build(text.layers, {28, 28, 1}, {.init = text.init});
      DataLoader loader(digits(), {.batch_size = 50, .prefetch = prefetch});
      SGD sgd(model->parameters(), {.lr = 0.01, .momentum = 0.9});
      uint64_t after_two = 0;
      int step = 0;
      for (const auto& [x, y] : loader) {
        sgd.zero_grad();
        cross_entropy((*model)(x), y).backward();
        sgd.step();
        if (++step == 2) after_two = memory_stats().system_allocations;
        if (step == 6) break;
      }
      // A thread that is at most one batch ahead may find its turn, and with it one more x and y, only later.
      CHECK(memory_stats().system_allocations - after_two <= (prefetch ? 2 : 0));
    }
  }
}
