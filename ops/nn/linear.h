#pragma once

#include "hone/ops/nn/module.h"

namespace hone::nn {

struct LinearOptions {
  int64_t in = 0, out = 0;
  bool bias = true;
};

/// y = x Wᵀ + b: x [..., in], weight [out, in], bias [out], y [..., out].
/// Weight and bias begin uniform in ±1/√in: for the weight this is init::kaiming_uniform_ with negative slope √5.
/// ValueError unless in and out are positive; forward throws what linear() throws.
struct Linear : Module {
  Parameter weight, bias;
  HONE_MODULE(Linear, weight, bias)
  explicit Linear(LinearOptions o);
  Tensor forward(const Tensor& x);
  int64_t in() const { return weight.shape()[1]; }
  int64_t out() const { return weight.shape()[0]; }
};

}  // namespace hone::nn
