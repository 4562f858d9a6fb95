// conv2d and its gradients against plain f64 loops, on every SIMD target, for random and awkward sizes.

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <limits>
#include <random>

#include "hone/hone.h"
#include "hone/ops/simd/conv_direct.h"
#include "hone/ops/simd/conv_kernels.h"
#include "simd_targets.h"
#include "support.h"

namespace hone {
namespace {

using test::expect_error;

struct Case {
  int64_t n, c, h, w, o, kh, kw, sh = 1, sw = 1, ph = 0, pw = 0, dh = 1, dw = 1, groups = 1;
  int64_t oh() const { return (h + 2 * ph - dh * (kh - 1) - 1) / sh + 1; }
  int64_t ow() const { return (w + 2 * pw - dw * (kw - 1) - 1) / sw + 1; }
  Conv2dOptions options() const {
    return {.stride = {sh, sw}, .padding = {ph, pw}, .dilation = {dh, dw}, .groups = groups};
  }
  std::string text() const {
    return str("x [", n, ", ", c, ", ", h, ", ", w, "] o ", o, " kernel ", kh, "x", kw, " stride ", sh, ",", sw,
               " pad ", ph, ",", pw, " dilation ", dh, ",", dw, " groups ", groups);
  }
};

using Exact = std::vector<long double>;  // so that f64 results are compared with something better than themselves

struct Reference {
  Exact y, dx, dw, db;
};

Reference reference(const Case& s, const std::vector<double>& x, const std::vector<double>& weight,
                    const std::vector<double>& bias, const std::vector<double>& g) {
  const int64_t cg = s.c / s.groups, og = s.o / s.groups;
  Reference r{Exact(g.size()), Exact(x.size()), Exact(weight.size()), Exact(bias.size())};
  for (int64_t n = 0; n < s.n; ++n)
    for (int64_t o = 0; o < s.o; ++o)
      for (int64_t i = 0; i < s.oh(); ++i)
        for (int64_t j = 0; j < s.ow(); ++j) {
          const auto at = static_cast<size_t>(((n * s.o + o) * s.oh() + i) * s.ow() + j);
          r.y[at] = bias[static_cast<size_t>(o)];
          r.db[static_cast<size_t>(o)] += g[at];
          for (int64_t c = 0; c < cg; ++c)
            for (int64_t p = 0; p < s.kh; ++p)
              for (int64_t q = 0; q < s.kw; ++q) {
                const int64_t a = i * s.sh + p * s.dh - s.ph, b = j * s.sw + q * s.dw - s.pw;
                if (a < 0 || a >= s.h || b < 0 || b >= s.w) continue;
                const auto xi = static_cast<size_t>(((n * s.c + o / og * cg + c) * s.h + a) * s.w + b);
                const auto wi = static_cast<size_t>(((o * cg + c) * s.kh + p) * s.kw + q);
                const long double xv = x[xi], wv = weight[wi], gv = g[at];
                r.y[at] += xv * wv;
                r.dx[xi] += gv * wv;
                r.dw[wi] += gv * xv;
              }
        }
  return r;
}

// Within a few roundings of a sum of `terms` products of standard normal numbers; bf16 sums in f32 and rounds once.
void expect_near(const Tensor& got, const Exact& exact, double terms, const std::string& what) {
  const std::vector<double> want(exact.begin(), exact.end());
  const auto values = got.to_vector<double>();
  ASSERT_EQ(values.size(), want.size()) << what;
  const double tolerance = (got.dtype() == f64 ? 1e-16 : 6e-8) * (16 + terms);
  const double rounding = got.dtype() == bf16 ? 0x1p-8 : 0;
  for (size_t i = 0; i < want.size(); ++i)
    ASSERT_NEAR(values[i], want[i], tolerance * (1 + std::abs(want[i])) + rounding * std::abs(want[i]))
        << what << " element " << i;
}

void check(const Case& s, DType dtype) {
  const std::string what = s.text() + " " + name(dtype);
  const int64_t cg = s.c / s.groups;
  const Tensor x = cast(randn({s.n, s.c, s.h, s.w}, f64), dtype),
               weight = cast(randn({s.o, cg, s.kh, s.kw}, f64), dtype);
  const Tensor bias = cast(randn({s.o}, f64), dtype), g = cast(randn({s.n, s.o, s.oh(), s.ow()}, f64), dtype);
  const Reference r =
      reference(s, x.to_vector<double>(), weight.to_vector<double>(), bias.to_vector<double>(), g.to_vector<double>());
  const auto taps = static_cast<double>(cg * s.kh * s.kw);
  const Tensor y = conv2d(x, weight, bias, s.options());
  ASSERT_EQ(y.shape(), (Shape{s.n, s.o, s.oh(), s.ow()})) << what;
  expect_near(y, r.y, taps, what + " y");
  const Tensor dx = conv2d_input_grad(g, weight, {s.h, s.w}, s.options());
  ASSERT_EQ(dx.shape(), x.shape()) << what;
  expect_near(dx, r.dx, static_cast<double>(s.o / s.groups * s.kh * s.kw), what + " dx");
  const Outputs d = conv2d_weight_grad(x, g, {s.kh, s.kw}, s.options(), true);
  const auto positions = static_cast<double>(s.n * s.oh() * s.ow());
  ASSERT_EQ(d[0].shape(), weight.shape()) << what;
  expect_near(d[0], r.dw, positions, what + " dw");
  expect_near(d[1], r.db, positions, what + " db");
}

const Case kNetworks[] = {
    {.n = 3, .c = 3, .h = 32, .w = 32, .o = 6, .kh = 5, .kw = 5},
    {.n = 17, .c = 6, .h = 14, .w = 14, .o = 16, .kh = 5, .kw = 5},
    {.n = 3, .c = 1, .h = 28, .w = 28, .o = 20, .kh = 5, .kw = 5},
    {.n = 3, .c = 20, .h = 12, .w = 12, .o = 50, .kh = 5, .kw = 5},
    {.n = 2, .c = 16, .h = 32, .w = 32, .o = 32, .kh = 3, .kw = 3, .sh = 2, .sw = 2, .ph = 1, .pw = 1},
    {.n = 2, .c = 16, .h = 16, .w = 16, .o = 16, .kh = 3, .kw = 3, .ph = 1, .pw = 1},
    {.n = 2, .c = 8, .h = 9, .w = 9, .o = 12, .kh = 1, .kw = 1},
    {.n = 2, .c = 8, .h = 9, .w = 9, .o = 12, .kh = 1, .kw = 1, .sh = 2, .sw = 2},
    {.n = 2, .c = 12, .h = 10, .w = 11, .o = 12, .kh = 3, .kw = 3, .ph = 1, .pw = 1, .groups = 12},
    {.n = 1, .c = 24, .h = 120, .w = 130, .o = 3, .kh = 3, .kw = 3, .ph = 1, .pw = 1},  // several bands
    {.n = 2, .c = 9, .h = 131, .w = 117, .o = 3, .kh = 7, .kw = 7, .sh = 2, .sw = 2, .ph = 3, .pw = 3, .groups = 3},
    {.n = 2, .c = 3, .h = 5, .w = 7, .o = 4, .kh = 5, .kw = 7},  // kernel = input
    {.n = 1, .c = 1, .h = 1, .w = 1, .o = 1, .kh = 1, .kw = 1},
    {.n = 2, .c = 2, .h = 2, .w = 2, .o = 3, .kh = 3, .kw = 3, .ph = 4, .pw = 5},  // more padding than kernel
    {.n = 2, .c = 2, .h = 3, .w = 1, .o = 3, .kh = 1, .kw = 1, .ph = 1, .pw = 2, .dh = 3},
    {.n = 2, .c = 2, .h = 4, .w = 4, .o = 2, .kh = 2, .kw = 2, .sh = 5, .sw = 7, .ph = 1, .pw = 1},
};

Case random_case(std::mt19937& rng) {
  const auto pick = [&](int64_t low, int64_t high) { return std::uniform_int_distribution<int64_t>(low, high)(rng); };
  for (;;) {
    Case s{.n = pick(1, 5),
           .c = pick(1, 5),
           .h = pick(1, 20),
           .w = pick(1, 40),
           .o = pick(1, 11),
           .kh = pick(1, 5),
           .kw = pick(1, 6),
           .sh = pick(1, 3),
           .sw = pick(1, 3),
           .ph = pick(0, 3),
           .pw = pick(0, 3),
           .dh = pick(1, 3),
           .dw = pick(1, 3),
           .groups = pick(1, 3)};
    s.c *= s.groups, s.o *= s.groups;
    if (s.dh * (s.kh - 1) + 1 <= s.h + 2 * s.ph && s.dw * (s.kw - 1) + 1 <= s.w + 2 * s.pw) return s;
  }
}

class Conv : public testing::Test {
 protected:
  void SetUp() override { manual_seed(11); }
  void TearDown() override { set_num_threads(threads_); }
  int threads_ = num_threads();
};

TEST_F(Conv, MatchesPlainLoopsOnEveryTarget) {
  test::on_every_target([](int64_t target) {
    if (target == HWY_AVX3 || target == HWY_AVX2) {
      EXPECT_EQ(simd::conv_kernels().lanes, target == HWY_AVX3 ? 16 : 8);
    }
    for (const Case& s : kNetworks) check(s, f32);
    std::mt19937 rng(5);
    for (int i = 0; i < 60; ++i) check(random_case(rng), f32);
  });
}

TEST_F(Conv, OtherDtypes) {
  std::mt19937 rng(6);
  for (int i = 0; i < 40; ++i) {
    const Case s = random_case(rng);
    check(s, f64);
    check(s, bf16);
  }
}

// Beyond the direct kernels: more than 1600 taps a group, several bands of columns, more taps than one band holds.
TEST_F(Conv, ManyTaps) {
  for (const Case& s : {Case{.n = 2, .c = 200, .h = 7, .w = 6, .o = 5, .kh = 3, .kw = 3, .ph = 1, .pw = 1},
                        Case{.n = 1, .c = 190, .h = 21, .w = 23, .o = 3, .kh = 3, .kw = 3, .ph = 1, .pw = 1},
                        Case{.n = 2, .c = 500, .h = 5, .w = 5, .o = 2, .kh = 3, .kw = 3, .ph = 1, .pw = 1, .dw = 2},
                        Case{.n = 3, .c = 2, .h = 47, .w = 50, .o = 3, .kh = 45, .kw = 46, .sh = 2, .pw = 3},
                        Case{.n = 1, .c = 1, .h = 80, .w = 90, .o = 2, .kh = 70, .kw = 71, .sw = 3, .ph = 2},
                        Case{.n = 19, .c = 1700, .h = 1, .w = 1, .o = 3, .kh = 1, .kw = 1}}) {
    check(s, f32);
    check(s, f64);
  }
  std::mt19937 rng(7);
  for (int i = 0; i < 20; ++i) {
    Case s = random_case(rng);
    s.c = (1600 / (s.kh * s.kw) + 1 + i) * s.groups;
    s.n = 1 + i % 2, s.o = s.groups * (1 + i % 3);
    check(s, f32);
    if (i < 5) check(s, f64), check(s, bf16);
  }
}

// Sizes whose products pass 2^63 where every tensor is small.
TEST_F(Conv, HugeStridesAndPadding) {
  const int64_t big = int64_t{1} << 30;
  ConvGeometry s;  // x [1, 1024, 1, 2], weight [1, 1024, 1, 1], padding {0, 2^23 - 1}: y [1, 1, 1, 2^24]
  s.n = s.h = s.o = s.kh = s.kw = s.oh = 1;
  s.c = 1024, s.w = 2, s.ow = 1 << 24, s.pad_w = (1 << 23) - 1;
  for (const int64_t stride : {int64_t{1}, big, 2 * big - 1}) {
    s.stride_h = stride;
    EXPECT_FALSE(simd::conv_direct_suits(s)) << stride;
    EXPECT_EQ(simd::packed_size(s, 1), int64_t{1} << 34) << "one class is read, whatever the stride " << stride;
  }
  s.kh = 2, s.dilation_h = s.stride_h = big, s.pad_h = big;
  EXPECT_EQ(simd::packed_size(s, 1), std::numeric_limits<int64_t>::max());
  EXPECT_FALSE(simd::conv_direct_suits(s));

  const Tensor x = randn({1, 64, 1, 2}), weight = randn({1, 64, 1, 1});
  const Conv2dOptions o{.stride = {big, 1}, .padding = {0, 511}};
  const Tensor y = conv2d(x, weight, {}, o);
  EXPECT_TRUE(equal(slice(y, 3, 511, 513), conv2d(x, weight)));
  EXPECT_TRUE(equal(conv2d_input_grad(y, weight, {1, 2}, o), conv2d_input_grad(conv2d(x, weight), weight, {1, 2})));
  // Kernel rows far apart, read through much padding: most lie outside x.
  const Tensor x2 = ones({1, 3, 2, 5}), w2 = ones({2, 3, 2, 1});
  const Conv2dOptions far{.stride = {big, 1}, .padding = {big, 0}, .dilation = {big, 1}};
  EXPECT_TRUE(equal(conv2d(x2, w2, {}, far), full({1, 2, 2, 5}, 3.0)));
}

TEST_F(Conv, StridedInputs) {
  const Tensor x = randn({4, 9, 11, 3}), weight = randn({5, 5, 4, 3}), g = randn({3, 6, 3, 5});
  const Tensor xt = permute(x, {3, 0, 1, 2}), wt = permute(weight, {1, 2, 0, 3});  // [3, 4, 9, 11], [5, 4, 5, 3]
  ASSERT_FALSE(xt.is_contiguous());
  const Tensor a = conv2d(xt, wt), b = conv2d(contiguous(xt), contiguous(wt));
  EXPECT_TRUE(equal(a, b));
  const Tensor gt = permute(randn({5, 9, 3, 5}), {2, 0, 3, 1});  // [3, 5, 5, 9]
  EXPECT_TRUE(equal(conv2d_input_grad(gt, wt, {9, 11}), conv2d_input_grad(contiguous(gt), contiguous(wt), {9, 11})));
  EXPECT_TRUE(
      equal(conv2d_weight_grad(xt, gt, {5, 3})[0], conv2d_weight_grad(contiguous(xt), contiguous(gt), {5, 3})[0]));
}

TEST_F(Conv, SameBitsAtAnyThreadCount) {
  for (const Case& s : {Case{.n = 64, .c = 3, .h = 32, .w = 32, .o = 6, .kh = 5, .kw = 5},
                        Case{.n = 37, .c = 6, .h = 14, .w = 14, .o = 16, .kh = 5, .kw = 5},
                        Case{.n = 5, .c = 16, .h = 32, .w = 32, .o = 16, .kh = 3, .kw = 3, .ph = 1, .pw = 1},
                        Case{.n = 1, .c = 256, .h = 14, .w = 14, .o = 40, .kh = 3, .kw = 3, .ph = 1, .pw = 1},
                        Case{.n = 7, .c = 200, .h = 9, .w = 9, .o = 9, .kh = 3, .kw = 3}}) {
    const Tensor x = randn({s.n, s.c, s.h, s.w}), weight = randn({s.o, s.c, s.kh, s.kw}),
                 g = randn({s.n, s.o, s.oh(), s.ow()});
    std::vector<Tensor> first;
    for (const int threads : {1, 2, 5}) {
      set_num_threads(threads);
      const Outputs d = conv2d_weight_grad(x, g, {s.kh, s.kw}, s.options(), true);
      const std::vector<Tensor> now = {conv2d(x, weight, {}, s.options()),
                                       conv2d_input_grad(g, weight, {s.h, s.w}, s.options()), d[0], d[1]};
      if (first.empty()) first = now;
      for (size_t i = 0; i < now.size(); ++i)
        EXPECT_EQ(std::memcmp(now[i].raw_data(), first[i].raw_data(), static_cast<size_t>(now[i].numel()) * 4), 0)
            << s.text() << " threads " << threads << " result " << i;
    }
  }
}

// An infinity must reach the windows that hold it, and no others.
TEST_F(Conv, InfinitiesStayWhereTheyAre) {
  const Tensor x = ones({2, 2, 9, 10}), weight = ones({3, 2, 3, 3}), g = ones({2, 3, 7, 8});
  x.data<float>()[9 * 10 - 1] = std::numeric_limits<float>::infinity();  // last of image 0, channel 0
  const auto y = conv2d(x, weight).to_vector<float>();
  for (size_t i = 0; i < y.size(); ++i) EXPECT_EQ(std::isinf(y[i]), i < 3 * 56 && i % 56 == 55) << i;
  const auto dw = conv2d_weight_grad(x, g, {3, 3})[0].to_vector<float>();
  for (size_t i = 0; i < dw.size(); ++i) EXPECT_EQ(std::isfinite(dw[i]), i % 18 != 8) << i;
  g.data<float>()[0] = std::numeric_limits<float>::infinity();
  const auto dx = conv2d_input_grad(g, weight, {9, 10}).to_vector<float>();
  for (size_t i = 0; i < dx.size(); ++i) EXPECT_EQ(std::isinf(dx[i]), i < 180 && i % 90 / 10 < 3 && i % 10 < 3) << i;
}

// f32 sums of as many ones as it cannot count, in the bias' gradient and the weight's.
TEST_F(Conv, GradientsOfManyPositions) {
  const Tensor x = ones({1, 1, 4200, 4200}), g = ones({1, 1, 4200, 4200});
  const Outputs d = conv2d_weight_grad(x, g, {1, 1}, {}, true);
  EXPECT_EQ(d[0].item(), 4200.0 * 4200.0);
  EXPECT_EQ(d[1].item(), 4200.0 * 4200.0);
}

TEST_F(Conv, EmptyBatch) {
  const Tensor x = empty({0, 3, 8, 8}), weight = randn({4, 3, 3, 3});
  EXPECT_EQ(conv2d(x, weight).shape(), (Shape{0, 4, 6, 6}));
  EXPECT_EQ(conv2d_input_grad(empty({0, 4, 6, 6}), weight, {8, 8}).shape(), (Shape{0, 3, 8, 8}));
  const Outputs d = conv2d_weight_grad(x, empty({0, 4, 6, 6}), {3, 3}, {}, true);
  EXPECT_TRUE(equal(d[0], zeros({4, 3, 3, 3})));
  EXPECT_TRUE(equal(d[1], zeros({4})));
}

TEST_F(Conv, Gradients) {
  for (const Conv2dOptions& o :
       {Conv2dOptions{}, Conv2dOptions{.stride = {2, 1}, .padding = {1, 2}, .dilation = {1, 2}, .groups = 2}}) {
    const Tensor x = randn({2, 4, 5, 6}, f64).requires_grad_(), bias = randn({2}, f64).requires_grad_();
    const Tensor weight = randn({2, 4 / o.groups, 3, 2}, f64).requires_grad_();
    const auto f = [&](const std::vector<Tensor>& in) {
      return std::vector<Tensor>{conv2d(in[0], in[1], in.size() > 2 ? in[2] : Tensor(), o)};
    };
    gradcheck(f, {x, weight, bias});
    gradcheck(f, {x, weight});
    gradgradcheck(f, {x, weight, bias});
    const Shape y = conv2d(x, weight, bias, o).shape();
    const Tensor g = randn(y, f64).requires_grad_();
    gradgradcheck(
        [&](const std::vector<Tensor>& in) {
          return std::vector<Tensor>{conv2d_input_grad(in[0], in[1], {5, 6}, o)};
        },
        {g, weight});
    gradgradcheck(
        [&](const std::vector<Tensor>& in) {
          const Outputs d = conv2d_weight_grad(in[0], in[1], {3, 2}, o, true);
          return std::vector<Tensor>{d[0], d[1]};
        },
        {x, g});
  }
}

TEST_F(Conv, Errors) {
  const Tensor x = zeros({64, 3, 32, 32}), weight = zeros({16, 6, 5, 5});
  expect_error<ShapeError>([&] { conv2d(x, weight); },
                           "conv2d: weight [16, 6, 5, 5] expects 6 input channels, x is [64, 3, 32, 32]");
  const Tensor w = zeros({4, 3, 5, 5});
  expect_error<ShapeError>([&] { conv2d(zeros({1, 3, 4, 8}), w); }, "larger than the padded input of 4x8");
  expect_error<ShapeError>([&] { conv2d(zeros({1, 3, 8, 8}), w, {}, {.dilation = {2}}); }, "9x9");
  expect_error<ValueError>([&] { conv2d(x, w, {}, {.stride = {0}}); }, "stride [0, 0]");
  expect_error<ValueError>([&] { conv2d(x, w, {}, {.padding = {0, -1}}); }, "padding [0, -1]");
  expect_error<ValueError>([&] { conv2d(x, w, {}, {.dilation = {0}}); }, "dilation");
  expect_error<ValueError>([&] { conv2d(x, w, {}, {.groups = 0}); }, "groups 0");
  expect_error<ShapeError>(
      [&] {
        conv2d(x, zeros({4, 1, 5, 5}), {}, {.groups = 3});
      },
      "groups 3 do not divide the 4 output");
  const Tensor none = zeros({0, 1, int64_t{1} << 40, 1});  // its extent, dilated, is 2^70
  expect_error<ShapeError>(
      [&] {
        conv2d(zeros({1, 1, 4, 4}), none, {}, {.dilation = {int64_t{1} << 30, 1}});
      },
      "larger than the padded input of 4x4");
  expect_error<ShapeError>(
      [&] {
        conv2d(zeros({1, 0, 4, 4}), zeros({0, 4, 1, 1}), {}, {.groups = int64_t{1} << 62});
      },
      "expects");
  expect_error<ShapeError>(
      [&] {
        conv2d_input_grad(zeros({1, 4, 3, 3}), w, {INT64_MAX, 8}, {.padding = {1}});
      },
      "size [9223372036854775807, 8]");
  expect_error<ShapeError>([&] { conv2d(x, w, zeros({5})); }, "bias [5] must have shape [4]");
  expect_error<ShapeError>([&] { conv2d(zeros({3, 32, 32}), w); }, "4 dims");
  expect_error<ShapeError>([&] { conv2d(x, w, {}, {.stride = {1, 1, 1}}); }, "one or two values");
  expect_error<DTypeError>([&] { conv2d(x, cast(w, f64)); }, "dtypes");
  expect_error<DTypeError>([&] { conv2d(cast(x, i32), cast(w, i32)); }, "floating");
  expect_error<ShapeError>([&] { conv2d_input_grad(zeros({1, 4, 3, 3}), w, {8, 8}); }, "output shape [1, 4, 4, 4]");
  expect_error<ShapeError>(
      [&] {
        conv2d_weight_grad(x, zeros({64, 4, 27, 28}), {5, 5});
      },
      "output shape [64, 4, 28, 28]");
}

}  // namespace
}  // namespace hone
