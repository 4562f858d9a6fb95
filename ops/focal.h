#pragma once
// Focal loss: what is classified well already counts less. Lin, Goyal, Girshick, He, Dollár, "Focal loss for dense
// object detection", 2017.

#include <cstdint>
#include <optional>

#include "hone/ops/loss.h"

namespace hone {

struct FocalOptions {
  double gamma = 2;             ///< γ >= 0, finite; 0 is cross-entropy
  Tensor weight = {};           ///< [C], of the logits' dtype, finite and at least 0: α_c, a factor for each class
  int64_t ignore_index = -100;  ///< labels of this value count nowhere
  Reduction reduction = Reduction::mean;
};

/// l_n = −w_t (1 − p_nt)^γ log p_nt with p = softmax(logits, 1) and t the label; 0 where t is ignore_index.
///   mean = Σ l_n / Σ w_t over the labels that are not ignored, as cross_entropy has it: NaN where none is left.
/// logits: [N, C], floating; labels: [N], any integer dtype, in [0, C) or ignore_index. Differentiable any number of
/// times: 1 − p_t is the sum of the other classes' probabilities, taken in logarithms, so that nothing cancels,
/// overflows or is divided by 0, at any γ. With γ = 0 it is cross_entropy, as a composite. ShapeError, DTypeError as
/// cross_entropy; ValueError: γ, a weight or a label outside its range.
Tensor focal_loss(const Tensor& logits, const Tensor& labels, const FocalOptions& options = {});

struct SigmoidFocalOptions {
  double gamma = 2;                            ///< γ >= 0, finite
  std::optional<double> alpha = std::nullopt;  ///< α in [0, 1] weighs targets of 1, and 1 − α those of 0; none: both 1
  Reduction reduction = Reduction::mean;       ///< mean: over all elements
};

/// l = −α y (1 − p)^γ log p − (1 − α)(1 − y) p^γ log(1 − p) with p = sigmoid(logits), element by element: the focal
/// loss of independent yes/no questions. targets: of the logits' shape and dtype, in [0, 1] (ShapeError, DTypeError,
/// ValueError). As stable and as differentiable as focal_loss.
Tensor sigmoid_focal_loss(const Tensor& logits, const Tensor& targets, const SigmoidFocalOptions& options = {});

}  // namespace hone
