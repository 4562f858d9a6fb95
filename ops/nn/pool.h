#pragma once
// Pooling over the last two dims of [N, C, H, W]: the ops of hone/ops/pool.h as modules.

#include "hone/ops/nn/module.h"
#include "hone/ops/nn/size2.h"

namespace hone::nn {

struct MaxPoolOptions {
  Size2 kernel = 0;
  Size2 stride = 0;   ///< 0: the kernel's
  Size2 padding = 0;  ///< −inf on either side, at most half the kernel's extent
  Size2 dilation = 1;
};
/// The largest of each window. ValueError unless kernel and dilation are positive, and stride and padding not negative.
struct MaxPool2d : Module {
  Size2 kernel, stride, padding, dilation;
  HONE_MODULE(MaxPool2d)
  explicit MaxPool2d(MaxPoolOptions o);
  Tensor forward(const Tensor& x);
};

struct AvgPoolOptions {
  Size2 kernel = 0;
  Size2 stride = 0;   ///< 0: the kernel's
  Size2 padding = 0;  ///< zeros on either side, at most half the kernel
  bool count_include_pad = true;
};
/// The mean of each window; whether padding counts in its divisor is `count_include_pad`. ValueError likewise.
struct AvgPool2d : Module {
  Size2 kernel, stride, padding;
  bool count_include_pad;
  HONE_MODULE(AvgPool2d)
  explicit AvgPool2d(AvgPoolOptions o);
  Tensor forward(const Tensor& x);
};

struct AdaptivePoolOptions {
  Size2 output = 1;
};

/// Mean over windows chosen so that the result is [N, C, output.h, output.w]. ValueError unless that is positive.
struct AdaptiveAvgPool2d : Module {
  Size2 output;
  HONE_MODULE(AdaptiveAvgPool2d)
  explicit AdaptiveAvgPool2d(AdaptivePoolOptions o = {});
  Tensor forward(const Tensor& x);
};

/// The largest, over the same windows.
struct AdaptiveMaxPool2d : Module {
  Size2 output;
  HONE_MODULE(AdaptiveMaxPool2d)
  explicit AdaptiveMaxPool2d(AdaptivePoolOptions o = {});
  Tensor forward(const Tensor& x);
};

}  // namespace hone::nn
