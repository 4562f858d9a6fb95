// mixup and cutmix: what is mixed with what, and Beta(α, α).

#include <algorithm>

#include "regularizer_support.h"

namespace hone {
namespace {

using namespace regularizer_test;
using data::Batch;

Batch batch(int64_t n, DType dtype = f64) {
  Tensor labels = empty({n}, i64);
  for (int64_t i = 0; i < n; ++i) labels.data<int64_t>()[i] = i % 5;
  return {cast(wave({n, 2, 6, 8}, 0.3), dtype), labels};
}

// Inputs are a row's number everywhere: what a mixed row holds tells its partner and λ.
Batch numbered(int64_t n) {
  Tensor x = empty({n, 1, 8, 8}, f64), y = empty({n}, i64);
  for (int64_t i = 0; i < n; ++i) {
    std::fill_n(x.data<double>() + i * 64, 64, static_cast<double>(i));
    y.data<int64_t>()[i] = i;
  }
  return {x, y};
}

TEST(Mixup, MixesInputsAndTargetsByTheSameLambda) {
  const int64_t n = 12;
  for (int64_t step = 0; step < 20; ++step) {
    const Batch mixed = data::mixup(numbered(n), {.classes = n, .alpha = 1, .seed = 4}, step);
    const auto x = values(mixed.inputs), y = values(mixed.targets);
    std::vector<int> used(12);
    double lambda = -1;
    for (size_t i = 0; i < 12; ++i) {
      double total = 0, expected = 0;
      for (size_t c = 0; c < 12; ++c) {
        total += y[i * 12 + c];
        expected += y[i * 12 + c] * static_cast<double>(c);
        if (c != i && y[i * 12 + c] > 0) {
          ++used[c];
          if (lambda < 0) lambda = 1 - y[i * 12 + c];
          EXPECT_NEAR(y[i * 12 + c], 1 - lambda, 1e-15);
        }
      }
      EXPECT_NEAR(total, 1, 1e-15);
      for (size_t k = 0; k < 64; ++k) EXPECT_NEAR(x[i * 64 + k], expected, 1e-13);
    }
    EXPECT_LE(*std::max_element(used.begin(), used.end()), 1);  // a permutation
  }
}

TEST(Mixup, IsAFunctionOfSeedAndStep) {
  const Batch b = batch(16, f32);
  const data::MixOptions o{.classes = 5, .alpha = 0.4, .seed = 9};
  const Batch first = data::mixup(b, o, 3);
  manual_seed(77);
  set_num_threads(std::max(num_threads(), 2));
  const Batch again = data::mixup(b, o, 3);
  EXPECT_TRUE(equal(first.inputs, again.inputs));
  EXPECT_TRUE(equal(first.targets, again.targets));
  EXPECT_FALSE(equal(first.inputs, data::mixup(b, o, 4).inputs));
  EXPECT_FALSE(equal(first.inputs, data::mixup(b, {.classes = 5, .alpha = 0.4, .seed = 10}, 3).inputs));
  manual_seed(9);  // the default seed
  EXPECT_TRUE(equal(first.inputs, data::mixup(b, {.classes = 5, .alpha = 0.4}, 3).inputs));
  EXPECT_EQ(first.targets.dtype(), f32);
  EXPECT_TRUE(equal(b.inputs, batch(16, f32).inputs));  // the batch itself stays
}

TEST(Mixup, TakesProbabilitiesAndFeedsCrossEntropy) {
  const Batch b = batch(8);
  const Batch labels = data::mixup(b, {.classes = 5, .seed = 1}, 0);
  const Batch soft = data::mixup({b.inputs, one_hot(b.targets, 5, f64)}, {.classes = 5, .seed = 1}, 0);
  EXPECT_TRUE(allclose(labels.targets, soft.targets, 1e-15, 1e-15));
  EXPECT_TRUE(std::isfinite(cross_entropy(zeros({8, 5}, f64), labels.targets).item()));
  const Batch twice = data::cutmix(labels, {.classes = 5, .seed = 1}, 1);  // chained
  for (double v : values(sum(twice.targets, {1}))) EXPECT_NEAR(v, 1, 1e-14);
}

TEST(Cutmix, PastesOneRectangleAndCountsItsArea) {
  const int64_t n = 10;
  int pasted = 0;
  for (int64_t step = 0; step < 40; ++step) {
    const Batch mixed = data::cutmix(numbered(n), {.classes = n, .alpha = 1, .seed = 6}, step);
    const auto x = values(mixed.inputs), y = values(mixed.targets);
    for (size_t i = 0; i < 10; ++i) {
      size_t top = 8, bottom = 0, left = 8, right = 0, count = 0;
      double partner = -1;
      for (size_t k = 0; k < 64; ++k) {
        const double v = x[i * 64 + k];
        if (v == static_cast<double>(i)) continue;
        if (partner < 0) partner = v;
        ASSERT_EQ(v, partner);
        ++count;
        top = std::min(top, k / 8), bottom = std::max(bottom, k / 8 + 1);
        left = std::min(left, k % 8), right = std::max(right, k % 8 + 1);
      }
      if (count == 0) continue;
      ++pasted;
      EXPECT_EQ(count, (bottom - top) * (right - left));  // a full rectangle
      EXPECT_NEAR(y[i * 10 + static_cast<size_t>(partner)], static_cast<double>(count) / 64, 1e-15);
      EXPECT_NEAR(y[i * 10 + i], 1 - static_cast<double>(count) / 64, 1e-15);
    }
  }
  EXPECT_GT(pasted, 100);
}

TEST(Beta, PortableLogAndExpAreRight) {
  for (double x = 1e-300; x < 1e300; x *= 3.7) EXPECT_NEAR(data::detail::portable_log(x) / std::log(x), 1, 4e-16) << x;
  for (double x : {1 - 0x1p-53, 0x1p-54, 0.7071067811865475, 0.7071067811865477, 1 + 0x1p-52})
    EXPECT_NEAR(data::detail::portable_log(x) / std::log(x), 1, 4e-16) << x;
  EXPECT_EQ(data::detail::portable_log(1), 0);
  for (double x = -699; x < 699; x += 1.37) EXPECT_NEAR(data::detail::portable_exp(x) / std::exp(x), 1, 4e-16) << x;
  EXPECT_EQ(data::detail::portable_exp(0), 1);
  EXPECT_EQ(data::detail::portable_exp(-1e4), 0);
}

// Mean 1/2, variance 1/(4(2α + 1)), and the largest distance of the distribution functions where it is known.
TEST(Beta, SamplesHaveTheDistribution) {
  for (double alpha : {1e-3, 0.2, 0.5, 1.0, 1.5, 2.0, 8.0, 500.0}) {
    const int n = 20000;
    std::vector<double> v;
    for (int i = 0; i < n; ++i) v.push_back(data::detail::sample_beta(alpha, {17, static_cast<uint64_t>(i)}));
    double mean = 0, variance = 0;
    for (double x : v) {
      ASSERT_TRUE(x >= 0 && x <= 1) << x;
      mean += x / n;
      variance += (x - 0.5) * (x - 0.5) / n;
    }
    const double want = 1 / (4 * (2 * alpha + 1));
    EXPECT_NEAR(mean, 0.5, 5 * std::sqrt(want / n)) << alpha;
    // The variance's own spread: Var (x−½)² ≤ ¼·want, less for the narrow ones (as of a normal).
    EXPECT_NEAR(variance, want, 5 * std::sqrt(std::min(0.25 * want, 2 * want * want) / n)) << alpha;
    std::function<double(double)> cdf;
    if (alpha == 0.5) cdf = [](double x) { return 2 / std::acos(-1) * std::asin(std::sqrt(x)); };
    if (alpha == 1) cdf = [](double x) { return x; };
    if (alpha == 1.5)
      cdf = [](double x) { return (std::acos(1 - 2 * x) - 2 * (1 - 2 * x) * std::sqrt(x * (1 - x))) / std::acos(-1); };
    if (alpha == 2) cdf = [](double x) { return x * x * (3 - 2 * x); };
    if (!cdf) continue;
    std::sort(v.begin(), v.end());
    double distance = 0;
    for (int i = 0; i < n; ++i) distance = std::max(distance, std::abs((i + 0.5) / n - cdf(v[static_cast<size_t>(i)])));
    EXPECT_LT(distance, 1.95 / std::sqrt(n)) << alpha;  // Kolmogorov and Smirnov at 0.1 %
  }
}

// Bits that every machine must make. Both algorithms, written again in Python with the C library's log, exp and pow,
// gave the same values.
TEST(Beta, SameBitsEverywhere) {
  EXPECT_EQ(data::detail::sample_beta(0.2, {1, 2}), 0x1.ff3af6e58a631p-1);
  EXPECT_EQ(data::detail::sample_beta(2.5, {1, 2}), 0x1.9bb0b7ca88535p-1);
}

TEST(Mixup, RefusesBadArguments) {
  const Batch b = batch(4);
  for (double bad : {0.0, -1.0, kNaN, kInf, 1e4}) {
    expect_error<ValueError>([&] { data::mixup(b, {.classes = 5, .alpha = bad}, 0); },
                             "mixup: alpha must be in (0, 1000]");
    expect_error<ValueError>([&] { data::cutmix(b, {.classes = 5, .alpha = bad}, 0); }, "cutmix: alpha must be");
  }
  expect_error<ValueError>([&] { data::mixup(b, {}, 0); }, "classes must be at least 1, got 0");
  expect_error<ValueError>([&] { data::mixup(b, {.classes = 3}, 0); }, "label 3 at 3 is outside [0, 3)");
  expect_error<ValueError>([&] { data::mixup(b, {.classes = 5}, -1); }, "step must be at least 0, got -1");
  expect_error<ValueError>([&] { data::mixup({}, {.classes = 5}, 0); }, "undefined");
  expect_error<DTypeError>([&] { data::mixup({ones({4, 2}, i64), b.targets}, {.classes = 5}, 0); }, "f32 or f64");
  expect_error<DTypeError>([&] { data::mixup({b.inputs, ones({4, 5})}, {.classes = 5}, 0); }, "not f32");
  expect_error<ShapeError>([&] { data::mixup({b.inputs, ones({4, 6}, f64)}, {.classes = 5}, 0); }, "[4, 5]");
  expect_error<ShapeError>([&] { data::mixup({b.inputs, ones({3}, i64)}, {.classes = 5}, 0); }, "labels must be [4]");
  expect_error<ShapeError>([&] { data::cutmix({ones({4, 2}), b.targets}, {.classes = 5}, 0); }, "[N, C, H, W]");
}

}  // namespace
}  // namespace hone
