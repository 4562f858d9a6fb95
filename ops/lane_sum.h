#pragma once
// Sums that keep their digits at any length.

#include <cstdint>

namespace hone::detail {

/// Sums in f64, over eight lanes in a fixed order: term(i) for i in [0, n).
template <class Term> double lane_sum(int64_t n, Term&& term) {
  double lanes[8] = {};
  int64_t i = 0;
  for (; i + 8 <= n; i += 8) {
    for (int64_t k = 0; k < 8; ++k) lanes[k] += term(i + k);
  }
  for (int64_t k = 0; i < n; ++i, ++k) lanes[k] += term(i);
  return ((lanes[0] + lanes[4]) + (lanes[2] + lanes[6])) + ((lanes[1] + lanes[5]) + (lanes[3] + lanes[7]));
}

}  // namespace hone::detail
