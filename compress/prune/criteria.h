#pragma once
// What makes a weight worth keeping: a Criterion scores every weight of a parameter, and pruning drops the lowest.
//
//   data::Loader few(training.first(1024), {.batch = 64});
//   const auto losses = compress::over(few, [&](const data::Batch& b) {
//     return cross_entropy(net(b.inputs), b.targets);
//   });
//   compress::prune(net, {.criterion = compress::taylor(), .density = 0.1, .losses = losses});

#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "hone/ops/nn/module.h"

namespace hone::compress {

/// Is shown one batch: its mean loss l (for GradientOf::output: the network's outputs, [N, …]), with its graph, and
/// how many samples that is the mean of.
using Visit = std::function<void(const Tensor& value, int64_t samples)>;
/// A pass over data: calls the visitor for each batch. It computes in whatever mode the network is in.
using Losses = std::function<void(const Visit& visit)>;

/// The pass over `batches` (a data::Loader or any range of batches with `inputs`) by `value`, a function of a batch;
/// over the first `limit` of them. `batches` must outlive it.
template <class Batches, class F> Losses over(Batches& batches, F value, int64_t limit = INT64_MAX) {
  return [&batches, value = std::move(value), limit](const Visit& visit) {
    int64_t seen = 0;
    for (auto& batch : batches) {
      if (seen++ >= limit) break;
      visit(value(batch), batch.inputs.size(0));
    }
  };
}

/// An average over batches of gradients g, N in all counted by their samples. A batch counts as one: the two that take
/// |g| or g² before the mean are per sample where each batch holds one.
enum class Reduce : uint8_t {
  abs_of_mean,     ///< |1/N Σ g|: the gradient of the whole loss
  mean_of_abs,     ///< 1/N Σ |g|
  mean_of_square,  ///< 1/N Σ g²
};
enum class GradientOf : uint8_t {
  loss,    ///< of l
  output,  ///< of ‖f(x)‖², the mean over the batch: needs no labels
};

/// A criterion, as data: score = finish(p, mean of term(p, g) over all batches), per weight. Those of order 0 need no
/// data. All tensors are f64, of the parameter's shape, on the cpu. A criterion of your own:
///
///   const compress::Criterion tiny{.name = "tiny", .finish = [](const ParameterRef& p, const Tensor&) {
///     return square(cast(p.value(), f64));
///   }};
struct Criterion {
  std::string name;    ///< with the settings that the functions hold: a Pruner's state is compared by it
  int order = 0;       ///< 0: weights alone; 1: gradients; 2: the diagonal of the Hessian, by probes, stands for g
  int64_t probes = 0;  ///< of order 2
  GradientOf of = GradientOf::loss;
  bool normalized = false;  ///< scores are divided by their sum over all parameters
  bool lasting = false;     ///< what a Pruner observes adds up over the whole training, else since its last decision
  std::function<Tensor(const ParameterRef& p, const Tensor& g)> term = {};
  std::function<Tensor(const ParameterRef& p, const Tensor& mean)> finish = {};
};

/// |w|.
Criterion magnitude();
/// w² / Σ v² over w itself and the larger weights v of the same parameter that no mask hides (of equal ones, those that
/// come before it): magnitudes made comparable across layers. Lee et al., "Layer-adaptive sparsity for the
/// magnitude-based pruning", 2021.
Criterion lamp();
/// Uniform in [0, 1), from the generator.
Criterion random();

struct GradientOptions {
  Reduce reduce = Reduce::abs_of_mean;
  GradientOf of = GradientOf::loss;
};
/// An average of the gradient g = ∂l/∂w: weights whose gradient is small go, as the survey has it.
Criterion gradient(GradientOptions options = {});
/// An average of w·g, by default 1/N Σ |w g|: the first-order change of the loss where w becomes 0. Molchanov et al.,
/// "Pruning convolutional neural networks for resource efficient inference", 2017; mean_of_square: "Importance
/// estimation for neural network pruning", 2019.
Criterion taylor(Reduce reduce = Reduce::mean_of_abs);
/// −1/N Σ w g, with its sign: weights that move away from 0 stay. Sanh et al., "Movement pruning", 2020: there over the
/// steps of training (Pruner::observe), with weights that can come back (Surgery).
Criterion movement();
/// |w ḡ| / Σ |w ḡ| over all weights, ḡ the mean gradient: connection sensitivity. Meant for untrained networks. Lee et
/// al., "SNIP: single-shot network pruning based on connection sensitivity", 2019.
Criterion snip();

struct HessianOptions {
  int64_t probes = 16;  ///< ≥ 1
};
/// ½ h w², h = ∂²l/∂w²: optimal brain damage (LeCun et al., 1990). h is estimated by Hutchinson's probes, mean of
/// v ⊙ (H v) with v of random signs (Bekas et al., "An estimator for the diagonal of a matrix", 2007). Probe k is one
/// random vector times row k of a Hadamard matrix: each is as good as a random one, and as soon as their number is a
/// power of two that is no less than that of the weights scored, h is exact. h may be negative away from a minimum;
/// such scores are the lowest. ValueError unless probes ≥ 1.
Criterion hessian(HessianOptions options = {});

/// One f64 tensor a parameter, of its shape; higher is kept. Masks, gradients and values stay as they are. ValueError
/// for a criterion that needs data and gets none, an output or loss of the wrong form, a frozen parameter scored by its
/// gradient; ShapeError for terms or scores that are not f64 of the parameter's shape (the criteria above score no
/// codebook); NumericError naming the parameter for a score that is NaN or infinite, or where their sum overflows.
std::vector<Tensor> scores(const Criterion& criterion, std::span<const nn::NamedParameter> parameters,
                           const Losses& losses = {});
/// The same of parameters named "0", "1", ….
std::vector<Tensor> scores(const Criterion& criterion, std::span<const ParameterRef> parameters,
                           const Losses& losses = {});

namespace detail {

/// Σ samples · term of some parameters, and the scores that follow.
struct ScoreSum {
  std::vector<Tensor> sums = {};
  double weight = 0;
  /// `gradients`: one a parameter; undefined ones are 0. On error nothing was added.
  void add(const Criterion& criterion, std::span<const nn::NamedParameter> parameters,
           std::span<const Tensor> gradients, double samples);
  std::vector<Tensor> finish(const Criterion& criterion, std::span<const nn::NamedParameter> parameters) const;
};

}  // namespace detail

}  // namespace hone::compress
