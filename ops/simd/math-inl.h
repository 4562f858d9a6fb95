// Highway's side of the maths policy of ops/functors.h: exp, log, tanh and erf for f32 and f64 vectors, all inputs
// (infinities, NaN, subnormals). The error bounds stated are checked by tests/pointwise_test.cpp.
// Included once per target (Highway's rule for -inl headers). On the SCALAR target the policy is ScalarMath.

#if defined(HONE_OPS_SIMD_MATH_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef HONE_OPS_SIMD_MATH_INL_H_
#undef HONE_OPS_SIMD_MATH_INL_H_
#else
#define HONE_OPS_SIMD_MATH_INL_H_
#endif

#include <hwy/highway.h>

#include "hone/ops/scalar_math.h"

HWY_BEFORE_NAMESPACE();
namespace hone {
namespace HWY_NAMESPACE {

#if HWY_TARGET == HWY_SCALAR

template <class T> using Math = detail::ScalarMath<T>;

#else

namespace hn = hwy::HWY_NAMESPACE;

/// What differs between the formats.
template <class T> struct Format;
template <> struct Format<float> {
  using Int = int32_t;
  static constexpr int kMantissa = 23, kBias = 127;
  static constexpr double kExpLow = -105, kExpHigh = 89, kLn2High = 0.693359375, kLn2Low = -2.12194440054690583e-4;
  static constexpr double kMinNormal = 0x1p-126, kLift = 0x1p24;
  static constexpr Int kSqrtHalf = 0x3f3504f3;
  static constexpr double kTanhOne = 20;  // tanh(10) rounds to 1
  static constexpr int kExpTerms = 7, kLogTerms = 5;
  // erf below and above 1, see Math::erf; weighted least squares at Chebyshev points, errors 1.2e-9 and 1.1e-9.
  static constexpr double kErfNear[] = {0.128379166,   -0.376126269,    0.112835975,   -0.0268543288,
                                        0.00518931194, -0.000801885499, 7.88249711e-05};
  static constexpr double kErfFar[] = {-1.84960552,   -2.63896686,    -0.843117797, -0.0415030535,
                                       0.00989525301, -0.00182963569, 0.00018655171};
  static constexpr double kErfTop = 3;
};
template <> struct Format<double> {
  using Int = int64_t;
  static constexpr int kMantissa = 52, kBias = 1023;
  static constexpr double kExpLow = -747, kExpHigh = 711, kLn2High = 6.93147180369123816490e-01,
                          kLn2Low = 1.90821492927058770002e-10;
  static constexpr double kMinNormal = 0x1p-1022, kLift = 0x1p54;
  static constexpr Int kSqrtHalf = 0x3fe6a09e667f3bcd;
  static constexpr double kTanhOne = 40;
  static constexpr int kExpTerms = 13, kLogTerms = 11;
  // Errors 7.2e-18 and 1.3e-18.
  static constexpr double kErfNear[] = {0.12837916709551256,     -0.37612638903183543,    0.1128379167094513,
                                        -0.026866170643256995,   0.0052239776072699456,   -0.00085483259825432252,
                                        0.00012055295112667001,  -1.4924740785377576e-05, 1.6447471190594618e-06,
                                        -1.6208829856810202e-07, 1.3721520406351094e-08,  -7.7985438505499473e-10};
  static constexpr double kErfFar[] = {
      -1.8496055099332482,    -2.6389675142347881,     -0.84310725635868655,    -0.04156109804159179,
      0.010033825371928505,   -0.0019779025510959767,  0.00023732240789625539,  2.6278094448532506e-05,
      -2.715957480596495e-05, 9.6096072435221208e-06,  -2.0605669406249576e-06, 1.4353832208517946e-07,
      9.7136926405196224e-08, -5.1850477922072411e-08, 1.4849384331745716e-08,  -2.8495816576581069e-09,
      3.660080614374357e-10,  -2.8608882469579202e-11, 1.0305267765735484e-12};
  static constexpr double kErfTop = 5;
};

template <class T> struct Math {
  using D = hn::ScalableTag<T>;
  using V = hn::Vec<D>;
  using F = Format<T>;
  using DI = hn::RebindToSigned<D>;
  using Int = typename F::Int;
  static constexpr D d{};
  static constexpr DI di{};

  HWY_INLINE V set(double c) const { return hn::Set(d, static_cast<T>(c)); }
  HWY_INLINE V neg(V x) const { return hn::Neg(x); }
  HWY_INLINE V abs(V x) const { return hn::Abs(x); }
  HWY_INLINE V sqrt(V x) const { return hn::Sqrt(x); }
  HWY_INLINE V round(V x) const { return hn::Round(x); }
  HWY_INLINE V floor(V x) const { return hn::Floor(x); }
  HWY_INLINE V ceil(V x) const { return hn::Ceil(x); }
  HWY_INLINE auto eq(V a, V b) const { return hn::Eq(a, b); }
  HWY_INLINE auto ne(V a, V b) const { return hn::Ne(a, b); }
  HWY_INLINE auto lt(V a, V b) const { return hn::Lt(a, b); }
  HWY_INLINE auto le(V a, V b) const { return hn::Le(a, b); }
  HWY_INLINE auto gt(V a, V b) const { return hn::Gt(a, b); }
  HWY_INLINE auto ge(V a, V b) const { return hn::Ge(a, b); }
  template <class Mask> HWY_INLINE V select(Mask c, V a, V b) const { return hn::IfThenElse(c, a, b); }

  /// e^x within 1 ulp: x = n ln 2 + r, a Taylor polynomial in |r| <= ln2 / 2, and 2^n in two factors, so that
  /// results overflow and become subnormal as they should.
  HWY_INLINE V exp(V x) const {
    V n, r;
    reduce(hn::Min(hn::Max(x, set(F::kExpLow)), set(F::kExpHigh)), n, r);
    const V half = integral(n * set(0.5));
    const V y = (set(1) + expm1_of(r)) * pow2(half) * pow2(n - half);
    return hn::IfThenElse(hn::Eq(x, x), y, x);
  }

  /// ln x within 1 ulp: x = 2^e (1 + f), sqrt(1/2) <= 1 + f < sqrt 2; with s = f / (2 + f), ln(1 + f) = 2 atanh s =
  /// f - f^2/2 + s (f^2/2 + R), R = 2/3 s^2 + 2/5 s^4 + …, in an order that keeps the rounding of f^2/2 out.
  HWY_INLINE V log(V x) const {
    const auto small = hn::Lt(x, set(F::kMinNormal));
    const V lifted = hn::IfThenElse(small, x * set(F::kLift), x);
    const auto origin = hn::Set(di, F::kSqrtHalf);
    const auto bits = hn::Sub(hn::BitCast(d_int(), lifted), origin);
    // The exponent as a number without an integer conversion: its bits under those of 2^mantissa.
    const auto biased =
        hn::ShiftRight<F::kMantissa>(hn::BitCast(du(), hn::Add(bits, hn::Set(di, Int{F::kBias} << F::kMantissa))));
    const T two_m = static_cast<T>(Int{1} << F::kMantissa);
    V e = hn::BitCast(d, hn::Or(biased, hn::BitCast(du(), hn::Set(d, two_m)))) - hn::Set(d, two_m + F::kBias);
    e = hn::IfThenElse(small, e - set(F::kMantissa == 23 ? 24 : 54), e);
    const auto mantissa = hn::And(bits, hn::Set(di, (Int{1} << F::kMantissa) - 1));
    const V f = hn::BitCast(d, hn::Add(mantissa, origin)) - set(1);
    const V s = f / (set(2) + f), z = s * s;
    V r = set(2.0 / (2 * F::kLogTerms + 1));
    for (int k = F::kLogTerms - 1; k >= 1; --k) r = hn::MulAdd(r, z, set(2.0 / (2 * k + 1)));
    const V h = set(0.5) * f * f;
    const V y = hn::MulAdd(e, set(F::kLn2High), f - (h - hn::MulAdd(s, h + r * z, e * set(F::kLn2Low))));
    const V infinity = hn::Inf(d), zero = hn::Zero(d);
    const V special = hn::IfThenElse(hn::Eq(x, zero), hn::Neg(infinity), hn::NaN(d));
    // Infinity and NaN give themselves; zero and less the special values.
    return hn::IfThenElse(hn::Gt(x, zero), hn::IfThenElse(hn::Lt(x, infinity), y, x),
                          hn::IfThenElse(hn::Le(x, zero), special, x));
  }

  /// tanh x within 3 ulp: with t = e^(2|x|) - 1, t / (t + 2).
  HWY_INLINE V tanh(V x) const {
    V n, r;
    const V a = hn::Abs(x);
    reduce(hn::Min(a + a, set(F::kTanhOne)), n, r);
    const V scale = pow2(n);
    const V t = hn::MulAdd(scale, expm1_of(r), scale - set(1));
    const V y = hn::CopySign(t / (t + set(2)), x);
    return hn::IfThenElse(hn::Eq(x, x), y, x);
  }

  /// erf x within 2 ulp: for a = |x| < 1, x + x P(x^2); above, 1 - e^Q(a - 1), Q fitted to ln erfc where erfc matters.
  HWY_INLINE V erf(V x) const {
    const V a = hn::Abs(x);
    const V near = hn::MulAdd(polynomial(F::kErfNear, x * x), x, x);
    V n, r;
    reduce(polynomial(F::kErfFar, hn::Min(a - set(1), set(F::kErfTop))), n, r);
    const V far = set(1) - (set(1) + expm1_of(r)) * pow2(n);
    return hn::IfThenElse(hn::Ge(a, set(1)), hn::CopySign(far, x), near);
  }

 private:
  using DU = hn::RebindToUnsigned<D>;
  static HWY_INLINE DI d_int() { return DI(); }
  static HWY_INLINE DU du() { return DU(); }
  /// 1.5 * 2^mantissa: adding it rounds to an integer, which then lies in the low bits.
  static constexpr T kMagic = static_cast<T>(3 * (Int{1} << (F::kMantissa - 1)));

  HWY_INLINE V integral(V x) const { return (x + hn::Set(d, kMagic)) - hn::Set(d, kMagic); }
  /// 2^k for an integral k of a normal result.
  HWY_INLINE V pow2(V k) const {
    const auto bits = hn::BitCast(di, k + hn::Set(d, kMagic));
    return hn::BitCast(d, hn::ShiftLeft<F::kMantissa>(hn::Add(bits, hn::Set(di, Int{F::kBias}))));
  }
  /// x = n ln 2 + r.
  HWY_INLINE void reduce(V x, V& n, V& r) const {
    n = integral(x * set(1.44269504088896340736));
    r = hn::NegMulAdd(n, set(F::kLn2Low), hn::NegMulAdd(n, set(F::kLn2High), x));
  }
  template <size_t kCount> HWY_INLINE V polynomial(const double (&c)[kCount], V x) const {
    V y = set(c[kCount - 1]);
    for (size_t k = kCount - 1; k-- > 0;) y = hn::MulAdd(y, x, set(c[k]));
    return y;
  }
  /// e^r - 1 for |r| <= ln2 / 2.
  HWY_INLINE V expm1_of(V r) const {
    double factorial = 1;
    for (int k = 2; k <= F::kExpTerms; ++k) factorial *= k;
    V q = set(1 / factorial);
    for (int k = F::kExpTerms - 1; k >= 2; --k) {
      factorial /= k + 1;
      q = hn::MulAdd(q, r, set(1 / factorial));
    }
    return hn::MulAdd(r * r, q, r);
  }
};

#endif  // HWY_SCALAR

}  // namespace HWY_NAMESPACE
}  // namespace hone
HWY_AFTER_NAMESPACE();

#endif  // per-target guard
