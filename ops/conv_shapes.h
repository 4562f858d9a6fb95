#pragma once
// What every convolution op shares: options as attributes, checks and sizes.

#include <array>

#include "hone/ops/conv.h"
#include "hone/ops/simd/conv_geometry.h"

namespace hone::detail {

/// ShapeError for a Shape in `o` that has neither one value nor two.
ConvAttrs conv_attrs(const char* op, const Conv2dOptions& o);
/// ValueError for a stride, dilation, padding or groups out of range.
void check_conv_attrs(const ShapeContext& c, const ConvAttrs& a);
/// Rules of x [N, C, H, W] and a weight [O, C/groups, KH, KW]; returns the output's height and width. ShapeError.
std::array<int64_t, 2> check_conv(const ShapeContext& c, const ConvAttrs& a, const Shape& x, const Shape& weight);
/// Of x [N, C, H, W], a kernel of kh by kw and y [N, O, OH, OW], which have been checked.
ConvGeometry conv_geometry(const ConvAttrs& a, const View& x, int64_t kh, int64_t kw, const View& y);

}  // namespace hone::detail
