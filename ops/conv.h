#pragma once
// 2-d convolution (cross-correlation, as the field calls it) and its two gradients, which are each other's backwards:
// any order of derivative works.

#include "hone/core/op.h"

namespace hone {

/// Each Shape has one value for both dims, or {height, width}.
struct Conv2dOptions {
  Shape stride = {1};
  Shape padding = {0};   ///< zeros on either side
  Shape dilation = {1};  ///< distance between the kernel's elements
  int64_t groups = 1;    ///< channels are split into groups that do not mix; groups = C is a depthwise convolution
};

struct ConvAttrs {
  int64_t stride_h = 1, stride_w = 1, pad_h = 0, pad_w = 0, dilation_h = 1, dilation_w = 1, groups = 1;
  int64_t size_h = 0, size_w = 0;  ///< of x for conv2d_input_grad, of the kernel for conv2d_weight_grad
  bool bias = false;               ///< conv2d_weight_grad also gives the bias' gradient
  void fields(FieldVisitor& v) {
    v("stride_h", stride_h), v("stride_w", stride_w), v("pad_h", pad_h), v("pad_w", pad_w);
    v("dilation_h", dilation_h), v("dilation_w", dilation_w), v("groups", groups);
    v("size_h", size_h), v("size_w", size_w), v("bias", bias);
  }
};

extern const OpDef kConv2d;
extern const OpDef kConv2dInputGrad;
extern const OpDef kConv2dWeightGrad;

/// y[n, o, i, j] = bias[o] + sum_{c, p, q} weight[o, c, p, q] · x[n, c′, i·stride − padding + p·dilation, j·…], where
/// c′ is channel c of o's group, and x is 0 outside its bounds. x: [N, C, H, W]; weight: [O, C/groups, KH, KW]; bias:
/// [O] or undefined; one floating dtype (bf16 computes in f32). Returns [N, O, (H + 2·padding − dilation·(KH−1) −
/// 1)/stride + 1, …]; N = 0 gives an empty tensor. Differentiable to any order. Throws ShapeError (channels, groups, a
/// kernel larger than the padded input), ValueError (stride, dilation or groups < 1, padding < 0), DTypeError.
Tensor conv2d(const Tensor& x, const Tensor& weight, const Tensor& bias = {}, const Conv2dOptions& options = {});

/// The gradient of x ([N, C, size]) for the gradient g [N, O, OH, OW] of conv2d's output: a transposed convolution.
Tensor conv2d_input_grad(const Tensor& g, const Tensor& weight, const Shape& size, const Conv2dOptions& options = {});

/// The gradient of the weight ([O, C/groups, kernel]) for the gradient g of conv2d's output; with `bias`, the second
/// output is the gradient of the bias, the sum of g over N, OH and OW.
Outputs conv2d_weight_grad(const Tensor& x, const Tensor& g, const Shape& kernel, const Conv2dOptions& options = {},
                           bool bias = false);

}  // namespace hone
