// Elementwise functions: values against <cmath> in long double, every SIMD target, dtype and layout, derivatives,
// threads, errors.

#include <gtest/gtest.h>
#include <hwy/highway.h>

#include <algorithm>
#include <cmath>
#include <functional>
#include <limits>

#include "hone/hone.h"
#include "hone/ops/simd/pointwise.h"
#include "support.h"

namespace hone {
namespace {

using test::expect_error;

using Real = long double;
using Fn = std::function<Tensor(const Tensor&)>;
constexpr double kInf = std::numeric_limits<double>::infinity();

/// Runs a body on every SIMD target that this machine supports and Hone is compiled for.
template <class F> void on_every_target(F&& body) {
  for (int64_t target : {int64_t{HWY_AVX3}, int64_t{HWY_AVX2}, int64_t{HWY_NEON}, int64_t{HWY_SCALAR}}) {
    hwy::SetSupportedTargetsForTest(0);
    if (target != HWY_SCALAR && !(hwy::SupportedTargets() & target)) continue;
    hwy::SetSupportedTargetsForTest(target);
    hwy::GetChosenTarget().Update(hwy::SupportedTargets());
    SCOPED_TRACE(hwy::TargetName(target));
    body();
  }
  hwy::SetSupportedTargetsForTest(0);
  hwy::GetChosenTarget().Update(hwy::SupportedTargets());
}

/// What breaks approximations: zeros of both signs, infinities, NaN, subnormals, extremes, halves, kinks, the ends of
/// the ranges where exp overflows and vanishes and erf and tanh saturate, then random values of several scales.
template <class T> std::vector<T> adversarial() {
  using L = std::numeric_limits<T>;
  std::vector<T> v;
  for (T x : {T{0},     L::denorm_min(), L::min() / 2, L::min(),      L::epsilon(), T{1e-4},      T{0.5},   T{1},
              T{1.5},   T{2.5},          T{3},         T{0.99999994}, T{3.9},       T{4.1},       T{5.9},   T{6.1},
              T{9.1},   T{20},           T{87.33},     T{88.72},      T{88.73},     T{103.9},     T{104.1}, T{708.3},
              T{709.7}, T{709.9},        T{745.2},     T{8388609.5},  L::max(),     L::infinity()})
    v.insert(v.end(), {x, -x});
  v.push_back(L::quiet_NaN());
  Philox random{11, 0};
  for (uint64_t i = 0; i < 6000; ++i) {
    const double u = 2 * uniform_f64(random.word(2 * i), random.word(2 * i + 1)) - 1;
    for (double scale : {1e-3, 1.0, 8.0, 100.0}) v.push_back(static_cast<T>(u * scale));
  }
  return v;
}

struct UnaryRow {
  const char* name;
  Fn f;
  Real (*reference)(Real);
  double ulps;         ///< error allowed in units in the last place of the result
  double of_x = 0;     ///< plus this many epsilons of x: results that are differences near |x|
  double tiny = 0;     ///< plus this many of the least normal number: where an intermediate overflows
  double low = -kInf;  ///< the domain whose derivatives are checked
};

Real gelu_tanh_reference(Real x) {
  return x / 2 * (1 + std::tanh(std::sqrt(2 / 3.14159265358979323846L) * (x + 0.044715L * x * x * x)));
}

const std::vector<UnaryRow>& unary_rows() {
  static const std::vector<UnaryRow> rows = {
      {"abs", abs, [](Real x) { return std::fabs(x); }, 0},
      {"sign", sign, [](Real x) -> Real { return x > 0   ? 1
                                                 : x < 0 ? -1
                                                         : 0; }, 0},
      {"exp", exp, [](Real x) { return std::exp(x); }, 1.1},
      {"log", log, [](Real x) { return std::log(x); }, 1, 0, 0, 0.1},
      {"sqrt", sqrt, [](Real x) { return std::sqrt(x); }, 0.51, 0, 0, 0.1},
      {"rsqrt", rsqrt, [](Real x) { return 1 / std::sqrt(x); }, 1.6, 0, 0, 0.1},
      {"square", square, [](Real x) { return x * x; }, 0.51},
      {"tanh", tanh, [](Real x) { return std::tanh(x); }, 3},
      {"sigmoid", sigmoid, [](Real x) { return 1 / (1 + std::exp(-x)); }, 3, 0, 2},
      {"erf", erf, [](Real x) { return std::erf(x); }, 2},
      {"relu", [](const Tensor& x) { return relu(x); }, [](Real x) { return x < 0 ? 0 : x; }, 0},
      {"leaky_relu", [](const Tensor& x) { return leaky_relu(x, 0.25); }, [](Real x) { return x > 0 ? x : x / 4; },
       0.51},
      {"gelu", [](const Tensor& x) { return gelu(x); },
       [](Real x) { return x * (0.5L + 0.5L * std::erf(x * std::sqrt(0.5L))); }, 4, 1},
      {"gelu_tanh", [](const Tensor& x) { return gelu(x, Gelu::tanh); }, gelu_tanh_reference, 6, 2},
      {"silu", silu, [](Real x) { return x / (1 + std::exp(-x)); }, 3, 0, 1024},
      {"clamp", [](const Tensor& x) { return clamp(x, -0.5, 2); },
       [](Real x) { return x < -0.5L ? -0.5L
                           : x > 2   ? 2
                                     : x; }, 0},
      {"round", round, [](Real x) { return std::nearbyint(x); }, 0},
      {"floor", floor, [](Real x) { return std::floor(x); }, 0},
      {"ceil", ceil, [](Real x) { return std::ceil(x); }, 0},
      {"neg", neg, [](Real x) { return -x; }, 0},
  };
  return rows;
}

template <class T> void check_values(const UnaryRow& row) {
  using L = std::numeric_limits<T>;
  const std::vector<T> x = adversarial<T>(), y = row.f(tensor<T>(x)).template to_vector<T>();
  for (size_t i = 0; i < x.size(); ++i) {
    const Real want = row.reference(static_cast<Real>(x[i]));
    const T rounded = static_cast<T>(want);
    if (std::isnan(rounded)) {
      ASSERT_TRUE(std::isnan(y[i])) << row.name << "(" << x[i] << ") = " << y[i];
    } else if (std::isinf(rounded)) {
      ASSERT_EQ(y[i], rounded) << row.name << "(" << x[i] << ")";
    } else {
      const T size = std::fabs(rounded);
      const Real ulp =
          size == L::max() ? size - std::nextafter(size, T{0}) : std::nextafter(size, L::infinity()) - size;
      const Real allowed = row.ulps * ulp +
                           (row.of_x ? row.of_x * L::epsilon() * std::fabs(static_cast<Real>(x[i])) : 0) +
                           row.tiny * L::min();
      ASSERT_LE(std::fabs(static_cast<Real>(y[i]) - want), allowed)
          << row.name << "(" << x[i] << ") = " << y[i] << ", not " << rounded;
    }
  }
}

TEST(Pointwise, UnaryValuesOnEveryTarget) {
  on_every_target([] {
    for (const UnaryRow& row : unary_rows()) {
      check_values<float>(row);
      check_values<double>(row);
    }
  });
}

TEST(Pointwise, TargetsHaveKernelsOfTheirOwn) {
  std::vector<ElementwiseKernel> seen;
  on_every_target([&] {
    const auto kernel = detail::simd_unary_kernel(detail::Unary::exp, 0, false);
    EXPECT_EQ(std::count(seen.begin(), seen.end(), kernel), 0);
    seen.push_back(kernel);
  });
  EXPECT_GE(seen.size(), 1u);
}

TEST(Pointwise, UnaryBfloat16ComputesInFloat) {
  std::vector<BFloat16> x;
  for (uint32_t bits = 0; bits < 65536; bits += 7) {
    BFloat16 v;
    v.bits = static_cast<uint16_t>(bits);
    x.push_back(v);
  }
  const Tensor narrow = tensor<BFloat16>(x);
  for (const UnaryRow& row : unary_rows()) {
    const Tensor y = row.f(narrow);
    EXPECT_EQ(y.dtype(), bf16);
    EXPECT_TRUE(equal(y, cast(row.f(cast(narrow, f32)), bf16))) << row.name;
  }
}

template <class T> void check_integers() {
  std::vector<T> x = {std::numeric_limits<T>::min(), std::numeric_limits<T>::max(), 0, 1, 2, 3, 100};
  if (std::is_signed_v<T>)
    for (int v : {-1, -2, -100}) x.push_back(static_cast<T>(v));
  using U = std::make_unsigned_t<T>;
  const auto check = [&](const char* name, const Tensor& y, auto reference) {
    ASSERT_EQ(y.dtype(), dtype_of<T>);
    const auto got = y.template to_vector<T>();
    for (size_t i = 0; i < x.size(); ++i) EXPECT_EQ(got[i], static_cast<T>(reference(x[i]))) << name << " " << +x[i];
  };
  const Tensor t = tensor<T>(x);
  check("abs", abs(t), [](T v) { return v < 0 ? U{0} - static_cast<U>(v) : static_cast<U>(v); });
  check("neg", neg(t), [](T v) { return U{0} - static_cast<U>(v); });
  check("sign", sign(t), [](T v) { return v > 0 ? 1 : v < 0 ? -1 : 0; });
  check("square", square(t), [](T v) { return static_cast<uint64_t>(v) * static_cast<uint64_t>(v); });
  check("relu", relu(t), [](T v) { return v > 0 ? v : 0; });
  check("clamp", clamp(t, 1, 50), [](T v) { return v < 1 ? 1 : v > 50 ? 50 : v; });
  check("clamp", clamp(t, -kInf, kInf), [](T v) { return v; });
  check("round", round(t), [](T v) { return v; });
  check("floor", floor(t), [](T v) { return v; });
  EXPECT_THROW(exp(t), DTypeError);

  for (T b : x) {
    const Tensor s = tensor<T>(std::vector<T>(x.size(), b));
    check("add", add(t, s), [b](T v) { return static_cast<uint64_t>(v) + static_cast<uint64_t>(b); });
    check("sub", sub(t, s), [b](T v) { return static_cast<uint64_t>(v) - static_cast<uint64_t>(b); });
    check("mul", mul(t, s), [b](T v) { return static_cast<uint64_t>(v) * static_cast<uint64_t>(b); });
    check("maximum", maximum(t, s), [b](T v) { return std::max(v, b); });
    check("minimum", minimum(t, s), [b](T v) { return std::min(v, b); });
    if (b == 0) {
      EXPECT_THROW(div(t, s), ValueError);
    } else {
      check("div", div(t, s), [b](T v) -> __int128 { return static_cast<__int128>(v) / b; });
    }
    if (b >= 0 && b <= 3)
      check("pow", pow(t, s), [b](T v) {
        uint64_t p = 1;
        for (T k = 0; k < b; ++k) p *= static_cast<uint64_t>(v);
        return p;
      });
    if (b < 0) { EXPECT_THROW(pow(t, s), ValueError); }
    const auto less = lt(t, s).template to_vector<bool>(), same = eq(t, s).template to_vector<bool>();
    for (size_t i = 0; i < x.size(); ++i) {
      EXPECT_EQ(less[i], x[i] < b);
      EXPECT_EQ(same[i], x[i] == b);
    }
  }
}

TEST(Pointwise, IntegersWrapAndTruncate) {
  check_integers<int64_t>();
  check_integers<int32_t>();
  check_integers<int8_t>();
  check_integers<uint8_t>();
}

bool same_value(double a, double b) { return std::isnan(a) ? std::isnan(b) : a == b; }

template <class T> void check_binary() {
  using L = std::numeric_limits<T>;
  const std::vector<T> values = {
      T{0},     -T{0},     T{1},          -T{1},          T{2},          -T{2},           T{3},
      T{0.5},   -T{0.5},   T{2.7},        T{-3.1},        L::min(),      L::denorm_min(), -L::min(),
      L::max(), -L::max(), L::infinity(), -L::infinity(), L::quiet_NaN()};
  std::vector<T> a, b;
  for (T x : values)
    for (T y : values) {
      a.push_back(x);
      b.push_back(y);
    }
  const Tensor ta = tensor<T>(a), tb = tensor<T>(b);
  const auto check = [&](const char* name, const Tensor& y, auto reference) {
    const auto got = y.template to_vector<double>();
    for (size_t i = 0; i < a.size(); ++i)
      ASSERT_TRUE(same_value(got[i], static_cast<double>(reference(a[i], b[i]))))
          << name << "(" << a[i] << ", " << b[i] << ") = " << got[i];
  };
  const auto either_nan = [](T x, T y) { return std::isnan(x) || std::isnan(y); };
  check("add", ta + tb, [](T x, T y) { return x + y; });
  check("sub", ta - tb, [](T x, T y) { return x - y; });
  check("mul", ta * tb, [](T x, T y) { return x * y; });
  check("div", ta / tb, [](T x, T y) { return x / y; });
  check("pow", pow(ta, tb), [](T x, T y) { return std::pow(x, y); });
  check("maximum", maximum(ta, tb), [&](T x, T y) { return either_nan(x, y) ? L::quiet_NaN() : std::max(x, y); });
  check("minimum", minimum(ta, tb), [&](T x, T y) { return either_nan(x, y) ? L::quiet_NaN() : std::min(x, y); });
  check("eq", eq(ta, tb), [](T x, T y) { return x == y; });
  check("ne", ne(ta, tb), [](T x, T y) { return x != y; });
  check("lt", lt(ta, tb), [](T x, T y) { return x < y; });
  check("le", le(ta, tb), [](T x, T y) { return x <= y; });
  check("gt", gt(ta, tb), [](T x, T y) { return x > y; });
  check("ge", ge(ta, tb), [](T x, T y) { return x >= y; });
  check("where", where(lt(ta, tb), ta, tb), [](T x, T y) { return x < y ? x : y; });
  check("masked_fill", masked_fill(ta, gt(ta, tb), 7), [](T x, T y) { return x > y ? 7 : x; });
}

TEST(Pointwise, BinaryValuesOnEveryTarget) {
  on_every_target([] {
    check_binary<float>();
    check_binary<double>();
  });
  const Tensor a = cast(randn({501}), bf16), b = cast(randn({501}), bf16);
  const Tensor wide = div(cast(a, f32), cast(b, f32));
  EXPECT_TRUE(equal(div(a, b), cast(wide, bf16)));
  EXPECT_TRUE(equal(gt(a, b), gt(cast(a, f32), cast(b, f32))));
}

TEST(Pointwise, WhereOfEveryDtype) {
  const Tensor condition = gt(randn({3, 41}), 0);
  for (DType d : {f64, f32, bf16, i64, i32, i8, u8, boolean}) {
    const Tensor a = cast(randint(0, 2, {3, 41}), d), b = cast(randint(0, 2, {41}), d);
    const auto c = condition.to_vector<bool>();
    const auto va = a.to_vector<double>(), vb = b.to_vector<double>(), y = where(condition, a, b).to_vector<double>();
    for (size_t i = 0; i < y.size(); ++i) EXPECT_EQ(y[i], c[i] ? va[i] : vb[i % 41]) << name(d);
  }
}

TEST(Pointwise, Logic) {
  const Tensor a = tensor<bool>({false, false, true, true}), b = tensor<bool>({false, true, false, true});
  EXPECT_EQ(logical_and(a, b).to_vector<bool>(), (std::vector<bool>{false, false, false, true}));
  EXPECT_EQ(logical_or(a, b).to_vector<bool>(), (std::vector<bool>{false, true, true, true}));
  EXPECT_EQ(logical_not(a).to_vector<bool>(), (std::vector<bool>{true, true, false, false}));
  EXPECT_EQ(eq(a, b).to_vector<bool>(), (std::vector<bool>{true, false, false, true}));
}

// The same elements in every layout give the same bits, whatever path the driver takes.
std::vector<Tensor> layouts(DType d) {
  const auto make = [d](const Shape& s) { return is_floating(d) ? cast(randn(s), d) : cast(randint(1, 90, s), d); };
  return {make({3, 5, 7}),
          transpose(make({5, 9})),
          permute(make({4, 3, 6}), {2, 0, 1}),
          slice(make({6, 50}), 1, 3, 48, 3),
          slice(make({300, 10}), 0, 1, 299, 2),
          slice(make({7, 700}), 1, 11, 690),
          expand(make({5, 1, 7}), {5, 6, 7}),
          expand(make({1, 900}), {40, 900}),
          expand(make({60, 1}), {60, 300}),
          make({}),
          expand(make({}), {3000}),
          make({0, 4}),
          transpose(make({600, 130})),
          make({100003})};
}

TEST(Pointwise, LayoutsAndDtypesAgreeWithContiguous) {
  for (DType d : {f64, f32, bf16, i64, i32, i8, u8}) {
    for (const Tensor& x : layouts(d)) {
      SCOPED_TRACE(str(name(d), " ", x.shape(), " strides ", x.strides()));
      const Tensor flat = clone(x);
      for (const UnaryRow& row : unary_rows()) {
        if (!is_floating(d) && std::string(row.name) != "relu" && std::string(row.name) != "neg") continue;
        const Tensor y = row.f(x);
        EXPECT_TRUE(y.is_contiguous());
        ASSERT_TRUE(equal(y, row.f(flat))) << row.name;
      }
      const Tensor other = x.ndim() == 2 ? contiguous(transpose(contiguous(transpose(x)))) : flat;
      ASSERT_TRUE(equal(sub(x, other), sub(flat, flat)));
      ASSERT_TRUE(equal(mul(x, 3), mul(flat, full_like(flat, 3))));
      ASSERT_TRUE(equal(lt(x, 2), lt(flat, full_like(flat, 2))));
    }
  }
}

TEST(Pointwise, BroadcastsAgainstPlainLoops) {
  const std::vector<std::pair<Shape, Shape>> cases = {{{4, 3}, {3}},
                                                      {{4, 3}, {4, 1}},
                                                      {{4, 1}, {1, 3}},
                                                      {{2, 3, 1, 5}, {3, 4, 1}},
                                                      {{}, {5, 2}},
                                                      {{70, 600}, {600}},
                                                      {{70, 600}, {70, 1}},
                                                      {{8, 5, 30, 30}, {5, 1, 1}},
                                                      {{0, 3}, {1, 3}},
                                                      {{1}, {1, 1, 1}},
                                                      {{3, 1, 2, 1, 2, 1, 2, 1}, {1, 2, 1, 2, 1, 2, 1, 2}}};
  for (const auto& [sa, sb] : cases) {
    const Tensor a = randn(sa, f64), b = randn(sb, f64);
    const Tensor y = sub(a, b);
    const Shape s = broadcast_shapes("sub", sa, sb);
    ASSERT_EQ(y.shape(), s);
    const auto va = a.to_vector<double>(), vb = b.to_vector<double>(), vy = y.to_vector<double>();
    const auto index = [&](const Shape& from, int64_t linear) {
      int64_t offset = 0, stride = 1;
      for (int k = 1; k <= s.ndim(); ++k) {
        const int64_t at = linear % s[s.ndim() - k];
        linear /= s[s.ndim() - k];
        if (k > from.ndim()) continue;
        if (from[from.ndim() - k] != 1) offset += at * stride;
        stride *= from[from.ndim() - k];
      }
      return static_cast<size_t>(offset);
    };
    for (int64_t i = 0; i < y.numel(); ++i)
      ASSERT_EQ(vy[static_cast<size_t>(i)], va[index(sa, i)] - vb[index(sb, i)]) << to_string(sa) << to_string(sb);
  }
}

TEST(Pointwise, SameBitsAtAnyThreadCount) {
  const int former = num_threads();
  const Tensor x = randn({401, 513}), row = randn({513});
  for (const UnaryRow& op : unary_rows()) {
    set_num_threads(1);
    const Tensor one = op.f(x);
    set_num_threads(2);
    EXPECT_TRUE(equal(one, op.f(x))) << op.name;
  }
  set_num_threads(1);
  const Tensor one = mul(transpose(x), transpose(add(x, row)));
  set_num_threads(2);
  EXPECT_TRUE(equal(one, mul(transpose(x), transpose(add(x, row)))));
  set_num_threads(former);
}

// Away from the kinks of abs, relu and clamp, and from the steps of round.
Tensor points(double low) {
  std::vector<double> v = {0.13, 0.31, 0.77, 1.2, 1.9, 2.3, 3.1, 4.7};
  for (double x : {-0.21, -0.44, -0.8, -1.3, -2.2, -3.9})
    if (low < 0) v.push_back(x);
  return tensor<double>(v).requires_grad_();
}

TEST(Pointwise, UnaryDerivativesOnEveryTarget) {
  on_every_target([] {
    for (const UnaryRow& row : unary_rows()) {
      SCOPED_TRACE(row.name);
      const GradCheckFn f = [&](const std::vector<Tensor>& in) { return std::vector<Tensor>{row.f(in[0])}; };
      EXPECT_NO_THROW(gradcheck(f, {points(row.low)}));
      EXPECT_NO_THROW(gradgradcheck(f, {points(row.low)}));
    }
  });
}

TEST(Pointwise, FloatDerivativesAgreeWithDouble) {
  on_every_target([] {
    for (const UnaryRow& row : unary_rows()) {
      const auto derivatives = [&](DType d) {
        Tensor x = cast(points(row.low).detach(), d).requires_grad_();
        const Tensor g = grad({row.f(x)}, {x}, {.create_graph = true}, {full_like(x, 1.5)})[0];
        if (!g.requires_grad()) return std::pair(g, zeros_like(g));
        const Tensor h = grad({g}, {x}, {.allow_unused = true}, {full_like(x, -0.7)})[0];
        return std::pair(g.detach(), h.defined() ? h : zeros_like(g));
      };
      const auto [g32, h32] = derivatives(f32);
      const auto [g64, h64] = derivatives(f64);
      EXPECT_TRUE(allclose(cast(g32, f64), g64, 3e-5, 3e-6)) << row.name;
      EXPECT_TRUE(allclose(cast(h32, f64), h64, 3e-5, 1e-5)) << row.name;
    }
  });
}

TEST(Pointwise, BinaryDerivatives) {
  const auto leaf = [](const Shape& s, double low, double high) {
    Tensor x = rand(s, f64);
    return add(mul(x, high - low), low).detach().requires_grad_();
  };
  using Op = Tensor (*)(const Tensor&, const Tensor&);
  manual_seed(5);
  for (const auto& [sa, sb] :
       std::vector<std::pair<Shape, Shape>>{{{2, 3}, {2, 3}}, {{2, 3}, {3}}, {{2, 1}, {1, 3}}, {{}, {2}}}) {
    for (Op op : {Op{add}, Op{sub}, Op{mul}, Op{div}, Op{pow}, Op{maximum}, Op{minimum}}) {
      const GradCheckFn f = [op](const std::vector<Tensor>& in) { return std::vector<Tensor>{op(in[0], in[1])}; };
      const std::vector<Tensor> in = {leaf(sa, 0.5, 2), leaf(sb, 0.6, 2.1)};
      EXPECT_NO_THROW(gradcheck(f, in));
      EXPECT_NO_THROW(gradgradcheck(f, in));
    }
    const Tensor condition = gt(randn(broadcast_shapes("where", sa, sb)), 0);
    const GradCheckFn f = [&](const std::vector<Tensor>& in) {
      return std::vector<Tensor>{where(condition, square(in[0]), in[1]), masked_fill(square(in[0]), eq(in[0], 9), 4)};
    };
    EXPECT_NO_THROW(gradcheck(f, {leaf(sa, -1, 1), leaf(sb, -1, 1)}));
    EXPECT_NO_THROW(gradgradcheck(f, {leaf(sa, -1, 1), leaf(sb, -1, 1)}));
  }
}

std::vector<double> slope(const Fn& f, const std::vector<double>& at) {
  Tensor x = tensor<double>(at).requires_grad_();
  return grad({f(x)}, {x}, {}, {ones_like(x)})[0].to_vector<double>();
}

TEST(Pointwise, DerivativesAtKinksAndEdges) {
  using V = std::vector<double>;
  EXPECT_EQ(slope(abs, {-2, 0, 3}), (V{-1, 0, 1}));
  EXPECT_EQ(slope([](const Tensor& x) { return relu(x); }, {-2, 0, 3}), (V{0, 0, 1}));
  EXPECT_EQ(slope([](const Tensor& x) { return leaky_relu(x, 0.25); }, {-2, 0, 3}), (V{0.25, 0.25, 1}));
  EXPECT_EQ(slope([](const Tensor& x) { return clamp(x, -1, 2); }, {-2, -1, 0, 2, 3}), (V{0, 1, 1, 1, 0}));
  EXPECT_EQ(slope(floor, {-2, 0.5}), (V{0, 0}));
  EXPECT_EQ(slope(sqrt, {0, 4}), (V{kInf, 0.25}));
  EXPECT_EQ(slope([](const Tensor& x) { return maximum(x, 1); }, {0, 1, 2}), (V{0, 0.5, 1}));
  // pow: 0^0, 0^1, 0^2 and a negative base.
  EXPECT_EQ(slope([](const Tensor& x) { return pow(x, 0); }, {0, 2, -1}), (V{0, 0, 0}));
  EXPECT_EQ(slope([](const Tensor& x) { return pow(x, 1); }, {0, 2, -1}), (V{1, 1, 1}));
  EXPECT_EQ(slope([](const Tensor& x) { return pow(x, 2); }, {0, 2, -1}), (V{0, 4, -2}));
  const V by_power = slope([](const Tensor& b) { return pow(tensor<double>({0, 0, 2, -2}), b); }, {0, 2, 3, 2});
  EXPECT_EQ(by_power[0], 0);
  EXPECT_EQ(by_power[1], 0);
  EXPECT_NEAR(by_power[2], 8 * std::log(2), 1e-14);
  EXPECT_TRUE(std::isnan(by_power[3]));
  // An infinite incoming gradient stops at a closed gate instead of making NaN.
  Tensor x = tensor<double>({-1, 1}).requires_grad_();
  EXPECT_EQ(grad({relu(x)}, {x}, {}, {full_like(x, kInf)})[0].to_vector<double>(), (V{0, kInf}));
}

// Powers of x overflow beside an exponential of 0: derivatives there are those of the asymptotes.
TEST(Pointwise, DerivativesOfHugeArguments) {
  for (const DType dtype : {f32, f64}) {
    const double most = dtype == f32 ? double{std::numeric_limits<float>::max()} : std::numeric_limits<double>::max();
    for (const double v : {1e13, 1e20, -1e20, 1e38, most, -most}) {
      for (int k = 0; k < 3; ++k) {
        const Tensor x = full({5}, v, dtype).requires_grad_();
        const Tensor y = k == 0 ? gelu(x) : k == 1 ? gelu(x, Gelu::tanh) : erf(x);
        const Tensor dx = grad({sum(y)}, {x}, {.create_graph = true})[0];
        const double want = k < 2 && v > 0 ? 1 : 0;
        EXPECT_EQ(dx.to_vector<double>(), std::vector<double>(5, want)) << k << " at " << v;
        const Tensor d2 = grad({sum(dx)}, {x})[0];
        EXPECT_EQ(d2.to_vector<double>(), std::vector<double>(5, 0.0)) << k << " at " << v;
      }
    }
  }
}

TEST(Pointwise, ScalarsTakeTheTensorsDtype) {
  const Tensor n = tensor<int32_t>({7, -7});
  EXPECT_EQ((n / 2).to_vector<int>(), (std::vector<int>{3, -3}));
  EXPECT_EQ((10 - n).dtype(), i32);
  EXPECT_EQ((2.0 / tensor<float>({4})).item(), 0.5);
  EXPECT_THROW(n * 0.5, DTypeError);
  EXPECT_THROW(add(tensor<int8_t>({1}), 300), ValueError);
  EXPECT_THROW(lt(tensor<uint8_t>({1}), -1), ValueError);
}

TEST(Pointwise, ErrorsNameTheOpAndTheRule) {
  const Tensor f = ones({2, 3}), d = ones({2, 3}, f64), i = ones({2, 3}, i32), b = eq(f, f);
  expect_error<DTypeError>([&] { add(f, d); }, "add");
  expect_error<DTypeError>([&] { mul(b, b); }, "mul: does not take bool");
  expect_error<DTypeError>([&] { exp(i); }, "exp");
  expect_error<DTypeError>([&] { where(f, f, f); }, "where: the condition must be bool");
  expect_error<DTypeError>([&] { logical_not(f); }, "logical_not");
  expect_error<ShapeError>([&] { sub(f, ones({2})); }, "sub");
  expect_error<ShapeError>([&] { sub(f, ones({2})); }, "[2, 3]");
  expect_error<ShapeError>([&] { masked_fill(ones({3}), b, 0); }, "masked_fill");
  expect_error<ValueError>([&] { clamp(f, 2, 1); }, "clamp: low 2");
  expect_error<ValueError>([&] { clamp(f, std::nan(""), 1); }, "clamp");
  expect_error<DTypeError>([&] { clamp(i, 0.5, 1); }, "clamp: bound 0.5");
  expect_error<ValueError>([&] { div(i, zeros_like(i)); }, "div: integer division by zero");
  expect_error<DTypeError>([&] { add(i, 0.5); }, "add: the scalar 0.5");
  expect_error<GradError>(
      [&] {
        Tensor x = ones({2}).requires_grad_();
        const Tensor silu1 = grad({silu(x)}, {x}, {.create_graph = true}, {ones_like(x)})[0];
        const Tensor silu2 = grad({silu1}, {x}, {.create_graph = true}, {ones_like(x)})[0];
        grad({silu2}, {x}, {}, {ones_like(x)});
      },
      "third derivatives");
}

}  // namespace
}  // namespace hone
