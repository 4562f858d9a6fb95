#pragma once
// The entropy of a softmax, from its logits.

#include "hone/core/tensor.h"

namespace hone {

/// H = −Σ_j p_j log p_j with p = softmax(logits) along `dim`, in nats: between 0 and log of the dim's size.
/// logits: any shape, floating dtype; the result is without `dim`. Computed from log_softmax, so that large logits lose
/// nothing; a class whose logit is −inf adds 0 (0·log 0 = 0) and has gradient 0. A slice that holds a NaN or +inf, or
/// nothing but −inf, gives NaN. Differentiable twice: ∂H/∂z_j = −p_j (log p_j + H). ShapeError, DTypeError.
Tensor entropy(const Tensor& logits, int64_t dim = -1);

}  // namespace hone
