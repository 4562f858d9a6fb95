#pragma once
// What is done to gradients between backward() and step(), in place: the same bits at any number of threads. Parameters
// without a gradient are passed over. All throw ValueError for an empty list, an undefined parameter, one listed twice,
// or options outside their range.

#include <cstdint>
#include <vector>

#include "hone/core/parameter.h"

namespace hone::optim {

/// Every element limited to [−limit, limit]; NaN stays NaN. limit > 0. As PyTorch's clip_grad_value_.
void clip_grad_value(const std::vector<ParameterRef>& parameters, double limit);

struct ClipNormOptions {
  double p = 2;  ///< of the norm: above 0, or infinity for the largest magnitude
  /// A gradient that holds NaN or infinity: NumericError naming the parameter, or its norm is returned and all
  /// gradients stay as they are (PyTorch would make them all NaN or 0).
  bool error_if_non_finite = true;
};
/// ‖g‖_p over all gradients together, in f64; nothing is changed. 0 without any gradient.
double grad_norm(const std::vector<ParameterRef>& parameters, ClipNormOptions options = {});
/// All gradients times min(1, max / (‖g‖_p + 1e-6)), one norm over all of them; returns the norm from before. max > 0.
/// Pascanu, Mikolov and Bengio, "On the difficulty of training recurrent neural networks", 2013; as PyTorch's
/// clip_grad_norm_.
double clip_grad_norm(const std::vector<ParameterRef>& parameters, double max, ClipNormOptions options = {});

struct AdaptiveClipOptions {
  double clip = 0.01;  ///< λ > 0
  double eps = 1e-3;   ///< > 0: the least norm that a unit's weights count with, so that those at zero can leave it
};
/// Adaptive gradient clipping (Brock et al., "High-performance large-scale image recognition without normalization",
/// 2021): the gradient G_i of unit i (slice i along dim 0; a parameter of fewer than two dims is one unit) with ‖G_i‖ >
/// λ max(‖W_i‖, eps) becomes λ max(‖W_i‖, eps) G_i/‖G_i‖. The authors leave the last linear layer out of the list. A
/// unit whose gradient is not finite stays as it is, for the optimizer to report.
void clip_grad_adaptive(const std::vector<ParameterRef>& parameters, AdaptiveClipOptions options = {});

struct GradientNoiseOptions {
  double eta = 0.01;    ///< η ≥ 0; the paper tries 0.01, 0.3 and 1
  double gamma = 0.55;  ///< γ ≥ 0
};
/// g + N(0, σ²) with σ² = η / (1 + t)^γ, t = step ≥ 0. Each gradient takes one stream of the generator.
/// Neelakantan et al., "Adding gradient noise improves learning for very deep networks", 2015.
void add_gradient_noise(const std::vector<ParameterRef>& parameters, int64_t step, GradientNoiseOptions options = {});

/// Gradients of two dims or more less their mean over all dims but the first: what changes a filter's or row's mean is
/// taken away. Yong et al., "Gradient centralization: a new optimization technique for deep neural networks", 2020.
void centralize_gradients(const std::vector<ParameterRef>& parameters);

}  // namespace hone::optim
