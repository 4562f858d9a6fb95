#pragma once
// Penalties, to be added to the loss; proximal steps and projections, to be taken after the optimizer's step.
//
//   Tensor loss = cross_entropy(net(x), y) + optim::l1(net.parameters(), 1e-5, {.weights_only = true});
//
// All throw ValueError for an empty list, an undefined parameter, one listed twice, or a factor that is negative or not
// finite. "Weights" are told by their shape alone: parameters of two dims or more (biases and the scales of
// normalization have one). Where only weights count and there is none, that is a ValueError too.

#include <cstdint>
#include <vector>

#include "hone/core/parameter.h"

namespace hone::optim {

struct PenaltyOptions {
  bool weights_only = false;  ///< leave parameters of fewer than two dims alone
};

// Each penalty is a 0-d tensor of the parameters' dtype, which must be one (DTypeError), differentiable twice.

/// λ Σ |w|. The documents' L1; derivative λ sign(w), 0 at 0.
Tensor l1(const std::vector<ParameterRef>& parameters, double lambda, PenaltyOptions options = {});
/// λ/2 Σ w². The documents' L2; derivative λ w: under SGD the same as weight_decay = λ.
Tensor l2(const std::vector<ParameterRef>& parameters, double lambda, PenaltyOptions options = {});

struct ElasticNetOptions {
  double l1 = 0, l2 = 0;  ///< λ₁, λ₂ ≥ 0
  bool weights_only = false;
};
/// λ₁ Σ |w| + λ₂/2 Σ w². Zou and Hastie, "Regularization and variable selection via the elastic net", 2005.
Tensor elastic_net(const std::vector<ParameterRef>& parameters, ElasticNetOptions options);

struct GroupOptions {
  /// What a group is: a slice along this dim of each weight. 0: a filter of a convolution, a row (output) of a linear
  /// layer. 1: an input channel, a column. ShapeError for a weight without this dim.
  int64_t dim = 0;
};
/// λ Σ_g √n_g ‖w_g‖₂ over the groups of all weights, n_g the size of group g; derivative 0 where a whole group is 0.
/// Yuan and Lin, "Model selection and estimation in regression with grouped variables", 2006; over filters and
/// channels: Wen et al., "Learning structured sparsity in deep neural networks", 2016.
Tensor group_lasso(const std::vector<ParameterRef>& parameters, double lambda, GroupOptions options = {});

/// λ Σ ‖W Wᵀ − I‖_F² over all weights, each flattened to a matrix [size(0), rest]: rows become orthonormal. It cannot
/// reach 0 where there are more rows than columns. Brock et al., "Neural photo editing with introspective adversarial
/// networks", 2017.
Tensor orthogonality(const std::vector<ParameterRef>& parameters, double lambda);

// In place, under no_grad: call after step(). Parameters on the cpu (DeviceError).

/// w ← sign(w) max(|w| − threshold, 0), the proximal operator of threshold·Σ|w|: after a gradient step without the
/// penalty, prox_l1(parameters, lr·λ) is a step of ISTA for λ‖w‖₁ and leaves exact zeros. threshold ≥ 0.
/// Daubechies, Defrise and De Mol, "An iterative thresholding algorithm for linear inverse problems", 2004.
void prox_l1(const std::vector<ParameterRef>& parameters, double threshold, PenaltyOptions options = {});
/// w_g ← w_g max(1 − threshold √n_g / ‖w_g‖₂, 0) for each group: the proximal operator of group_lasso.
void prox_group_lasso(const std::vector<ParameterRef>& parameters, double threshold, GroupOptions options = {});

struct MaxNormOptions {
  double max = 3;   ///< > 0
  int64_t dim = 0;  ///< as GroupOptions::dim
};
/// Each slice of each weight with ‖w_g‖₂ > max is scaled to that norm. Srebro and Shraibman, "Rank, trace-norm and
/// max-norm", 2005; Srivastava et al., "Dropout", 2014.
void max_norm(const std::vector<ParameterRef>& parameters, MaxNormOptions options = {});

// Penalties on what the network says. logits: [..., C], floating; the mean is over all rows. ShapeError, DTypeError.

/// −β mean H(softmax(logits)): confident answers cost. β ≥ 0. Pereyra et al., "Regularizing neural networks by
/// penalizing confident output distributions", 2017.
Tensor confidence_penalty(const Tensor& logits, double beta);
/// +β mean H(softmax(logits)): for inputs without labels, whose classes should be told apart. β ≥ 0. Grandvalet and
/// Bengio, "Semi-supervised learning by entropy minimization", 2005.
Tensor entropy_minimization(const Tensor& logits, double beta);

}  // namespace hone::optim
