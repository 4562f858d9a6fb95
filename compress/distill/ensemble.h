#pragma once
// Several teachers as one.

#include <span>
#include <vector>

#include "hone/ops/nn/module.h"

namespace hone::compress {

enum class EnsembleMean : uint8_t { probabilities, logits };

struct EnsembleOptions {
  EnsembleMean mean = EnsembleMean::probabilities;
  double temperature = 1;            ///< at which probabilities are averaged: that of the loss
  std::vector<double> weights = {};  ///< one a member, finite, >= 0, of sum above 0; none: all alike
};

/// Logits that answer as K teachers do together, w = weights / Σ weights:
///   probabilities: z = T log Σ_k w_k softmax(z_k/T), so that softmax(z/T) = Σ_k w_k softmax(z_k/T);
///   logits:        z = Σ_k w_k z_k.
/// logits: K >= 1 tensors [N, C] of one floating dtype. Differentiable. A member of weight 0 is not looked at.
/// ShapeError naming the member that differs, DTypeError, ValueError.
Tensor ensemble_logits(std::span<const Tensor> logits, const EnsembleOptions& options = {});

/// A module whose answer is ensemble_logits of its members':
///
///   compress::Ensemble teachers({.temperature = 4});
///   teachers.add(wide).add(deep);                   // copies
///   compress::Teacher teacher(teachers);
///
/// The options are copied with it and not saved.
class Ensemble : public nn::Module {
 public:
  std::vector<nn::AnyModule> members;
  EnsembleOptions options;

  HONE_MODULE(Ensemble, members)
  explicit Ensemble(EnsembleOptions o = {}) : options(std::move(o)) {}
  Ensemble& add(const nn::Module& member);
  Tensor forward(const Tensor& x);  ///< ValueError without members; what ensemble_logits throws
};

}  // namespace hone::compress
