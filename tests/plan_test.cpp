// The plan: what the rewrites make of a step, checked call by call and buffer by buffer by code that shares nothing
// with the planner.
#include "tandem/core/plan.h"

#include <algorithm>
#include <map>

#include "catch.hpp"
#include "helpers.h"
#include "tandem/core/ops.h"
#include "tandem/core/random.h"
#include "tandem/layers/build.h"
#include "tandem/optim/optimizer.h"

using namespace tandem;
using namespace tandem::test;

namespace {

using Tensors = std::vector<Tensor>;
const Shape kMnist{28, 28, 1}, kSmall{8, 8, 3};

struct Training {
  Training(const std::string& layers, const Shape& input, uint64_t seed = 1)
      : model(on_test_device(build(layers, input, {.seed = seed}))),
        sgd(model->parameters(), {.lr = 0.05, .momentum = 0.9}) {}
  static std::unique_ptr<Sequential> on_test_device(std::unique_ptr<Sequential> made) {
    made->to(test_device());
    return made;
  }
  Tensors step(const Tensors& in) {
    sgd.zero_grad();
    const Tensor loss = cross_entropy((*model)(in[0]), in[1]);
    loss.backward();
    sgd.step();
    return {loss};
  }
  std::unique_ptr<Sequential> model;
  SGD sgd;
};

Tensors batch(const Shape& input, int64_t n, uint64_t seed) {
  std::vector<int32_t> labels;
  for (int64_t i = 0; i < n; ++i) labels.push_back(static_cast<int32_t>((i * 3 + static_cast<int64_t>(seed)) % 10));
  return {random(input.insert(0, n), seed, Dtype::float32, 0, 1).to(test_device()),
          Tensor::from(labels, {n}, test_device())};
}

bool on_gpu() { return test_device().kind == Device::Kind::cuda; }

Plan plan_of(Training& t, const Tensors& in, int threads = 2, CompileOptions options = {.keep_gradients = false}) {
  return Plan(record_step([&](const Tensors& x) { return t.step(x); }, in), options, threads);
}

bool rows(Use use) { return use == Use::rows_in || use == Use::rows_out; }

// Every rule that a plan must keep, read off its calls.
void check_rules(const Plan& plan) {
  const auto& calls = plan.program().calls;
  const auto& group = plan.group_of_call();
  REQUIRE(calls.size() == group.size());
  CHECK(std::is_sorted(group.begin(), group.end()));
  if (on_gpu()) CHECK(std::adjacent_find(group.begin(), group.end()) == group.end());  // one call after the other

  struct Life {
    int first = 1 << 30, last = -1;
    bool written = false, rows_only = true;
  };
  std::map<const void*, Life> lives;
  for (size_t i = 0; i < calls.size(); ++i) {
    const size_t in_group = static_cast<size_t>(std::count(group.begin(), group.end(), group[i]));
    for (const Call::Operand& o : calls[i]->operands) {
      INFO("call " << i << " " << calls[i]->name() << " " << o.name);
      if (plan.program().temporary(o.view->data)) {
        Life& life = lives[o.view->data];
        CHECK((life.written || !reads(o.use)));  // written before read
        life.written = life.written || writes(o.use);
        life.first = std::min(life.first, group[i]);
        life.last = std::max(life.last, group[i]);
        life.rows_only = life.rows_only && rows(o.use);
        REQUIRE(plan.buffers().count(o.view->data) == 1);
        const Plan::Buffer& b = plan.buffers().at(o.view->data);
        const int64_t whole = o.view->dims.numel() * size_of(o.view->dtype);
        CHECK((b.scratch || b.bytes >= whole));
      }
      if (in_group == 1 || o.use != Use::in) continue;
      for (size_t j = 0; j < calls.size(); ++j) {  // what is read whole in a group was finished before it
        if (group[j] != group[i]) continue;
        for (const Call::Operand& other : calls[j]->operands)
          CHECK_FALSE((other.view->data == o.view->data && writes(other.use)));
      }
    }
  }
  for (const auto& [a, x] : lives) {
    const Plan::Buffer& p = plan.buffers().at(a);
    CHECK(p.first == x.first);
    CHECK(p.last == x.last);
    CHECK((!p.scratch || (x.first == x.last && x.rows_only)));
    CHECK(p.offset % 64 == 0);
    CHECK(p.offset + p.bytes <= plan.memory());
    for (const auto& [b, y] : lives) {
      const Plan::Buffer& q = plan.buffers().at(b);
      const bool together = x.first <= y.last && y.first <= x.last;
      const bool overlap = p.offset < q.offset + q.bytes && q.offset < p.offset + p.bytes;
      if (a != b && p.bytes > 0 && q.bytes > 0) CHECK_FALSE((together && overlap));
    }
  }
}

// A network of random layers, no two alike.
std::string random_layers(uint64_t seed, bool images) {
  const Stream draws(seed, "networks");
  uint64_t at = 0;
  const auto pick = [&](uint64_t n) { return draws.below(at++, n); };
  const auto size = [&] { return std::to_string(1 + pick(20)); };
  std::string text;
  const auto add = [&](const std::string& layer) { text += (text.empty() ? "" : ",") + layer; };
  const char* const acts[] = {"relu", "sigmoid", "tanh", "relu"};
  const char* const norms[] = {"bn",   "bn:keras",     "bn:scale=off",          "bn:shift=off",
                               "gn:1", "bn:track=off", "bn:momentum=cumulative"};
  if (images) {
    for (uint64_t n = 1 + pick(3); n > 0; --n) {
      const char* const windows[] = {":k=1", ":k=3:p=1", ":k=3:p=1:s=2", ":k=2:p=1", ":k=5:p=2"};
      add("conv:" + size() + windows[pick(5)]);
      if (pick(3) > 0) add(norms[pick(7)]);
      if (pick(4) > 0) add(acts[pick(4)]);
      if (pick(5) == 0) add("dropout:0.25");
      if (pick(4) == 0) add(pick(2) ? "maxpool:2:s=1" : "avgpool:2:s=1");
    }
  }
  for (uint64_t n = pick(3); n > 0; --n) {
    add("dense:" + size());
    if (pick(2)) add(norms[pick(4)]);
    if (pick(4) > 0) add(acts[pick(4)]);
  }
  add("dense:10");
  return text;
}

}  // namespace

