#pragma once
// Learning-rate schedules: step() after each optimizer step (or epoch) moves the rates of all groups.

#include <cstdint>
#include <vector>

#include "hone/optim/optimizer.h"

namespace hone::optim {

/// All that a schedule needs in order to continue.
struct ScheduleState {
  int64_t t = 0;
  std::vector<double> base_lrs;
};

/// Base: the rate is a function of the step number t, counted from 0; t = 0 is applied at construction. The optimizer
/// must outlive its schedule.
class Schedule {
 public:
  virtual ~Schedule() = default;
  Schedule(const Schedule&) = delete;
  Schedule& operator=(const Schedule&) = delete;

  /// Moves to t + 1 and sets every group's rate.
  void step();
  double lr(int group = 0) const { return optimizer_.lr(group); }
  int64_t t() const { return t_; }
  ScheduleState state() const { return {t_, base_lrs_}; }
  /// Continues from a saved state. ValueError for another number of groups or t < 0.
  void set_state(const ScheduleState& state);
  /// The rate of `group` at step t, in closed form.
  virtual double lr_at(int64_t t, int group = 0) const = 0;

 protected:
  explicit Schedule(Optimizer& optimizer);
  virtual void apply(int64_t t);
  double base_lr(int group) const { return base_lrs_[static_cast<size_t>(group)]; }
  Optimizer& optimizer() const { return optimizer_; }

 private:
  Optimizer& optimizer_;
  std::vector<double> base_lrs_;
  int64_t t_ = 0;
};

enum class Anneal : uint8_t { cosine, linear };

struct OneCycleOptions {
  double max_lr = 0;              ///< > 0
  int64_t steps = 0;              ///< ≥ 1: how often step() will be called over the whole training
  double warmup = 0.3;            ///< part of the cycle in which the rate rises, in [0, 1]
  double div_factor = 25;         ///< first rate: max_lr / div_factor
  double final_div_factor = 1e4;  ///< last rate: first rate / final_div_factor
  Anneal anneal = Anneal::cosine;
  bool cycle_momentum = true;  ///< momentum (Adam: beta1) moves against the rate, where the optimizer has any
  double base_momentum = 0.85, max_momentum = 0.95;
};

/// One cycle (Smith and Topin, "Super-convergence", 2018), as PyTorch's OneCycleLR with two phases: the rate rises from
/// max_lr/div_factor to max_lr over the first `warmup`·steps − 1 steps, then falls to its last value at t = steps − 1.
/// ValueError when stepped past t = steps.
class OneCycle : public Schedule {
 public:
  OneCycle(Optimizer& optimizer, OneCycleOptions options);
  double lr_at(int64_t t, int group = 0) const override;
  double momentum_at(int64_t t) const;

 private:
  void apply(int64_t t) override;
  double cycle(int64_t t, double start, double top, double end) const;
  OneCycleOptions options_;
};

struct CosineAnnealingOptions {
  int64_t steps = 0;  ///< ≥ 1: t at which the rate is lowest
  double min_lr = 0;  ///< ≥ 0
};

/// η_t = η_min + (η − η_min)(1 + cos(π t / steps))/2 (Loshchilov and Hutter, "SGDR", 2017, without restarts). Past
/// `steps` it rises again, as PyTorch's CosineAnnealingLR.
class CosineAnnealing : public Schedule {
 public:
  CosineAnnealing(Optimizer& optimizer, CosineAnnealingOptions options);
  double lr_at(int64_t t, int group = 0) const override;

 private:
  CosineAnnealingOptions options_;
};

}  // namespace hone::optim
