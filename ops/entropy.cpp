#include "hone/ops/entropy.h"

#include <limits>

#include "hone/core/autograd.h"
#include "hone/ops/arithmetic.h"
#include "hone/ops/reduce.h"
#include "hone/ops/softmax.h"
#include "hone/ops/unary.h"

namespace hone {

Tensor entropy(const Tensor& logits, int64_t dim) {
  HONE_CHECK(logits.defined(), ValueError, "entropy: the logits are an undefined tensor");
  HONE_CHECK(is_floating(logits.dtype()), DTypeError, "entropy: logits must be floating, not ", logits.dtype());
  wrap_dim("entropy", dim, logits.ndim());
  const Tensor log_p = log_softmax(logits, dim);
  // e^(−inf)·(−inf) would be NaN: such a class counts as log p = 0 beside p = 0.
  const Tensor absent = eq(log_p.detach(), -std::numeric_limits<double>::infinity());
  const Tensor terms = exp(log_p) * masked_fill(log_p, absent, 0);
  return -(logits.ndim() == 0 ? terms : sum(terms, {dim}));
}

}  // namespace hone
