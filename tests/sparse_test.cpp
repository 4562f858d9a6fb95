// Sparse weights: packing, and the ops on them against plain loops over what is stored, on every SIMD target.

#include <gtest/gtest.h>

#include <hwy/targets.h>

#include <cmath>
#include <random>

#include "activations.h"
#include "hone/hone.h"
#include "hone/ops/packed/reference.h"
#include "layouts.h"
#include "support.h"

namespace hone {
namespace {

constexpr int64_t kSides[] = {1, 2, 4, 8, 16};
constexpr double kDensities[] = {0, 0.03, 0.2, 0.6, 1};

// Standard normal numbers, kept with probability `density`; some rows and columns stay empty.
Tensor sparse_weight(const Shape& shape, double density, std::mt19937& rng) {
  Tensor w = randn(shape);
  float* v = w.data<float>();
  const int64_t cols = w.numel() / std::max<int64_t>(shape[0], 1);
  std::bernoulli_distribution keep(density), empty(density < 1 ? 0.15 : 0);
  std::vector<bool> no_column(static_cast<size_t>(cols));
  for (size_t j = 0; j < no_column.size(); ++j) no_column[j] = empty(rng);
  for (int64_t r = 0; r < shape[0]; ++r) {
    const bool no_row = empty(rng);
    for (int64_t j = 0; j < cols; ++j)
      if (no_row || no_column[static_cast<size_t>(j)] || !keep(rng)) v[r * cols + j] = 0;
  }
  return w;
}
// At most n nonzeros in each m neighbours of a row: the first ones stay.
Tensor to_n_m(Tensor w, int64_t n, int64_t m) {
  float* v = w.data<float>();
  const int64_t rows = w.size(0), cols = rows ? w.numel() / rows : 0;
  for (int64_t r = 0; r < rows; ++r)
    for (int64_t g = 0; g < cols; g += m)
      for (int64_t j = g, used = 0; j < std::min(g + m, cols); ++j)
        if (v[r * cols + j] != 0 && ++used > n) v[r * cols + j] = 0;
  return w;
}

// Within a few roundings of a sum of `terms` products of standard normal numbers; of the two, `rounded` are sums in
// f32.
void expect_near(const Tensor& got, const Tensor& want, int64_t terms, int rounded, const std::string& what) {
  ASSERT_EQ(got.shape(), want.shape()) << what;
  ASSERT_EQ(got.dtype(), f32);
  const std::vector<float> a = got.to_vector<float>(), b = want.to_vector<float>();
  const double bound = rounded * 6e-8 * static_cast<double>(16 + terms);
  for (size_t i = 0; i < a.size(); ++i)
    ASSERT_NEAR(a[i], b[i], bound * (1 + std::abs(b[i]))) << what << " element " << i;
}

template <class W, class Op>
void check_linear(const Tensor& x, const W& w, const Tensor& bias, Op op, const std::string& what) {
  const Tensor y = op(x, w, bias, {});
  expect_near(y, reference::linear(x, w, bias), w.cols, 1, what);
  expect_near(y, linear(x, w.dense(), bias), w.cols, 2, what + " (dense)");
}

// Every format of one weight.
void check_linears(int64_t rows, int64_t cols, int64_t batch, double density, std::mt19937& rng) {
  const Tensor x = randn({batch, cols}), w = sparse_weight({rows, cols}, density, rng);
  const Tensor bias = rng() % 2 ? randn({rows}) : Tensor();
  const std::string what = str("[", rows, ", ", cols, "] batch ", batch, " density ", density);
  check_linear(x, CsrMatrix::pack(w), bias, csr_linear, "csr " + what);
  const int64_t height = kSides[rng() % 5], width = kSides[rng() % 5];
  check_linear(x, BlockSparseMatrix::pack(w, height, width), bias, block_sparse_linear,
               str("block ", height, "x", width, " ", what));
  const int64_t m = 2 << rng() % 3, n = 1 + static_cast<int64_t>(rng() % static_cast<uint64_t>(m));
  check_linear(x, NMMatrix::pack(to_n_m(w, n, m), n, m), bias, n_m_linear, str(n, ":", m, " ", what));
}

struct ConvCase {
  int64_t n, c, h, w, o, kh, kw, sh = 1, sw = 1, ph = 0, pw = 0, dh = 1, dw = 1, groups = 1;
  int64_t oh() const { return (h + 2 * ph - dh * (kh - 1) - 1) / sh + 1; }
  int64_t ow() const { return (w + 2 * pw - dw * (kw - 1) - 1) / sw + 1; }
  Conv2dOptions options() const {
    return {.stride = {sh, sw}, .padding = {ph, pw}, .dilation = {dh, dw}, .groups = groups};
  }
  ConvAttrs attrs() const { return {sh, sw, ph, pw, dh, dw, groups, kh, kw}; }
  std::string text() const {
    return str("x [", n, ", ", c, ", ", h, ", ", w, "] o ", o, " kernel ", kh, "x", kw, " stride ", sh, ",", sw,
               " pad ", ph, ",", pw, " dilation ", dh, ",", dw, " groups ", groups);
  }
};

template <class W, class Op>
void check_conv(const ConvCase& s, const Tensor& x, const W& w, const Tensor& bias, Op op, const std::string& what) {
  const Tensor y = op(x, w, {s.kh, s.kw}, bias, {.conv = s.options()});
  expect_near(y, reference::conv2d(x, w, bias, s.attrs(), s.oh(), s.ow()), w.cols, 1, what);
  const Tensor dense = reshape(w.dense(), {s.o, s.c / s.groups, s.kh, s.kw});
  expect_near(y, conv2d(x, dense, bias, s.options()), w.cols, 2, what + " (dense)");
}
void check_convs(const ConvCase& s, double density, std::mt19937& rng) {
  const Tensor x = randn({s.n, s.c, s.h, s.w}), w = sparse_weight({s.o, s.c / s.groups, s.kh, s.kw}, density, rng);
  const Tensor bias = rng() % 2 ? randn({s.o}) : Tensor();
  const std::string what = s.text() + str(" density ", density);
  check_conv(s, x, CsrMatrix::pack(w), bias, csr_conv2d, "csr " + what);
  int64_t height = kSides[rng() % 5], width = kSides[rng() % 5];
  while (s.groups > 1 && s.o / s.groups % height != 0) height /= 2;
  check_conv(s, x, BlockSparseMatrix::pack(w, height, width), bias, block_sparse_conv2d,
             str("block ", height, "x", width, " ", what));
  const int64_t m = 2 << rng() % 3, n = 1 + static_cast<int64_t>(rng() % static_cast<uint64_t>(m));
  check_conv(s, x, NMMatrix::pack(to_n_m(w, n, m), n, m), bias, n_m_conv2d, str(n, ":", m, " ", what));
}

ConvCase random_conv(std::mt19937& rng) {
  const auto pick = [&](int64_t low, int64_t high) { return std::uniform_int_distribution<int64_t>(low, high)(rng); };
  for (;;) {
    ConvCase s{.n = pick(1, 3),
               .c = pick(1, 5),
               .h = pick(1, 15),
               .w = pick(1, 40),
               .o = pick(1, 19),
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

class Sparse : public testing::Test {
 protected:
  void SetUp() override { manual_seed(11); }
  void TearDown() override {
    hwy::SetSupportedTargetsForTest(0);
    set_num_threads(threads_);
  }
  // f() on every target of this machine.
  template <class F> void on_every_target(F f) {
    for (int64_t left = hwy::SupportedTargets() & ~(HWY_SSSE3 | HWY_SSE4 | HWY_AVX3_DL); left != 0; left &= left - 1) {
      hwy::SetSupportedTargetsForTest(left & -left);
      f();
      if (HasFatalFailure()) FAIL() << "target " << hwy::TargetName(left & -left);
    }
  }
  int threads_ = num_threads();
};

TEST_F(Sparse, LinearMatchesPlainLoopsOnEveryTarget) {
  on_every_target([&] {
    std::mt19937 rng(3);
    for (const double density : kDensities) {
      for (const int64_t batch : {1, 2, 3, 4, 7, 8, 33, 64, 65, 130}) check_linears(37, 70, batch, density, rng);
      for (const int64_t rows : {0, 1, 2, 15, 16, 17, 84}) check_linears(rows, 41, 1 + rows % 5, density, rng);
      for (const int64_t cols : {0, 1, 3, 8, 120, 400}) check_linears(21, cols, 1 + cols % 7, density, rng);
      check_linears(130, 300, 70, density, rng);
    }
    for (int i = 0; i < 60; ++i)
      check_linears(1 + static_cast<int64_t>(rng() % 50), 1 + static_cast<int64_t>(rng() % 90),
                    1 + static_cast<int64_t>(rng() % 20), kDensities[rng() % 5], rng);
  });
}

TEST_F(Sparse, ConvolutionMatchesPlainLoopsOnEveryTarget) {
  const ConvCase cases[] = {
      {.n = 2, .c = 3, .h = 32, .w = 32, .o = 6, .kh = 5, .kw = 5},
      {.n = 3, .c = 6, .h = 14, .w = 14, .o = 16, .kh = 5, .kw = 5},
      {.n = 1, .c = 16, .h = 16, .w = 16, .o = 32, .kh = 3, .kw = 3, .sh = 2, .sw = 2, .ph = 1, .pw = 1},
      {.n = 2, .c = 8, .h = 9, .w = 9, .o = 12, .kh = 1, .kw = 1, .sh = 2, .sw = 2},
      {.n = 1, .c = 12, .h = 10, .w = 11, .o = 12, .kh = 3, .kw = 3, .ph = 1, .pw = 1, .groups = 12},
      {.n = 1, .c = 24, .h = 60, .w = 65, .o = 3, .kh = 3, .kw = 3, .ph = 1, .pw = 1},  // several bands
      {.n = 2, .c = 3, .h = 5, .w = 7, .o = 4, .kh = 5, .kw = 7},                       // kernel = input
      {.n = 1, .c = 1, .h = 1, .w = 1, .o = 1, .kh = 1, .kw = 1},
      {.n = 1, .c = 200, .h = 7, .w = 6, .o = 5, .kh = 3, .kw = 3, .ph = 1, .pw = 1},  // 1800 taps
      {.n = 2, .c = 2, .h = 2, .w = 2, .o = 3, .kh = 3, .kw = 3, .ph = 4, .pw = 5}};
  on_every_target([&] {
    std::mt19937 rng(4);
    for (const ConvCase& s : cases)
      for (const double density : {0.0, 0.1, 1.0}) check_convs(s, density, rng);
    for (int i = 0; i < 60; ++i) check_convs(random_conv(rng), kDensities[rng() % 5], rng);
  });
}

TEST_F(Sparse, ConvolutionWhoseLastBandIsLower) {
  on_every_target([&] {
    std::mt19937 rng(7);
    for (const double density : {0.1, 0.5})
      check_convs({.n = 2, .c = 3, .h = 61, .w = 61, .o = 6, .kh = 5, .kw = 5}, density, rng);
  });
}

// Activation and pooling behind the product.
TEST_F(Sparse, FusedHasTheBitsOfTheOpsApartOnEveryTarget) {
  const auto check = [](const std::string& what, const auto& w, const auto& linear_op, const auto& conv_op,
                        const ConvCase& s, const FusedConv2dOptions& o) {
    const Tensor bias = randn({w.rows}), rows = randn({1 + s.w % 20, w.cols}), x = randn({s.n, s.c, s.h, s.w});
    ASSERT_TRUE(test::same_bits(linear_op(rows, w, bias, o.activation),
                                test::shown(linear_op(rows, w, bias, ActivationAttrs()), o.activation)))
        << what;
    Tensor want = test::shown(conv_op(x, w, {s.kh, s.kw}, bias, {.conv = o.conv}), o.activation);
    if (!o.pool.empty()) want = max_pool2d(want, o.pool, o.pool_options);
    ASSERT_TRUE(test::same_bits(conv_op(x, w, {s.kh, s.kw}, bias, o), want)) << what;
  };
  on_every_target([&] {
    std::mt19937 rng(5);
    std::mt19937_64 draws(6);
    for (int i = 0; i < 90; ++i) {
      const ConvCase s = random_conv(rng);
      FusedConv2dOptions o{.conv = s.options(), .activation = test::any_activation(draws)};
      if (i % 3 == 0) o.pool = {std::min<int64_t>(2, s.oh()), std::min<int64_t>(2, s.ow())};
      if (i % 3 == 1) {
        o.pool = {1 + static_cast<int64_t>(draws() % 3), 1 + static_cast<int64_t>(draws() % 4)};
        o.pool_options = {.stride = {1 + static_cast<int64_t>(draws() % 3), 2},
                          .padding = {o.pool[0] / 2, o.pool[1] / 2}};
        if (o.pool[0] > s.oh() + 2 * (o.pool[0] / 2) || o.pool[1] > s.ow() + 2 * (o.pool[1] / 2)) o.pool = {};
      }
      const Tensor w = sparse_weight({s.o, s.c / s.groups, s.kh, s.kw}, 0.3, rng);
      const std::string what = s.text() + str(" activation ", o.activation.kind, " pool ", o.pool);
      check("csr " + what, CsrMatrix::pack(w), csr_linear, csr_conv2d, s, o);
      check("block " + what, BlockSparseMatrix::pack(w, 1, 4), block_sparse_linear, block_sparse_conv2d, s, o);
      check("n_m " + what, NMMatrix::pack(to_n_m(w, 2, 4), 2, 4), n_m_linear, n_m_conv2d, s, o);
    }
  });
}

}  // namespace
}  // namespace hone
