#include "hone/ops/nn/activation.h"

#include "hone/ops/dropout.h"
#include "hone/ops/shape_ops.h"
#include "hone/ops/softmax.h"

namespace hone::nn {

Tensor Softmax::forward(const Tensor& x) { return softmax(x, dim); }

Tensor LogSoftmax::forward(const Tensor& x) { return log_softmax(x, dim); }

Dropout::Dropout(DropoutOptions o) : p(o.p) {
  HONE_CHECK(o.p >= 0 && o.p <= 1, ValueError, "Dropout: p must be in [0, 1], is ", o.p);
}

Tensor Dropout::forward(const Tensor& x) { return dropout(x, p, training()); }

Tensor Flatten::forward(const Tensor& x) { return flatten(x, start, end); }

}  // namespace hone::nn
