#include "tandem/data/data_loader.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <set>

#include "catch.hpp"
#include "helpers.h"
#include "tandem/core/error.h"
#include "tandem/data/prefetcher.h"

namespace tandem::test {
namespace {

// n images of h x w; pixel k of image i is (31 i + k) mod 256; label i.
Dataset images(int64_t n, int64_t h = 3, int64_t w = 4) {
  std::vector<uint8_t> pixels(n * h * w);
  for (int64_t i = 0; i < n; ++i) {
    for (int64_t k = 0; k < h * w; ++k) pixels[i * h * w + k] = static_cast<uint8_t>(31 * i + k);
  }
  std::vector<int32_t> labels(n);
  std::iota(labels.begin(), labels.end(), 0);
  return Dataset::from(Tensor::from(pixels, {n, h, w, 1}), Tensor::from(labels, {n}));
}

std::vector<int64_t> sizes(DataLoader& loader) {
  std::vector<int64_t> out;
  for (const auto& [x, y] : loader) out.push_back(x.dim(0));
  return out;
}

std::vector<int32_t> labels(DataLoader& loader) {
  std::vector<int32_t> out;
  for (const auto& [x, y] : loader) {
    for (int32_t label : y.to_vector<int32_t>()) out.push_back(label);
  }
  return out;
}

std::vector<int32_t> sorted(std::vector<int32_t> v) {
  std::sort(v.begin(), v.end());
  return v;
}

}  // namespace

TEST_CASE("Dataset::from takes a host's arrays and refuses what does not fit") {
  const Tensor x = random({4, 2, 3}, 1), y = Tensor::from(std::vector<int32_t>{0, 2, 1, 2}, {4});
  const Dataset data = Dataset::from(x, y, "mine");
  CHECK(data.name == "mine");
  CHECK(data.classes == 3);
  CHECK(data.size() == 4);
  CHECK(data.sample_shape() == Shape{2, 3});
  CHECK(Dataset::from(x, y, "mine", 7).classes == 7);

  CHECK(error_of([&] {
          Dataset::from(x, Tensor::from(std::vector<int32_t>{0, 1}, {2}));
        }) == "Dataset: expected x[N, ...] and y[N], got x[4, 2, 3] and y[2]");
  CHECK(error_of([&] { Dataset::from(zeros({4}), y); }) == "Dataset: expected x[N, ...] and y[N], got x[4] and y[4]");
  CHECK(error_of([&] { Dataset::from(x.to(Dtype::int32), y); }) ==
        "Dataset: expected x of uint8, float32 or float64, got int32");
  CHECK(error_of([&] { Dataset::from(x, zeros({4})); }) ==
        "Dataset: expected y of int32, got float32; convert it with to(Dtype::int32)");
  CHECK(error_of([&] { Dataset::from(x, y, "mine", 2); }) == "Dataset: expected labels in [0, 2), got y[1] = 2");
  CHECK(error_of([&] {
          Dataset::from(x, Tensor::from(std::vector<int32_t>{0, 1, -1, 0}, {4}));
        }) == "Dataset: expected labels in [0, 2), got y[2] = -1");
  CHECK(error_of([&] {
          Dataset::from(zeros({0, 3}), Tensor::from(std::vector<int32_t>{}, {0}));
        }) == "Dataset: expected at least one row and element, got x[0, 3] and y[0]");
  CHECK(error_of([&] { Dataset::from({}, y); }) == "Dataset: expected x and y, got an empty tensor");
}

TEST_CASE("A data set is split and cut without copying") {
  const Dataset data = images(10);
  const auto parts = split(data, 3);
  const Dataset& validation = parts.second;
  CHECK(parts.first.size() == 7);
  CHECK(validation.size() == 3);
  CHECK(validation.x.data<uint8_t>() == data.x.data<uint8_t>());
  DataLoader loader(validation.take(1, 2), {.batch_size = 8, .shuffle = false});
  CHECK(labels(loader) == std::vector<int32_t>{8, 9});
  CHECK(error_of([&] { split(data, 0); }) == "split: expected 1 to 9 validation rows of 10, got 0");
  CHECK(error_of([&] { split(data, 10); }) == "split: expected 1 to 9 validation rows of 10, got 10");
  CHECK(error_of([&] { validation.take(1, 3); }) == "Dataset: expected a part of the 3 rows, got 3 rows from row 1");
  CHECK_THROWS_AS(data.take(-1, 2), ValueError);
  CHECK_THROWS_AS(data.take(0, 0), ValueError);
}

TEST_CASE("The last batch is kept, dropped or merged") {
  const auto with = [](int64_t n, int64_t batch, LastBatch last) {
    DataLoader loader(images(n), {.batch_size = batch, .last_batch = last});
    const auto served = sizes(loader);
    CHECK(static_cast<int64_t>(served.size()) == loader.batches());
    CHECK(std::accumulate(served.begin(), served.end(), int64_t{0}) == loader.samples());
    CHECK(static_cast<int64_t>(loader.order(0).size()) == loader.samples());
    return served;
  };
  using Sizes = std::vector<int64_t>;
  CHECK(with(10, 4, LastBatch::keep) == Sizes{4, 4, 2});
  CHECK(with(10, 4, LastBatch::drop) == Sizes{4, 4});
  CHECK(with(10, 4, LastBatch::merge) == Sizes{4, 6});
  for (LastBatch last : {LastBatch::keep, LastBatch::drop, LastBatch::merge}) {
    CHECK(with(8, 4, last) == Sizes{4, 4});
    CHECK(with(4, 4, last) == Sizes{4});
  }
  CHECK(with(3, 4, LastBatch::keep) == Sizes{3});
  CHECK(with(3, 4, LastBatch::merge) == Sizes{3});
  CHECK(parse_last_batch("merge") == LastBatch::merge);
  CHECK(error_of([] { parse_last_batch("pad"); }) == "last batch: expected keep, drop or merge, got 'pad'");
}

TEST_CASE("Wrong loader options are refused") {
  const Dataset data = images(3);
  const auto error = [&](DataLoaderOptions options) { return error_of([&] { DataLoader(data, options); }); };
  CHECK(error({.batch_size = 0}) == "DataLoader: expected a batch_size of at least 1, got 0");
  CHECK(error({.batch_size = 4, .last_batch = LastBatch::drop}) ==
        "DataLoader: expected a batch_size of at most the 3 rows of custom, got 4; no batch would be left, use a "
        "smaller one or LastBatch::keep");
  CHECK(error({.dtype = Dtype::int32}) == "DataLoader: expected a dtype of float32 or float64, got int32");
  CHECK(error({.shift = 3}) == "DataLoader: expected a shift of 0 to 2 for x[3, 3, 4, 1], got 3");
  CHECK(error({.shift = -1}) == "DataLoader: expected a shift of 0 to 2 for x[3, 3, 4, 1], got -1");
  CHECK(error_of([] { DataLoader(Dataset{}); }) ==
        "DataLoader: expected a data set with rows; make one with Dataset::from");
  const Dataset floats = Dataset::from(random({3, 4}, 1), data.y);
  CHECK(error_of([&] { DataLoader(floats, {.shift = 1}); }) ==
        "DataLoader: expected uint8 images x[N, H, W, C] to shift, got float32 x[3, 4]");
  DataLoader loader(data, {.batch_size = 2});
  CHECK(error_of([&] { loader.batch(0, 2); }) ==
        "DataLoader: expected a batch of 0 to 1 in an epoch of at least 0, got batch 2 of epoch 0");
  CHECK_THROWS_AS(loader.batch(-1, 0), ValueError);
  CHECK_THROWS_AS(loader.set_epoch(-1), ValueError);
  CHECK_THROWS_AS(*loader.end(), ValueError);
}

TEST_CASE("Epochs are permutations that depend on seed and epoch alone") {
  const Dataset data = images(100);
  DataLoader loader(data, {.batch_size = 8, .seed = 3}), twin(data, {.batch_size = 30, .seed = 3, .prefetch = true});
  const auto first = labels(loader), second = labels(loader);
  CHECK(sorted(first) == data.y.to_vector<int32_t>());
  CHECK(sorted(second) == sorted(first));
  CHECK(first != data.y.to_vector<int32_t>());
  CHECK(first != second);
  CHECK(first == loader.order(0));
  CHECK(second == loader.order(1));
  CHECK(loader.epoch() == 2);
  twin.set_epoch(1);
  CHECK(labels(twin) == second);  // whatever the batch size
  twin.set_epoch(0);
  CHECK(labels(twin) == first);
  CHECK(DataLoader(data, {.seed = 4}).order(0) != first);

  // These numbers are part of the format of every experiment: they must never change.
  CHECK(DataLoader(images(8), {.seed = 1}).order(0) == std::vector<int32_t>{3, 0, 4, 1, 2, 5, 6, 7});
  CHECK(DataLoader(images(8).take(4, 4), {.shuffle = false}).order(5) == std::vector<int32_t>{4, 5, 6, 7});
}

TEST_CASE("Batches are the rows divided by 255, in the dtype asked for") {
  const Dataset data = images(5);
  const Batch batch = DataLoader(data, {.batch_size = 3, .shuffle = false}).batch(0, 1);
  CHECK(batch.x.shape() == Shape{2, 3, 4, 1});
  CHECK(batch.x.dtype() == Dtype::float32);
  CHECK(batch.y.to_vector<int32_t>() == std::vector<int32_t>{3, 4});
  for (int64_t k = 0; k < 24; ++k) {
    const uint8_t pixel = data.x.data<uint8_t>()[36 + k];
    CHECK(batch.x.data<float>()[k] == Approx(pixel / 255.0).epsilon(1e-7));
    if (pixel == 0) CHECK(batch.x.data<float>()[k] == 0);
  }
  const Batch wide = DataLoader(data, {.batch_size = 3, .shuffle = false, .dtype = Dtype::float64}).batch(0, 0);
  CHECK(wide.x.data<double>()[35] == data.x.data<uint8_t>()[35] * (1.0 / 255));

  const Dataset flat = Dataset::from(data.x.reshape({5, 12}), data.y);
  const Batch rows = DataLoader(flat, {.batch_size = 3, .shuffle = false}).batch(0, 1);
  CHECK(rows.x.shape() == Shape{2, 12});
  CHECK(bytes(rows.x) == bytes(batch.x));
}

TEST_CASE("Floating rows are served as they are, or converted") {
  const Tensor x = random({6, 2, 2}, 7);
  const Dataset data = Dataset::from(x, images(6).y);
  DataLoader loader(data, {.batch_size = 4, .seed = 2});
  const std::vector<int32_t> order = loader.order(0);
  const Batch batch = loader.batch(0, 1);
  CHECK(batch.x.shape() == Shape{2, 2, 2});
  for (int i = 0; i < 2; ++i) {
    for (int k = 0; k < 4; ++k) CHECK(batch.x.data<float>()[4 * i + k] == x.data<float>()[4 * order[4 + i] + k]);
  }
  CHECK(DataLoader(data, {.dtype = Dtype::float64}).batch(0, 0).x.dtype() == Dtype::float64);
}

TEST_CASE("Batches of a data set that is mostly zero say so") {
  const Tensor labels = zeros({3}, {Dtype::int32});
  const auto says = [&](const Tensor& x) {
    const DataLoader loader(Dataset::from(x, labels), {.batch_size = 2});
    CHECK(loader.batch(0, 0).x.mostly_zero() == loader.batch(1, 1).x.mostly_zero());
    return loader.batch(0, 0).x.mostly_zero();
  };
  std::vector<uint8_t> pixels(3 * 20, 0);
  CHECK(says(Tensor::from(pixels, {3, 4, 5, 1})));
  std::fill_n(pixels.begin(), 14, uint8_t{200});
  CHECK(says(Tensor::from(pixels, {3, 4, 5, 1})));
  std::fill_n(pixels.begin(), 30, uint8_t{200});
  CHECK(!says(Tensor::from(pixels, {3, 4, 5, 1})));
  CHECK(says(zeros({3, 4})));
  CHECK(!says(random({3, 4}, 1, Dtype::float64)));
}

TEST_CASE("Random shifts move each image by its own offset and fill with 0") {
  constexpr int64_t n = 200, h = 5, w = 6, most = 2;
  Dataset data = images(n, h, w);
  uint8_t* pixels = data.x.mutable_data<uint8_t>();
  for (int64_t i = 0; i < data.x.numel(); ++i) pixels[i] = static_cast<uint8_t>(1 + i % 30);  // no pixel is 0
  DataLoader loader(data, {.batch_size = 32, .shuffle = false, .seed = 5, .shift = most});
  std::set<std::pair<int64_t, int64_t>> seen;
  int64_t image = 0;
  for (const Batch& batch : loader) {
    for (int64_t i = 0; i < batch.x.dim(0); ++i, ++image) {
      const auto at = [&](int64_t r, int64_t c) { return batch.x.data<float>()[(i * h + r) * w + c]; };
      const auto matches = [&](int64_t down, int64_t right) {
        for (int64_t r = 0; r < h; ++r) {
          for (int64_t c = 0; c < w; ++c) {
            const int64_t from_r = r - down, from_c = c - right;
            const bool inside = from_r >= 0 && from_r < h && from_c >= 0 && from_c < w;
            const uint8_t pixel = inside ? pixels[(image * h + from_r) * w + from_c] : 0;
            if (std::abs(at(r, c) - pixel / 255.0) > 1e-6) return false;
          }
        }
        return true;
      };
      int found = 0;
      for (int64_t down = -most; down <= most; ++down) {
        for (int64_t right = -most; right <= most; ++right) {
          if (matches(down, right)) seen.insert({down, right}), ++found;
        }
      }
      CHECK(found == 1);
    }
  }
  CHECK(seen.size() == 25);  // 200 draws of 25: all of them come up
  const DataLoader plain(data, {.seed = 5}), shifted(data, {.seed = 5, .shift = most});
  CHECK(plain.order(3) == shifted.order(3));  // augmentation moves no other stream
  CHECK(bytes(shifted.batch(0, 0).x) != bytes(shifted.batch(1, 0).x));
}

TEST_CASE("Prefetching changes nothing but the thread") {
  const Dataset data = images(50, 6, 6);
  const DataLoaderOptions options{.batch_size = 7, .seed = 9, .last_batch = LastBatch::merge, .shift = 2};
  DataLoaderOptions ahead = options;
  ahead.prefetch = true;
  DataLoader plain(data, options), prefetching(data, ahead);
  for (int epoch = 0; epoch < 3; ++epoch) {
    auto expected = plain.begin();
    for (const auto& [x, y] : prefetching) {
      const Batch batch = *expected;
      CHECK(bytes(x) == bytes(batch.x));
      CHECK(bytes(y) == bytes(batch.y));
      ++expected;
    }
    CHECK(expected.index == plain.batches());
  }
}

TEST_CASE("A prefetching thread lets its loader be left, asked twice, moved and used from two loops") {
  const Dataset data = images(64);
  for (int round = 0; round < 20; ++round) {
    DataLoader loader(data, {.batch_size = 4, .prefetch = true});
    for (const auto& [x, y] : loader) {
      if (y.data<int32_t>()[0] % 5 == round % 5) break;
    }
  }
  DataLoader first(data, {.batch_size = 4, .prefetch = true});
  auto it = first.begin();
  const Batch once = *it, again = *it;
  CHECK(bytes(once.y) == bytes(again.y));
  ++it;
  auto other = first.begin();  // epoch 1 takes over the thread; epoch 0 goes on without
  CHECK(bytes((*it).y) == bytes(first.batch(0, 1).y));
  CHECK(bytes((*other).y) == bytes(first.batch(1, 0).y));
  DataLoader moved(std::move(first));
  CHECK(labels(moved) == moved.order(2));
}

TEST_CASE("Where no thread can be started, a loader makes its batches itself") {
  DataLoader loader(images(64), {.batch_size = 4, .prefetch = true});
  std::string warning;
  const WarningHandler before = set_warning_handler([&](const std::string& text) { warning = text; });
  const NoThreads none;
  CHECK(labels(loader) == loader.order(0));
  CHECK(labels(loader) == loader.order(1));
  CHECK(warning == "DataLoader: no thread to prefetch with (Resource temporarily unavailable); going on without");
  set_warning_handler(before);
}

TEST_CASE("An error in the prefetching thread surfaces at its item, each time it is asked for") {
  Prefetcher<int> items(5, [](int64_t i) -> int {
    if (i == 2) throw DataError("item 2 is broken");
    return static_cast<int>(10 * i);
  });
  CHECK(items.take() == 0);
  CHECK(items.take() == 10);
  CHECK(items.next() == 2);
  CHECK(error_of([&] { items.take(); }) == "item 2 is broken");
  CHECK_THROWS_AS(items.take(), DataError);
  CHECK(items.next() == 2);
}

TEST_CASE("A loader gathers the rows it is asked for, and refuses those that its data do not have", "[data]") {
  const Dataset data = Dataset::from(Tensor::from(std::vector<uint8_t>{0, 51, 102, 255}, {4, 1}),
                                     Tensor::from(std::vector<int32_t>{0, 1, 2, 3}, {4}));
  const DataLoader loader(data, {.batch_size = 2, .shuffle = false});
  const auto rows = [](std::vector<int32_t> at) { return Tensor::from(at, {static_cast<int64_t>(at.size())}); };
  const Batch batch = loader.gather(rows({3, 1}));
  CHECK(batch.x.to_vector<float>() == std::vector<float>{255 * (1.0f / 255), 51 * (1.0f / 255)});
  CHECK(batch.y.to_vector<int32_t>() == std::vector<int32_t>{3, 1});
  CHECK(loader.rows(0, 1).rows == std::vector<int32_t>{2, 3});
  CHECK(DataLoader(data, {.batch_size = 3}).rows_of_batch(1) == 1);
  CHECK(error_of([&] { loader.rows_of_batch(2); }) == "DataLoader: expected a batch of 0 to 1, got 2");
  CHECK(DataLoader(data, {.batch_size = 3, .last_batch = LastBatch::merge}).rows_of_batch(0) == 4);
  const Batch part = loader.gather(rows({3, 1, 2, 0}), {}, 1, 3);
  CHECK(part.x.to_vector<float>() == std::vector<float>{51 * (1.0f / 255), 102 * (1.0f / 255)});
  CHECK(part.y.to_vector<int32_t>() == std::vector<int32_t>{1, 2});
  CHECK(error_of([&] {
          loader.gather(rows({3, 1}), {}, 1, 3);
        }) == "DataLoader: expected a part of rows[2], got [1, 3)");
  CHECK_NOTHROW(loader.gather(rows({9, 1}), {}, 1, 2));  // the others are not read
  for (const int32_t stray : {4, -1}) {
    CHECK(error_of([&] {
            loader.gather(rows({0, stray}));
          }) == "gather_rows: expected rows in [0, 4) of x, got " + std::to_string(stray));
  }
  CHECK(error_of([&] {
          loader.gather(rows({0}), zeros({1, 2}, {Dtype::int32}));
        }) == "DataLoader: expected rows int32 [n], got rows[1] and shifts[1, 2]");
}

}  // namespace tandem::test
