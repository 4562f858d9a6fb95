#pragma once
// Schedules that fall, and warm-ups that rise to their base rate. η is a group's base rate, t the step number from 0.
// Those named …LR equal PyTorch's of the same name, also past their end.

#include "hone/optim/schedule.h"

namespace hone::optim {

struct StepLROptions {
  int64_t steps = 0;   ///< ≥ 1: steps between two falls
  double gamma = 0.1;  ///< > 0
  static constexpr const char* kName = "StepLR";
  void check(int groups) const;
  double rate(int64_t t, double base, int group) const;
  void settings(detail::Numbers& n) const;
};
/// η_t = η γ^⌊t/steps⌋
using StepLR = ScheduleOf<StepLROptions>;

struct MultiStepLROptions {
  std::vector<int64_t> milestones = {};  ///< ≥ 1, increasing
  double gamma = 0.1;                    ///< > 0
  static constexpr const char* kName = "MultiStepLR";
  void check(int groups) const;
  double rate(int64_t t, double base, int group) const;
  void settings(detail::Numbers& n) const;
};
/// η_t = η γ^(number of milestones ≤ t)
using MultiStepLR = ScheduleOf<MultiStepLROptions>;

struct ExponentialLROptions {
  double gamma = 0;  ///< > 0; above 1 the rate grows, as in a range test
  static constexpr const char* kName = "ExponentialLR";
  void check(int groups) const;
  double rate(int64_t t, double base, int group) const;
  void settings(detail::Numbers& n) const;
};
/// η_t = η γ^t
using ExponentialLR = ScheduleOf<ExponentialLROptions>;

struct PolynomialLROptions {
  int64_t steps = 0;  ///< T ≥ 1
  double power = 1;   ///< ≥ 0
  static constexpr const char* kName = "PolynomialLR";
  void check(int groups) const;
  double rate(int64_t t, double base, int group) const;
  void settings(detail::Numbers& n) const;
};
/// η_t = η (1 − min(t, T)/T)^power
using PolynomialLR = ScheduleOf<PolynomialLROptions>;

struct LinearLROptions {
  int64_t steps = 0;              ///< ≥ 1: t at which the end is reached
  double start_factor = 1.0 / 3;  ///< in [0, 1]
  double end_factor = 1;          ///< in [0, 1]
  static constexpr const char* kName = "LinearLR";
  void check(int groups) const;
  double rate(int64_t t, double base, int group) const;
  void settings(detail::Numbers& n) const;
};
/// Linear warm-up: η_t = η (start_factor + (end_factor − start_factor) min(t, steps)/steps)
using LinearLR = ScheduleOf<LinearLROptions>;

struct ConstantLROptions {
  int64_t steps = 0;        ///< ≥ 1
  double factor = 1.0 / 3;  ///< in [0, 1]
  static constexpr const char* kName = "ConstantLR";
  void check(int groups) const;
  double rate(int64_t t, double base, int group) const;
  void settings(detail::Numbers& n) const;
};
/// Constant warm-up: η_t = η · factor where t < steps, then η
using ConstantLR = ScheduleOf<ConstantLROptions>;

struct NoamOptions {
  int64_t d_model = 0;         ///< ≥ 1: width of the model
  int64_t warmup = 4000;       ///< w ≥ 1
  PerGroup<double> scale = 1;  ///< ≥ 0
  static constexpr const char* kName = "Noam";
  void check(int groups) const;
  double rate(int64_t t, double base, int group) const;
  void settings(detail::Numbers& n) const;
};
/// η_t = scale · d_model^−½ · min(n^−½, n w^−3/2) with n = t + 1, the paper's step number (Vaswani et al., "Attention
/// is all you need", 2017). The optimizer's own rate does not enter.
using Noam = ScheduleOf<NoamOptions>;

struct InverseSqrtOptions {
  int64_t warmup = 0;  ///< w ≥ 1
  static constexpr const char* kName = "InverseSqrt";
  void check(int groups) const;
  double rate(int64_t t, double base, int group) const;
  void settings(detail::Numbers& n) const;
};
/// η_t = η min(n/w, √(w/n)) with n = t + 1: rises to η over w steps, then falls as 1/√n.
using InverseSqrt = ScheduleOf<InverseSqrtOptions>;

struct LinearDecayOptions {
  int64_t steps = 0;  ///< T ≥ 1
  static constexpr const char* kName = "LinearDecay";
  void check(int groups) const;
  double rate(int64_t t, double base, int group) const;
  void settings(detail::Numbers& n) const;
};
/// The documents' "step decay": η_t = η (1 − t/T), and 0 from T on.
using LinearDecay = ScheduleOf<LinearDecayOptions>;

struct InverseTimeDecayOptions {
  double alpha = 0;  ///< α ≥ 0
  static constexpr const char* kName = "InverseTimeDecay";
  void check(int groups) const;
  double rate(int64_t t, double base, int group) const;
  void settings(detail::Numbers& n) const;
};
/// The documents' "exponential decay": η_t = η / (1 + α t)
using InverseTimeDecay = ScheduleOf<InverseTimeDecayOptions>;

}  // namespace hone::optim
