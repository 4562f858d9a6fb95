#pragma once
// Logit adjustment for classes of unequal size: the minimum of the balanced error lies where logits are shifted by the
// logarithm of the class priors π. Menon, Jayasumana, Rawat, Jain, Veit, Kumar, "Long-tail learning via logit
// adjustment", 2021.

#include "hone/ops/loss.h"

namespace hone {

struct LogitAdjustedOptions {
  double tau = 1;  ///< τ, finite; 1 is the consistent choice, 0 plain cross-entropy
  CrossEntropyOptions cross_entropy = {};
};

/// The loss form: cross_entropy(logits + τ log π, target). The network trained so is used as it is.
/// log_priors: [C], of the logits' dtype, finite, such as data::log_priors(counts); it has no gradient. Adding a
/// constant to all of it changes nothing. ShapeError, DTypeError, ValueError; else as cross_entropy.
Tensor logit_adjusted_cross_entropy(const Tensor& logits, const Tensor& target, const Tensor& log_priors,
                                    const LogitAdjustedOptions& options = {});
/// The post-hoc form: logits − τ log π, for the predictions of a network that was trained with plain cross-entropy.
/// logits: [N, C].
Tensor logit_adjusted(const Tensor& logits, const Tensor& log_priors, double tau = 1);

}  // namespace hone
