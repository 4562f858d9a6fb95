#pragma once
// Integer convolutions of 3 × 3 kernels with 16 products for each 2 × 2 outputs and input channel in place of 36:
// Winograd's F(2×2, 3×3), which is exact on integers once its weights are doubled along both axes:
//
//   4 y = Aᵀ [Σ_c U_c ⊙ V_c] A,   U = (2G) w (2G)ᵀ,   V = Bᵀ x B
//
//        ⎡2  0  0⎤        ⎡1  0 −1  0⎤
//   2G = ⎢1  1  1⎥   Bᵀ = ⎢0  1  1  0⎥   Aᵀ = ⎡1  1  1  0⎤
//        ⎢1 −1  1⎥        ⎢0 −1  1  0⎥        ⎣0  1 −1 −1⎦
//        ⎣0  0  2⎦        ⎣0  1  0 −1⎦
//
// U and V fit 16 bits: |U| <= 9 · 127, |V| <= 4 · 255. Sums are modulo 2^32, and 4 y has less than 2^31 up to
// kMostWinogradChannels, so the sums are those of the plain convolution to the bit.
// Lavin and Gray, "Fast algorithms for convolutional neural networks", 2016.

#include <cstdint>

namespace hone::simd {

inline constexpr int64_t kMostWinogradChannels = 1024;  // 4 · 9 · 1024 · 255 · 127 < 2^31

/// Output tiles: rows × cols of the output that they cover.
struct WinogradPlane {
  int64_t rows, cols;
  int64_t tile_cols() const { return (cols + 1) / 2; }
  int64_t tiles() const { return (rows + 1) / 2 * tile_cols(); }
};

/// One set per SIMD target whose Int8Kernels have elements of 16 bits; none elsewhere. Tiles are taken `together` at a
/// time: blocks of V are [tiles / together, 16, together, c], of U [16, c / 2, 16 outputs, 2]. c: a multiple of 4, at
/// least 16.
struct WinogradKernels {
  int64_t together;
  /// U of a panel of 8-bit weights as ops/packed/int8.h lays them out: 256 · c elements.
  void (*weights)(const int8_t* panel, int64_t c, int16_t* u);
  /// V of x [plane.rows + 2, line / c, c]; a row and a column more are read where those of the plane are odd.
  void (*inputs)(const int16_t* x, int64_t c, int64_t line, const WinogradPlane& plane, int16_t* v);
  /// y [rows, cols, 16] = start + the sums; 256 · together elements of room.
  void (*product)(const int16_t* v, const int16_t* u, int64_t c, const WinogradPlane& plane, const int32_t* start,
                  int32_t* room, int32_t* y);
};

/// The set for the best target of this machine (or the one chosen for a test).
const WinogradKernels& winograd_kernels();

}  // namespace hone::simd
