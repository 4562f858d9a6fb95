#pragma once
// Cosines and cycles. η is a group's base rate, t the step number from 0.

#include "hone/optim/schedule.h"

namespace hone::optim {

struct CosineAnnealingOptions {
  int64_t steps = 0;  ///< T ≥ 1: t at which the rate is lowest
  double min_lr = 0;  ///< η_min ≥ 0
  static constexpr const char* kName = "CosineAnnealing";
  void check(int groups) const;
  double rate(int64_t t, double base, int group) const;
  void settings(detail::Numbers& n) const;
};
/// η_t = η_min + (η − η_min)(1 + cos(π t/T))/2 (Loshchilov and Hutter, "SGDR: stochastic gradient descent with warm
/// restarts", 2017, without restarts). Past T it rises again, as PyTorch's CosineAnnealingLR.
using CosineAnnealing = ScheduleOf<CosineAnnealingOptions>;

struct CosineWarmRestartsOptions {
  int64_t steps = 0;   ///< T_0 ≥ 1: length of the first cycle
  int64_t growth = 1;  ///< T_mult ≥ 1: each cycle is so many times as long as the one before
  double min_lr = 0;   ///< η_min ≥ 0
  static constexpr const char* kName = "CosineWarmRestarts";
  void check(int groups) const;
  double rate(int64_t t, double base, int group) const;
  void settings(detail::Numbers& n) const;
};
/// SGDR with restarts: in each cycle the cosine above, from η again. As PyTorch's CosineAnnealingWarmRestarts.
using CosineWarmRestarts = ScheduleOf<CosineWarmRestartsOptions>;

enum class Anneal : uint8_t { cosine, linear };

struct OneCycleOptions {
  PerGroup<double> max_lr = 0;    ///< > 0; one, or one a group
  int64_t steps = 0;              ///< ≥ 1: how often step() will be called over the whole training
  double warmup = 0.3;            ///< part of the cycle in which the rate rises, in [0, 1]; three_phase: in [0, 0.5]
  double div_factor = 25;         ///< > 0; first rate: max_lr / div_factor
  double final_div_factor = 1e4;  ///< > 0; last rate: first rate / final_div_factor
  Anneal anneal = Anneal::cosine;
  bool three_phase = false;    ///< falls to the first rate as fast as it rose, and only then to the last
  bool cycle_momentum = true;  ///< momentum (Adam: beta1) moves against the rate, where the optimizer has any
  double base_momentum = 0.85, max_momentum = 0.95;  ///< in [0, 1)
  static constexpr const char* kName = "OneCycle";
  void check(int groups) const;
  double rate(int64_t t, double base, int group) const;
  double momentum(int64_t t) const;
  void settings(detail::Numbers& n) const;
};
/// One cycle (Smith and Topin, "Super-convergence", 2018), as PyTorch's OneCycleLR: the rate rises from
/// max_lr/div_factor to max_lr over the first `warmup`·steps − 1 steps, then falls to its last value at t = steps − 1.
/// At t = steps that is held (PyTorch extrapolates); ValueError when stepped past it. Base rates do not enter.
using OneCycle = ScheduleOf<OneCycleOptions>;

/// How CyclicLR's height shrinks; k counts cycles from 0.
enum class Cycle : uint8_t {
  triangular,   ///< not at all
  triangular2,  ///< 2^−k
  exp_range,    ///< γ^t
};

struct CyclicLROptions {
  PerGroup<double> max_lr = 0;  ///< > 0; one, or one a group
  int64_t steps_up = 2000;      ///< ≥ 1
  int64_t steps_down = 0;       ///< ≥ 0; 0: as many as up
  Cycle mode = Cycle::triangular;
  double gamma = 1;            ///< of exp_range, in (0, 1]
  bool cycle_momentum = true;  ///< momentum (Adam: beta1) moves against the rate, where the optimizer has any
  double base_momentum = 0.8, max_momentum = 0.9;  ///< in [0, 1)
  static constexpr const char* kName = "CyclicLR";
  void check(int groups) const;
  double rate(int64_t t, double base, int group) const;
  double momentum(int64_t t) const;
  void settings(detail::Numbers& n) const;
};
/// Triangles between the base rate and max_lr (Smith, "Cyclical learning rates for training neural networks", 2017):
/// η_t = η + (max_lr − η) · height, as PyTorch's CyclicLR, whose base_lr is here the group's own rate.
using CyclicLR = ScheduleOf<CyclicLROptions>;

struct TwoLevelCyclicOptions {
  PerGroup<double> lr1 = 0, lr2 = 0;  ///< η₁, η₂ ≥ 0; one, or one a group
  int64_t period = 0;                 ///< d ≥ 1
  static constexpr const char* kName = "TwoLevelCyclic";
  void check(int groups) const;
  double rate(int64_t t, double base, int group) const;
  void settings(detail::Numbers& n) const;
};
/// The documents' "cyclic": η_t = η₁ where t mod d = 0, else η₂. Base rates do not enter.
using TwoLevelCyclic = ScheduleOf<TwoLevelCyclicOptions>;

}  // namespace hone::optim
