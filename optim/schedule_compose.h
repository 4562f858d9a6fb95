#pragma once
// Schedules from functions, and from other schedules' rules (their options).

#include <functional>

#include "hone/optim/schedule.h"

namespace hone::optim {

using StepFunction = std::function<double(int64_t)>;

struct LambdaLROptions {
  PerGroup<StepFunction> factor = {};  ///< f(t) ≥ 0 for any t ≥ 0; one, or one a group
  static constexpr const char* kName = "LambdaLR";
  void check(int groups) const;
  double rate(int64_t t, double base, int group) const;
  void settings(detail::Numbers& n) const;
};
/// η_t = η f(t). The function is not saved: give the same one when a state is loaded.
using LambdaLR = ScheduleOf<LambdaLROptions>;

namespace detail {
/// The last product of each group: makes going on by one step one call of the function, changing no value.
struct Products {
  struct Last {
    int64_t t = 0;
    double product = 1;
  };
  mutable std::vector<Last> last = {};
};
}  // namespace detail

struct MultiplicativeLROptions {
  PerGroup<StepFunction> factor = {};  ///< f(t) ≥ 0 for any t ≥ 1, the same at each call; one, or one a group
  detail::Products products = {};      ///< leave out
  static constexpr const char* kName = "MultiplicativeLR";
  void check(int groups) const;
  double rate(int64_t t, double base, int group) const;
  void settings(detail::Numbers& n) const;
};
/// η_t = η f(1) f(2) … f(t). The function is not saved; after loading, or back in t, the product is taken anew.
using MultiplicativeLR = ScheduleOf<MultiplicativeLROptions>;

struct SequentialLROptions {
  std::vector<RateRule> rules = {};      ///< at least one
  std::vector<int64_t> milestones = {};  ///< ≥ 1, increasing; one fewer than rules
  static constexpr const char* kName = "SequentialLR";
  void check(int groups) const;
  double rate(int64_t t, double base, int group) const;
  double momentum(int64_t t) const;
  void settings(detail::Numbers& n) const;
};
/// One rule after another, each from its own t = 0 and from the groups' base rates: at t = milestones[k] rule k + 1
/// begins. As PyTorch's SequentialLR (whose MultiplicativeLR, alone, goes on from the rate before it). For example
/// SequentialLR warm(adam, {.rules = {LinearLROptions{.steps = 500}, CosineAnnealingOptions{.steps = 9500}},
/// .milestones = {500}}).
using SequentialLR = ScheduleOf<SequentialLROptions>;

struct ChainedLROptions {
  std::vector<RateRule> rules = {};  ///< at least one
  static constexpr const char* kName = "ChainedLR";
  void check(int groups) const;
  double rate(int64_t t, double base, int group) const;
  double momentum(int64_t t) const;
  void settings(detail::Numbers& n) const;
};
/// All rules at once: each takes the rate of the one before it for its base, so that rules which are a factor of their
/// base multiply, as in PyTorch's ChainedScheduler. Momentum is that of the last rule that moves it. One that does not
/// look at its base (OneCycle, Noam, TwoLevelCyclic) makes those before it void: put it first.
using ChainedLR = ScheduleOf<ChainedLROptions>;

}  // namespace hone::optim
