#pragma once
// The scalar maths policy of ops/functors.h: floating types by <cmath>, integers wrapping.

#include <cmath>
#include <concepts>
#include <cstdint>
#include <limits>
#include <type_traits>

#include "hone/core/error.h"

namespace hone::detail {

/// Integer whose arithmetic wraps in two's complement (no undefined overflow); division truncates, and throws
/// ValueError for a zero divisor.
template <std::integral T> struct Wrapping {
  using U = std::make_unsigned_t<T>;
  T v;
  friend Wrapping operator+(Wrapping a, Wrapping b) {
    return {static_cast<T>(static_cast<U>(a.v) + static_cast<U>(b.v))};
  }
  friend Wrapping operator-(Wrapping a, Wrapping b) {
    return {static_cast<T>(static_cast<U>(a.v) - static_cast<U>(b.v))};
  }
  friend Wrapping operator*(Wrapping a, Wrapping b) {
    return {static_cast<T>(static_cast<uint64_t>(a.v) * static_cast<uint64_t>(b.v))};
  }
  friend Wrapping operator/(Wrapping a, Wrapping b) {
    if (b.v == 0) [[unlikely]]
      throw ValueError("div: integer division by zero");
    if constexpr (std::is_signed_v<T>)
      if (b.v == -1) return Wrapping{0} - a;  // the least value over -1 would trap
    return {static_cast<T>(a.v / b.v)};
  }
};
template <class T> T raw(T v) { return v; }
template <class T> T raw(Wrapping<T> v) { return v.v; }

template <class T> struct ScalarMath {
  using V = T;
  V set(double c) const { return static_cast<T>(c); }
  V neg(V x) const { return -x; }
  V abs(V x) const { return std::fabs(x); }
  V sqrt(V x) const { return std::sqrt(x); }
  V exp(V x) const { return std::exp(x); }
  V log(V x) const { return std::log(x); }
  V tanh(V x) const { return std::tanh(x); }
  V erf(V x) const { return std::erf(x); }
  V round(V x) const { return std::nearbyint(x); }
  V floor(V x) const { return std::floor(x); }
  V ceil(V x) const { return std::ceil(x); }
  V pow(V a, V b) const { return b == 2 ? a * a : std::pow(a, b); }
  bool eq(V a, V b) const { return a == b; }
  bool ne(V a, V b) const { return a != b; }
  bool lt(V a, V b) const { return a < b; }
  bool le(V a, V b) const { return a <= b; }
  bool gt(V a, V b) const { return a > b; }
  bool ge(V a, V b) const { return a >= b; }
  V select(bool c, V a, V b) const { return c ? a : b; }
};

template <std::integral T> struct ScalarMath<T> {
  using V = Wrapping<T>;
  /// Saturates: clamp's bounds may be infinite.
  V set(double c) const {
    if (c >= static_cast<double>(std::numeric_limits<T>::max())) return {std::numeric_limits<T>::max()};
    if (c <= static_cast<double>(std::numeric_limits<T>::min())) return {std::numeric_limits<T>::min()};
    return {static_cast<T>(c)};
  }
  V neg(V x) const { return V{0} - x; }
  V abs(V x) const { return x.v < 0 ? neg(x) : x; }
  V round(V x) const { return x; }
  V floor(V x) const { return x; }
  V ceil(V x) const { return x; }
  V pow(V a, V b) const {
    if constexpr (std::is_signed_v<T>)
      if (b.v < 0) [[unlikely]]
        throw ValueError("pow: an integer to a negative integer power");
    V power{1};
    for (T e = b.v; e > 0; e = static_cast<T>(e >> 1)) {
      if (e & 1) power = power * a;
      a = a * a;
    }
    return power;
  }
  bool eq(V a, V b) const { return a.v == b.v; }
  bool ne(V a, V b) const { return a.v != b.v; }
  bool lt(V a, V b) const { return a.v < b.v; }
  bool le(V a, V b) const { return a.v <= b.v; }
  bool gt(V a, V b) const { return a.v > b.v; }
  bool ge(V a, V b) const { return a.v >= b.v; }
  V select(bool c, V a, V b) const { return c ? a : b; }
};

}  // namespace hone::detail
