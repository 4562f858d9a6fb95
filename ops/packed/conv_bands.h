#pragma once
// How packed convolutions cut their output: bands of rows whose products stay in the first-level cache.

#include <algorithm>

#include "hone/core/op.h"
#include "hone/core/parallel.h"
#include "hone/ops/fused.h"
#include "hone/ops/simd/conv_geometry.h"
#include "hone/ops/simd/panel_kernels.h"

namespace hone::detail {

inline constexpr int64_t kPieceMacs = 1'000'000;   // of one piece of parallel work: some 20 microseconds
inline constexpr int64_t kPositions = 400;         // of one band: its products stay in the first-level cache
inline constexpr int64_t kBandFloats = 64 * 1024;  // of a band's input: a part of the second-level cache
inline constexpr int64_t kMostPlaces = 1 << 30;

inline int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

/// body(begin, end, scratch), as parallel_for_scratch; one piece alone takes its scratch from the workspace.
template <class T, class Body>
void pieces(int64_t n, int64_t grain, int64_t elements, Workspace& workspace, const Body& body) {
  if (n <= std::max<int64_t>(grain, 1)) return body(int64_t{0}, n, workspace.get<T>(elements));
  parallel_for_scratch<T>(n, grain, elements, body);
}

/// Of the pool that follows a convolution's output of rows × cols; without one, each element is a window.
inline simd::PoolGeometry pool_geometry(const FusedPoolAttrs& a, int64_t rows, int64_t cols) {
  simd::PoolGeometry g{rows, cols, rows, cols};
  if (!a.present()) return g;
  g.kernel_h = a.kernel_h, g.kernel_w = a.kernel_w, g.stride_h = a.stride_h, g.stride_w = a.stride_w;
  g.pad_h = a.pad_h, g.pad_w = a.pad_w;
  g.out_rows = (rows + 2 * a.pad_h - a.kernel_h) / a.stride_h + 1;
  g.out_cols = (cols + 2 * a.pad_w - a.kernel_w) / a.stride_w + 1;
  return g;
}

/// The final output is made in bands of rows; the convolution's rows that a band needs are computed with it.
struct Bands {
  int64_t rows, count;               // of the final output
  int64_t conv_rows = 0, plane = 0;  // most rows of the convolution in a band; elements of a channel of its input
  int64_t width;                     // of the padded input

  /// The convolution's rows are taken `together`, as far as pooling allows.
  Bands(const ConvGeometry& s, const simd::PoolGeometry& g, bool pools, int64_t together = 1)
      : width(s.w + 2 * s.pad_w) {
    const int64_t extent = (s.kh - 1) * s.dilation_h + 1, line = std::max<int64_t>(s.c * width, 1);
    const int64_t fit = std::min(kPositions / s.ow, (kBandFloats / line - extent) / s.stride_h + 1);
    rows = std::max<int64_t>(pools ? (fit - g.kernel_h) / g.stride_h + 1 : fit, 1);
    count = ceil_div(g.out_rows, std::min(rows, g.out_rows));
    rows = ceil_div(g.out_rows, count);
    if (!pools) rows = ceil_div(rows, together) * together;
    count = ceil_div(g.out_rows, rows);
    conv_rows = std::min(pools ? (rows - 1) * g.stride_h + g.kernel_h : rows, s.oh);
    plane = ((conv_rows - 1) * s.stride_h + extent) * width;
  }
};

}  // namespace hone::detail
