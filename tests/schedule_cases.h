#pragma once
// The schedules that both schedule tests go through.

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <functional>
#include <limits>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "hone/hone.h"
#include "support.h"

namespace hone::schedule_cases {

using namespace optim;
inline constexpr double kNaN = std::numeric_limits<double>::quiet_NaN();
using test::expect_error;

// An optimizer of two groups, with base rates 0.1 and 0.03 unless they are given.
struct TwoGroups {
  std::vector<Parameter> parameters;
  std::unique_ptr<Optimizer> optimizer;
  explicit TwoGroups(bool adam = false, double lr0 = 0.1, double lr1 = 0.03) {
    for (int i = 0; i < 2; ++i) parameters.emplace_back(zeros({1}));
    const auto make = [&]<class O, class Options>(O*, Options a, Options b) {
      optimizer = std::make_unique<O>(std::vector<ParameterGroup<Options>>{{{parameters[0].ref()}, a},  //
                                                                           {{parameters[1].ref()}, b}});
    };
    if (adam)
      make(static_cast<Adam*>(nullptr), AdamOptions{.lr = lr0}, AdamOptions{.lr = lr1});
    else
      make(static_cast<SGD*>(nullptr), SGDOptions{.lr = lr0, .momentum = 0.9}, SGDOptions{.lr = lr1, .momentum = 0.9});
  }
  operator Optimizer&() { return *optimizer; }
};

using Make = std::function<std::unique_ptr<Schedule>(Optimizer&)>;
template <class R> Make timed(R rule) {
  return [rule](Optimizer& o) { return std::make_unique<ScheduleOf<R>>(o, rule); };
}
inline Make plateau(ReduceOnPlateauOptions options) {
  return [options](Optimizer& o) { return std::make_unique<ReduceOnPlateau>(o, options); };
}
using Named = std::pair<std::string, Make>;

// The settings of generate_schedules.py, under their names there.
inline std::vector<Named> twins() {
  const auto falling_power = [](int64_t t) { return std::pow(0.95, static_cast<double>(t)); };
  const auto late_fall = [](int64_t t) { return t < 100 ? 1.0 : 0.1; };
  const auto rest = [](int64_t t) { return 1 - 1 / static_cast<double>(t + 2); };
  const auto grow = [](int64_t) { return 1.01; };
  return {
      {"step", timed(StepLROptions{.steps = 30})},
      {"step_short", timed(StepLROptions{.steps = 7, .gamma = 0.9})},
      {"multistep", timed(MultiStepLROptions{.milestones = {10, 50, 150}, .gamma = 0.5})},
      {"multistep_edges", timed(MultiStepLROptions{.milestones = {1, 2, 199}})},
      {"exponential", timed(ExponentialLROptions{.gamma = 0.95})},
      {"exponential_up", timed(ExponentialLROptions{.gamma = 1.01})},
      {"polynomial", timed(PolynomialLROptions{.steps = 150})},
      {"polynomial_power", timed(PolynomialLROptions{.steps = 250, .power = 2.5})},
      {"polynomial_root", timed(PolynomialLROptions{.steps = 40, .power = 0.5})},
      {"linear", timed(LinearLROptions{.steps = 5})},
      {"linear_long", timed(LinearLROptions{.steps = 120, .start_factor = 0.01, .end_factor = 0.8})},
      {"constant", timed(ConstantLROptions{.steps = 5})},
      {"constant_long", timed(ConstantLROptions{.steps = 150, .factor = 0.25})},
      {"cosine", timed(CosineAnnealingOptions{.steps = 200, .min_lr = 0.001})},
      {"cosine_past_end", timed(CosineAnnealingOptions{.steps = 70})},
      {"restarts", timed(CosineWarmRestartsOptions{.steps = 50})},
      {"restarts_growing", timed(CosineWarmRestartsOptions{.steps = 10, .growth = 2, .min_lr = 0.003})},
      {"restarts_thrice", timed(CosineWarmRestartsOptions{.steps = 3, .growth = 3})},
      {"onecycle_adam", timed(OneCycleOptions{.max_lr = 0.002, .steps = 200})},
      {"onecycle_fraction", timed(OneCycleOptions{.max_lr = {0.5, 0.2},
                                                  .steps = 97,
                                                  .warmup = 0.21,
                                                  .div_factor = 10,
                                                  .final_div_factor = 100,
                                                  .base_momentum = 0.8,
                                                  .max_momentum = 0.9})},
      {"onecycle_linear",
       timed(OneCycleOptions{.max_lr = 0.5, .steps = 200, .anneal = Anneal::linear, .cycle_momentum = false})},
      {"onecycle_three", timed(OneCycleOptions{.max_lr = {0.5, 0.2}, .steps = 200, .three_phase = true})},
      {"onecycle_three_linear_adam",
       timed(OneCycleOptions{
           .max_lr = 0.5, .steps = 143, .warmup = 0.37, .anneal = Anneal::linear, .three_phase = true})},
      {"cyclic", timed(CyclicLROptions{.max_lr = 0.5, .steps_up = 20})},
      {"cyclic_adam", timed(CyclicLROptions{.max_lr = {0.5, 0.3}, .steps_up = 9, .steps_down = 14})},
      {"cyclic2", timed(CyclicLROptions{.max_lr = 0.5, .steps_up = 13, .steps_down = 7, .mode = Cycle::triangular2})},
      {"cyclic2_adam", timed(CyclicLROptions{.max_lr = 0.7,
                                             .steps_up = 1,
                                             .steps_down = 30,
                                             .mode = Cycle::triangular2,
                                             .base_momentum = 0.7,
                                             .max_momentum = 0.95})},
      {"cyclic_exp", timed(CyclicLROptions{.max_lr = 0.5, .steps_up = 11, .mode = Cycle::exp_range, .gamma = 0.99})},
      {"cyclic_exp_alone", timed(CyclicLROptions{.max_lr = 0.5,
                                                 .steps_up = 40,
                                                 .steps_down = 3,
                                                 .mode = Cycle::exp_range,
                                                 .gamma = 0.995,
                                                 .cycle_momentum = false})},
      {"lambda", timed(LambdaLROptions{.factor = [](int64_t t) { return 1 / static_cast<double>(1 + t); }})},
      {"lambda_groups", timed(LambdaLROptions{.factor = {falling_power, late_fall}})},
      {"multiplicative", timed(MultiplicativeLROptions{.factor = [](int64_t) { return 0.97; }})},
      {"multiplicative_groups", timed(MultiplicativeLROptions{.factor = {rest, grow}})},
      {"sequential", timed(SequentialLROptions{
                         .rules = {ConstantLROptions{.steps = 20, .factor = 0.1}, ExponentialLROptions{.gamma = 0.9}},
                         .milestones = {20}})},
      {"sequential_three", timed(SequentialLROptions{
                               .rules = {LinearLROptions{.steps = 10, .start_factor = 0.01},
                                         CosineAnnealingOptions{.steps = 90}, StepLROptions{.steps = 30, .gamma = 0.5}},
                               .milestones = {10, 100}})},
      {"sequential_restarts", timed(SequentialLROptions{.rules = {ExponentialLROptions{.gamma = 0.99},
                                                                  CosineWarmRestartsOptions{.steps = 10, .growth = 2}},
                                                        .milestones = {50}})},
      {"chained", timed(ChainedLROptions{
                      .rules = {ConstantLROptions{.steps = 20, .factor = 0.1}, ExponentialLROptions{.gamma = 0.9}}})},
      {"chained_three", timed(ChainedLROptions{.rules = {LinearLROptions{.steps = 50, .start_factor = 0.1},
                                                         StepLROptions{.steps = 40, .gamma = 0.5},
                                                         MultiStepLROptions{.milestones = {100}, .gamma = 0.3}}})},
      {"chained_cosine",
       timed(ChainedLROptions{.rules = {CosineAnnealingOptions{.steps = 400}, ExponentialLROptions{.gamma = 0.99}}})},
      {"plateau", plateau({.factor = 0.5, .patience = 3})},
      {"plateau_abs", plateau({.factor = 0.9,
                               .patience = 0,
                               .threshold = 0.02,
                               .threshold_mode = Threshold::abs,
                               .cooldown = 5,
                               .min_lr = {0.02, 0.01}})},
      {"plateau_max", plateau({.mode = Aim::max, .factor = 0.2, .patience = 5, .threshold = 0.01, .eps = 1e-4})},
      {"plateau_max_abs", plateau({.mode = Aim::max,
                                   .factor = 0.7,
                                   .patience = 2,
                                   .threshold = 1e-3,
                                   .threshold_mode = Threshold::abs,
                                   .cooldown = 1})},
  };
}

// Those that PyTorch lacks, and compositions of compositions.
inline std::vector<Named> others() {
  const RateRule warm = SequentialLROptions{
      .rules = {LinearLROptions{.steps = 8}, OneCycleOptions{.max_lr = 0.4, .steps = 60}}, .milestones = {8}};
  return {
      {"linear_decay", timed(LinearDecayOptions{.steps = 40})},
      {"inverse_time", timed(InverseTimeDecayOptions{.alpha = 0.07})},
      {"two_level", timed(TwoLevelCyclicOptions{.lr1 = {0.2, 0.1}, .lr2 = 0.01, .period = 4})},
      {"noam", timed(NoamOptions{.d_model = 512, .warmup = 20, .scale = {2, 1}})},
      {"inverse_sqrt", timed(InverseSqrtOptions{.warmup = 15})},
      {"nested", timed(ChainedLROptions{
                     .rules = {warm, LambdaLROptions{.factor = [](int64_t) { return 0.7; }},
                               MultiplicativeLROptions{
                                   .factor = [](int64_t t) { return 1 - 0.01 * static_cast<double>(t % 3); }}}})},
  };
}

inline bool uses_adam(const std::string& name) { return name.ends_with("_adam"); }
// What reduce-on-plateau looks at.
inline double metric(const std::string& name, int t) {
  if (name.starts_with("plateau_max")) return std::min(0.8, t / 60.0) + 0.02 * std::sin(2.0 * t);
  return std::max(0.3, std::exp(-t / 30.0)) + 0.01 * std::cos(static_cast<double>(t));
}
inline void advance(Schedule& s, const std::string& name) {
  if (auto* p = dynamic_cast<ReduceOnPlateau*>(&s))
    p->step(metric(name, static_cast<int>(s.t())));
  else
    dynamic_cast<TimedSchedule&>(s).step();
}

}  // namespace hone::schedule_cases
