// Integer products: the plain reference's bits on every SIMD target, for random and awkward sizes, at any thread count.

#include <cmath>
#include <random>

#include "hone/ops/packed/int8_run.h"
#include "hone/ops/packed/reference.h"
#include "hone/ops/simd/int8_kernels.h"
#include "hone/ops/simd/int8_quad_kernels.h"
#include "hone/ops/simd/int8_tile_kernels.h"
#include "hone/ops/simd/winograd_kernels.h"
#include "simd_targets.h"
#include "support.h"

namespace hone::test {
namespace {

using reference::Codes;
using reference::codes_of;
using reference::conv_sums;
using reference::linear_sums;
using reference::max_pooled;
using reference::rescaled;

using Rng = std::mt19937_64;
int64_t below(Rng& rng, int64_t n) { return static_cast<int64_t>(rng() % static_cast<uint64_t>(n)); }
int64_t upto(Rng& rng, int64_t n) { return 1 + below(rng, n); }

/// Random codes, or the largest alone: sums that pass 16 bits at once.
Tensor codes(Rng& rng, const Shape& shape, DType dtype, int64_t low, int64_t high) {
  std::vector<int64_t> v(static_cast<size_t>(shape.numel()));
  const int64_t extreme = below(rng, 4);  // 0: all high; 1: either end
  for (int64_t& q : v)
    q = extreme == 0 ? high : extreme == 1 ? (rng() % 2 ? low : high) : low + below(rng, high - low + 1);
  return cast(tensor(v, shape), dtype);
}
Codes biases(Rng& rng, int64_t n) {
  Codes b;
  for (int64_t i = 0; i < n; ++i) b.push_back(below(rng, 400001) - 200000);
  return b;
}
Int8Output any_output(Rng& rng, int64_t outs, int64_t taps) {
  std::vector<double> ratio;
  const double scale = 1 / (40.0 * std::sqrt(static_cast<double>(taps) + 1));
  for (int64_t o = 0; o < outs; ++o)
    ratio.push_back(std::min(scale * static_cast<double>(upto(rng, 1000)) / 500, 0.999));
  const int64_t z = below(rng, 256), low = rng() % 2 ? z : below(rng, 100), high = std::max(low, 255 - below(rng, 60));
  return Int8Output::codes(ratio, z, low, high);
}
Tensor start_of(const Int8Matrix& w, const Codes& bias, int64_t zero_point) {
  return w.start(cast(tensor(bias, {static_cast<int64_t>(bias.size())}), i32), zero_point);
}

TEST(FixedPoint, IsTheNearestAndRoundsTiesUpwards) {
  Rng rng(1);
  for (int i = 0; i < 20000; ++i) {
    const double r = std::ldexp(static_cast<double>(rng() >> 11), -53) * std::ldexp(1.0, -static_cast<int>(rng() % 40));
    const FixedPoint f = fixed_point(r);
    ASSERT_TRUE(f.multiplier >= 0 && f.shift >= 31 && f.shift <= 62) << r;
    const double error = std::abs(std::ldexp(static_cast<double>(f.multiplier), -f.shift) - r);
    ASSERT_LE(error, std::max(r * std::ldexp(1.0, -31), std::ldexp(1.0, -63))) << r;
    const auto a = static_cast<int32_t>(rng());
    ASSERT_EQ(rescale(a, f), rescaled(a, f.multiplier, f.shift)) << a << " by " << r;
  }
  const FixedPoint half = fixed_point(0.5);
  EXPECT_EQ(rescale(3, half), 2);    // 1.5
  EXPECT_EQ(rescale(-3, half), -1);  // −1.5
  EXPECT_EQ(rescale(-1, half), 0);
  EXPECT_EQ(fixed_point(0).multiplier, 0);
  const FixedPoint most = fixed_point(std::nextafter(1.0, 0));
  EXPECT_EQ(most.multiplier, INT32_MAX);
  EXPECT_EQ(rescale(INT32_MIN, most), INT32_MIN + 1);
  EXPECT_EQ(requantize(1000, half, 10, 0, 255), 255);
  EXPECT_EQ(requantize(-1000, half, 10, 3, 255), 3);
  const FixedPoint below_half = fixed_point(std::nextafter(0.5, 0));  // rounds up to the next power of two
  EXPECT_EQ(std::ldexp(below_half.multiplier, -below_half.shift), 0.5);
  for (const double bad : {1.0, -0.1, std::nan(""), 2.0}) EXPECT_THROW(fixed_point(bad), ValueError) << bad;

  for (int i = 0; i < 2000; ++i) {
    const double a = std::ldexp(static_cast<double>(rng() >> 11), -53 + static_cast<int>(rng() % 26) - 13);
    const double b = a * static_cast<double>(rng() % 1000) / 1000;
    const FixedPair f = fixed_pair(a, b);
    ASSERT_TRUE(f.first >= 0 && f.first < 1 << 15 && f.second >= 0 && f.second <= f.first && f.shift >= 1 &&
                f.shift <= 30);
    ASSERT_NEAR(std::ldexp(f.first, -f.shift), a, std::max(a * std::ldexp(1.0, -15), std::ldexp(1.0, -31)));
    ASSERT_NEAR(std::ldexp(f.second, -f.shift), b, std::max(a * std::ldexp(1.0, -15), std::ldexp(1.0, -31)));
  }
  for (const double next : {1.0, 0.25, 4096.0}) {  // the largest that 15 bits hold, not 2^15
    const FixedPair f = fixed_pair(std::nextafter(next, 0), 0);
    EXPECT_EQ(f.first, INT16_MAX);
    EXPECT_NEAR(std::ldexp(f.first, -f.shift), next, next * std::ldexp(1.0, -15));
  }
  EXPECT_THROW(fixed_pair(8192, 1), ValueError);
  EXPECT_THROW(fixed_pair(1, -1), ValueError);
}

struct LinearCase {
  int64_t rows, in, outs, bits;
  void check(Rng& rng) const {
    const int64_t z = below(rng, 256), most = bits == 8 ? 127 : 7;
    const Tensor x = codes(rng, {rows, in}, u8, 0, 255), w = codes(rng, {outs, in}, i8, -most, most);
    const Codes bias = biases(rng, outs);
    const Int8Matrix packed = Int8Matrix::pack(w, bits);
    const Tensor start = start_of(packed, bias, z);
    const Int8Output to = any_output(rng, outs, in);
    const Codes sums = linear_sums(x.to_vector<int64_t>(), z, w.to_vector<int64_t>(), bias, in);
    const std::string what = str(rows, " by ", in, " to ", outs, " at ", bits, " bits");
    const Tensor y = int8_linear(x, packed, start, to);
    ASSERT_EQ(y.to_vector<int64_t>(), codes_of(sums, to, 1)) << what;
    const Tensor scale = rand({outs}) + 0.01, real = int8_linear(x, packed, start, Int8Output::real(scale));
    for (int64_t i = 0; i < real.numel(); ++i)
      ASSERT_EQ(real.data<float>()[i], static_cast<float>(sums[static_cast<size_t>(i)]) * scale.data<float>()[i % outs])
          << what;
    ASSERT_TRUE(equal(packed.dense(), w)) << what;
  }
};

TEST(Int8Linear, HasTheReferencesBitsOnEveryTarget) {
  on_every_int8_target([](int64_t) {
    Rng rng(2);
    for (int i = 0; i < 150 && !::testing::Test::HasFatalFailure(); ++i)
      LinearCase{upto(rng, 70), upto(rng, rng() % 2 ? 9 : 200), upto(rng, 70), rng() % 3 ? 8 : 4}.check(rng);
    for (const LinearCase& c : {LinearCase{1, 400, 120, 8},
                                {1, 400, 120, 4},
                                {64, 120, 84, 8},
                                {3, 1, 1, 8},
                                {1, 1, 1, 8},
                                {2, 4096, 17, 8},
                                {130, 40, 33, 4}})
      c.check(rng);
  });
}

/// Sums at the ends of 32 bits stay on their side of the range of codes, whatever the zero point adds.
TEST(Int8Linear, SumsAtTheEndsOf32BitsSaturate) {
  on_every_int8_target([](int64_t) {
    const int64_t outs = 19;
    const Int8Matrix linear = Int8Matrix::pack(zeros({outs, 8}, i8)),
                     conv = Int8Matrix::pack(zeros({outs, 4, 1, 1}, i8));
    for (const int64_t z : {0, 100, 200, 255})
      for (const int32_t end : {INT32_MIN, INT32_MAX}) {
        const Int8Output to = Int8Output::codes(std::vector<double>(outs, std::nextafter(1.0, 0)), z, 3, 250);
        const Tensor start = full({outs}, static_cast<double>(end), i32);
        const Tensor want = full({1}, end < 0 ? 3 : 250, u8);
        ASSERT_EQ(requantize(end, {INT32_MAX, 31}, z, 3, 250), end < 0 ? 3 : 250);
        for (const int64_t rows : {1, 4, 33}) {
          const Tensor y = int8_linear(zeros({rows, 8}, u8), linear, start, to);
          ASSERT_TRUE(equal(y, expand(want, y.shape())))
              << "linear, " << rows << " rows, sums " << end << ", zero " << z;
          const Tensor image = int8_conv2d(zeros({1, 4, rows, 5}, u8), conv, start, to);
          ASSERT_TRUE(equal(image, expand(want, image.shape()))) << "conv, " << rows << " rows, sums " << end;
        }
      }
  });
}

TEST(Int8Linear, SumsOfMostTapsStayExact) {
  on_every_int8_target([](int64_t) {
    const Tensor x = full({1, kMostInt8Taps}, 255, u8), w = full({2, kMostInt8Taps}, 127, i8);
    w.data<int8_t>()[kMostInt8Taps] = -127;
    const Int8Matrix packed = Int8Matrix::pack(w);
    const Tensor y = int8_linear(x, packed, packed.start({}, 0), Int8Output::real(ones({2})));
    EXPECT_EQ(y.data<float>()[0], static_cast<float>(kMostInt8Taps * 255 * 127));
    EXPECT_EQ(y.data<float>()[1], static_cast<float>((kMostInt8Taps - 2) * 255 * 127));
  });
}

/// How a convolution is computed on the target of the moment.
enum class Way { plain, winograd, rows, tiles };
bool has_sixteen_bits() { return simd::int8_kernels().element == 2; }
/// Elsewhere there are plain products, and with VNNI rows of few channels.
bool has_quads() { return simd::quad_kernels().product != nullptr; }

struct ConvCase {
  Tensor x, w;
  Int8ConvOptions options;
  int64_t bits = 8;
  /// Of a stride and dilation of 1.
  Way way() const {
    const Conv2dOptions& o = options.conv;
    const int64_t ph = o.padding[0], pw = o.padding.back(), kh = w.size(2), kw = w.size(3);
    const ConvGeometry s{.n = x.size(0),
                         .groups = o.groups,
                         .c = w.size(1),
                         .h = x.size(2),
                         .w = x.size(3),
                         .o = w.size(0) / o.groups,
                         .kh = kh,
                         .kw = kw,
                         .oh = x.size(2) + 2 * ph - kh + 1,
                         .ow = x.size(3) + 2 * pw - kw + 1,
                         .pad_h = ph,
                         .pad_w = pw};
    if (detail::int8_winograd_fits(s)) return Way::winograd;
    const Shape& k = options.pool;
    const FusedPoolAttrs pool = k.empty() ? FusedPoolAttrs() : FusedPoolAttrs{k[0], k.back(), k[0], k.back(), 0, 0};
    const bool alike =
        options.pool_options.stride.empty() && options.pool_options.padding == MaxPool2dOptions().padding;
    if (!alike || !detail::int8_rows_fit(s, pool)) return Way::plain;
    return has_sixteen_bits() && detail::int8_tiles_fit(s) ? Way::tiles : Way::rows;
  }
  void check(Rng& rng) const {
    const int64_t outs = w.size(0), z = options.x_zero_point;
    const Codes bias = biases(rng, outs);
    const Shape& d = options.conv.dilation;
    const Int8Matrix packed = Int8Matrix::pack(w, bits, options.conv.groups, d.back());
    const Tensor start = start_of(packed, bias, z);
    const Int8Output to = any_output(rng, outs, w.numel() / outs);
    Shape shape;
    Codes sums = conv_sums(x, z, w, bias, options.conv, shape);
    if (!options.pool.empty()) sums = max_pooled(sums, Shape(shape), options.pool, options.pool_options, shape);
    const std::string what =
        str("x ", x.shape(), " w ", w.shape(), " stride ", options.conv.stride, " pad ", options.conv.padding,
            " dilation ", d, " groups ", options.conv.groups, " pool ", options.pool, " ", options.pool_options.stride,
            " ", options.pool_options.padding, " bits ", bits);
    const Tensor y = int8_conv2d(x, packed, start, to, options);
    ASSERT_EQ(to_string(y.shape()), to_string(shape)) << what;
    const int64_t plane = shape[2] * shape[3];
    ASSERT_EQ(y.to_vector<int64_t>(), codes_of(sums, to, plane)) << what;
    const Tensor scale = rand({outs}) + 0.01, real = int8_conv2d(x, packed, start, Int8Output::real(scale), options);
    for (int64_t i = 0; i < real.numel(); ++i)
      ASSERT_EQ(real.data<float>()[i],
                static_cast<float>(sums[static_cast<size_t>(i)]) * scale.data<float>()[i / plane % outs])
          << what;
    ASSERT_TRUE(equal(packed.dense(), w)) << what;
  }
};

ConvCase random_conv(Rng& rng) {
  const int64_t groups = rng() % 4 ? 1 : upto(rng, 3), c = rng() % 3 ? upto(rng, 9) : upto(rng, 34), o = upto(rng, 40);
  const int64_t kh = upto(rng, 5), kw = upto(rng, 5), dh = rng() % 4 ? 1 : upto(rng, 3),
                dw = rng() % 4 ? 1 : upto(rng, 3);
  const int64_t ph = below(rng, 3), pw = below(rng, 3), eh = (kh - 1) * dh + 1, ew = (kw - 1) * dw + 1;
  const int64_t h = std::max<int64_t>(eh - 2 * ph, 1) + below(rng, 12),
                w = std::max<int64_t>(ew - 2 * pw, 1) + below(rng, 40);
  const int64_t bits = rng() % 4 ? 8 : 4, most = bits == 8 ? 127 : 7;
  ConvCase k{codes(rng, {upto(rng, 3), groups * c, h, w}, u8, 0, 255),
             codes(rng, {groups * o, c, kh, kw}, i8, -most, most),
             {.conv = {.stride = {rng() % 3 ? 1 : upto(rng, 3), rng() % 3 ? 1 : upto(rng, 3)},
                       .padding = {ph, pw},
                       .dilation = {dh, dw},
                       .groups = groups},
              .x_zero_point = below(rng, 256)},
             bits};
  const Conv2dOptions& conv = k.options.conv;
  const int64_t oh = (h + 2 * ph - eh) / conv.stride[0] + 1, ow = (w + 2 * pw - ew) / conv.stride[1] + 1;
  if (rng() % 2 == 0) return k;
  if (rng() % 2 && oh >= 2 && ow >= 2) {
    k.options.pool = {2};
  } else {
    const int64_t ah = std::min(upto(rng, 4), oh), aw = std::min(upto(rng, 4), ow);
    k.options.pool = {ah, aw};
    k.options.pool_options = {.stride = {upto(rng, 3), upto(rng, 3)},
                              .padding = {below(rng, ah / 2 + 1), below(rng, aw / 2 + 1)}};
  }
  return k;
}

TEST(Int8Conv, HasTheReferencesBitsOnEveryTarget) {
  on_every_int8_target([](int64_t) {
    Rng rng(3);
    for (int i = 0; i < 60 && !::testing::Test::HasFatalFailure(); ++i) random_conv(rng).check(rng);
  });
}

TEST(Int8Conv, LargerPlanesAreMadeInBands) {
  on_every_int8_target([](int64_t) {
    Rng rng(4);
    const auto check = [&rng](const Shape& x, const Shape& w, Int8ConvOptions o) {
      o.x_zero_point = 17;
      ConvCase{codes(rng, x, u8, 0, 255), codes(rng, w, i8, -127, 127), std::move(o)}.check(rng);
    };
    check({1, 3, 70, 61}, {6, 3, 5, 5}, {.pool = {2}});
    check({2, 16, 32, 32}, {32, 16, 3, 3}, {.conv = {.stride = {2}, .padding = {1}}});
    check({1, 8, 40, 300}, {9, 8, 3, 3},
          {.conv = {.padding = {1}}, .pool = {3}, .pool_options = {.stride = {2}, .padding = {1}}});
    check({1, 128, 8, 8}, {70, 128, 1, 1}, {});
    check({1, 6, 20, 20}, {6, 1, 3, 3}, {.conv = {.padding = {1}, .groups = 6}});
  });
}

// Kernels of 3 × 3 and 5 × 5 with a stride of 1 go by Winograd's way: sizes around tiles, blocks of them, channels.
TEST(Int8Conv, SquareKernelsHaveTheReferencesBitsOnEveryTarget) {
  on_every_int8_target([](int64_t) {
    Rng rng(7);
    int fast = 0;
    for (int i = 0; i < 32 && !::testing::Test::HasFatalFailure(); ++i) {
      const int64_t panels = upto(rng, 2), idle = below(rng, 4);  // of 16 outputs; more idle ones would not pay
      const int64_t groups = rng() % 4 ? 1 : 2, kernel = rng() % 2 ? 3 : 5;
      const int64_t c = kernel == 3 ? 16 + below(rng, 28) : 4 + below(rng, 20),
                    o = rng() % 4 ? 16 * panels - idle : upto(rng, 9);
      const int64_t bits = rng() % 4 ? 8 : 4, most = bits == 8 ? 127 : 7, ph = below(rng, 3), pw = below(rng, 3);
      const int64_t h = kernel + below(rng, 15), w = kernel + below(rng, 15), n = upto(rng, 3);
      ConvCase k{codes(rng, {n, groups * c, h, w}, u8, 0, 255),
                 codes(rng, {groups * o, c, kernel, kernel}, i8, -most, most),
                 {.conv = {.padding = {ph, pw}, .groups = groups}, .x_zero_point = below(rng, 256)},
                 bits};
      if (rng() % 3 == 0)
        k.options.pool = {std::min<int64_t>(2, h + 2 * ph - kernel + 1), std::min<int64_t>(2, w + 2 * pw - kernel + 1)};
      if (rng() % 6 == 0 && h + 2 * ph >= kernel + 2 && w + 2 * pw >= kernel + 2) {
        k.options.pool = {3};
        k.options.pool_options = {.stride = {upto(rng, 2)}, .padding = {below(rng, 2)}};
      }
      fast += k.way() == Way::winograd;
      k.check(rng);
    }
    EXPECT_TRUE(has_sixteen_bits() ? fast >= 8 : fast == 0) << fast;
  });
}

// Few channels go by rows: odd ones, padding, widths around blocks of positions, odd rows, bands.
TEST(Int8Conv, FewChannelsHaveTheReferencesBitsOnEveryTarget) {
  on_every_int8_target([](int64_t) {
    Rng rng(9);
    int fast = 0;
    for (int i = 0; i < 40 && !::testing::Test::HasFatalFailure(); ++i) {
      const int64_t groups = rng() % 5 ? 1 : 2, c = upto(rng, 5), o = upto(rng, 14);
      const int64_t kh = rng() % 2 ? 3 : 5, kw = upto(rng, 6), ph = below(rng, 3), pw = below(rng, 3);
      const int64_t h = kh + below(rng, 30), w = kw + below(rng, 40), n = upto(rng, 2);
      const int64_t bits = rng() % 4 ? 8 : 4, most = bits == 8 ? 127 : 7;
      ConvCase k{codes(rng, {n, groups * c, h, w}, u8, 0, 255),
                 codes(rng, {groups * o, c, kh, kw}, i8, -most, most),
                 {.conv = {.padding = {ph, pw}, .groups = groups}, .x_zero_point = below(rng, 256)},
                 bits};
      if (rng() % 2 && h + 2 * ph > kh && w + 2 * pw > kw) k.options.pool = {2};
      fast += k.way() != Way::plain;
      k.check(rng);
    }
    EXPECT_TRUE(has_sixteen_bits() || has_quads() ? fast >= 20 : fast == 0) << fast;
  });
}

// Few channels and square kernels go by tiles: odd and even paddings, channels, widths; outputs that registers do not
// hold at once; bands.
TEST(Int8Conv, FewChannelsOfSquareKernelsHaveTheReferencesBits) {
  on_every_int8_target([](int64_t) {
    Rng rng(13);
    int fast = 0;
    for (int i = 0; i < 60 && !::testing::Test::HasFatalFailure(); ++i) {
      const int64_t kernel = rng() % 3 ? 5 : 3, ph = below(rng, 4), pw = below(rng, 6);
      const int64_t groups = rng() % 5 ? 1 : 2, c = kernel == 5 ? upto(rng, 4) : 3 + upto(rng, 6), o = upto(rng, 14);
      const int64_t w = std::max<int64_t>(rng() % 3 ? 26 + below(rng, 10) - 2 * pw + kernel : upto(rng, 90), kernel);
      const int64_t h = kernel + (rng() % 4 ? below(rng, 20) : 90), n = upto(rng, 2);
      const int64_t bits = rng() % 4 ? 8 : 4, most = bits == 8 ? 127 : 7;
      ConvCase k{codes(rng, {n, groups * c, h, w}, u8, 0, 255),
                 codes(rng, {groups * o, c, kernel, kernel}, i8, -most, most),
                 {.conv = {.padding = {ph, pw}, .groups = groups}, .x_zero_point = below(rng, 256)},
                 bits};
      if (rng() % 2 && h + 2 * ph > kernel && w + 2 * pw > kernel) k.options.pool = {2};
      fast += k.way() == Way::tiles;
      k.check(rng);
    }
    EXPECT_TRUE(has_sixteen_bits() ? fast >= 20 : fast == 0) << fast;
  });
}

TEST(Int8Conv, ImagesOfNoColumnsAreAllPadding) {
  on_every_int8_target([](int64_t) {
    Rng rng(10);
    for (const int64_t c : {1, 2, 3}) {
      const ConvCase k{empty({1, c, 6, 0}, u8),
                       codes(rng, {8, c, 3, 3}, i8, -127, 127),
                       {.conv = {.padding = {1, 8}}, .x_zero_point = 200}};
      EXPECT_EQ(k.way(), has_sixteen_bits() || has_quads() ? Way::rows : Way::plain);
      k.check(rng);
      const ConvCase wide{empty({1, c, 9, 0}, u8),  // more padding on a side than a vector has lanes
                          codes(rng, {3, c, 5, 5}, i8, -127, 127),
                          {.conv = {.padding = {2, 50}}, .x_zero_point = 200}};
      EXPECT_TRUE(wide.way() == Way::tiles || !has_sixteen_bits());
      wide.check(rng);
    }
  });
}

// Kernels of any height, of channels one to four; outputs around a panel of sixteen, and a channel a group.
TEST(Int8Conv, FewChannelsOfAnyKernelHaveTheReferencesBits) {
  on_every_int8_target([](int64_t) {
    Rng rng(12);
    int fast = 0;
    for (int i = 0; i < 60 && !::testing::Test::HasFatalFailure(); ++i) {
      const bool depthwise = rng() % 3 == 0;
      const int64_t groups = depthwise ? upto(rng, 9) : 1, c = depthwise ? 1 : upto(rng, 4),
                    o = depthwise ? upto(rng, 2) : upto(rng, 40);
      const int64_t kh = upto(rng, 7), kw = upto(rng, 7), ph = below(rng, 3), pw = below(rng, 3);
      const int64_t h = kh + below(rng, 40), w = kw + (rng() % 2 ? 16 * upto(rng, 3) - below(rng, 2) : below(rng, 70));
      ConvCase k{codes(rng, {upto(rng, 2), groups * c, h, w}, u8, 0, 255),
                 codes(rng, {groups * o, c, kh, kw}, i8, -127, 127),
                 {.conv = {.padding = {ph, pw}, .groups = groups}, .x_zero_point = below(rng, 256)}};
      if (rng() % 2 && h + 2 * ph > kh && w + 2 * pw > kw) k.options.pool = {2};
      fast += k.way() == Way::rows;
      k.check(rng);
    }
    EXPECT_TRUE(has_quads() ? fast >= 20 : true) << fast;
  });
}

TEST(Int8Conv, SumsOfMostRowTapsStayExact) {
  on_every_int8_target([](int64_t) {
    Rng rng(11);
    const int64_t c = simd::kMostRowTaps / 3;
    const Tensor x = full({1, c, 4, 16}, 255, u8), w = full({8, c, 3, 1}, 127, i8);
    for (int64_t i = 0; i < w.numel(); ++i) {  // 127, −127, in turns by taps, at random
      const int64_t o = i / (3 * c);
      if (o == 1 || (o == 2 && i % 3 == 1) || (o > 2 && rng() % 2)) w.data<int8_t>()[i] = -127;
    }
    for (const bool pools : {false, true}) {
      const ConvCase k{x, w, {.pool = pools ? Shape{2} : Shape{}, .x_zero_point = pools ? 255 : 0}};
      EXPECT_EQ(k.way(), has_sixteen_bits() ? Way::rows : Way::plain);
      k.check(rng);
    }
  });
}

TEST(Int8Conv, SumsOfMostTileTapsStayExact) {
  on_every_int8_target([](int64_t) {
    Rng rng(14);
    for (const auto& [c, kernel] : {std::pair<int64_t, int64_t>{simd::kMostTileTaps / 9, 3}, {655, 5}}) {
      const Tensor x = full({1, c, kernel + 1, 31 + kernel}, 255, u8), w = full({3, c, kernel, kernel}, 127, i8);
      const int64_t taps = c * kernel * kernel;
      for (int64_t i = 0; i < w.numel(); ++i) {  // 127, −127, at random
        if (i / taps == 1 || (i / taps == 2 && rng() % 2)) w.data<int8_t>()[i] = -127;
      }
      for (const bool pools : {false, true}) {
        const ConvCase k{x, w, {.pool = pools ? Shape{2} : Shape{}, .x_zero_point = pools ? 255 : 0}};
        EXPECT_EQ(k.way(), has_sixteen_bits() ? Way::tiles : Way::plain);
        k.check(rng);
      }
    }
  });
}

TEST(Int8Conv, SumsOfMostWinogradTapsStayExact) {
  on_every_int8_target([](int64_t) {
    Rng rng(8);
    const int64_t most = simd::kMostWinogradTaps / 9 / 4 * 4;
    for (const int64_t weight : {127, -127}) {
      const ConvCase k{full({2, most, 4, 5}, 255, u8),
                       full({9, most, 3, 3}, weight, i8),
                       {.conv = {.padding = {1}}, .x_zero_point = 255}};
      EXPECT_EQ(k.way(), has_sixteen_bits() ? Way::winograd : Way::plain);
      k.check(rng);
    }
  });
}

TEST(Int8Add, HasTheFormulasBitsOnEveryTarget) {
  on_every_int8_target([](int64_t) {
    Rng rng(15);
    for (int i = 0; i < 120; ++i) {
      const int64_t n = i % 2 ? below(rng, 200) : 16 * below(rng, 20);
      const auto ratio = [&] {
        if (rng() % 8 == 0) return rng() % 2 ? 0.0 : 8191.99;
        return std::ldexp(1 + static_cast<double>(below(rng, 1000)) / 1000, static_cast<int>(below(rng, 33)) - 20);
      };
      const double a_ratio = ratio(), b_ratio = ratio();
      const int64_t za = below(rng, 256), zb = below(rng, 256), low = below(rng, 256),
                    high = low + below(rng, 256 - low);
      const Int8Range range{below(rng, 256), i % 3 ? 0 : low, i % 3 ? 255 : high};
      const Tensor a = codes(rng, {n}, u8, 0, 255), b = codes(rng, {n}, u8, 0, 255);
      const Tensor y = int8_add(a, za, a_ratio, b, zb, b_ratio, range);
      const FixedPair f = fixed_pair(a_ratio, b_ratio);
      for (int64_t k = 0; k < n; ++k) {
        const int64_t sum = (a.data<uint8_t>()[k] - za) * f.first + (b.data<uint8_t>()[k] - zb) * f.second;
        const int64_t code = std::clamp(range.zero_point + rescaled(sum, 1, f.shift), range.low, range.high);
        ASSERT_EQ(y.data<uint8_t>()[k], code) << k << " of " << n << " factors " << f.first << " " << f.second
                                              << " / 2^" << f.shift << " zero points " << za << " " << zb;
      }
    }
  });
}

TEST(Int8Quantize, RoundsTiesToEvenOnEveryTarget) {
  const float inf = INFINITY, nan = std::nanf("");
  on_every_int8_target([&](int64_t) {
    Rng rng(16);
    for (int i = 0; i < 60; ++i) {
      const float scale = std::ldexp(1.0f, static_cast<int>(below(rng, 40)) - 30) * (i % 2 ? 1.0f : 1.3f);
      const int64_t low = below(rng, 256), high = low + below(rng, 256 - low), n = below(rng, 150);
      const Int8Range range{below(rng, 256), i % 3 ? 0 : low, i % 3 ? 255 : high};
      const Tensor x = empty({n});
      for (int64_t k = 0; k < n; ++k) {
        const float special[] = {inf, -inf, nan, -nan, 0.0f, -0.0f, 3e38f, -3e38f, 1e-40f, 0.5f * scale, -1.5f * scale};
        const float ties = (static_cast<float>(below(rng, 600)) - 300.0f + 0.5f) * scale;
        x.data<float>()[k] = rng() % 4 == 0 ? special[rng() % 11] : rng() % 2 ? ties : ties * 0.317f;
      }
      const Tensor y = int8_quantize(x, scale, range);
      const auto inverse = static_cast<float>(1 / double{scale});
      for (int64_t k = 0; k < n; ++k) {
        const float v = x.data<float>()[k] * inverse;
        const double code = std::isnan(v) ? -1e9 : std::nearbyint(double{v}) + static_cast<double>(range.zero_point);
        ASSERT_EQ(y.data<uint8_t>()[k],
                  std::clamp(code, static_cast<double>(range.low), static_cast<double>(range.high)))
            << x.data<float>()[k] << " / " << scale;
      }
    }
  });
}

TEST(Int8, ThreadsChangeNothing) {
  Rng rng(5);
  const Tensor x = codes(rng, {200, 300}, u8, 0, 255), image = codes(rng, {9, 16, 30, 30}, u8, 0, 255);
  const Int8Matrix w = Int8Matrix::pack(codes(rng, {150, 300}, i8, -127, 127)),
                   k = Int8Matrix::pack(codes(rng, {40, 16, 3, 3}, i8, -127, 127));
  const Int8Output to = any_output(rng, 150, 300), conv_to = any_output(rng, 40, 144);
  const Tensor start = w.start({}, 3), conv_start = k.start({}, 3);
  const auto both = [&] {
    return std::pair(int8_linear(x, w, start, to),
                     int8_conv2d(image, k, conv_start, conv_to, {.conv = {.padding = {1}}}));
  };
  const int before = num_threads();
  set_num_threads(1);
  const auto one = both();
  for (const int threads : {2, 3, 8}) {
    set_num_threads(threads);
    const auto many = both();
    EXPECT_TRUE(equal(many.first, one.first) && equal(many.second, one.second)) << threads;
  }
  set_num_threads(before);
}

TEST(Int8Matrix, RefusesWhatItCannotHold) {
  const Tensor w = full({4, 6}, 3, i8);
  expect_error<DTypeError>([&] { Int8Matrix::pack(zeros({4, 6})); }, {"i8", "f32"});
  expect_error<ValueError>([&] { Int8Matrix::pack(full({4, 6}, -128, i8)); }, {"-128"});
  expect_error<ValueError>([&] { Int8Matrix::pack(full({4, 6}, 8, i8), 4); }, {"8", "[-7, 7]"});
  expect_error<ValueError>([&] { Int8Matrix::pack(w, 5); }, {"5 bits"});
  expect_error<ShapeError>([&] { Int8Matrix::pack(w, 8, 2); }, {"2 groups"});
  expect_error<ValueError>([&] { Int8Matrix::pack(zeros({1, kMostInt8Taps + 1}, i8)); }, {"taps"});
  Int8Matrix packed = Int8Matrix::pack(w);
  packed.check();
  packed.shape = {4, 10};
  expect_error<FormatError>([&] { packed.check(); }, {"[4, 10]"});
  packed = Int8Matrix::pack(w);
  packed.bits = 4;
  expect_error<FormatError>([&] { packed.check(); }, {"4 bits"});
}

TEST(Int8Linear, RefusesWhatDoesNotFit) {
  const Tensor x = zeros({2, 6}, u8);
  const Int8Matrix w = Int8Matrix::pack(full({4, 6}, 3, i8));
  const Tensor start = w.start({}, 0);
  const Int8Output to = Int8Output::codes(std::vector<double>(4, 0.1), 0);
  expect_error<DTypeError>([&] { int8_linear(zeros({2, 6}), w, start, to); }, {"int8_linear", "u8", "f32"});
  expect_error<ShapeError>([&] { int8_linear(zeros({2, 60}, u8), w, start, to); }, {"panels", "60 taps"});
  expect_error<ShapeError>([&] { int8_linear(x, w, zeros({3}, i32), to); }, {"[4]", "[3]"});
  expect_error<ValueError>([&] { Int8Output::codes({0.1}, 300); }, {"300"});
  expect_error<ValueError>([&] { Int8Output::codes({1.5}, 0); }, {"1.5"});
  Int8Output bad = to;
  bad.shift = full({4}, 63, i32);
  expect_error<ValueError>([&] { int8_linear(x, w, start, bad); }, {"2^63"});
  bad = to;
  bad.multiplier = full({4}, -1, i32);
  expect_error<ValueError>([&] { int8_linear(x, w, start, bad); }, {"-1"});
  bad.shift = {};
  expect_error<DTypeError>([&] { int8_linear(x, w, start, bad); }, {"shift"});
  EXPECT_EQ(int8_linear(zeros({0, 6}, u8), w, start, to).shape(), (Shape{0, 4}));
  expect_error<ValueError>(
      [&] {
        int8_conv2d(zeros({1, 2, 5, 5}, u8), Int8Matrix::pack(zeros({4, 2, 3, 3}, i8)), zeros({4}, i32), to,
                    {.conv = {.dilation = {2}}});
      },
      {"dilation 2"});
}

}  // namespace
}  // namespace hone::test