TEST_CASE("Plans keep their rules: written before read, no two living buffers in one place, groups that wait",
          "[plan]") {
  for (const char* name : {"w1", "w2", "w3", "lenet"}) {
    for (const bool bn : {false, true}) {
      for (const bool rewritten : {false, true}) {
        INFO(name << " bn " << bn << " rewritten " << rewritten);
        Training t(model_text(name, bn).layers, kMnist);
        check_rules(plan_of(t, batch(kMnist, 9, 1), 3,
                            {.keep_gradients = rewritten, .fuse = rewritten, .order = rewritten, .block = rewritten}));
      }
    }
  }
}

TEST_CASE("Random networks: plans keep their rules, and ten replays equal ten eager steps byte for byte", "[plan]") {
  const uint64_t networks = on_gpu() ? 60 : 200;
  for (uint64_t seed = 0; seed < networks; ++seed) {
    const bool images = seed % 4 != 3;
    const std::string layers = random_layers(seed, images);
    const Shape input = images ? kSmall : Shape{13};
    INFO("network " << seed << ": " << layers);
    Training eager(layers, input, seed), compiled(layers, input, seed);
    const int64_t n = 2 + static_cast<int64_t>(seed % 7);
    check_rules(plan_of(compiled, batch(input, n, 1)));
    CompiledStep step([&](const Tensors& in) { return compiled.step(in); },
                      {.keep_gradients = seed % 2 == 0, .poison = true});
    bool same = true;
    for (uint64_t i = 0; i < 10; ++i) {
      const Tensors in = batch(input, n, i);
      const Tensor a = eager.step(in)[0], b = step(in)[0];
      same = same && bytes(a) == bytes(b);
    }
    CHECK(step.why_eager() == "");
    CHECK(same);
    const StateDict a = eager.model->state_dict(), b = compiled.model->state_dict();
    for (size_t i = 0; i < a.size(); ++i) CHECK((bytes(a[i].second) == bytes(b[i].second)));
  }
}

