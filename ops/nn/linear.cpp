#include "hone/ops/nn/linear.h"

#include <cmath>

#include "hone/ops/matmul.h"
#include "hone/ops/nn/init.h"

namespace hone::nn {

Linear::Linear(LinearOptions o) {
  HONE_CHECK(o.in > 0 && o.out > 0, ValueError, "Linear: in and out must be positive, are ", o.in, " and ", o.out);
  const double bound = 1 / std::sqrt(static_cast<double>(o.in));
  weight = Parameter(empty({o.out, o.in}));
  init::uniform_(weight, -bound, bound);
  if (!o.bias) return;
  bias = Parameter(empty({o.out}));
  init::uniform_(bias, -bound, bound);
}

Tensor Linear::forward(const Tensor& x) { return linear(x, weight.value(), bias.value()); }

}  // namespace hone::nn
