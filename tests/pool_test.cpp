// Pooling against plain loops, on every SIMD target, for random and awkward sizes.

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <random>

#include "hone/hone.h"
#include "simd_targets.h"
#include "support.h"

namespace hone {
namespace {

using test::expect_error;

struct Case {
  int64_t n, c, h, w, kh, kw, sh, sw, ph = 0, pw = 0, dh = 1, dw = 1;
  int64_t oh() const { return (h + 2 * ph - dh * (kh - 1) - 1) / sh + 1; }
  int64_t ow() const { return (w + 2 * pw - dw * (kw - 1) - 1) / sw + 1; }
  std::string text() const {
    return str("x [", n, ", ", c, ", ", h, ", ", w, "] kernel ", kh, "x", kw, " stride ", sh, ",", sw, " pad ", ph, ",",
               pw, " dilation ", dh, ",", dw);
  }
};

class Pool : public testing::Test {
 protected:
  void SetUp() override { manual_seed(12); }
};

// Values, indices (their element is the maximum, and the first of equals unless NaN) and the gradient.
void check_max(const Case& s, const Tensor& x) {
  const Tensor leaf = x.detach().requires_grad_();
  const Outputs out = max_pool2d_with_indices(
      leaf, {s.kh, s.kw}, {.stride = {s.sh, s.sw}, .padding = {s.ph, s.pw}, .dilation = {s.dh, s.dw}});
  ASSERT_EQ(out[0].shape(), (Shape{s.n, s.c, s.oh(), s.ow()})) << s.text();
  const Tensor g = cast(randn(out[0].shape(), f64), x.dtype());
  out[0].backward(g);
  const auto in = x.to_vector<double>(), y = out[0].to_vector<double>(), gv = g.to_vector<double>();
  const auto index = out[1].to_vector<int64_t>();
  std::vector<double> dx(in.size());
  for (int64_t p = 0, at = 0; p < s.n * s.c; ++p)
    for (int64_t i = 0; i < s.oh(); ++i)
      for (int64_t j = 0; j < s.ow(); ++j, ++at) {
        double best = -std::numeric_limits<double>::infinity();
        int64_t place = -1;
        bool nan = false;
        for (int64_t a = 0; a < s.kh; ++a)
          for (int64_t b = 0; b < s.kw; ++b) {
            const int64_t r = i * s.sh + a * s.dh - s.ph, q = j * s.sw + b * s.dw - s.pw;
            if (r < 0 || q < 0 || r >= s.h || q >= s.w) continue;
            const double v = in[static_cast<size_t>((p * s.h + r) * s.w + q)];
            nan |= std::isnan(v);
            if (v > best || place < 0) best = v, place = r * s.w + q;
          }
        const auto k = static_cast<size_t>(at);
        const std::string where = str(s.text(), " plane ", p, " window ", i, ",", j);
        if (nan) {
          ASSERT_TRUE(std::isnan(y[k])) << where;
          ASSERT_TRUE(std::isnan(in[static_cast<size_t>(p * s.h * s.w + index[k])])) << where;
        } else {
          ASSERT_EQ(y[k], best) << where;
          ASSERT_EQ(index[k], place) << where;
        }
        if (index[k] >= 0) dx[static_cast<size_t>(p * s.h * s.w + index[k])] += gv[k];
      }
  const auto got = leaf.grad().to_vector<double>();
  for (size_t i = 0; i < dx.size(); ++i)
    ASSERT_NEAR(got[i], dx[i], (x.dtype() == bf16 ? 0.1 : 1e-5) * (1 + std::abs(dx[i]))) << s.text() << " dx " << i;
}

// Windows must hold an element of x: else the mean has no rule.
void check_avg(const Case& s, const Tensor& x, bool include) {
  const Tensor leaf = x.detach().requires_grad_();
  const Tensor out =
      avg_pool2d(leaf, {s.kh, s.kw}, {.stride = {s.sh, s.sw}, .padding = {s.ph, s.pw}, .count_include_pad = include});
  ASSERT_EQ(out.shape(), (Shape{s.n, s.c, s.oh(), s.ow()})) << s.text();
  const Tensor g = cast(randn(out.shape(), f64), x.dtype());
  out.backward(g);
  const auto in = x.to_vector<double>(), y = out.to_vector<double>(), gv = g.to_vector<double>();
  const double tolerance = x.dtype() == bf16 ? 0.05 : x.dtype() == f32 ? 1e-5 : 1e-13;
  std::vector<double> dx(in.size());
  for (int64_t p = 0, at = 0; p < s.n * s.c; ++p)
    for (int64_t i = 0; i < s.oh(); ++i)
      for (int64_t j = 0; j < s.ow(); ++j, ++at) {
        double sum = 0;
        int64_t count = 0, inside = 0;
        for (int pass = 0; pass < 2; ++pass)
          for (int64_t r = i * s.sh - s.ph; r < i * s.sh - s.ph + s.kh; ++r)
            for (int64_t q = j * s.sw - s.pw; q < j * s.sw - s.pw + s.kw; ++q) {
              const bool padded = r < 0 || q < 0 || r >= s.h || q >= s.w;
              const auto k = static_cast<size_t>((p * s.h + r) * s.w + q);
              if (pass == 0) {
                count += r < s.h + s.ph && q < s.w + s.pw;
                inside += !padded;
                if (!padded) sum += in[k];
              } else if (!padded) {
                dx[k] += gv[static_cast<size_t>(at)] / static_cast<double>(include ? count : inside);
              }
            }
        ASSERT_NEAR(y[static_cast<size_t>(at)], sum / static_cast<double>(include ? count : inside),
                    tolerance * (1 + std::abs(sum)))
            << s.text() << " plane " << p << " window " << i << "," << j;
      }
  const auto got = leaf.grad().to_vector<double>();
  for (size_t i = 0; i < dx.size(); ++i)
    ASSERT_NEAR(got[i], dx[i], 2 * tolerance * (1 + std::abs(dx[i]))) << s.text() << " dx " << i;
}

Case random_case(std::mt19937& rng, bool dilated) {
  const auto pick = [&](int64_t low, int64_t high) { return std::uniform_int_distribution<int64_t>(low, high)(rng); };
  for (;;) {
    Case s{.n = pick(1, 3),
           .c = pick(1, 4),
           .h = pick(1, 14),
           .w = pick(1, 40),
           .kh = pick(1, 4),
           .kw = pick(1, 4),
           .sh = pick(1, 4),
           .sw = pick(1, 4)};
    if (dilated) s.dh = pick(1, 3), s.dw = pick(1, 3);
    s.ph = pick(0, (s.dh * (s.kh - 1) + 1) / 2), s.pw = pick(0, (s.dw * (s.kw - 1) + 1) / 2);
    if (s.dh * (s.kh - 1) + 1 <= s.h + 2 * s.ph && s.dw * (s.kw - 1) + 1 <= s.w + 2 * s.pw) return s;
  }
}

TEST_F(Pool, MaxOfTilesOnEveryTarget) {
  test::on_every_target([](int64_t) {
    for (const auto& [h, w] : std::vector<std::pair<int64_t, int64_t>>{
             {28, 28}, {10, 10}, {24, 24}, {8, 8}, {2, 2}, {4, 64}, {6, 2}, {5, 7}, {9, 66}, {2, 3}, {3, 2}}) {
      const Case s{.n = 3, .c = 5, .h = h, .w = w, .kh = 2, .kw = 2, .sh = 2, .sw = 2};
      check_max(s, randn({3, 5, h, w}));
      check_max(s, cast(randint(0, 3, {3, 5, h, w}), f32));  // ties
      const Tensor x = randn({3, 5, h, w});
      std::mt19937 rng(3);
      for (int64_t i = 0; i < x.numel(); ++i)
        if (rng() % 4 == 0)
          x.data<float>()[i] =
              rng() % 2 ? std::numeric_limits<float>::quiet_NaN() : -std::numeric_limits<float>::infinity();
      check_max(s, x);
      check_max(s, full({3, 5, h, w}, -std::numeric_limits<double>::infinity()));
    }
  });
}

TEST_F(Pool, MaxOfAnyWindows) {
  std::mt19937 rng(4);
  for (int i = 0; i < 150; ++i) {
    const Case s = random_case(rng, true);
    const DType dtype = i % 3 == 0 ? f64 : i % 3 == 1 ? f32 : bf16;
    check_max(s, cast(randn({s.n, s.c, s.h, s.w}, f64), dtype));
  }
}

TEST_F(Pool, MeanOfAnyWindows) {
  std::mt19937 rng(5);
  for (int i = 0; i < 150; ++i) {
    const Case s = random_case(rng, false);
    const DType dtype = i % 3 == 0 ? f64 : i % 3 == 1 ? f32 : bf16;
    check_avg(s, cast(randn({s.n, s.c, s.h, s.w}, f64), dtype), i % 2 == 0);
  }
}

TEST_F(Pool, Adaptive) {
  for (const auto& [h, w, oh, ow] :
       std::vector<std::array<int64_t, 4>>{{7, 9, 1, 1}, {8, 8, 4, 2}, {7, 5, 3, 4}, {3, 2, 5, 7}, {6, 6, 6, 6}}) {
    const Tensor x = randn({2, 3, h, w}, f64);
    const auto in = x.to_vector<double>();
    const Tensor mean = adaptive_avg_pool2d(x, {oh, ow}), most = adaptive_max_pool2d(x, {oh, ow});
    ASSERT_EQ(mean.shape(), (Shape{2, 3, oh, ow}));
    const auto a = mean.to_vector<double>(), m = most.to_vector<double>();
    for (int64_t p = 0, at = 0; p < 6; ++p)
      for (int64_t i = 0; i < oh; ++i)
        for (int64_t j = 0; j < ow; ++j, ++at) {
          double sum = 0, best = -1e300, count = 0;
          for (int64_t r = i * h / oh; r * oh < (i + 1) * h; ++r)
            for (int64_t q = j * w / ow; q * ow < (j + 1) * w; ++q) {
              const double v = in[static_cast<size_t>((p * h + r) * w + q)];
              sum += v, count += 1, best = std::max(best, v);
            }
          EXPECT_NEAR(a[static_cast<size_t>(at)], sum / count, 1e-14);
          EXPECT_EQ(m[static_cast<size_t>(at)], best);
        }
  }
}

TEST_F(Pool, Gradients) {
  const Tensor x = randn({2, 2, 6, 6}, f64).requires_grad_();
  using List = std::vector<Tensor>;
  const GradCheckFn functions[] = {
      [](const List& in) { return List{max_pool2d(in[0], 2)}; },
      [](const List& in) {
        return List{max_pool2d(in[0], {3, 2}, {.stride = {2, 1}, .padding = {1}, .dilation = {1, 2}})};
      },
      [](const List& in) { return List{avg_pool2d(in[0], 2)}; },
      [](const List& in) {
        return List{avg_pool2d(in[0], {3, 2}, {.stride = {2, 1}, .padding = {1}, .count_include_pad = false})};
      },
      [](const List& in) {
        return List{adaptive_avg_pool2d(in[0], {4, 1})};
      },
      [](const List& in) {
        return List{adaptive_max_pool2d(in[0], {4, 1})};
      },
  };
  for (const auto& f : functions) {
    gradcheck(f, {x});
    gradgradcheck(f, {x});
    // A gradient that depends on x, so that second derivatives are not zero.
    gradgradcheck(
        [&](const List& in) {
          const Tensor y = f(in)[0];
          return grad({y}, {in[0]}, {.create_graph = true}, {y});
        },
        {x});
  }
}

// More elements than f32 can count: a sum in f32 stops at 2^24.
TEST_F(Pool, MeanOfAPlaneOfOnes) {
  const Tensor x = ones({1, 1, 4200, 4200});
  EXPECT_EQ(adaptive_avg_pool2d(x, 1).item(), 1.0);
  EXPECT_EQ(avg_pool2d(x, 4200).item(), 1.0);
}

TEST_F(Pool, StridedAndEmptyInputs) {
  const Tensor x = randn({6, 8, 3, 2}), t = permute(x, {3, 2, 0, 1});
  EXPECT_TRUE(equal(max_pool2d(t, 2), max_pool2d(contiguous(t), 2)));
  EXPECT_TRUE(equal(avg_pool2d(t, 2), avg_pool2d(contiguous(t), 2)));
  EXPECT_EQ(max_pool2d(empty({0, 3, 8, 8}), 2).shape(), (Shape{0, 3, 4, 4}));
  EXPECT_EQ(avg_pool2d(empty({2, 0, 8, 8}), 2).shape(), (Shape{2, 0, 4, 4}));
  EXPECT_EQ(adaptive_avg_pool2d(empty({0, 3, 8, 8}), 1).shape(), (Shape{0, 3, 1, 1}));
}

TEST_F(Pool, SameBitsAtAnyThreadCount) {
  const int before = num_threads();
  const Tensor x = randn({16, 6, 28, 28}).requires_grad_();
  Tensor first;
  for (const int threads : {1, 2, 5}) {
    set_num_threads(threads);
    x.set_grad({});
    const Tensor y = max_pool2d(x, 2);
    y.backward(ones_like(y));
    if (!first.defined()) first = x.grad();
    EXPECT_TRUE(equal(first, x.grad()));
  }
  set_num_threads(before);
}

TEST_F(Pool, Errors) {
  const Tensor x = zeros({1, 1, 4, 4});
  expect_error<ShapeError>([&] { max_pool2d(x, 5); }, "kernel of 5x5 is larger than the padded input of 4x4");
  expect_error<ValueError>([&] { max_pool2d(x, 0); }, "at least 1");
  expect_error<ValueError>([&] { max_pool2d(x, 2, {.stride = {0}}); }, "at least 1");
  expect_error<ValueError>([&] { max_pool2d(x, 2, {.padding = {2}}); }, "padding [2, 2]");
  expect_error<ValueError>([&] { avg_pool2d(x, 2, {.padding = {-1}}); }, "padding [-1, -1]");
  expect_error<ShapeError>([&] { max_pool2d(zeros({4, 4}), 2); }, "4 dims");
  expect_error<ShapeError>([&] { max_pool2d(x, {1, 2, 3}); }, "one or two values");
  expect_error<DTypeError>([&] { avg_pool2d(cast(x, i64), 2); }, "floating");
  expect_error<ValueError>([&] { adaptive_avg_pool2d(x, 0); }, "at least 1");
  expect_error<ShapeError>([&] { adaptive_max_pool2d(empty({1, 1, 0, 4}), 1); }, "empty");
  const Tensor bad = full({1, 1, 2, 2}, 99, i32);
  expect_error<ValueError>([&] { apply(kMaxPool2dGather, PoolAttrs{}, {x, bad}); }, "index 99");
  expect_error<ValueError>(
      [&] {
        apply(kMaxPool2dGrad, PoolAttrs{.size_h = 4, .size_w = 4}, {zeros({1, 1, 2, 2}), bad});
      },
      "index 99");
}

}  // namespace
}  // namespace hone
