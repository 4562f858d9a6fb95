#include "hone/hone.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>

#include "layouts.h"

namespace hone {
namespace {
using test::layouts;
using test::ravel;
using test::same_at_any_thread_count;
using test::unravel;
constexpr double kInf = std::numeric_limits<double>::infinity();
const double kNan = std::numeric_limits<double>::quiet_NaN();

struct Reference {
  Shape shape;
  std::vector<std::vector<double>> groups;  // the terms of every output, row-major
};
Reference group(const Tensor& x, uint32_t mask, bool keepdim) {
  const std::vector<double> v = x.to_vector<double>();
  Reference r;
  Shape full = x.shape();
  for (int d = 0; d < full.ndim(); ++d) {
    if (!(mask >> d & 1))
      r.shape.push_back(full[d]);
    else if (keepdim)
      r.shape.push_back(1);
    if (mask >> d & 1) full[d] = 1;
  }
  r.groups.resize(static_cast<size_t>(full.numel()));
  for (size_t i = 0; i < v.size(); ++i) {
    auto at = unravel(static_cast<int64_t>(i), x.shape());
    for (int d = 0; d < full.ndim(); ++d)
      if (mask >> d & 1) at[static_cast<size_t>(d)] = 0;
    r.groups[static_cast<size_t>(ravel(at, full))].push_back(v[i]);
  }
  return r;
}
double plain_sum(const std::vector<double>& g) {
  double s = 0;
  for (double v : g) s += v;
  return s;
}
double plain_var(const std::vector<double>& g, int correction) {
  const double n = static_cast<double>(g.size()), m = plain_sum(g) / n;
  double s = 0;
  for (double v : g) s += (v - m) * (v - m);
  return n > correction ? s / (n - correction) : kNan;
}
double plain_logsumexp(const std::vector<double>& g) {
  long double s = 0;
  for (double v : g) s += std::exp(static_cast<long double>(v));
  return static_cast<double>(std::log(s));
}
double tolerance(DType d) { return d == DType::f64 ? 1e-12 : d == DType::f32 ? 1e-6 : 8e-3; }
void expect_close(const Tensor& got, const Reference& want, double (*f)(const std::vector<double>&),
                  const std::string& what) {
  ASSERT_EQ(got.shape(), want.shape) << what;
  const auto v = got.to_vector<double>();
  for (size_t i = 0; i < v.size(); ++i) {
    const double w = f(want.groups[i]);
    if (std::isnan(w))
      EXPECT_TRUE(std::isnan(v[i])) << what;
    else
      EXPECT_NEAR(v[i], w, tolerance(got.dtype()) * (1 + std::abs(w))) << what << " output " << i;
  }
}
Shape dims_of(uint32_t mask, int ndim) {
  Shape dims;
  for (int d = 0; d < ndim; ++d)
    if (mask >> d & 1) dims.push_back(d % 2 ? d : d - ndim);  // from either end
  return dims;
}

TEST(Reduce, OverOneDimensionByNumber) {
  const Tensor x = tensor<double>({1, 2, 3, 4, 5, 9}, {2, 3});
  EXPECT_EQ(sum(x, 1).to_vector<double>(), (std::vector<double>{6, 18}));
  EXPECT_EQ(sum(x, -2, true).shape(), (Shape{1, 3}));
  EXPECT_EQ(mean(x, 0).to_vector<double>(), (std::vector<double>{2.5, 3.5, 6}));
  EXPECT_EQ(var(x, int64_t{1}, {.unbiased = false}).to_vector<double>(),
            var(x, {1}, {.unbiased = false}).to_vector<double>());
  EXPECT_EQ(logsumexp(x, 1).to_vector<double>(), logsumexp(x, {1}).to_vector<double>());
  EXPECT_EQ(sum(x, {}).item(), 24);  // an empty list still means all
  EXPECT_THROW(sum(x, 2), ShapeError);
}

TEST(Reduce, MatchesPlainLoopsForEveryDimsLayoutAndDtype) {
  manual_seed(1);
  // [0, 3] has nothing to reduce or nothing to keep; 40 and 300 go beyond the lanes and the tile of the kernel.
  for (const Shape& shape : {Shape{}, Shape{1}, Shape{40}, Shape{0, 3}, Shape{3, 40}, Shape{300, 5}, Shape{5, 300},
                             Shape{2, 3, 4, 5}, Shape{3, 1, 37, 2}}) {
    for (DType dtype : {f64, f32, bf16}) {
      const Tensor base = cast(randn(shape, f64), dtype);
      for (const auto& [layout, x] : layouts(base)) {
        for (uint32_t mask = shape.empty() ? 0 : 1; mask < 1u << shape.ndim(); ++mask) {
          for (bool keepdim : {false, true}) {
            const std::string what = str(shape, " ", layout, " ", dtype, " mask ", mask);
            const Shape dims = dims_of(mask, shape.ndim());
            const Reference want = group(base, mask, keepdim);
            expect_close(sum(x, dims, keepdim), want, plain_sum, "sum " + what);
            expect_close(
                mean(x, dims, keepdim), want,
                [](auto& g) { return g.empty() ? kNan : plain_sum(g) / static_cast<double>(g.size()); },
                "mean " + what);
            expect_close(
                var(x, dims, {.keepdim = keepdim}), want, [](auto& g) { return plain_var(g, 1); }, "var " + what);
            expect_close(
                var(x, dims, {.unbiased = false, .keepdim = keepdim}), want, [](auto& g) { return plain_var(g, 0); },
                "var " + what);
            if (shape.numel() > 0)
              expect_close(logsumexp(x, dims, keepdim), want, plain_logsumexp, "logsumexp " + what);
          }
        }
      }
    }
  }
}

TEST(Reduce, BroadcastInputsSumAsIfCopied) {
  const Tensor x = expand(tensor({1.5, -2.0, 4.0}, {3, 1}), {2, 3, 7});
  EXPECT_EQ(sum(x).item(), 49);
  EXPECT_EQ(sum(x, {2}).to_vector<double>(), (std::vector<double>{10.5, -14, 28, 10.5, -14, 28}));
  EXPECT_EQ(sum(x, {0, 1}).to_vector<double>(), std::vector<double>(7, 7));
}

TEST(Reduce, IntegersAndBoolsSumInI64) {
  const Tensor x = full({70000}, 127, i8);
  EXPECT_EQ(sum(x).dtype(), i64);
  EXPECT_EQ(sum(x).item<int64_t>(), 127 * 70000);
  EXPECT_EQ(sum(full({3, 5}, 1, boolean), {1}).to_vector<int64_t>(), std::vector<int64_t>(3, 5));
  EXPECT_EQ(sum(tensor<uint8_t>({255, 255})).item<int64_t>(), 510);
  EXPECT_EQ(sum(tensor<int32_t>({2147483647, 1})).item<int64_t>(), 2147483648);
  EXPECT_THROW(mean(x), DTypeError);
  EXPECT_THROW(var(x), DTypeError);
  EXPECT_THROW(logsumexp(x), DTypeError);
}

TEST(Reduce, TenMillionFloatsAreRightToOnePartInAMillion) {
  const int64_t n = 10'000'000;
  Tensor x = full({n}, 0.1);
  const double tenth = static_cast<double>(0.1f);
  EXPECT_NEAR(sum(x).item() / (tenth * static_cast<double>(n)), 1, 1e-7);
  x.data<float>()[0] = 1e8f;  // a running f32 sum would lose every term that follows
  const double with_large = 1e8 + tenth * static_cast<double>(n - 1);
  EXPECT_NEAR(sum(x).item() / with_large, 1, 1e-7);
  x.data<float>()[n / 2] = -1e8f;  // and cancels again
  EXPECT_NEAR(sum(x).item() / (tenth * static_cast<double>(n - 2)), 1, 1e-7);
  EXPECT_NEAR(mean(x).item() / (tenth * static_cast<double>(n - 2) / static_cast<double>(n)), 1, 1e-7);
  const Tensor columns = reshape(x, {n / 4, 4});
  EXPECT_NEAR(sum(sum(columns, {0})).item() / (tenth * static_cast<double>(n - 2)), 1, 1e-5);  // f32 between the two
}

TEST(Reduce, SameBitsAtAnyThreadCount) {
  manual_seed(2);
  const Tensor x = randn({257, 3, 1031});
  for (const Shape& dims : {Shape{}, Shape{0}, Shape{2}, Shape{0, 2}, Shape{0, 1}}) {
    EXPECT_TRUE(same_at_any_thread_count([&] { return sum(x, dims); })) << to_string(dims);
    EXPECT_TRUE(same_at_any_thread_count([&] { return var(x, dims); })) << to_string(dims);
    EXPECT_TRUE(same_at_any_thread_count([&] { return logsumexp(x, dims); })) << to_string(dims);
  }
  EXPECT_TRUE(same_at_any_thread_count([&] { return argmax(x); }));
}

TEST(Reduce, EmptyAndSingle) {
  const Tensor none = empty({0, 4});
  EXPECT_EQ(sum(none).item(), 0);
  EXPECT_EQ(sum(none, {0}).to_vector<double>(), std::vector<double>(4, 0));
  EXPECT_EQ(sum(none, {1}).shape(), (Shape{0}));
  EXPECT_TRUE(std::isnan(mean(none).item()));
  EXPECT_TRUE(std::isnan(var(full({1}, 3)).item()));
  EXPECT_EQ(var(full({1}, 3), {}, {.unbiased = false}).item(), 0);
  EXPECT_EQ(logsumexp(none).item(), -kInf);
  EXPECT_THROW(max(none), ShapeError);
  EXPECT_THROW(argmin(none, 0), ShapeError);
  EXPECT_EQ(max(none, 1).shape(), (Shape{0}));
}

TEST(Reduce, VarianceOfALargeMeanKeepsItsDigits) {
  const Tensor x = tensor({1e6f + 1, 1e6f + 2, 1e6f + 3, 1e6f + 4});  // E[x²] − E[x]² in f32 would be 0 or negative
  EXPECT_NEAR(var(x).item(), 5.0 / 3, 1e-6);
}

TEST(Reduce, LogsumexpAtTheEdges) {
  const auto lse = [](std::initializer_list<double> v) { return logsumexp(tensor(v)).item(); };
  EXPECT_NEAR(lse({1000, 1000}), 1000 + std::log(2), 1e-12);
  EXPECT_NEAR(lse({-1000, -1000}), -1000 + std::log(2), 1e-12);
  EXPECT_EQ(lse({-kInf, -kInf}), -kInf);
  EXPECT_EQ(lse({-kInf, 2}), 2);
  EXPECT_EQ(lse({kInf, 2}), kInf);
  EXPECT_TRUE(std::isnan(lse({kNan, 2})));
  EXPECT_TRUE(std::isnan(lse({2, kNan, 3})));
  Tensor x = tensor({-kInf, -kInf, 0.0, -kInf}, {2, 2}).requires_grad_();
  sum(logsumexp(x, {1})).backward();
  EXPECT_EQ(x.grad().to_vector<double>(), (std::vector<double>{0, 0, 1, 0}));
}

TEST(Reduce, ExtremaMatchPlainLoops) {
  manual_seed(3);
  for (const Shape& shape : {Shape{1}, Shape{50}, Shape{4, 50}, Shape{50, 4}, Shape{3, 4, 5}, Shape{200, 150}}) {
    for (DType dtype : {f64, f32, bf16, i64, i32, i8, u8}) {
      const Tensor base = cast(randint(0, 20, shape), dtype);  // few values: ties everywhere
      for (const auto& [layout, x] : layouts(base)) {
        for (int64_t d = 0; d < shape.ndim(); ++d) {
          const std::string what = str(shape, " ", layout, " ", dtype, " dim ", d);
          const Reference want = group(base, 1u << d, false);
          const auto [top, top_at] = max_with_indices(x, d);
          const auto [low, low_at] = min_with_indices(x, d - shape.ndim());
          ASSERT_EQ(top.shape(), want.shape) << what;
          EXPECT_EQ(top.dtype(), dtype);
          const auto a = top.to_vector<double>(), b = low.to_vector<double>();
          const auto ai = top_at.to_vector<int64_t>(), bi = low_at.to_vector<int64_t>();
          for (size_t i = 0; i < a.size(); ++i) {
            const auto& g = want.groups[i];
            const auto hi = std::max_element(g.begin(), g.end()), lo = std::min_element(g.begin(), g.end());
            EXPECT_EQ(a[i], *hi) << what;
            EXPECT_EQ(ai[i], hi - g.begin()) << what;  // max_element, too, gives the first
            EXPECT_EQ(b[i], *lo) << what;
            EXPECT_EQ(bi[i], lo - g.begin()) << what;
          }
          EXPECT_TRUE(equal(argmax(x, d), top_at));
          EXPECT_TRUE(equal(argmin(x, d, true), unsqueeze(low_at, d)));
          EXPECT_TRUE(equal(max(x, d, true), unsqueeze(top, d)));
        }
        const auto all = base.to_vector<double>();
        EXPECT_EQ(argmax(x).item<int64_t>(), std::max_element(all.begin(), all.end()) - all.begin());
        EXPECT_EQ(argmin(x).item<int64_t>(), std::min_element(all.begin(), all.end()) - all.begin());
        EXPECT_EQ(max(x).item(), *std::max_element(all.begin(), all.end()));
      }
    }
  }
}

TEST(Reduce, NanAndInfinityInExtrema) {
  std::vector<double> v(100, 1);
  v[3] = kInf;
  v[40] = kNan;
  v[77] = kNan;
  v[90] = -kInf;
  const Tensor x = tensor(v);
  EXPECT_EQ(argmax(x).item<int64_t>(), 40);
  EXPECT_EQ(argmin(x).item<int64_t>(), 40);
  EXPECT_TRUE(std::isnan(max(x).item()));
  EXPECT_EQ(argmax(tensor({-kInf, -kInf})).item<int64_t>(), 0);
  EXPECT_EQ(max(tensor({-kInf, -kInf})).item(), -kInf);
  EXPECT_EQ(argmin(full({40}, 1, boolean)).item<int64_t>(), 0);
}

TEST(Reduce, MaxSendsItsGradientToTheFirstOfEquals) {
  Tensor x = tensor({1.0, 5.0, 5.0, 2.0}, {2, 2}).requires_grad_();
  max(x).backward();
  EXPECT_EQ(x.grad().to_vector<double>(), (std::vector<double>{0, 1, 0, 0}));
  Tensor y = tensor({5.0, 5.0, 2.0, 3.0}, {2, 2}).requires_grad_();
  sum(max(y, 1) * tensor({2.0, 3.0})).backward();
  EXPECT_EQ(y.grad().to_vector<double>(), (std::vector<double>{2, 0, 0, 3}));
}

using Fn = GradCheckFn;
void check_both(const Fn& f, const std::vector<Tensor>& in) {
  gradcheck(f, in);
  gradgradcheck(f, in);
}
TEST(Reduce, Gradients) {
  manual_seed(4);
  Tensor x = randn({3, 2, 4}, f64).requires_grad_();
  for (const Shape& dims : {Shape{}, Shape{1}, Shape{-1, 0}}) {
    for (bool keep : {false, true}) {
      check_both([&](auto& v) { return std::vector<Tensor>{sum(tanh(v[0]), dims, keep)}; }, {x});
      check_both([&](auto& v) { return std::vector<Tensor>{mean(tanh(v[0]), dims, keep)}; }, {x});
      check_both([&](auto& v) { return std::vector<Tensor>{var(v[0], dims, {.unbiased = keep, .keepdim = keep})}; },
                 {x});
      check_both([&](auto& v) { return std::vector<Tensor>{logsumexp(v[0], dims, keep)}; }, {x});
    }
  }
  check_both([](auto& v) { return std::vector<Tensor>{max(tanh(v[0])), min(tanh(v[0]))}; }, {x});
  check_both([](auto& v) { return std::vector<Tensor>{max(tanh(v[0]), 1), min(tanh(v[0]), -1, true)}; }, {x});
  Tensor s = scalar(0.5, f64).requires_grad_();
  check_both(
      [](auto& v) {
        return std::vector<Tensor>{sum(tanh(v[0])), logsumexp(v[0]), max(tanh(v[0])), mean(tanh(v[0]), {0})};
      },
      {s});
}

TEST(Reduce, SumToUndoesEveryBroadcast) {
  manual_seed(5);
  const Tensor g = randn({2, 3, 4}, f64);
  for (const Shape& to : {Shape{2, 3, 4}, Shape{3, 4}, Shape{4}, Shape{}, Shape{1}, Shape{1, 4}, Shape{3, 1},
                          Shape{2, 1, 1}, Shape{1, 3, 1}}) {
    const Tensor s = detail::sum_to(g, to);
    ASSERT_EQ(s.shape(), to);
    // <sum_to(g), y> = <g, expand(y)> for every y.
    const Tensor y = randn(to, f64);
    EXPECT_NEAR(sum(s * y).item(), sum(g * expand(y, g.shape())).item(), 1e-12) << to_string(to);
  }
  EXPECT_THROW(detail::sum_to(g, {2}), ShapeError);
  EXPECT_THROW(detail::sum_to(g, {1, 2, 3, 4}), ShapeError);
}

TEST(Reduce, Errors) {
  const Tensor x = ones({2, 3});
  EXPECT_THROW(sum(x, {2}), ShapeError);
  EXPECT_THROW(sum(x, {0, -2}), ShapeError);
  EXPECT_THROW(max(x, 2), ShapeError);
  EXPECT_THROW(argmax(x, -3), ShapeError);
  try {
    sum(x, {5});
    FAIL();
  } catch (const ShapeError& e) {
    EXPECT_NE(std::string(e.what()).find("sum"), std::string::npos) << e.what();
    EXPECT_NE(std::string(e.what()).find("5"), std::string::npos) << e.what();
  }
}
}  // namespace
}  // namespace hone
