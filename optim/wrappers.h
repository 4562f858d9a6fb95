#pragma once
// What stands around an optimizer: gradient accumulation, Lookahead, sharpness-aware minimization.

#include "hone/optim/optimizer.h"

namespace hone::optim {

struct AccumulationOptions {
  int64_t steps = 1;  ///< ≥ 1: micro-batches for one update
};

/// Large batches in small memory: gradients of `steps` micro-batches are summed by backward, divided by their number,
/// and applied at once. With micro-batches of equal size and a mean loss this is the step on the whole batch.
///
///   optim::GradientAccumulation accumulation(adam, {.steps = 4});
///   for (auto& [x, y] : batches) {
///     cross_entropy(net(x), y).backward();
///     if (accumulation.step()) schedule.step();   // updates and clears the gradients at every 4th call
///   }
class GradientAccumulation {
 public:
  /// The optimizer must outlive it. ValueError unless steps ≥ 1.
  GradientAccumulation(Optimizer& optimizer, AccumulationOptions options);
  bool step();   ///< true: the parameters were updated
  bool flush();  ///< updates with what there is (the end of an epoch), divided by its number; false: there is nothing
  int64_t pending() const { return pending_; }  ///< micro-batches since the last update

 private:
  Optimizer& optimizer_;
  AccumulationOptions options_;
  int64_t pending_ = 0;
};

struct LookaheadOptions {
  int64_t steps = 5;   ///< k ≥ 1
  double alpha = 0.5;  ///< α in (0, 1]
};

/// Lookahead (Zhang et al., "Lookahead optimizer: k steps forward, 1 step back", 2019): after every k steps of the
/// inner optimizer the slow weights move, φ ← φ + α (w − φ), and w ← φ. The inner optimizer's state goes on.
class Lookahead {
 public:
  /// The optimizer must outlive it; its parameters' present values are the first slow weights.
  Lookahead(Optimizer& optimizer, LookaheadOptions options = {});
  void step();
  void zero_grad() { optimizer_.zero_grad(); }
  TensorFile state_dict() const;  ///< the slow weights and the count; the inner optimizer has its own
  void load_state_dict(const TensorFile& file);
  /// Slices the slow weights of a parameter that has kept only some indices of a dimension, as optimizer.apply() does
  /// with its state; call both.
  void apply(const Shrink& shrink);

 private:
  Optimizer& optimizer_;
  LookaheadOptions options_;
  int64_t count_ = 0;
  std::vector<Tensor> slow_;
};

struct SAMOptions {
  double rho = 0.05;      ///< ρ ≥ 0: radius of the neighbourhood
  bool adaptive = false;  ///< ASAM (Kwon et al., 2021): the neighbourhood is scaled by |w|
};

/// Sharpness-aware minimization (Foret et al., 2021): the gradient is taken at w + ρ g/‖g‖ (adaptive: w + ρ
/// w²⊙g/‖|w|⊙g‖), with the norm over all parameters, and applied at w by the inner optimizer. Two evaluations of the
/// closure a step. Where the gradient at w is not finite the inner optimizer is given that one: see NonFinite.
class SAM {
 public:
  SAM(Optimizer& optimizer, SAMOptions options = {});  ///< the optimizer must outlive it
  /// Returns the loss at w. What the closure throws leaves w as it was.
  double step(const Closure& closure);

 private:
  Optimizer& optimizer_;
  SAMOptions options_;
};

}  // namespace hone::optim
