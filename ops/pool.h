#pragma once
// 2-d pooling over [N, C, H, W]. All are twice differentiable.

#include "hone/core/op.h"

namespace hone {

/// Each Shape has one value for both dims, or {height, width}.
struct MaxPool2dOptions {
  Shape stride = {};    ///< the kernel's where empty
  Shape padding = {0};  ///< −inf on either side; at most half the kernel's extent
  Shape dilation = {1};
};
struct AvgPool2dOptions {
  Shape stride = {};              ///< the kernel's where empty
  Shape padding = {0};            ///< zeros on either side; at most half the kernel
  bool count_include_pad = true;  ///< whether padding counts in the divisor
};

struct PoolAttrs {
  int64_t kernel_h = 1, kernel_w = 1, stride_h = 1, stride_w = 1, pad_h = 0, pad_w = 0, dilation_h = 1, dilation_w = 1;
  int64_t size_h = 0, size_w = 0;  ///< of the result: adaptive pooling's output, a gradient's input
  bool count_include_pad = true;
  bool adaptive = false;
  bool tiles = false;  ///< indices come from disjoint 2×2 windows that cover the input
  void fields(FieldVisitor& v) {
    v("kernel_h", kernel_h), v("kernel_w", kernel_w), v("stride_h", stride_h), v("stride_w", stride_w);
    v("pad_h", pad_h), v("pad_w", pad_w), v("dilation_h", dilation_h), v("dilation_w", dilation_w);
    v("size_h", size_h), v("size_w", size_w), v("count_include_pad", count_include_pad);
    v("adaptive", adaptive), v("tiles", tiles);
  }
};

extern const OpDef kMaxPool2d;          // x → values, indices
extern const OpDef kAdaptiveMaxPool2d;  // x → values, indices
extern const OpDef kMaxPool2dGrad;      // g, indices → dx
extern const OpDef kMaxPool2dGather;    // x, indices → x at the indices
extern const OpDef kAvgPool2d;
extern const OpDef kAdaptiveAvgPool2d;
extern const OpDef kAvgPool2dGrad;  // g → dx, of both

/// y[n, c, i, j] = max over p < KH, q < KW of x[n, c, i·stride − padding + p·dilation, j·…]; NaN where the window has
/// one. x: [N, C, H, W], floating. Returns [N, C, (H + 2·padding − dilation·(KH−1) − 1)/stride + 1, …]. The gradient
/// goes to the first of equal elements. Throws ShapeError (a kernel larger than the padded input), ValueError (kernel,
/// stride or dilation < 1, padding negative or more than half the kernel), DTypeError.
Tensor max_pool2d(const Tensor& x, const Shape& kernel, const MaxPool2dOptions& options = {});
Tensor max_pool2d(const Tensor& x, int64_t kernel, const MaxPool2dOptions& options = {});
/// {values, indices}: indices are i32, the place h·W + w in the plane; −1 for a window of padding alone.
Outputs max_pool2d_with_indices(const Tensor& x, const Shape& kernel, const MaxPool2dOptions& options = {});

/// The mean of each window, zeros of the padding included. Shapes and errors as max_pool2d.
Tensor avg_pool2d(const Tensor& x, const Shape& kernel, const AvgPool2dOptions& options = {});
Tensor avg_pool2d(const Tensor& x, int64_t kernel, const AvgPool2dOptions& options = {});

/// Mean over rows [⌊i·H/size⌋, ⌈(i+1)·H/size⌉) and columns likewise: [N, C, size]; size 1 is global average pooling.
/// Throws ShapeError for an empty plane, ValueError for size < 1, DTypeError.
Tensor adaptive_avg_pool2d(const Tensor& x, const Shape& size);
Tensor adaptive_avg_pool2d(const Tensor& x, int64_t size);
/// The largest over the same windows.
Tensor adaptive_max_pool2d(const Tensor& x, const Shape& size);
Tensor adaptive_max_pool2d(const Tensor& x, int64_t size);

}  // namespace hone
