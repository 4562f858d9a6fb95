#pragma once
// Conversion between element types: the one place that rounds. Private to the library.

#include <cmath>
#include <cstdint>
#include <limits>
#include <type_traits>

#include "hone/core/dtype.h"

namespace hone::detail {

/// The nearest bf16, ties to even. Through f32 in round-to-odd, which keeps what decides a tie (Boldo and Melquiond,
/// "Emulation of FMA and correctly rounded sums: proved algorithms using rounding to odd", 2008).
inline BFloat16 bf16_of(double v) {
  float f = static_cast<float>(v);
  if (const double back = static_cast<double>(f); back != v && v == v) {
    uint32_t bits = std::bit_cast<uint32_t>(f);
    if (std::abs(back) > std::abs(v)) --bits;  // towards zero, from infinity too
    f = std::bit_cast<float>(bits | 1u);
  }
  return BFloat16(f);
}
inline BFloat16 bf16_of(int64_t v) {
  // Beyond 53 bits: 11 bits into one that says whether any was set.
  constexpr int64_t kExact = int64_t{1} << 53, kLow = (1 << 11) - 1;
  if (v > kExact || v < -kExact) v = (v & kLow) ? (v & ~kLow) | (kLow + 1) : v;
  return bf16_of(static_cast<double>(v));
}

/// Floating to integer truncates towards zero, saturates, and takes NaN to 0: never undefined. To bool: is it not 0.
template <class To, class From> To convert(From v) {
  if constexpr (std::is_same_v<To, From>) {
    return v;
  } else if constexpr (std::is_same_v<From, BFloat16>) {
    return convert<To>(static_cast<float>(v));
  } else if constexpr (std::is_same_v<To, bool>) {
    return v != From(0);
  } else if constexpr (std::is_same_v<To, BFloat16>) {
    if constexpr (std::is_same_v<From, float>)
      return BFloat16(v);
    else if constexpr (std::is_same_v<From, double>)
      return bf16_of(v);
    else
      return bf16_of(static_cast<int64_t>(v));
  } else if constexpr (std::is_integral_v<To> && !std::is_integral_v<From>) {
    const double d = static_cast<double>(v);
    if (!(d == d)) return 0;
    if (d <= static_cast<double>(std::numeric_limits<To>::min())) return std::numeric_limits<To>::min();
    if (d >= static_cast<double>(std::numeric_limits<To>::max())) return std::numeric_limits<To>::max();
    return static_cast<To>(d);
  } else {
    return static_cast<To>(v);
  }
}

}  // namespace hone::detail
