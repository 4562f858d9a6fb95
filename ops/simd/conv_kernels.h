#pragma once
// The inner loops of the direct convolution, one set per SIMD target.
//
// A band (some rows of the output) is computed from a packed copy of its input: for each channel c and kernel column
// kw, the rows of x shifted by kw and cut to the output's width. With rows of pitch ow, kernel row kh is then a shift
// by a constant, so that y[o][q] = sum_t w[o][t] · packed[offset_t + q] over the flattened output position q, and
// vectors run over q with no regard to where rows end.

#include <cstdint>
#include <initializer_list>
#include <limits>

#include "hone/ops/simd/conv_geometry.h"

namespace hone::simd {

/// Elements that kernels may read or write past a packed array.
inline constexpr int64_t kConvSlack = 64;

struct ConvKernels {
  int64_t lanes;
  int64_t block;  ///< most output channels of one register tile

  /// Packed copy of x [c, h, w] for output rows [row, row + rows).
  void (*pack)(const ConvGeometry& s, const float* x, int64_t row, int64_t rows, float* packed);
  /// dx [c, h, w] += what pack would have read from it: the transpose of pack.
  void (*unpack_add)(const ConvGeometry& s, const float* packed, int64_t row, int64_t rows, float* dx);
  /// y[o·pitch + q] = (accumulate ? y[…] : bias ? bias[o] : 0) + sum_t w_t,o x[offsets[t] + q] for q < length, o <
  /// outs. w_t,o lies at w[t·w_step + o]; for a w_step of 0, `w` is in blocks, as pack_weights lays it out. x is
  /// readable for a vector past its end; with accumulate, y too.
  void (*correlate)(const float* x, const int32_t* offsets, int64_t taps, const float* w, int64_t w_step, int64_t outs,
                    int64_t length, const float* bias, bool accumulate, float* y, int64_t pitch);
  /// dw[o·taps + t] += sum_{u < units, q < length} g[u·g_unit + o·pitch + q] · x[u·x_unit + offsets[t] + q], where g is
  /// zero from length to the next multiple of 16 (pitch and g_unit are such multiples).
  void (*weight_grad)(const float* x, int64_t x_unit, const int32_t* offsets, int64_t taps, const float* g,
                      int64_t g_unit, int64_t pitch, int64_t outs, int64_t length, int64_t units, float* dw);
  /// sum_{q < length} g[q], in f64 over blocks in f32.
  double (*sum)(const float* g, int64_t length);
};

/// The set for the best target of this machine (or the one chosen for a test).
const ConvKernels& conv_kernels();

/// Input rows are packed by their residue class modulo the stride, as far as a kernel row reads the class: a 1x1 kernel
/// of stride 2 packs every other row.
inline int64_t packed_classes(const ConvGeometry& s) {
  const int64_t extent = (s.kh - 1) * s.dilation_h + 1;
  return extent < s.stride_h ? extent : s.stride_h;
}
/// Rows of one class in a packed band: kernel rows dilated, divided by the stride.
inline int64_t packed_rows(const ConvGeometry& s, int64_t rows) {
  return rows + (s.kh - 1) * s.dilation_h / s.stride_h;
}
/// Elements of a packed band; INT64_MAX where the product passes it.
inline int64_t packed_size(const ConvGeometry& s, int64_t rows) {
  int64_t size = s.c;
  for (const int64_t factor : {s.kw, packed_classes(s), packed_rows(s, rows), s.ow})
    if (__builtin_mul_overflow(size, factor, &size)) return std::numeric_limits<int64_t>::max();
  return size;
}
/// Output channels are split evenly into blocks of at most `block`.
struct ConvBlocks {
  int64_t count, base, larger;  ///< the first `larger` blocks have base + 1 channels
  ConvBlocks(int64_t outs, int64_t block)
      : count((outs + block - 1) / block), base(outs / count), larger(outs % count) {}
  int64_t size(int64_t b) const { return base + (b < larger ? 1 : 0); }
};

}  // namespace hone::simd
