#include "hone/ops/logit_adjustment.h"

#include <cmath>

#include "hone/core/autograd.h"
#include "hone/ops/arithmetic.h"
#include "hone/ops/reduce.h"

namespace hone {
namespace {

Tensor shifted(const char* op, const Tensor& logits, const Tensor& log_priors, double tau, double sign) {
  HONE_CHECK(logits.defined() && log_priors.defined(), ValueError, op, ": an undefined tensor");
  HONE_CHECK(is_floating(logits.dtype()), DTypeError, op, ": logits must be floating, not ", logits.dtype());
  HONE_CHECK(logits.ndim() == 2 && logits.size(1) > 0, ShapeError, op, ": logits must be [N, C], not ", logits.shape());
  HONE_CHECK(log_priors.shape() == Shape{logits.size(1)}, ShapeError, op, ": log_priors of shape ", log_priors.shape(),
             " for ", logits.size(1), " classes; expected [", logits.size(1), "]");
  HONE_CHECK(log_priors.dtype() == logits.dtype(), DTypeError, op, ": log_priors of dtype ", log_priors.dtype(),
             " for logits of dtype ", logits.dtype(), "; cast one of them");
  HONE_CHECK(std::isfinite(tau), ValueError, op, ": tau must be finite, got ", tau);
  const Tensor prior = log_priors.detach();
  const double low = min(prior).item(), high = max(prior).item();
  HONE_CHECK(std::isfinite(low) && std::isfinite(high), ValueError, op, ": log_priors must be finite, got ",
             std::isfinite(low) ? high : low, "; a class without samples has none");
  return logits + prior * (sign * tau);
}

}  // namespace

Tensor logit_adjusted_cross_entropy(const Tensor& logits, const Tensor& target, const Tensor& log_priors,
                                    const LogitAdjustedOptions& o) {
  return cross_entropy(shifted("logit_adjusted_cross_entropy", logits, log_priors, o.tau, 1), target, o.cross_entropy);
}

Tensor logit_adjusted(const Tensor& logits, const Tensor& log_priors, double tau) {
  return shifted("logit_adjusted", logits, log_priors, tau, -1);
}

}  // namespace hone
