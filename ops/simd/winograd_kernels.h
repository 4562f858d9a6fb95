#pragma once
// Integer convolutions of 3 × 3 and 5 × 5 kernels, 2 × 2 outputs at once by ops/simd/two_outputs.h along both axes:
// Winograd's F(2×2, 3×3) with 16 products a channel in place of 36, and its like for 5 × 5 with 49 in place of 100.
//
//   4 y = Aᵀ [sums of Σ_c U_c ⊙ V_c by place] A,   Aᵀ = ⎡1  1  1  0⎤
//                                                       ⎣0  1 −1  1⎦
//
// U are the weights and V the inputs, combined along rows and columns. They fit 16 bits: |U| <= 16 · 127,
// |V| <= 4 · 255. Sums are modulo 2^32, and 4 y has less than 2^31 up to kMostWinogradTaps: the bits are those of the
// plain convolution. Lavin and Gray, "Fast algorithms for convolutional neural networks", 2016.

#include <cstdint>

#include "hone/ops/simd/two_outputs.h"

namespace hone::simd {

inline constexpr int64_t kMostWinogradTaps = 1 << 14;  // 4 · 2^14 · 255 · 127 < 2^31
inline constexpr int64_t kWinogradPlaces = kSumPlaces * kSumPlaces;

/// What is convolved: c channels, a kernel of 3 or 5, and the rows × cols of the output.
struct WinogradPlane {
  int64_t c, kernel, rows, cols;
  int64_t values() const { return combined_count(kernel) * combined_count(kernel); }  ///< of a tile of V, a channel
  int64_t pitch() const { return c < 16 ? (c + 7) / 8 * 8 : c; }                      ///< channels of V
  int64_t pairs() const { return (c + 1) / 2; }                                       ///< of channels
  int64_t steps() const { return values() * pairs(); }
  int64_t row_elements(int64_t line) const { return combined_count(kernel) * (line + c + 16); }
  int64_t tile_cols() const { return (cols + 1) / 2; }
  int64_t tiles() const { return (rows + 1) / 2 * tile_cols(); }
};

/// The order of steps: values of V in the order in which they are added, each with its pairs of channels.
struct WinogradOrder {
  int64_t value[49], first[kWinogradPlaces + 1];  ///< `first`: bounds of places among the values
  explicit constexpr WinogradOrder(int64_t kernel) : value(), first() {
    const SumOrder order = sum_order(kernel);
    for (int64_t place = 0, n = 0; place < kWinogradPlaces; ++place) {
      const int64_t row = place / kSumPlaces, col = place % kSumPlaces;
      for (int64_t i = order.first[row]; i < order.first[row + 1]; ++i)
        for (int64_t j = order.first[col]; j < order.first[col + 1]; ++j)
          value[n++] = order.product[i] * combined_count(kernel) + order.product[j];
      first[place + 1] = n;
    }
  }
};

/// One set per SIMD target whose Int8Kernels have elements of 16 bits; none elsewhere. Tiles are taken `together` at a
/// time: blocks of V are [tiles / together, values, together, pitch]; U of a panel is [steps, 16 outputs, 2].
struct WinogradKernels {
  int64_t together;
  /// U of a panel of 8-bit weights as ops/packed/int8.h lays them out.
  void (*weights)(const int8_t* panel, const WinogradPlane& plane, int16_t* u);
  /// V of x [plane.rows + kernel − 1, line / c, c]; a row and a column more are read where those of the plane are odd,
  /// and up to 16 elements beyond. As many may be written after V. rows: room for row_elements(line).
  void (*inputs)(const int16_t* x, int64_t line, const WinogradPlane& plane, int16_t* rows, int16_t* v);
  /// y [rows, cols, 16] = start + the sums. offsets [steps]: of pairs of channels in a block of V; room for 256 ·
  /// together elements.
  void (*product)(const int16_t* v, const int16_t* u, const int32_t* offsets, const WinogradPlane& plane,
                  const int32_t* start, int32_t* room, int32_t* y);
};

/// The set for the best target of this machine (or the one chosen for a test).
const WinogradKernels& winograd_kernels();

}  // namespace hone::simd
