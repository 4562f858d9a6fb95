#pragma once
// Two neighbouring outputs of a convolution of 3 or 5 taps with fewer products than apart: 4 in place of 6, 7 in place
// of 10. Of inputs x_0 … and weights w_0 …,
//
//   2 y_0 = a + b + c    a = (x_0 − x_2) 2w_0            + (x_3 − x_4) 2w_3
//   2 y_1 = b − c + d    b = (x_1 + x_2)(w_0 + w_1 + w_2) + x_4 (2w_3 + 2w_4)
//                        c = (x_2 − x_1)(w_0 − w_1 + w_2)
//                        d = (x_3 − x_1) 2w_2            + (x_5 − x_4) 2w_4
//
// where the second summands are for 5 taps alone: Winograd's F(2, 3) and Karatsuba's F(2, 2). Exact on integers.
// Winograd, "Arithmetic complexity of computations", 1980.

#include <cstdint>

namespace hone::simd {

/// Products, numbered as they stand above, column by column: x_0 − x_2 is 0, x_5 − x_4 is 6.
constexpr int64_t combined_count(int64_t taps) { return taps == 3 ? 4 : 7; }

inline constexpr int64_t kSumPlaces = 4;  ///< a, b, c, d

/// Products in the order in which they are added: those of a, then b, c and d; `first` has the bounds.
struct SumOrder {
  int64_t product[7], first[kSumPlaces + 1];
};
constexpr SumOrder sum_order(int64_t taps) {
  if (taps == 3) return {{0, 1, 2, 3, 0, 0, 0}, {0, 1, 2, 3, 4}};
  return {{0, 4, 1, 5, 2, 3, 6}, {0, 2, 4, 5, 7}};
}

/// What products take from the weights w(0), …, w(taps − 1).
struct CombinedWeights {
  int32_t product[7];
};
template <class W> CombinedWeights combined_weights(int64_t taps, const W& w) {
  const int32_t w0 = w(0), w1 = w(1), w2 = w(2), w3 = taps > 3 ? w(3) : 0, w4 = taps > 3 ? w(4) : 0;
  return {{2 * w0, w0 + w1 + w2, w0 - w1 + w2, 2 * w2, 2 * w3, 2 * (w3 + w4), 2 * w4}};
}

}  // namespace hone::simd
