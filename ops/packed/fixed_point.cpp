#include "hone/ops/packed/fixed_point.h"

#include <algorithm>
#include <cmath>

#include "hone/core/error.h"

namespace hone {

FixedPoint fixed_point(double real) {
  HONE_CHECK(real >= 0 && real < 1, ValueError, "fixed_point: ", real, " must be in [0, 1)");
  int exponent = 0;
  const double fraction = std::frexp(real, &exponent);  // in [½, 1), or 0
  const int shift = std::min(31 - exponent, 62);
  const auto multiplier = std::llround(std::ldexp(fraction, exponent + shift));
  if (multiplier < (int64_t{1} << 31)) return {static_cast<int32_t>(multiplier), shift};
  if (shift == 31) return {INT32_MAX, 31};  // the largest below 1
  return {1 << 30, shift - 1};
}

FixedPair fixed_pair(double a, double b) {
  constexpr double kMost = 1 << 13;
  HONE_CHECK(a >= 0 && a < kMost && b >= 0 && b < kMost, ValueError, "fixed_pair: ", a, " and ", b,
             " must be in [0, 8192)");
  int exponent = 0;
  std::frexp(std::max(a, b), &exponent);
  const int shift = std::clamp(15 - exponent, 1, 30);
  const auto factor = [shift](double r) {
    return static_cast<int32_t>(std::min<long long>(std::llround(std::ldexp(r, shift)), INT16_MAX));
  };
  return {factor(a), factor(b), shift};
}

}  // namespace hone
