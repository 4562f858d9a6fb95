// Datasets, transforms, the loader.

#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <cmath>
#include <numeric>
#include <random>
#include <set>
#include <thread>

#include "hone/hone.h"

namespace hone::data {
namespace {

/// n images of c×h×w whose bytes are all different enough, and labels 0 … n−1.
Dataset images(int64_t n, int64_t c = 1, int64_t h = 4, int64_t w = 6) {
  Tensor x = empty({n, c, h, w}, u8);
  for (int64_t i = 0; i < x.numel(); ++i) x.data<uint8_t>()[i] = static_cast<uint8_t>((i * 7 + i / 24 * 13 + 1) % 256);
  return {x, arange(0, static_cast<double>(n))};
}

TEST(Dataset, ChecksAndSubsets) {
  EXPECT_THROW(Dataset(ones({3, 2}), ones({2})), ShapeError);
  EXPECT_THROW(Dataset(scalar(1), scalar(1)), ShapeError);
  EXPECT_THROW(Dataset(Tensor(), ones({2})), ValueError);
  EXPECT_THROW(Loader{Dataset()}, ValueError);
  const Dataset d = images(10);
  const Dataset s = d.subset({3, 3, 9});
  EXPECT_EQ(s.size(), 3);
  EXPECT_TRUE(s.all_inputs().shares_storage_with(d.all_inputs()));
  EXPECT_TRUE(equal(s.get(0, 3).targets, tensor<int64_t>({3, 3, 9})));
  EXPECT_TRUE(equal(s.subset({2, 0}).get(0, 2).targets, tensor<int64_t>({9, 3})));
  EXPECT_TRUE(equal(d.first(2).get(1, 2).targets, tensor<int64_t>({1})));
  EXPECT_EQ(d.first(99).size(), 10);
  EXPECT_THROW(s.subset({3}), ValueError);
  EXPECT_THROW(d.subset({-1}), ValueError);
  EXPECT_THROW(d.get(5, 11), ValueError);
  EXPECT_EQ(d.get(5, 5).inputs.shape(), (Shape{0, 1, 4, 6}));
}

TEST(Dataset, RandomSplitIsAPartition) {
  const Dataset d = images(101);
  auto [a, b, c] = random_split(d, {0.5, 0.3, 0.2}, 1);
  EXPECT_EQ(a.size() + b.size() + c.size(), 101);
  EXPECT_NEAR(static_cast<double>(a.size()), 50.5, 1);
  std::set<int64_t> seen;
  for (const Dataset& p : {a, b, c})
    for (int64_t i = 0; i < p.size(); ++i) EXPECT_TRUE(seen.insert(p.row(i)).second);
  EXPECT_EQ(seen.size(), 101u);
  auto [a2, rest] = random_split(d, {0.5, 0.25}, 1);
  for (int64_t i = 0; i < a.size(); ++i) EXPECT_EQ(a.row(i), a2.row(i));
  auto [other] = random_split(d, {1.0}, 2);
  EXPECT_FALSE(std::is_sorted(a.all_targets().data<int64_t>(), a.all_targets().data<int64_t>() + 1) &&
               other.row(0) == a.row(0) && other.row(1) == a.row(1) && other.row(2) == a.row(2));
  EXPECT_EQ(rest.size(), 25);
  EXPECT_THROW(random_split(d, {0.9, 0.2}, 1), ValueError);
  EXPECT_THROW(random_split(d, {0.9, 0.0}, 1), ValueError);
}

TEST(Transforms, DefaultIsUnitRange) {
  Tensor x = empty({256, 1}, u8);
  for (int64_t i = 0; i < 256; ++i) x.data<uint8_t>()[i] = static_cast<uint8_t>(i);
  const Tensor got = Dataset(x, zeros({256})).get(0, 256).inputs;
  ASSERT_EQ(got.dtype(), f32);
  for (int64_t i = 0; i < 256; ++i) EXPECT_NEAR(got.data<float>()[i], static_cast<double>(i) / 255, 1e-7);
  EXPECT_EQ(got.data<float>()[0], 0.0f);
  EXPECT_EQ(got.data<float>()[255], 1.0f);
}

TEST(Transforms, GenericTensorsPassAsTheyAre) {
  const Dataset d(arange(0, 12, 1, f64), arange(0, 12, 1, f32));
  const Batch b = d.subset({5, 2}).get(0, 2);
  EXPECT_TRUE(equal(b.inputs, tensor<double>({5, 2})));
  EXPECT_TRUE(equal(b.targets, tensor<float>({5, 2})));
  EXPECT_THROW(d.get(0, 1, {normalize(0, 1)}), DTypeError);
}

/// The steps spelt out on one sample, element by element.
TEST(Transforms, NormalizePadRepeat) {
  const Dataset d = images(3, 1, 4, 5);
  const Tensor got = d.get(0, 3, {normalize(0.25, 0.5), pad_to(7), repeat_channels(3)}).inputs;
  ASSERT_EQ(got.shape(), (Shape{3, 3, 7, 7}));
  const Tensor late = d.get(0, 3, {pad_to(7), normalize(0.25, 0.5)}).inputs;
  ASSERT_EQ(late.shape(), (Shape{3, 1, 7, 7}));
  for (int64_t n = 0; n < 3; ++n)
    for (int64_t y = 0; y < 7; ++y)
      for (int64_t x = 0; x < 7; ++x) {
        const int64_t sy = y - 1, sx = x - 1;
        const bool inside = sy >= 0 && sy < 4 && sx >= 0 && sx < 5;
        const double pixel = inside ? d.all_inputs().data<uint8_t>()[n * 20 + sy * 5 + sx] / 255.0 : 0;
        for (int64_t c = 0; c < 3; ++c)
          EXPECT_NEAR(got.data<float>()[((n * 3 + c) * 7 + y) * 7 + x], inside ? (pixel - 0.25) / 0.5 : 0, 1e-6);
        EXPECT_NEAR(late.data<float>()[(n * 7 + y) * 7 + x], (pixel - 0.25) / 0.5, 1e-6);
      }
}

TEST(Transforms, NormalizeByChannelFirstOrLater) {
  const Dataset d = images(2, 3, 2, 2);
  const Transform t = normalize({0.1, 0.2, 0.3}, {1, 2, 4});
  const Tensor first = d.get(0, 2, {t}).inputs, later = d.get(0, 2, {random_flip(0), t}).inputs;
  for (int64_t i = 0; i < 24; ++i) {
    const int64_t c = i / 4 % 3;
    const double want =
        (d.all_inputs().data<uint8_t>()[i] / 255.0 - 0.1 * static_cast<double>(c + 1)) / static_cast<double>(1 << c);
    EXPECT_NEAR(first.data<float>()[i], want, 1e-6);
    EXPECT_NEAR(later.data<float>()[i], want, 1e-6);
  }
}

TEST(Transforms, FlipMirrorsAboutHalf) {
  const Dataset d = images(400, 2, 3, 5);
  const Tensor plain = d.get(0, 400).inputs, always = d.get(0, 400, {random_flip(1)}).inputs,
               half = d.get(0, 400, {random_flip()}).inputs;
  int flipped = 0;
  for (int64_t n = 0; n < 400; ++n) {
    bool same = true, mirrored = true;
    for (int64_t r = 0; r < 6; ++r)
      for (int64_t x = 0; x < 5; ++x) {
        const int64_t at = n * 30 + r * 5;
        EXPECT_EQ(always.data<float>()[at + x], plain.data<float>()[at + 4 - x]);
        same &= half.data<float>()[at + x] == plain.data<float>()[at + x];
        mirrored &= half.data<float>()[at + x] == plain.data<float>()[at + 4 - x];
      }
    EXPECT_NE(same, mirrored);
    flipped += mirrored;
  }
  EXPECT_NEAR(flipped, 200, 40);
}

TEST(Transforms, CropShiftsWithinPad) {
  constexpr int64_t kH = 4, kW = 6, kPad = 2;
  const Dataset d = images(300, 1, kH, kW);
  const Tensor plain = d.get(0, 300).inputs, cropped = d.get(0, 300, {random_crop(kPad)}).inputs;
  std::set<std::pair<int64_t, int64_t>> shifts;
  for (int64_t n = 0; n < 300; ++n) {
    bool found = false;
    for (int64_t dy = -kPad; dy <= kPad && !found; ++dy)
      for (int64_t dx = -kPad; dx <= kPad && !found; ++dx) {
        bool match = true;
        for (int64_t y = 0; y < kH; ++y)
          for (int64_t x = 0; x < kW; ++x) {
            const bool inside = y + dy >= 0 && y + dy < kH && x + dx >= 0 && x + dx < kW;
            const float want = inside ? plain.data<float>()[n * kH * kW + (y + dy) * kW + x + dx] : 0;
            match &= cropped.data<float>()[n * kH * kW + y * kW + x] == want;
          }
        if (match) shifts.insert({dy, dx}), found = true;
      }
    EXPECT_TRUE(found) << "sample " << n << " is no shift of itself";
  }
  EXPECT_EQ(shifts.size(), 25u);                    // all of them occur
  EXPECT_NO_THROW(d.get(0, 2, {random_crop(50)}));  // a pad wider than the image
}

TEST(Transforms, Refuse) {
  const Dataset grey = images(2), color = images(2, 3), flat(ones({2, 5}), ones({2}));
  EXPECT_THROW(normalize(0, 0), ValueError);
  EXPECT_THROW(normalize(0, -1), ValueError);
  EXPECT_THROW(normalize(std::nan(""), 1), ValueError);
  EXPECT_THROW(normalize({1, 2}, {1}), ValueError);
  EXPECT_THROW(pad_to(0), ValueError);
  EXPECT_THROW(random_flip(1.5), ValueError);
  EXPECT_THROW(random_crop(-1), ValueError);
  EXPECT_THROW(repeat_channels(0), ValueError);
  EXPECT_THROW(custom(nullptr), ValueError);
  EXPECT_THROW(grey.get(0, 1, {normalize({1, 2}, {1, 2})}), ShapeError);
  EXPECT_THROW(grey.get(0, 1, {pad_to(5)}), ShapeError);
  EXPECT_THROW(color.get(0, 1, {repeat_channels(3)}), ShapeError);
  EXPECT_THROW(flat.get(0, 1, {random_flip()}), ShapeError);
  EXPECT_NO_THROW(flat.get(0, 1, {normalize(1, 2)}));
}

std::vector<int64_t> labels_of_a_pass(Loader& loader) {
  std::vector<int64_t> all;
  for (auto& [x, y] : loader) {
    EXPECT_EQ(x.size(0), y.size(0));
    for (const int64_t v : y.to_vector<int64_t>()) all.push_back(v);
  }
  return all;
}

TEST(Loader, CoversTheDatasetInOrder) {
  for (const int64_t prefetch : {0, 1, 2, 7}) {
    Loader loader(images(23), {.batch = 5, .prefetch = prefetch});
    EXPECT_EQ(loader.size(), 5);
    std::vector<int64_t> want(23);
    std::iota(want.begin(), want.end(), 0);
    EXPECT_EQ(labels_of_a_pass(loader), want);
    EXPECT_EQ(labels_of_a_pass(loader), want);
    Loader dropping(images(23), {.batch = 5, .drop_last = true, .prefetch = prefetch});
    EXPECT_EQ(dropping.size(), 4);
    want.resize(20);
    EXPECT_EQ(labels_of_a_pass(dropping), want);
  }
}

TEST(Loader, DeliversTheRightPixels) {
  const Dataset d = images(40, 3, 5, 5);
  Loader loader(d, {.batch = 7, .shuffle = true, .seed = 3});
  for (auto& [x, y] : loader)
    for (int64_t i = 0; i < x.size(0); ++i)
      for (int64_t j = 0; j < 75; ++j)
        ASSERT_NEAR(x.data<float>()[i * 75 + j], d.all_inputs().data<uint8_t>()[y.data<int64_t>()[i] * 75 + j] / 255.0,
                    1e-6);
}

TEST(Loader, OrderIsAFunctionOfSeedAndEpoch) {
  const Dataset d = images(200);
  Loader a(d, {.batch = 16, .shuffle = true, .seed = 7}),
      b(d, {.batch = 64, .shuffle = true, .seed = 7, .prefetch = 0});
  const auto a0 = labels_of_a_pass(a), a1 = labels_of_a_pass(a), b0 = labels_of_a_pass(b), b1 = labels_of_a_pass(b);
  EXPECT_EQ(a0, b0);
  EXPECT_EQ(a1, b1);
  EXPECT_NE(a0, a1);
  EXPECT_EQ(a.epoch(), 2);
  a.set_epoch(1);
  EXPECT_EQ(labels_of_a_pass(a), a1);
  auto sorted = a0;
  std::sort(sorted.begin(), sorted.end());
  std::vector<int64_t> want(200);
  std::iota(want.begin(), want.end(), 0);
  EXPECT_EQ(sorted, want);
  Loader c(d, {.batch = 16, .shuffle = true, .seed = 8});
  EXPECT_NE(labels_of_a_pass(c), a0);
  const GeneratorState before = generator_state();
  manual_seed(7);
  Loader e(d, {.batch = 16, .shuffle = true});  // the process's seed
  EXPECT_EQ(labels_of_a_pass(e), a0);
  set_generator_state(before);
  EXPECT_THROW(a.set_epoch(-1), ValueError);
}

TEST(Loader, AugmentationFollowsTheSampleNotTheBatch) {
  const Dataset d = images(60, 1, 8, 8);
  const Transforms t = {random_crop(2), random_flip()};
  Loader a(d, {.batch = 8, .shuffle = true, .seed = 5, .transform = t}),
      b(d, {.batch = 60, .seed = 5, .prefetch = 0, .transform = t});
  std::vector<std::vector<float>> epochs;
  for (int epoch = 0; epoch < 2; ++epoch) {
    const std::vector<float> whole = (*b.begin()).inputs.to_vector<float>();
    for (auto& [x, y] : a)
      for (int64_t i = 0; i < x.size(0); ++i)
        ASSERT_TRUE(std::equal(x.data<float>() + i * 64, x.data<float>() + (i + 1) * 64,
                               whole.data() + y.data<int64_t>()[i] * 64));
    epochs.push_back(whole);
  }
  EXPECT_NE(epochs[0], epochs[1]);
}

TEST(Loader, BatchesThatAreKeptStayAsTheyWere) {
  Loader loader(images(64), {.batch = 4});
  std::vector<Batch> kept;
  for (Batch& b : loader) kept.push_back(b);
  ASSERT_EQ(kept.size(), 16u);
  for (size_t i = 0; i < kept.size(); ++i)
    for (int64_t j = 0; j < 4; ++j) EXPECT_EQ(kept[i].targets.data<int64_t>()[j], static_cast<int64_t>(i) * 4 + j);
}

TEST(Loader, BreakAndDestroyAnywhere) {
  for (const int64_t prefetch : {0, 1, 3})
    for (int stop = 0; stop < 6; ++stop) {
      Loader loader(images(50), {.batch = 5, .shuffle = true, .seed = 1, .prefetch = prefetch});
      int count = 0;
      for (auto& batch : loader) {
        EXPECT_EQ(batch.inputs.size(0), 5);
        if (count++ == stop) break;
      }
      if (stop % 2) {
        EXPECT_EQ(labels_of_a_pass(loader).size(), 50u);  // a new pass after a broken one
      }
      Loader moved = std::move(loader);
      auto i = moved.begin();
      ++i;
    }
  Loader never(images(50), {.batch = 5});
}

TEST(Loader, ErrorsArriveWhereTheBatchIsAskedFor) {
  for (const int64_t prefetch : {0, 2}) {
    std::atomic<bool> broken{true};
    const Transform bomb = custom([&](std::span<float> values, const Shape&, const Philox&) {
      if (broken && values[0] > 0.9f) throw NumericError("too bright");
    });
    Tensor x = zeros({40, 1, 1, 1});
    x.data<float>()[25] = 1;
    Loader loader(Dataset(x, zeros({40})), {.batch = 4, .prefetch = prefetch, .transform = {bomb}});
    for (int attempt = 0; attempt < 2; ++attempt) {
      int count = 0;
      EXPECT_THROW(
          {
            for (auto& batch : loader) count += batch.inputs.size(0) == 4;
          },
          NumericError);
      EXPECT_EQ(count, 6);  // the whole batches before it
    }
    broken = false;
    int count = 0;
    for (auto& batch : loader) count += batch.inputs.size(0) == 4;
    EXPECT_EQ(count, 10);
  }
}

TEST(Loader, CustomSeesItsOwnRandomWords) {
  const auto draw =
      custom([](std::span<float> v, const Shape&, const Philox& random) { v[0] = uniform_f32(random.word(0)); });
  Loader loader(Dataset(zeros({500, 1}), zeros({500})), {.batch = 50, .seed = 2, .transform = {draw}});
  std::set<float> seen;
  double sum = 0;
  for (auto& batch : loader)
    for (const float v : batch.inputs.to_vector<float>()) seen.insert(v), sum += v;
  EXPECT_GT(seen.size(), 498u);
  EXPECT_NEAR(sum / 500, 0.5, 0.06);
}

TEST(Loader, SteadyStateAsksForNoMemory) {
  Loader loader(images(600, 3, 16, 16), {.batch = 20, .shuffle = true, .prefetch = 3, .transform = {random_crop(2)}});
  std::mt19937 random(4);
  int64_t after_first = 0;
  for (int pass = 0; pass < 3; ++pass) {
    Tensor held;
    for (auto& [x, y] : loader) {
      if (pass == 0 && after_first == 0) after_first = memory_stats().system_calls;
      EXPECT_EQ(memory_stats().system_calls, after_first);
      if (random() % 4 == 0) std::this_thread::sleep_for(std::chrono::microseconds(random() % 300));
      held = x;  // the former batch lives on while the next is fetched
    }
  }
}

TEST(Loader, Refuses) {
  EXPECT_THROW(Loader(images(3), {.batch = 0}), ValueError);
  EXPECT_THROW(Loader(images(3), {.prefetch = -1}), ValueError);
  EXPECT_THROW(Loader(images(3), {.batch = 4, .drop_last = true}), ValueError);
  EXPECT_THROW(Loader(images(3), {.transform = {pad_to(2)}}), ShapeError);
  Loader none(images(3).first(0), {.batch = 4});
  EXPECT_EQ(none.size(), 0);
  for (auto& batch : none) FAIL() << batch.inputs.size(0);
}

}  // namespace
}  // namespace hone::data
