#pragma once
// From tensors to the panel kernels: what fused and packed ops share. f32, contiguous arrays.

#include "hone/core/op.h"
#include "hone/ops/fused.h"
#include "hone/ops/simd/conv_geometry.h"
#include "hone/ops/simd/panel_kernels.h"

namespace hone::detail {

/// Elements of a weight [groups·outs, …] of `depth` taps in panels; ShapeError beyond any memory.
int64_t panel_elements(int64_t groups, int64_t outs, int64_t depth);
/// Weight [groups·outs, channels, kh, kw] → panels: group, panel, tap (c, kw, kh), output; zeros beside the outputs and
/// in the slack at the end.
void pack_panels(const float* weight, int64_t groups, int64_t outs, int64_t channels, int64_t kh, int64_t kw,
                 float* panels);
/// Its inverse.
void unpack_panels(const float* panels, int64_t groups, int64_t outs, int64_t channels, int64_t kh, int64_t kw,
                   float* weight);

/// Whether panel_conv computes what conv2d does, to the bit, and does not waste its vectors.
bool panel_conv_suits(const ConvGeometry& s);
/// Whether places in its scratch memory fit 32 bits.
bool panel_conv_fits(const ConvGeometry& s, const FusedPoolAttrs& pool);
/// y = pool(activation(x ⋆ w + bias)); bias may be null. Split by size: the same bits at any thread count.
void panel_conv(const ConvGeometry& s, const float* x, const float* panels, const float* bias,
                const ActivationAttrs& activation, const FusedPoolAttrs& pool, float* y, Workspace& workspace);

/// y [rows, outs] = activation(x [rows, depth] Wᵀ + bias); bias may be null; depth below 2^25. Each row's bits are its
/// own: they do not depend on the others.
void panel_linear(int64_t rows, int64_t depth, int64_t outs, const float* x, const float* panels, const float* bias,
                  const ActivationAttrs& activation, float* y, Workspace& workspace);

/// y = pool(activation(x)) on `planes` planes of rows × cols, which lie one after the other: what follows a product
/// that does not end in panels. x is readable for kConvSlack past its end and is not y. The same bits as the ops.
void finish_planes(int64_t planes, int64_t rows, int64_t cols, const float* x, const ActivationAttrs& activation,
                   const FusedPoolAttrs& pool, float* y, Workspace& workspace);

}  // namespace hone::detail
