#pragma once
// CUDA's side of the maths policy of ops/functors.h. For CUDA sources alone.

#include <cstdint>
#include <limits>
#include <type_traits>

#include "hone/cuda/launch.h"

namespace hone::cuda {

/// Floating: the device's own functions, full precision.
template <class T> struct Math {
  using V = T;
  HONE_DEVICE V set(double c) const { return static_cast<T>(c); }
  HONE_DEVICE V neg(V x) const { return -x; }
  HONE_DEVICE V abs(V x) const { return ::fabs(x); }
  HONE_DEVICE V sqrt(V x) const { return ::sqrt(x); }
  HONE_DEVICE V exp(V x) const { return ::exp(x); }
  HONE_DEVICE V log(V x) const { return ::log(x); }
  HONE_DEVICE V tanh(V x) const { return ::tanh(x); }
  HONE_DEVICE V erf(V x) const { return ::erf(x); }
  HONE_DEVICE V round(V x) const { return ::rint(x); }
  HONE_DEVICE V floor(V x) const { return ::floor(x); }
  HONE_DEVICE V ceil(V x) const { return ::ceil(x); }
  HONE_DEVICE V pow(V a, V b) const { return ::pow(a, b); }
  HONE_DEVICE bool eq(V a, V b) const { return a == b; }
  HONE_DEVICE bool ne(V a, V b) const { return a != b; }
  HONE_DEVICE bool lt(V a, V b) const { return a < b; }
  HONE_DEVICE bool le(V a, V b) const { return a <= b; }
  HONE_DEVICE bool gt(V a, V b) const { return a > b; }
  HONE_DEVICE bool ge(V a, V b) const { return a >= b; }
  HONE_DEVICE V select(bool c, V a, V b) const { return c ? a : b; }
};

/// Integer whose arithmetic wraps.
template <class T> struct Wrapping {
  using U = std::make_unsigned_t<T>;
  T v;
  HONE_DEVICE friend Wrapping operator+(Wrapping a, Wrapping b) { return {static_cast<T>(U(a.v) + U(b.v))}; }
  HONE_DEVICE friend Wrapping operator-(Wrapping a, Wrapping b) { return {static_cast<T>(U(a.v) - U(b.v))}; }
  HONE_DEVICE friend Wrapping operator*(Wrapping a, Wrapping b) {
    return {static_cast<T>(uint64_t(a.v) * uint64_t(b.v))};
  }
};

template <class T>
requires std::is_integral_v<T>
struct Math<T> {
  using V = Wrapping<T>;
  static constexpr T kMost = std::numeric_limits<T>::max(), kLeast = std::numeric_limits<T>::min();
  HONE_DEVICE V set(double c) const {
    return {c >= static_cast<double>(kMost) ? kMost : c <= static_cast<double>(kLeast) ? kLeast : static_cast<T>(c)};
  }
  HONE_DEVICE V neg(V x) const { return V{0} - x; }
  HONE_DEVICE V abs(V x) const {
    if constexpr (std::is_signed_v<T>)
      return x.v < 0 ? neg(x) : x;
    else
      return x;
  }
  HONE_DEVICE V round(V x) const { return x; }
  HONE_DEVICE bool eq(V a, V b) const { return a.v == b.v; }
  HONE_DEVICE bool ne(V a, V b) const { return a.v != b.v; }
  HONE_DEVICE bool lt(V a, V b) const { return a.v < b.v; }
  HONE_DEVICE bool le(V a, V b) const { return a.v <= b.v; }
  HONE_DEVICE bool gt(V a, V b) const { return a.v > b.v; }
  HONE_DEVICE bool ge(V a, V b) const { return a.v >= b.v; }
  HONE_DEVICE V select(bool c, V a, V b) const { return c ? a : b; }
};

HONE_DEVICE float raw(float v) { return v; }
HONE_DEVICE double raw(double v) { return v; }
HONE_DEVICE bool raw(bool v) { return v; }
template <class T> HONE_DEVICE T raw(Wrapping<T> v) { return v.v; }

}  // namespace hone::cuda
