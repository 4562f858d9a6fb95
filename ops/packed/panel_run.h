#pragma once
// From tensors to the panel kernels: what fused and packed ops share. f32, contiguous arrays.

#include "hone/core/op.h"
#include "hone/ops/fused.h"
#include "hone/ops/simd/codebook_kernels.h"
#include "hone/ops/simd/conv_geometry.h"
#include "hone/ops/simd/panel_kernels.h"

namespace hone::detail {

/// Elements of a weight [groups·outs, …] of `depth` taps in panels; ShapeError beyond any memory.
int64_t panel_elements(int64_t groups, int64_t outs, int64_t depth);
/// Weight [groups·outs, channels, kh, kw] → panels: group, panel, tap (c, kw, kh), output; zeros beside the outputs and
/// in the slack at the end.
template <class T>  // float, uint8_t
void pack_panels(const T* weight, int64_t groups, int64_t outs, int64_t channels, int64_t kh, int64_t kw, T* panels);
/// Its inverse.
template <class T>
void unpack_panels(const T* panels, int64_t groups, int64_t outs, int64_t channels, int64_t kh, int64_t kw, T* weight);

/// A weight in panels: its values, or in their places codes of them, which are below `used`.
struct Panels {
  const float* values = nullptr;
  const uint8_t* codes = nullptr;
  const float* table = nullptr;  ///< [simd::kMostCodes]
  int64_t used = 0;

  /// Taps [t, t + n) of the panels of columns [first, first + outs), one panel after the other: looked up into
  /// `scratch`, which has room for scratch_floats(outs, n), or, of values, all taps where they lie.
  const float* taps(int64_t first, int64_t outs, int64_t depth, int64_t t, int64_t n, float* scratch) const;
  int64_t scratch_floats(int64_t outs, int64_t n) const {
    return codes ? simd::panel_columns(outs) * n + simd::kLookUpSlack : 0;
  }
};

/// Whether panel_conv computes what conv2d does, to the bit, and does not waste its vectors.
bool panel_conv_suits(const ConvGeometry& s);
/// Whether places in its scratch memory fit 32 bits.
bool panel_conv_fits(const ConvGeometry& s, const FusedPoolAttrs& pool);
/// y = pool(activation(x ⋆ w + bias)); bias may be null. Split by size: the same bits at any thread count.
void panel_conv(const ConvGeometry& s, const float* x, const Panels& weight, const float* bias,
                const ActivationAttrs& activation, const FusedPoolAttrs& pool, float* y, Workspace& workspace);

/// y [rows, outs] = activation(x [rows, depth] Wᵀ + bias); bias may be null; depth below 2^25. Each row's bits are its
/// own: they do not depend on the others.
void panel_linear(int64_t rows, int64_t depth, int64_t outs, const float* x, const Panels& weight, const float* bias,
                  const ActivationAttrs& activation, float* y, Workspace& workspace);

/// y = pool(activation(x)) on `planes` planes of rows × cols, which lie one after the other: what follows a product
/// that does not end in panels. x is readable for kConvSlack past its end and is not y. The same bits as the ops.
void finish_planes(int64_t planes, int64_t rows, int64_t cols, const float* x, const ActivationAttrs& activation,
                   const FusedPoolAttrs& pool, float* y, Workspace& workspace);

}  // namespace hone::detail
