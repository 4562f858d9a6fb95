#include "hone/ops/nn/conv.h"

#include <cmath>

#include "hone/ops/conv.h"
#include "hone/ops/nn/init.h"

namespace hone::nn {

Conv2d::Conv2d(Conv2dOptions o) : stride(o.stride), padding(o.padding), dilation(o.dilation), groups(o.groups) {
  HONE_CHECK(o.in > 0 && o.out > 0, ValueError, "Conv2d: in and out must be positive, are ", o.in, " and ", o.out);
  HONE_CHECK(o.kernel.at_least(1) && o.stride.at_least(1) && o.dilation.at_least(1) && o.padding.at_least(0),
             ValueError, "Conv2d: kernel, stride and dilation must be positive and padding not negative, they are ",
             o.kernel, ", ", o.stride, ", ", o.dilation, " and ", o.padding);
  HONE_CHECK(o.groups > 0 && o.in % o.groups == 0 && o.out % o.groups == 0, ValueError, "Conv2d: groups ", o.groups,
             " must divide in ", o.in, " and out ", o.out);
  weight = Parameter(empty({o.out, o.in / o.groups, o.kernel.h, o.kernel.w}));
  const double bound = 1 / std::sqrt(static_cast<double>(init::fans(weight.shape()).in));
  init::uniform_(weight, -bound, bound);
  if (!o.bias) return;
  bias = Parameter(empty({o.out}));
  init::uniform_(bias, -bound, bound);
}

Tensor Conv2d::forward(const Tensor& x) {
  return conv2d(x, weight.value(), bias.value(),
                {.stride = stride.shape(), .padding = padding.shape(), .dilation = dilation.shape(), .groups = groups});
}

}  // namespace hone::nn
