#pragma once
// Integer convolutions of few channels where four products of 8 bits are one instruction (VNNI): neighbouring positions
// of a row in the lanes, so that few outputs leave none idle, and in each lane the four inputs of a group of taps that
// ops/simd/int8_kernels.h multiplies with the four weights of an output.

#include <cstdint>

#include "hone/ops/simd/int8_kernels.h"
#include "hone/ops/simd/int8_row_kernels.h"

namespace hone::simd {

inline constexpr int64_t kMostQuadChannels = 4;  ///< sixteen positions and a group's span fit the 64 bytes of a vector

/// Groups of four taps in a row of the kernel, which begins a group: (kw, c) in order.
inline int64_t quad_groups(const RowConv& s) { return (s.kw * s.c + kInt8Group - 1) / kInt8Group; }
/// Elements of all groups of one row of the input.
inline int64_t quad_row(const RowConv& s) { return quad_groups(s) * s.padded_cols(); }

/// One set, of VNNI's target; none elsewhere.
struct QuadKernels {
  /// quads[r, g, j] = the four codes of group g at column j of row r, for s.rows + s.kh rows, from what pack_rows of
  /// Int8Kernels made of them. 64 bytes past it are read.
  void (*quads)(const RowConv& s, const uint8_t* packed, int32_t* quads);
  /// y [outs, plane] = start + the sums, rows of `pitch`, from quads and panels of weights as Int8Product has them.
  void (*product)(const RowConv& s, const int32_t* quads, const int8_t* panels, const int32_t* start, int32_t* y);
};

/// The set for the best target of this machine (or the one chosen for a test).
const QuadKernels& quad_kernels();

}  // namespace hone::simd
