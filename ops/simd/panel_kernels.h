#pragma once
// Products with weights packed in panels, and what stands after a convolution, one set per SIMD target.
//
// y[p][o] = start[o] + sum_t x[positions[p] + taps[t]] · w[t][o]: a convolution where positions and taps are places of
// an image, a linear layer where they are rows and columns. Vectors run over outputs, so x is read as it lies, and
// every sum is one chain of multiply-adds in the order of the taps: its bits do not depend on what is computed beside
// it.

#include <cstdint>

#include "hone/ops/simd/conv_kernels.h"

namespace hone::simd {

/// Outputs side by side in a panel of weights: panel, tap, output. The last one is 8 wide where at most 8 remain.
inline constexpr int64_t kPanel = 16;
/// Elements that kernels may read past weights and starts; past scratch arrays they read and write up to kConvSlack.
inline constexpr int64_t kPanelSlack = 16;
/// Width of the panel that begins where `outs` outputs remain.
inline int64_t panel_width(int64_t outs) { return outs > kPanel / 2 ? kPanel : kPanel / 2; }
/// Of all panels together.
inline int64_t panel_columns(int64_t outs) {
  const int64_t rest = outs % kPanel;
  return outs - rest + (rest > 0 ? panel_width(rest) : 0);
}

struct PanelProduct {
  const float* x;
  const int32_t* positions;
  int64_t count;  ///< of positions
  const int32_t* taps;
  int64_t depth;  ///< number of taps
  const float* w;
  const float* start;  ///< panel_columns(outs), of each position or of all
  int64_t outs;
  bool relu;  ///< max(y, 0), NaN for NaN
  float* y;
  int64_t pitch;            ///< of y's positions
  int64_t start_pitch = 0;  ///< of start's, which may be y; 0: the same start for all
};

/// Max pooling of one plane; every window holds an element of the plane.
struct PoolGeometry {
  int64_t rows = 0, cols = 0, out_rows = 0, out_cols = 0;
  int64_t kernel_h = 0, kernel_w = 0, stride_h = 1, stride_w = 1, pad_h = 0, pad_w = 0;
  int64_t first_row(int64_t i) const { return i * stride_h > pad_h ? i * stride_h - pad_h : 0; }
  int64_t end_row(int64_t i) const {
    const int64_t end = i * stride_h - pad_h + kernel_h;
    return end < rows ? end : rows;
  }
  bool is_tiling() const {
    return kernel_h == 2 && kernel_w == 2 && stride_h == 2 && stride_w == 2 && pad_h == 0 && pad_w == 0;
  }
};

struct PanelKernels {
  int64_t lanes;
  /// Rows [row, row + rows) of c planes [h, w] with `pad` zeros on either side, zeros where a row lies outside: to
  /// planes of `plane` elements.
  void (*copy_rows)(const float* x, int64_t c, int64_t h, int64_t w, int64_t pad, int64_t row, int64_t rows,
                    int64_t plane, float* to);
  void (*product)(const PanelProduct& p);
  /// Windows [begin, end) × out_cols over positions of `width` outputs each; s begins with row `first` of the plane.
  void (*pool_positions)(const float* s, const PoolGeometry& g, int64_t first, int64_t begin, int64_t end,
                         int64_t width, float* to);
  /// y[o·plane + i] = s[i·width + o] for i < count, o < outs.
  void (*spread)(const float* s, int64_t count, int64_t width, int64_t outs, float* y, int64_t plane);
  /// As pool_positions, over `planes` planes that are s_plane apart in rows of `pitch`; y: planes y_plane apart.
  void (*pool_planes)(const float* s, int64_t s_plane, int64_t pitch, const PoolGeometry& g, int64_t first,
                      int64_t begin, int64_t end, int64_t planes, bool relu, float* y, int64_t y_plane);
  /// The first `cols` of each row.
  void (*copy_planes)(const float* s, int64_t s_plane, int64_t pitch, int64_t rows, int64_t cols, int64_t planes,
                      bool relu, float* y, int64_t y_plane);
};

/// The set for the best target of this machine (or the one chosen for a test).
const PanelKernels& panel_kernels();

}  // namespace hone::simd