TEST_CASE("The plans of the reference networks hold as many calls, fusions and bytes as they did", "[plan]") {
  struct Row {
    const char* name;
    bool bn;
    size_t recorded, calls;
    int64_t fused, prologues;  // batch norms with their activation in backward; convolutions that read through one
    int64_t kib;
  };
  const std::vector<Row> cpu = {
      {"w1", true, 47, 40, 3, 0, 414},   {"w1", false, 32, 31, 0, 0, 413},  {"w2", true, 47, 40, 3, 0, 2476},
      {"w2", false, 32, 31, 0, 0, 2474}, {"w3", true, 79, 75, 5, 3, 21887}, {"w3", false, 50, 54, 0, 3, 15934},
  };
  const std::vector<Row> gpu = {
      {"w1", true, 37, 29, 3, 0, 414},   {"w1", false, 28, 26, 0, 0, 413},  {"w2", true, 37, 29, 3, 0, 2476},
      {"w2", false, 28, 26, 0, 0, 2472}, {"w3", true, 55, 40, 5, 3, 39460}, {"w3", false, 40, 35, 0, 3, 39458},
  };
  for (const Row& row : on_gpu() ? gpu : cpu) {
    INFO(row.name << " bn " << row.bn);
    Training t(model_text(row.name, row.bn).layers, kMnist);
    const Tensors in = batch(kMnist, row.name[1] == '1' ? 60 : 128, 1);
    CHECK(record_step([&](const Tensors& x) { return t.step(x); }, in).calls.size() == row.recorded);
    const Plan plan = plan_of(t, in, 1);
    const auto& calls = plan.program().calls;
    CHECK(calls.size() == row.calls);
    CHECK(std::count_if(calls.begin(), calls.end(), [](const auto& call) { return as<BnActGradApply>(*call); }) ==
          row.fused);
    CHECK(std::count_if(calls.begin(), calls.end(), [](const auto& call) {
            const Conv* conv = as<Conv>(*call);
            return conv && (conv->mean || conv->relu);
          }) == row.prologues);
    CHECK(plan.memory() / 1024 == row.kib);
  }
}

TEST_CASE("A plan reads as its calls, with the names of what was there before", "[plan]") {
  if (on_gpu()) return;  // has other calls
  Training t("conv:4:k=3:p=1,bn,relu,conv:4:k=3:s=2,dense:10", kSmall);
  std::vector<std::pair<std::string, Tensor>> names;
  for (const Parameter& p : t.model->parameters()) names.emplace_back(p.name, p.tensor);
  for (const Buffer& b : t.model->buffers()) names.emplace_back(b.name, b.tensor);
  const std::string text = plan_of(t, batch(kSmall, 4, 1)).text(names);
  const std::string forward =
      "ConvPack w=conv1.weight[4, 3, 3, 3] packed=t24[432] window=3/s1/p1/d1 turned=0\n"
      "2 times, 2 rows each:\n"
      "  Conv x=input0[4, 8, 8, 3] w=conv1.weight[4, 3, 3, 3] y=t0[4, 8, 8, 4] packed=t24[432] window=3/s1/p1/d1 "
      "groups=1 relu=0\n"
      "  BnMoments x=t0[4, 8, 8, 4] moments=t3[2, 2, 4] axis=3\n"
      "ConvPack w=conv2.weight[4, 3, 3, 4] packed=t25[576] window=3/s2/p0/d1 turned=0\n"
      "ConvPack w=conv2.weight[4, 3, 3, 4] packed=t26[576] window=3/s2/p0/d1 turned=1\n"
      "BnFinish moments=t3[2, 2, 4] mean=t1[4] rstd=t2[4] running_mean=bn1.running_mean[4] "
      "running_var=bn1.running_var[4] batches=bn1.num_batches_tracked[] skipped=bn1.skipped_updates[] rows=4 "
      "chunk_rows=2 per_row=64 eps=1e-05 new_weight=0.1 cumulative=0 unbiased=1\n"
      "Conv x=t0[4, 8, 8, 4] w=conv2.weight[4, 3, 3, 4] b=conv2.bias[4] y=t4[4, 3, 3, 4] mean=t1[4] rstd=t2[4] "
      "gamma=bn1.weight[4] beta=bn1.bias[4] packed=t25[576] window=3/s2/p0/d1 groups=1 relu=1\n";
  CHECK(text.substr(0, forward.size()) == forward);
}
