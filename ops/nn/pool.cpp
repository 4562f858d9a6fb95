#include "hone/ops/nn/pool.h"

#include "hone/ops/pool.h"

namespace hone::nn {

namespace {

/// The stride meant by the options, once they are checked.
Size2 checked_stride(const char* layer, const Size2& kernel, const Size2& stride, const Size2& padding) {
  HONE_CHECK(kernel.at_least(1), ValueError, layer, ": kernel must be positive, is ", kernel);
  HONE_CHECK(stride == Size2(0) || stride.at_least(1), ValueError, layer,
             ": stride must be positive, or 0 for the kernel's, is ", stride);
  HONE_CHECK(padding.at_least(0), ValueError, layer, ": padding must not be negative, is ", padding);
  return stride == Size2(0) ? kernel : stride;
}

Size2 checked_output(const char* layer, const Size2& output) {
  HONE_CHECK(output.at_least(1), ValueError, layer, ": output must be positive, is ", output);
  return output;
}

}  // namespace

MaxPool2d::MaxPool2d(MaxPoolOptions o)
    : kernel(o.kernel),
      stride(checked_stride("MaxPool2d", o.kernel, o.stride, o.padding)),
      padding(o.padding),
      dilation(o.dilation) {
  HONE_CHECK(dilation.at_least(1), ValueError, "MaxPool2d: dilation must be positive, is ", dilation);
}

Tensor MaxPool2d::forward(const Tensor& x) {
  return max_pool2d(x, kernel.shape(),
                    {.stride = stride.shape(), .padding = padding.shape(), .dilation = dilation.shape()});
}

AvgPool2d::AvgPool2d(AvgPoolOptions o)
    : kernel(o.kernel),
      stride(checked_stride("AvgPool2d", o.kernel, o.stride, o.padding)),
      padding(o.padding),
      count_include_pad(o.count_include_pad) {}

Tensor AvgPool2d::forward(const Tensor& x) {
  return avg_pool2d(x, kernel.shape(),
                    {.stride = stride.shape(), .padding = padding.shape(), .count_include_pad = count_include_pad});
}

AdaptiveAvgPool2d::AdaptiveAvgPool2d(AdaptivePoolOptions o) : output(checked_output("AdaptiveAvgPool2d", o.output)) {}

Tensor AdaptiveAvgPool2d::forward(const Tensor& x) { return adaptive_avg_pool2d(x, output.shape()); }

AdaptiveMaxPool2d::AdaptiveMaxPool2d(AdaptivePoolOptions o) : output(checked_output("AdaptiveMaxPool2d", o.output)) {}

Tensor AdaptiveMaxPool2d::forward(const Tensor& x) { return adaptive_max_pool2d(x, output.shape()); }

}  // namespace hone::nn
