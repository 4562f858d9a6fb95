#pragma once
// Learning-rate schedules: step() after each optimizer step (or epoch) moves the rates of all groups. A schedule's
// options are its rule: the rate as a function of the step number, apart from any optimizer, so that rules compose
// (schedule_compose.h). The schedules themselves: schedule_decay.h, schedule_cycle.h, schedule_plateau.h.

#include <concepts>
#include <cstdint>
#include <initializer_list>
#include <limits>
#include <memory>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "hone/optim/optimizer.h"

namespace hone::optim {

/// One value for all groups (`.max_lr = 0.1`), or one for each (`.max_lr = {0.1, 0.01}`).
template <class T> class PerGroup {
 public:
  PerGroup() = default;
  template <class U>
  requires std::convertible_to<U, T> PerGroup(U&& value) : values_{T(std::forward<U>(value))} {}
  PerGroup(std::initializer_list<T> values) : values_(values) {}
  PerGroup(std::vector<T> values) : values_(std::move(values)) {}
  const T& operator[](int group) const { return values_[values_.size() == 1 ? 0 : static_cast<size_t>(group)]; }
  const std::vector<T>& values() const { return values_; }

 private:
  std::vector<T> values_;
};

namespace detail {

/// Named numbers: the settings of a rule, and a schedule's state.
struct Numbers {
  Numbers();
  ~Numbers();
  using Value = std::variant<int64_t, double>;
  std::vector<std::pair<std::string, Value>> items;
  std::string prefix = {};
  void add(const char* name, int64_t v);
  void add(const char* name, double v);
  void add(const char* name, const PerGroup<double>& v);
  void add(const char* name, const std::vector<int64_t>& v);
};

inline constexpr double kNoMomentum = std::numeric_limits<double>::quiet_NaN();

/// A rule: kName; check(groups) (ValueError); rate(t, base, group) for t ≥ 0, whose base is the group's own rate;
/// settings(Numbers&): all that the rate depends on, functions apart. Those that move momentum have momentum(t) too.
template <class R>
concept Rule = requires(const R& r, Numbers& n, int64_t t, double base, int group) {
  { R::kName } -> std::convertible_to<const char*>;
  r.check(group);
  { r.rate(t, base, group) } -> std::same_as<double>;
  r.settings(n);
};

// ValueError: "StepLR: steps must be at least 1, got 0".
void check_steps(const char* schedule, const char* field, int64_t v);
void check_fraction(const char* schedule, const char* field, double v);  ///< [0, 1]
/// One value or as many as groups, each finite and at least 0.
void check_rates(const char* schedule, const char* field, const PerGroup<double>& v, int groups);
void check_count(const char* schedule, const char* field, size_t values, int groups);
/// Not empty, the first at least 1, each above the one before.
void check_milestones(const char* schedule, const std::vector<int64_t>& v);

}  // namespace detail

/// The options of any schedule of the step number.
class RateRule {
 public:
  template <detail::Rule R> RateRule(R rule) : model_(std::make_shared<Model<R>>(std::move(rule))) {}

  const char* name() const { return model_->name(); }
  void check(int groups) const { model_->check(groups); }
  double rate(int64_t t, double base, int group) const { return model_->rate(t, base, group); }
  double momentum(int64_t t) const { return model_->momentum(t); }  ///< NaN: it leaves momentum alone
  void settings(detail::Numbers& n) const { model_->settings(n); }

 private:
  struct Base {
    virtual ~Base() = default;
    virtual const char* name() const = 0;
    virtual void check(int groups) const = 0;
    virtual double rate(int64_t t, double base, int group) const = 0;
    virtual double momentum(int64_t t) const = 0;
    virtual void settings(detail::Numbers& n) const = 0;
  };
  template <class R> struct Model final : Base {
    R rule;
    explicit Model(R r) : rule(std::move(r)) {}
    const char* name() const override { return R::kName; }
    void check(int groups) const override { rule.check(groups); }
    double rate(int64_t t, double base, int group) const override { return rule.rate(t, base, group); }
    double momentum(int64_t t) const override {
      if constexpr (requires { rule.momentum(t); }) return rule.momentum(t);
      return detail::kNoMomentum;
    }
    void settings(detail::Numbers& n) const override { rule.settings(n); }
  };
  std::shared_ptr<const Base> model_;
};

/// Base of all schedules. The optimizer must outlive its schedule. Make one schedule for an optimizer: a second would
/// take the first one's rate for the base; SequentialLR and ChainedLR join several.
class Schedule {
 public:
  virtual ~Schedule() = default;
  Schedule(const Schedule&) = delete;
  Schedule& operator=(const Schedule&) = delete;

  virtual const char* name() const = 0;
  double lr(int group = 0) const { return optimizer_.lr(group); }
  int64_t t() const { return t_; }  ///< steps taken

  /// Everything needed to continue, as 0-d tensors by name, and the settings, functions apart; metadata "schedule"
  /// holds the name.
  TensorFile state_dict() const;
  /// Continues from there and sets the rates (and momentum). FormatError naming the difference: another schedule, other
  /// settings or groups, missing or unexpected entries; on error nothing has changed.
  void load_state_dict(const TensorFile& file);

 protected:
  explicit Schedule(Optimizer& optimizer) : optimizer_(optimizer) {}
  virtual detail::Numbers settings() const = 0;
  /// What changes besides t. restore(): the same names and types in the same order; it throws before it changes a
  /// thing.
  virtual detail::Numbers state() const = 0;
  virtual void restore(int64_t t, const detail::Numbers& state) = 0;

  Optimizer& optimizer_;
  int64_t t_ = 0;
};

/// Base of the schedules whose rate is a function of the step number t, counted from 0; t = 0 is applied at
/// construction, and each group's rate before that is its base.
class TimedSchedule : public Schedule {
 public:
  /// Moves to t + 1 and sets every group's rate. ValueError, with no rate changed, where a function given by the user
  /// makes the rate negative or NaN, or the schedule is over (OneCycle).
  void step() { apply(t_ + 1); }
  const char* name() const override { return rule_.name(); }
  /// The rate of `group` at step t ≥ 0, in closed form.
  double lr_at(int64_t t, int group = 0) const;
  /// The momentum (Adam: beta1) at step t ≥ 0; NaN where the schedule leaves it alone.
  double momentum_at(int64_t t) const;

 protected:
  TimedSchedule(Optimizer& optimizer, RateRule rule);
  detail::Numbers settings() const override;
  detail::Numbers state() const override;
  void restore(int64_t t, const detail::Numbers& state) override;

 private:
  void apply(int64_t t);
  RateRule rule_;
  std::vector<double> base_lrs_, rates_;
};

/// The schedule of a rule: StepLR is ScheduleOf<StepLROptions>, and so on. ValueError for options outside their range.
template <detail::Rule R> class ScheduleOf : public TimedSchedule {
 public:
  ScheduleOf(Optimizer& optimizer, R options) : TimedSchedule(optimizer, RateRule(std::move(options))) {}
};

}  // namespace hone::optim
