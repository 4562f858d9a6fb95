#include "hone/hone.h"

#include <gtest/gtest.h>

#include <cmath>

#include "layouts.h"
#include "support.h"

namespace hone {
namespace {
using test::expect_error;
using test::layouts;
using test::ravel;
using test::same_at_any_thread_count;
using test::unravel;

// Operands of at least two dims, their batch dims broadcast.
std::vector<double> plain_matmul(const Tensor& a, const Tensor& b, Shape* shape) {
  const int64_t n = a.size(-2), k = a.size(-1), m = b.size(-1);
  const int batch = static_cast<int>(std::max(a.ndim(), b.ndim())) - 2;
  Shape out;
  for (int d = 0; d < batch; ++d) {
    const int64_t da = d - (batch + 2 - a.ndim()), db = d - (batch + 2 - b.ndim());
    const int64_t sa = da >= 0 ? a.shape()[da] : 1, sb = db >= 0 ? b.shape()[db] : 1;
    out.push_back(sa == 1 ? sb : sa);
  }
  out.push_back(n);
  out.push_back(m);
  const auto x = a.to_vector<double>(), y = b.to_vector<double>();
  std::vector<double> z(static_cast<size_t>(out.numel()));
  for (size_t i = 0; i < z.size(); ++i) {
    const auto at = unravel(static_cast<int64_t>(i), out);
    const auto operand = [&](const Tensor& t, int64_t row, int64_t col) {
      std::vector<int64_t> index;
      for (int64_t d = 0; d < t.ndim() - 2; ++d) {
        index.push_back(t.shape()[d] == 1 ? 0 : at[static_cast<size_t>(d + batch + 2 - t.ndim())]);
      }
      index.push_back(row);
      index.push_back(col);
      return static_cast<size_t>(ravel(index, t.shape()));
    };
    for (int64_t p = 0; p < k; ++p) {
      z[i] += x[operand(a, at[static_cast<size_t>(batch)], p)] * y[operand(b, p, at[static_cast<size_t>(batch) + 1])];
    }
  }
  *shape = out;
  return z;
}
void expect_near(const Tensor& got, const std::vector<double>& want, const Shape& shape, const std::string& what) {
  ASSERT_EQ(got.shape(), shape) << what;
  const double tol = got.dtype() == f64 ? 1e-12 : got.dtype() == f32 ? 1e-5 : got.dtype() == bf16 ? 1e-2 : 0;
  const auto v = got.to_vector<double>();
  for (size_t i = 0; i < v.size(); ++i)
    ASSERT_NEAR(v[i], want[i], tol * (10 + std::abs(want[i]))) << what << " at " << i;
}

TEST(Matmul, MatchesPlainLoopsForEveryLayoutAndDtype) {
  manual_seed(1);
  const std::vector<std::pair<Shape, Shape>> cases = {{{3, 4}, {4, 5}},          {{1, 1}, {1, 1}},
                                                      {{1, 7}, {7, 1}},          {{7, 1}, {1, 7}},
                                                      {{64, 40}, {40, 12}},      {{2, 3, 4}, {4, 5}},
                                                      {{2, 3, 4}, {2, 4, 5}},    {{3, 4}, {2, 4, 5}},
                                                      {{2, 1, 3, 4}, {3, 4, 2}}, {{5, 1, 2, 3}, {1, 4, 3, 2}},
                                                      {{0, 4}, {4, 5}},          {{3, 0}, {0, 5}},
                                                      {{3, 4}, {4, 0}},          {{0, 3, 4}, {4, 5}},
                                                      {{2, 1, 4}, {2, 4, 1}},    {{130, 130}, {130, 130}}};
  for (const auto& [sa, sb] : cases) {
    for (DType dtype : {f64, f32, bf16, i64, i32}) {
      const Tensor a0 = is_floating(dtype) ? cast(randn(sa, f64), dtype) : cast(randint(-9, 10, sa), dtype);
      const Tensor b0 = is_floating(dtype) ? cast(randn(sb, f64), dtype) : cast(randint(-9, 10, sb), dtype);
      Shape shape;
      const auto want = plain_matmul(a0, b0, &shape);
      for (const auto& [la, a] : layouts(a0)) {
        for (const auto& [lb, b] : layouts(b0)) {
          expect_near(matmul(a, b), want, shape, str(sa, " ", la, " by ", sb, " ", lb, " ", dtype));
        }
      }
      // Transposed as gemm can take it: the last two dims swapped in memory.
      expect_near(matmul(transpose(clone(transpose(a0))), transpose(clone(transpose(b0)))), want, shape, "swapped");
    }
  }
}

TEST(Matmul, VectorsCountAsRowsAndColumns) {
  const Tensor v = tensor({1.0, 2.0, 3.0}), m = reshape(cast(arange(0, 12), f64), {3, 4});
  EXPECT_EQ(matmul(v, v).shape(), Shape{});
  EXPECT_EQ(matmul(v, v).item(), 14);
  EXPECT_EQ(matmul(v, m).to_vector<double>(), (std::vector<double>{32, 38, 44, 50}));
  EXPECT_EQ(matmul(transpose(m), v).to_vector<double>(), (std::vector<double>{32, 38, 44, 50}));
  EXPECT_EQ(matmul(ones({2, 5, 4, 3}, f64), v).shape(), (Shape{2, 5, 4}));
  EXPECT_EQ(matmul(v, ones({2, 5, 3, 4}, f64)).shape(), (Shape{2, 5, 4}));
}

TEST(Matmul, BroadcastOperands) {
  manual_seed(2);
  const Tensor row = randn({1, 6}, f64), b = randn({6, 3}, f64);
  Shape shape;
  const auto want = plain_matmul(clone(expand(row, {5, 6})), b, &shape);
  expect_near(matmul(expand(row, {5, 6}), b), want, shape, "rows of stride 0");
  const Tensor column = randn({5, 1}, f64);
  const auto want2 = plain_matmul(clone(expand(column, {5, 6})), b, &shape);
  expect_near(matmul(expand(column, {5, 6}), b), want2, shape, "columns of stride 0");
  const Tensor batch = expand(randn({1, 4, 6}, f64), {3, 4, 6});
  const auto want3 = plain_matmul(clone(batch), b, &shape);
  expect_near(matmul(batch, b), want3, shape, "a batch of stride 0");
}

TEST(Linear, MatchesMatmulPlusBias) {
  manual_seed(3);
  for (const Shape& sx : {Shape{5}, Shape{7, 5}, Shape{2, 3, 5}, Shape{0, 5}, Shape{64, 5}}) {
    for (DType dtype : {f64, f32, bf16}) {
      const Tensor x0 = cast(randn(sx, f64), dtype), w0 = cast(randn({4, 5}, f64), dtype),
                   b0 = cast(randn({4}, f64), dtype);
      const Tensor rows = reshape(x0, {sx.numel() / 5, 5});
      Shape shape;
      const auto plain = plain_matmul(rows, transpose(w0), &shape);
      const auto bias = b0.to_vector<double>();
      auto biased = plain;
      for (size_t i = 0; i < biased.size(); ++i) biased[i] += bias[i % 4];
      Shape out = sx;
      out[out.ndim() - 1] = 4;
      for (const auto& [lx, x] : layouts(x0)) {
        for (const auto& [lw, w] : layouts(w0)) {
          for (const auto& [lb, b] : layouts(b0)) {
            expect_near(linear(x, w, b), biased, out, str(sx, " ", lx, " ", lw, " ", lb, " ", dtype));
          }
          expect_near(linear(x, w), plain, out, str(sx, " ", lx, " ", lw, " ", dtype));
        }
      }
    }
  }
  // No features: the bias alone.
  EXPECT_EQ(linear(ones({2, 0}), ones({3, 0}), tensor({1.f, 2.f, 3.f})).to_vector<double>(),
            (std::vector<double>{1, 2, 3, 1, 2, 3}));
  EXPECT_EQ(linear(ones({2, 0}), ones({3, 0})).to_vector<double>(), std::vector<double>(6, 0));
}

void check_both(const GradCheckFn& f, const std::vector<Tensor>& in) {
  gradcheck(f, in);
  gradgradcheck(f, in);
}
Tensor param(const Shape& s) { return randn(s, f64).requires_grad_(); }

TEST(Matmul, Gradients) {
  manual_seed(4);
  const GradCheckFn f = [](auto& v) { return std::vector<Tensor>{matmul(v[0], v[1])}; };
  check_both(f, {param({3, 4}), param({4, 2})});
  check_both(f, {param({2, 3, 4}), param({4, 2})});
  check_both(f, {param({3, 4}), param({2, 4, 2})});
  check_both(f, {param({2, 1, 2, 3}), param({3, 3, 2})});
  check_both(f, {param({3}), param({3})});
  check_both(f, {param({3}), param({2, 3, 2})});
  check_both(f, {param({2, 2, 3}), param({3})});
  check_both([](auto& v) { return std::vector<Tensor>{matmul(transpose(v[0]), transpose(v[1]))}; },
             {param({4, 3}), param({2, 4})});
}

TEST(Linear, Gradients) {
  manual_seed(5);
  const GradCheckFn f = [](auto& v) { return std::vector<Tensor>{linear(v[0], v[1], v[2])}; };
  check_both(f, {param({3, 4}), param({2, 4}), param({2})});
  check_both(f, {param({2, 3, 4}), param({2, 4}), param({2})});
  check_both(f, {param({4}), param({2, 4}), param({2})});
  check_both([](auto& v) { return std::vector<Tensor>{linear(v[0], v[1])}; }, {param({3, 4}), param({2, 4})});
  check_both(f, {randn({3, 4}, f64), param({2, 4}), param({2})});  // data needs no gradient
}

TEST(Linear, EmptyBatchesHaveZeroGradients) {
  Tensor x = empty({0, 4}).requires_grad_(), w = ones({3, 4}).requires_grad_(), b = ones({3}).requires_grad_();
  sum(linear(x, w, b)).backward();
  EXPECT_EQ(x.grad().shape(), (Shape{0, 4}));
  EXPECT_EQ(w.grad().to_vector<double>(), std::vector<double>(12, 0));
  EXPECT_EQ(b.grad().to_vector<double>(), std::vector<double>(3, 0));
  Tensor w0 = ones({3, 0}).requires_grad_();
  sum(linear(ones({2, 0}), w0)).backward();
  EXPECT_EQ(w0.grad().shape(), (Shape{3, 0}));
}

// What is not needed is not computed: the ops of a backward pass are counted.
struct Counter : OpRecorder {
  int products = 0;
  void record(const OpDef& op, const Attrs&, std::span<const Tensor>, const Outputs&) override {
    products += &op == &kMatmul;
  }
};
TEST(Linear, ComputesOnlyTheGradientsNeeded) {
  Tensor w = ones({3, 4}).requires_grad_();
  const Tensor y = sum(linear(ones({2, 4}), w, ones({3})));
  Counter counter;
  RecorderScope scope(&counter);
  y.backward();
  EXPECT_EQ(counter.products, 1);
}

TEST(Matmul, SameBitsAtAnyThreadCount) {
  manual_seed(6);
  const Tensor a = randn({64, 400}), w = randn({120, 400}), bias = randn({120}), big = randn({300, 300});
  EXPECT_TRUE(same_at_any_thread_count([&] { return linear(a, w, bias); }));
  EXPECT_TRUE(same_at_any_thread_count([&] { return matmul(big, big); }));
  const Tensor batch = randn({17, 20, 30}), other = randn({17, 30, 10});
  EXPECT_TRUE(same_at_any_thread_count([&] { return matmul(batch, other); }));
}

TEST(Matmul, CountsMultiplyAdds) {
  const auto views = [](std::initializer_list<Tensor> t) {
    std::vector<View> v;
    for (const Tensor& x : t) v.push_back(x.view());
    return v;
  };
  const Tensor a = ones({2, 3, 4}), b = ones({4, 5}), x = ones({7, 4}), w = ones({5, 4});
  EXPECT_EQ(kMatmul.macs(views({a, b}), views({matmul(a, b)}), Attrs()), 2 * 3 * 4 * 5);
  EXPECT_EQ(kLinear.macs(views({x, w}), views({linear(x, w)}), Attrs()), 7 * 4 * 5);
}

// Large enough that rows are split over threads, in both layouts of each operand.
TEST(Matmul, LargeIntegers) {
  manual_seed(4);
  const Tensor a = randint(-50, 50, {2, 157, 131}), b = randint(-50, 50, {131, 127});
  const Tensor want = matmul(cast(a, f64), cast(b, f64));
  for (const DType dtype : {i64, i32}) {
    const Tensor x = cast(a, dtype), y = cast(b, dtype);
    const Tensor xt = transpose(contiguous(transpose(x))), yt = transpose(contiguous(transpose(y)));
    EXPECT_TRUE(equal(cast(matmul(x, y), f64), want));
    EXPECT_TRUE(equal(cast(matmul(xt, yt), f64), want));
  }
}

TEST(Matmul, IntegersWrap) {
  EXPECT_EQ(matmul(full({1, 3}, 100, i8), full({3, 1}, 2, i8)).item<int64_t>(), static_cast<int8_t>(600 & 255));
  EXPECT_EQ(matmul(full({1, 3}, 100, u8), full({3, 1}, 2, u8)).item<int64_t>(), 600 & 255);
}

TEST(Matmul, Errors) {
  expect_error<ShapeError>([] { matmul(ones({3, 4}), ones({5, 4})); }, {"matmul", "[3, 4]", "[5, 4]"});
  expect_error<ShapeError>([] { matmul(ones({3}), ones({5, 4})); }, {"matmul", "[3]", "[5, 4]"});
  expect_error<ShapeError>([] { matmul(ones({2, 3, 4}), ones({3, 4, 5})); }, {"matmul"});
  EXPECT_THROW(matmul(scalar(1), ones({2, 2})), ShapeError);
  EXPECT_THROW(matmul(ones({2, 2}), ones({2, 2}, f64)), DTypeError);
  EXPECT_THROW(matmul(ones({2, 2}, boolean), ones({2, 2}, boolean)), DTypeError);
  EXPECT_THROW(matmul({}, ones({2, 2})), ValueError);
  expect_error<ShapeError>([] { linear(ones({3, 4}), ones({2, 5})); }, {"linear", "[3, 4]", "[2, 5]"});
  expect_error<ShapeError>([] { linear(ones({3, 4}), ones({2, 4}), ones({3})); }, {"linear", "[3]", "[2, 4]"});
  EXPECT_THROW(linear(ones({3, 4}), ones({4})), ShapeError);
  EXPECT_THROW(linear(ones({3, 4}, i64), ones({2, 4}, i64)), DTypeError);
  EXPECT_THROW(linear(scalar(1), ones({2, 4})), ShapeError);
}
}  // namespace
}  // namespace hone
