#pragma once
// Losses. Each returns a new tensor: 0-d for the reductions mean and sum (and batchmean), per element or per row for
// none. A loss of NaN or infinite inputs is NaN or infinite, never an error: whoever trains can test the value.

#include <cstdint>

#include "hone/core/op.h"

namespace hone {

enum class Reduction : uint8_t { none, mean, sum };
const char* name(Reduction r);

/// Options of cross_entropy.
struct CrossEntropyOptions {
  Tensor weight = {};           ///< [C], of the logits' dtype: a factor for each class
  double label_smoothing = 0;   ///< ε in [0, 1]: that share of the target is spread evenly over the C classes
  int64_t ignore_index = -100;  ///< integer labels of this value count nowhere
  Reduction reduction = Reduction::mean;
};

/// logits: [N, C], floating dtype (bf16 computes in f32). With log p = log_softmax(logits, 1), weights w (1 where none
/// are given), ε = label_smoothing:
///   integer labels t, [N], any integer dtype, in [0, C) or ignore_index:
///     l_n = −(1 − ε) w_t log p_nt − ε/C Σ_c w_c log p_nc;  0 where t_n = ignore_index
///     mean = Σ l_n / Σ w_t over the labels that are not ignored: NaN where none is left;
///   class probabilities q, [N, C], of the logits' dtype:
///     l_n = −Σ_c ((1 − ε) q_nc + ε/C) w_c log p_nc
///     mean = Σ l_n / N; a term of factor 0 is 0 where log p is −inf too.
/// Integer labels run as one fused op, differentiable any number of times; class probabilities as a composite that is
/// differentiable in the probabilities too.
/// ShapeError: integer labels of shape [N, C] (the message names both legal forms) and all else that does not fit; the
/// mean of no rows. ValueError: a label out of range (its value, place and the range), label_smoothing outside [0, 1].
Tensor cross_entropy(const Tensor& logits, const Tensor& target, const CrossEntropyOptions& options = {});

/// (x − target)², reduced. Broadcast is refused (ShapeError): it hides mistakes. Differentiable in both.
Tensor mse_loss(const Tensor& x, const Tensor& target, Reduction reduction = Reduction::mean);
/// |x − target|, reduced; derivative 0 where they are equal. As mse_loss.
Tensor l1_loss(const Tensor& x, const Tensor& target, Reduction reduction = Reduction::mean);
/// d²/2 where |d| <= delta, else delta (|d| − delta/2), with d = x − target; reduced. delta > 0 (ValueError).
/// Huber, "Robust estimation of a location parameter", 1964.
Tensor huber_loss(const Tensor& x, const Tensor& target, double delta = 1, Reduction reduction = Reduction::mean);

enum class KlReduction : uint8_t { none, mean, sum, batchmean };
struct KlDivOptions {
  bool log_target = false;  ///< target holds log q instead of q
  KlReduction reduction = KlReduction::batchmean;
};
/// Kullback–Leibler divergence q (log q − log p), element by element, with log_probs = log p and target = q (0 log 0 =
/// 0) or log q; reduced: batchmean divides the sum by size(0), which is the divergence's own definition, mean by the
/// number of elements. Same shape and floating dtype (ShapeError, DTypeError). Differentiable in both; where q = 0 the
/// derivative with respect to q is taken as −log p, and 0 where p = 0 too.
Tensor kl_div(const Tensor& log_probs, const Tensor& target, const KlDivOptions& options = {});

struct CrossEntropyAttrs {
  double label_smoothing = 0;
  int64_t ignore_index = -100, reduction = 1;
  void fields(FieldVisitor& v) {
    v("label_smoothing", label_smoothing);
    v("ignore_index", ignore_index);
    v("reduction", reduction);
  }
};

/// Inputs logits, integer labels, weight (optional). Outputs the loss, and for backward [3, N], f32 (f64 for f64): per
/// row the largest logit, log Σ exp of the logits less it, and the factor of the probabilities in the gradient.
extern const OpDef kCrossEntropy;
/// Inputs g (as the loss), logits, labels, the per-row output, weight (optional). Output: the logits' gradient.
extern const OpDef kCrossEntropyGrad;

}  // namespace hone
