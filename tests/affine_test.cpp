// Affine quantization of tensors, codes in bits, observers: against plain arithmetic and exact quantiles.

#include <algorithm>
#include <cmath>
#include <random>

#include "support.h"

namespace hone::test {
namespace {

using compress::quantize::Affine;
using compress::quantize::AffineSpec;
using compress::quantize::Granularity;
using compress::quantize::Interval;
using compress::quantize::Observe;
using compress::quantize::Observer;

std::vector<AffineSpec> specs() {
  std::vector<AffineSpec> all;
  for (const int64_t bits : {2, 3, 4, 6, 8})
    for (const bool symmetric : {true, false})
      for (const Granularity g : {Granularity::tensor, Granularity::channel, Granularity::group})
        all.push_back({bits, symmetric, g, 5});
  return all;
}

TEST(Affine, ErrorIsHalfAStepAtMostAndZeroIsExact) {
  manual_seed(1);
  const Tensor x = randn({6, 3, 4}) * 3.0;
  x.data<float>()[7] = 0;
  for (const AffineSpec& spec : specs()) {
    const Affine a = Affine::of(x, spec);
    const Tensor q = a.codes(x), back = a.values(q);
    const std::string what =
        str(spec.bits, " bits, symmetric ", spec.symmetric, ", granularity ", static_cast<int>(spec.granularity));
    ASSERT_EQ(q.dtype(), spec.symmetric ? i8 : u8) << what;
    ASSERT_EQ(a.scale.size(), spec.granularity == Granularity::tensor    ? 1u
                              : spec.granularity == Granularity::channel ? 6u
                                                                         : 18u);
    const auto v = x.to_vector<double>(), w = back.to_vector<double>();
    const auto c = q.to_vector<int64_t>();
    for (size_t i = 0; i < v.size(); ++i) {
      // Parts in plain terms: rows of 12, runs of 5, 5 and 2.
      const size_t part = spec.granularity == Granularity::tensor    ? 0
                          : spec.granularity == Granularity::channel ? i / 12
                                                                     : i / 12 * 3 + i % 12 / 5;
      ASSERT_EQ(a.part(x.shape(), static_cast<int64_t>(i)), static_cast<int64_t>(part)) << what;
      // An end of the range may be cut by the rounding of the zero point: half a step more.
      ASSERT_LE(std::abs(v[i] - w[i]), a.scale[part] * (spec.symmetric ? 0.5 : 1.0) + 1e-6) << what << " element " << i;
      ASSERT_TRUE(c[i] >= spec.low() && c[i] <= spec.high()) << what;
    }
    ASSERT_EQ(w[7], 0) << what;
  }
}

TEST(Affine, RangesByHand) {
  const Affine a = Affine::of(Interval{-1, 3}, {.bits = 8, .symmetric = false});
  EXPECT_NEAR(a.scale[0], 4.0 / 255, 1e-15);
  EXPECT_EQ(a.zero_point[0], 64);  // 63.75
  const Affine s = Affine::of(Interval{-1, 3}, {.bits = 4});
  EXPECT_NEAR(s.scale[0], 3.0 / 7, 1e-15);
  EXPECT_EQ(s.zero_point[0], 0);
  const Affine above = Affine::of(Interval{2, 3}, {.bits = 8, .symmetric = false});  // widened to 0
  EXPECT_EQ(above.zero_point[0], 0);
  EXPECT_NEAR(above.scale[0], 3.0 / 255, 1e-15);
  EXPECT_EQ(Affine::of(Interval{0, 0}).scale[0], 1);
  // A scale that f32 has no normal number for is that of 0.
  for (const double tiny : {1e-38, -1e-38, 1e-300}) {
    EXPECT_EQ(Affine::of(Interval{std::min(tiny, 0.0), std::max(tiny, 0.0)}).scale[0], 1) << tiny;
    EXPECT_EQ(Affine::of(tensor({tiny, 0.0}), {.bits = 8, .symmetric = false}).scale[0], 1) << tiny;
  }
  const Tensor q = Affine::of(Interval{-7, 7}, {.bits = 4}).codes(tensor({0.5, 1.5, -0.5, 100.0, -100.0}));
  EXPECT_EQ(q.to_vector<int64_t>(), (std::vector<int64_t>{0, 2, 0, 7, -7}));  // ties to the even
  const Affine wide = Affine::of(Interval{-1.7e308, 1.7e308}, {.bits = 8, .symmetric = false});
  EXPECT_TRUE(std::isfinite(wide.scale[0]));
}

TEST(Affine, RefusesWhatHasNoRange) {
  expect_error<NumericError>([] { Affine::of(tensor({1.0, std::nan("")})); }, {"element 1", "nan"});
  expect_error<NumericError>([] { Affine::of(Interval{0, INFINITY}); }, {"finite"});
  expect_error<ValueError>([] { Affine::of(Interval{1, -1}); }, {"upside down"});
  expect_error<ValueError>([] { Affine::of(Interval{}, {.bits = 9}); }, {"9 bits"});
  expect_error<ValueError>([] { Affine::of(ones({3}), {.granularity = Granularity::group}); }, {"group of 0"});
  expect_error<DTypeError>([] { Affine::of(arange(0, 3)); }, {"floating"});
  expect_error<NumericError>([] { Affine::of(Interval{0, 1}).codes(tensor({std::nan("")})); }, {"NaN"});
  expect_error<ValueError>([] { Affine::of(ones({3}), {.granularity = Granularity::channel}).codes(ones({4})); },
                           {"3 scales"});
}

TEST(Bits, GoThereAndBack) {
  std::mt19937_64 rng(2);
  for (int64_t bits = 1; bits <= 8; ++bits)
    for (const DType dtype : {u8, i8})
      for (const int64_t n : {0, 1, 7, 8, 33}) {
        std::vector<int64_t> v;
        const int64_t low = dtype == u8 ? 0 : -(1 << (bits - 1));
        for (int64_t i = 0; i < n; ++i) v.push_back(low + static_cast<int64_t>(rng() % (1u << bits)));
        const Tensor codes = cast(tensor(v, {n}), dtype), bytes = compress::quantize::pack_bits(codes, bits);
        ASSERT_EQ(bytes.numel(), (n * bits + 7) / 8);
        ASSERT_TRUE(equal(compress::quantize::unpack_bits(bytes, bits, {n}, dtype), codes)) << bits << " " << n;
      }
  // 3 bits: 1, 2, 7, 4 are 001, 010, 111, 100, the lowest first: 11010001, 00001001.
  const Tensor bytes = compress::quantize::pack_bits(cast(tensor({1, 2, 7, 4}), u8), 3);
  EXPECT_EQ(bytes.to_vector<int64_t>(), (std::vector<int64_t>{0b11010001, 0b00001001}));
  expect_error<ValueError>([] { compress::quantize::pack_bits(cast(tensor({8}), u8), 3); }, {"code 8", "3 bits"});
  expect_error<ValueError>([] { compress::quantize::pack_bits(cast(tensor({-5}), i8), 3); }, {"-5"});
  expect_error<FormatError>([] { compress::quantize::unpack_bits(zeros({2}, u8), 3, {2}, u8); }, {"[1]"});
  expect_error<FormatError>([] { compress::quantize::unpack_bits(full({1}, 128, u8), 3, {2}, u8); }, {"unused"});
}

/// Batches of a normal distribution with a few large elements.
std::vector<Tensor> batches() {
  manual_seed(3);
  std::vector<Tensor> all;
  for (int i = 0; i < 20; ++i) {
    Tensor x = randn({500}) * (i < 3 ? 0.01 : 1.0) + 0.3;  // the first are small, so that the bins must grow
    if (i == 7) x.data<float>()[0] = 9.5f;
    all.push_back(x);
  }
  return all;
}
Interval observed(compress::quantize::ObserverOptions o, const std::vector<Tensor>& data) {
  Observer observer(o);
  for (const Tensor& x : data) observer.see(x);
  return observer.range();
}

TEST(Observer, EndsAreExact) {
  const auto data = batches();
  double low = 1e9, high = -1e9, avg_low = 0, avg_high = 0;
  for (size_t i = 0; i < data.size(); ++i) {
    const auto v = data[i].to_vector<double>();
    const double l = *std::min_element(v.begin(), v.end()), h = *std::max_element(v.begin(), v.end());
    low = std::min(low, l), high = std::max(high, h);
    avg_low = i == 0 ? l : 0.8 * avg_low + 0.2 * l;
    avg_high = i == 0 ? h : 0.8 * avg_high + 0.2 * h;
  }
  const Interval ends = observed({}, data);
  EXPECT_EQ(ends.low, low);
  EXPECT_EQ(ends.high, high);
  const Interval average = observed({.method = Observe::moving_average, .momentum = 0.2}, data);
  EXPECT_NEAR(average.low, avg_low, 1e-12);
  EXPECT_NEAR(average.high, avg_high, 1e-12);
}

TEST(Observer, PercentilesAreWithinABin) {
  const auto data = batches();
  std::vector<double> all;
  for (const Tensor& x : data)
    for (const double v : x.to_vector<double>()) all.push_back(v);
  std::sort(all.begin(), all.end());
  for (const double p : {60.0, 90.0, 99.0, 99.9, 100.0}) {
    Observer o({.method = Observe::percentile, .percentile = p});
    for (const Tensor& x : data) o.see(x);
    const Interval r = o.range();
    const auto n = static_cast<double>(all.size());
    // The elements around the rank, a bin's width either way.
    const auto at = [&](double rank) { return all[static_cast<size_t>(std::clamp(rank, 0.0, n - 1))]; };
    const double rank_high = n * p / 100, rank_low = n - rank_high;
    EXPECT_GE(r.high, at(std::floor(rank_high) - 1) - o.bin_width()) << p;
    EXPECT_LE(r.high, at(std::ceil(rank_high)) + o.bin_width()) << p;
    EXPECT_GE(r.low, at(std::floor(rank_low) - 1) - o.bin_width()) << p;
    EXPECT_LE(r.low, at(std::ceil(rank_low)) + o.bin_width()) << p;
    EXPECT_LE(o.bin_width(), 32.0 / 4096);  // 9.5 and below 16
  }
  const Interval all_of_it = observed({.method = Observe::percentile, .percentile = 100}, data);
  EXPECT_EQ(all_of_it.high, all.back());
}

/// Mean squared error of x at a range, by plain arithmetic.
double error_at(const std::vector<double>& x, Interval r, int64_t bits) {
  const double levels = std::ldexp(1.0, static_cast<int>(bits)) - 1, scale = (r.high - r.low) / levels,
               z = std::nearbyint(-r.low / scale);
  double sum = 0;
  for (const double v : x) {
    const double q = std::min(std::max(std::nearbyint(v / scale) + z, 0.0), levels);
    sum += (scale * (q - z) - v) * (scale * (q - z) - v);
  }
  return sum / static_cast<double>(x.size());
}

TEST(Observer, MseFindsTheLeastErrorOfItsClippings) {
  const auto data = batches();
  std::vector<double> all;
  for (const Tensor& x : data)
    for (const double v : x.to_vector<double>()) all.push_back(v);
  const Interval ends = observed({}, data);
  for (const int64_t bits : {2, 4, 8}) {
    const AffineSpec spec{.bits = bits, .symmetric = false};
    const Interval found = observed({.method = Observe::mse, .spec = spec}, data);
    double least = 1e9;
    for (int i = 1; i <= 128; ++i)
      least = std::min(least, error_at(all, {ends.low * i / 128, ends.high * i / 128}, bits));
    EXPECT_LE(error_at(all, found, bits), least * 1.02 + 1e-12) << bits;
    if (bits <= 4) { EXPECT_LT(error_at(all, found, bits), 0.9 * error_at(all, ends, bits)) << bits; }
  }
}

TEST(Observer, EntropyClipsOutliersAndKeepsWhatIsEven) {
  const auto data = batches();
  const AffineSpec spec{.bits = 8, .symmetric = false};
  const Interval ends = observed({}, data), clipped = observed({.method = Observe::entropy, .spec = spec}, data);
  EXPECT_LT(clipped.high, 0.9 * ends.high);
  EXPECT_GT(clipped.high, 1);
  // Evenly spread elements lose nothing but by clipping.
  manual_seed(4);
  const std::vector<Tensor> even = {rand({40000})};
  EXPECT_GT(observed({.method = Observe::entropy, .spec = spec}, even).high, 0.95);
}

TEST(Observer, EntropyKeepsDataAwayFromZero) {
  // A tail may go, the data may not: from 0 to the outermost element alone all would be on one code, without error.
  for (const auto& [mean, deviation] :
       {std::pair{-5.0, 0.1}, {5.0, 0.1}, {-5.0, 0.5}, {5.0, 0.5}, {2.0, 0.3}, {2.0, 1.0}, {-1.0, 0.1}, {0.0, 1.0}}) {
    for (const int64_t n : {64, 1000, 20000}) {
      for (uint64_t seed = 1; seed <= (n < 2000 ? 40u : 10u); ++seed) {
        manual_seed(seed);
        const std::vector<Tensor> data = {randn({n}) * deviation + mean};
        const std::vector<double> x = data[0].to_vector<double>();
        const auto widened = [&](Observe method) {
          const Interval r = observed({.method = method}, data);
          return Interval{std::min(r.low, 0.0), std::max(r.high, 0.0)};
        };
        const double whole = error_at(x, widened(Observe::min_max), 8);
        ASSERT_LT(std::sqrt(error_at(x, widened(Observe::entropy), 8)), 5 * std::sqrt(whole))
            << mean << " ± " << deviation << ", " << n << " elements, seed " << seed;
      }
    }
  }
}

TEST(Observer, OrderAndBatchingDoNotMatterToCounts) {
  const auto data = batches();
  auto turned = data;
  std::reverse(turned.begin(), turned.end());
  const std::vector<Tensor> joined = {concat(data, 0)};
  for (const Observe m : {Observe::percentile, Observe::entropy, Observe::mse}) {
    const Interval a = observed({.method = m}, data), b = observed({.method = m}, turned),
                   c = observed({.method = m}, joined);
    EXPECT_NEAR(a.high, b.high, 0.02) << static_cast<int>(m);
    EXPECT_NEAR(a.high, c.high, 0.02) << static_cast<int>(m);
  }
}

TEST(Observer, RefusesNoDataAndWhatIsNotFinite) {
  for (const Observe m :
       {Observe::min_max, Observe::moving_average, Observe::percentile, Observe::entropy, Observe::mse}) {
    Observer o({.method = m});
    expect_error<ValueError>([&] { o.range(); }, {"nothing"});
    o.see(zeros({0}));
    expect_error<ValueError>([&] { o.range(); }, {"nothing"});
    expect_error<NumericError>([&] { o.see(tensor({1.0, std::nan("")})); }, {"nan"});
    expect_error<NumericError>([&] { o.see(tensor({INFINITY})); }, {"inf"});
    EXPECT_EQ(o.seen(), 0);
    o.see(zeros({5}));
    EXPECT_EQ(o.range().high, 0) << static_cast<int>(m);
    o.see(tensor({1e300, -1e-300}));
    EXPECT_TRUE(std::isfinite(o.range().high)) << static_cast<int>(m);
  }
  expect_error<DTypeError>([] { Observer().see(arange(0, 3)); }, {"floating"});
  expect_error<ValueError>([] { Observer({.percentile = 50}); }, {"percentile"});
  expect_error<ValueError>([] { Observer({.momentum = 0}); }, {"momentum"});
}

}  // namespace
}  // namespace hone::test
