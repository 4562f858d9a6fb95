#pragma once
// Integer convolutions of few channels: neighbouring positions of a row in the lanes, so that few outputs leave none
// idle, and two rows of the output at once by ops/simd/two_outputs.h, whose inputs and weights are rows here. Sums are
// modulo 2^32, and twice an output has less than 2^31 up to kMostRowTaps: the bits are those of the plain convolution.
//
// Two values of 16 bits share a lane: those of two channels, or of an odd last channel at two neighbouring columns.

#include <cstdint>

#include "hone/ops/simd/two_outputs.h"

namespace hone::simd {

inline constexpr int64_t kMostRowTaps = 1 << 15;  // 2 · 2^15 · 255 · 127 < 2^31
inline constexpr int64_t kRowBlock = 16;          ///< lanes of a block: positions of a row, or tiles

/// One band of the output, rows [top, top + rows) of a convolution of stride 1.
struct RowConv {
  int64_t c, h, w, kh, kw, pad_h, pad_w;  ///< kh: 3 or 5
  int64_t top, rows, cols, outs;
  bool pools;      ///< the largest of each 2 × 2 outputs
  int64_t across;  ///< columns that are made at once

  int64_t planes() const { return (c + 1) / 2; }                            ///< of pairs
  int64_t row_taps() const { return c / 2 * kw + c % 2 * ((kw + 1) / 2); }  ///< pairs of one row of the kernel
  int64_t combined() const { return combined_count(kh); }                   ///< rows that a pair of rows is made of
  int64_t steps() const { return combined() * row_taps(); }
  int64_t padded_cols() const { return (cols + across - 1) / across * across; }
  int64_t line() const { return padded_cols() + kw - 1; }                      ///< elements of a row of pairs
  int64_t pitch() const { return pools ? padded_cols() / 2 : padded_cols(); }  ///< of sums
  int64_t made_rows() const { return pools ? rows / 2 : rows; }
  /// Sums of an output: whole blocks, with room for what the last pooled one spills.
  int64_t plane() const { return (made_rows() * pitch() + kRowBlock / 2 + 15) / kRowBlock * kRowBlock; }
};

/// One set per SIMD target whose Int8Kernels have elements of 16 bits; none elsewhere.
struct RowKernels {
  int64_t together;  ///< outputs
  /// Rows [s.top − pad_h, + s.rows + kh) of x as pairs [rows, planes, line]; `code` outside x.
  void (*pack)(const RowConv& s, const uint8_t* x, uint8_t code, int32_t* pairs);
  /// y [outs, plane] = start + the sums, rows of `pitch`. offsets [steps]: of each pair in combined rows [combined,
  /// planes, line]; w: for each `together` outputs, pairs [steps, outputs]. combined and room are for the kernel:
  /// combined · planes · line, and together · kRowBlock elements, 64-byte aligned.
  void (*product)(const RowConv& s, const int32_t* pairs, const int32_t* offsets, const int32_t* w,
                  const int32_t* start, int32_t* combined, int32_t* room, int32_t* y);
};

/// The set for the best target of this machine (or the one chosen for a test).
const RowKernels& row_kernels();

}  // namespace hone::simd
