#pragma once
// Integer products and what follows them, one set per SIMD target; every set gives the same bits.
//
// y[p][o] = start[o] + Σ_t Σ_{k < 4} x[positions[p] + groups[t] + k] · w[t][o][k]: inputs in groups of four that lie
// side by side, weights as ops/packed/int8.h lays them out. Codes of 8 bits are multiplied exactly: VNNI has the
// instruction for it; the others widen to 16 bits, for sums of two products of 8 bits by 8 can pass 16 bits (which is
// why the faster u8 × i8 instruction of AVX2, that saturates there, is not taken).

#include <cstdint>

#include "hone/ops/simd/panel_kernels.h"

namespace hone::simd {

inline constexpr int64_t kInt8Outs = 16;   ///< outputs of a panel of weights
inline constexpr int64_t kInt8Group = 4;   ///< inputs of a group
inline constexpr int64_t kInt8Slack = 64;  ///< elements that kernels may touch past scratch arrays and padded tables

inline int64_t int8_columns(int64_t outs) { return (outs + kInt8Outs - 1) / kInt8Outs * kInt8Outs; }

struct Int8Product {
  const void* x;  ///< of the set's element type
  const int32_t* positions;
  int64_t count;  ///< of positions
  const int32_t* groups;
  int64_t depth;  ///< number of groups
  const int8_t* w;
  const int32_t* start;  ///< int8_columns(outs)
  int64_t outs;
  int32_t* y;
  int64_t pitch;  ///< of y's positions, at least int8_columns(outs)
};

/// Tables of int8_columns(outs) elements, and the range of the codes.
struct Int8Codes {
  const int32_t *multiplier, *shift;
  int32_t zero_point, low, high;
};

struct Int8Kernels {
  int64_t element;  ///< bytes of x's elements: 1 or 2
  int64_t lanes;    ///< sums in a vector; 1 without vectors
  /// n codes as elements.
  void (*widen)(const uint8_t* x, int64_t n, void* to);
  /// Rows [row, row + rows) of x [c, h, w] as elements [rows, w + 2·pad, c]; `code` outside x. Up to 16·c elements
  /// after them are written as well.
  void (*pack_rows)(const uint8_t* x, int64_t c, int64_t h, int64_t w, int64_t pad, int64_t row, int64_t rows,
                    uint8_t code, void* to);
  /// `blocks` of 64 weights from 4 bits each to 8.
  void (*unpack4)(const int8_t* from, int64_t blocks, int8_t* to);
  void (*product)(const Int8Product& p);
  /// The largest of each window [begin, end) × out_cols, over positions of kInt8Outs of which `outs` are in use; s
  /// begins with row `first`.
  void (*pool)(const int32_t* s, const PoolGeometry& g, int64_t first, int64_t begin, int64_t end, int64_t outs,
               int32_t* to);
  /// y[p·y_pitch + o] = the code of s[p·pitch + o] for p < count, o < outs. Where y_pitch is kInt8Outs, all of a
  /// position may be written; likewise by scale.
  void (*requantize)(const int32_t* s, int64_t count, int64_t pitch, int64_t outs, const Int8Codes& codes, uint8_t* y,
                     int64_t y_pitch);
  /// y[p·y_pitch + o] = f32(s[p·pitch + o]) · scale[o].
  void (*scale)(const int32_t* s, int64_t count, int64_t pitch, int64_t outs, const float* scale, float* y,
                int64_t y_pitch);
  /// y[o·plane + p] = s[p·kInt8Outs + o] for p < count, o < outs.
  void (*spread)(const uint8_t* s, int64_t count, int64_t outs, uint8_t* y, int64_t plane);
};

/// The set for the best target of this machine (or the one chosen for a test).
const Int8Kernels& int8_kernels();

}  // namespace hone::simd
