#pragma once

#include "hone/ops/nn/module.h"
#include "hone/ops/nn/size2.h"

namespace hone::nn {

struct Conv2dOptions {
  int64_t in = 0, out = 0;  ///< channels
  Size2 kernel = 0, stride = 1, padding = 0, dilation = 1;
  int64_t groups = 1;
  bool bias = true;
};

/// Cross-correlation over [N, in, H, W]: weight [out, in/groups, kh, kw], bias [out]; result [N, out, H', W'] with
/// H' = ⌊(H + 2·padding − dilation·(kh − 1) − 1) / stride⌋ + 1, W' likewise.
/// Weight and bias begin uniform in ±1/√(in/groups·kh·kw), as Linear's. ValueError unless channels, kernel, stride,
/// dilation and groups are positive, padding is not negative and groups divides both channel counts.
struct Conv2d : Module {
  Parameter weight, bias;
  Size2 stride, padding, dilation;
  int64_t groups;
  HONE_MODULE(Conv2d, weight, bias)
  explicit Conv2d(Conv2dOptions o);
  Tensor forward(const Tensor& x);
  int64_t in() const { return weight.shape()[1] * groups; }
  int64_t out() const { return weight.shape()[0]; }
  Size2 kernel() const { return {weight.shape()[2], weight.shape()[3]}; }
};

}  // namespace hone::nn
