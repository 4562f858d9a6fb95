#pragma once
// Losses that teach a network to answer as another does. In all of them the teacher's logits are constants: no gradient
// flows to them. s and t are the student's and the teacher's logits, both [N, C] of one floating dtype (bf16 computes
// in f32); each result is 0-d, of that dtype. Errors they share: ShapeError for logits of another form, other classes
// or another batch, and for an empty batch; DTypeError; ValueError for a temperature that is not finite and above 0.
// NaN among the logits that a loss reads makes it NaN, also where of the teacher only the largest class counts.
// Values are differences of logarithms: at temperature T in f32 they are right to about T² 10⁻⁷, gradients to T 10⁻⁷.

#include <initializer_list>
#include <span>

#include "hone/core/tensor.h"

namespace hone::compress {

struct KdOptions {
  double temperature = 4;  ///< T: both softmaxes are of logits / T
  double alpha = 0.9;      ///< α in [0, 1]: the share of the teacher; the labels have the rest
};

/// 1/N Σ_n [ α T² KL(softmax(t_n/T) ‖ softmax(s_n/T)) + (1 − α) CE(s_n, y_n) ]. T² keeps the gradient's size at any T;
/// the larger T, the nearer to matching logits: α/(2C) ‖(s − mean s) − (t − mean t)‖².
/// labels: integers [N], −100 for a sample without one, which has the first term alone; or class probabilities [N, C],
/// as cross_entropy; or undefined: none has one. ValueError: α outside [0, 1], no labels and α = 0.
/// Hinton, Vinyals, Dean, "Distilling the knowledge in a neural network", 2015.
Tensor kd_loss(const Tensor& student, const Tensor& teacher, const Tensor& labels = {}, const KdOptions& options = {});

/// Cross-entropy against the class that the teacher names: 1/N Σ_n CE(s_n, argmax t_n).
Tensor teacher_class_loss(const Tensor& student, const Tensor& teacher);

struct DecoupledKdOptions {
  double temperature = 4;
  double alpha = 1;  ///< of what the teacher says of the label's class; α >= 0
  double beta = 8;   ///< of what it says of the others; β >= 0
};

/// T²/N Σ_n [ α KL(b(t_n) ‖ b(s_n)) + β KL(r(t_n) ‖ r(s_n)) ] with p = softmax(·/T), b = (p_y, 1 − p_y) and r the
/// softmax over the classes other than y. KL of p itself is the same with β = 1 − p_y(t_n): freed of that, the other
/// classes count where the teacher is sure as well. Add cross_entropy for the labels' own part.
/// labels: integers [N] in [0, C); C >= 2 (ShapeError). ValueError: a label, α or β outside its range.
/// Zhao, Cui, Song, Qiu, Liang, "Decoupled knowledge distillation", 2022.
Tensor decoupled_kd_loss(const Tensor& student, const Tensor& teacher, const Tensor& labels,
                         const DecoupledKdOptions& options = {});

struct MutualOptions {
  double temperature = 1;
  double weight = 1;  ///< λ >= 0 of what the others teach
};

/// Networks that learn together, each taught by all others: Σ_k [ CE(z_k, y) + λ/(K − 1) Σ_{l≠k} T² KL(p_l ‖ p_k) ],
/// means over the batch, with p_k = softmax(z_k/T). p_l is a constant where it teaches, so that one backward pass gives
/// each network the gradient of its own loss. logits: K >= 2 tensors (ValueError). labels: as for kd_loss; without one,
/// a sample has the second term alone. Zhang, Xiang, Hospedales, Lu, "Deep mutual learning", 2018.
Tensor mutual_loss(std::span<const Tensor> logits, const Tensor& labels, const MutualOptions& options = {});
inline Tensor mutual_loss(std::initializer_list<Tensor> logits, const Tensor& labels,
                          const MutualOptions& options = {}) {
  return mutual_loss(std::span<const Tensor>(logits.begin(), logits.size()), labels, options);
}

}  // namespace hone::compress
