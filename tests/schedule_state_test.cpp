// Schedules: state saved and loaded at any step, states that are refused, and options outside their range.

#include <gtest/gtest.h>

#include <memory>
#include <string>
#include <vector>

#include "hone/hone.h"
#include "schedule_cases.h"

namespace hone {
namespace {

using namespace schedule_cases;

TEST(ScheduleState, ContinuesBitIdenticallyFromAnyStep) {
  for (const auto& list : {twins(), others()}) {
    for (const auto& [name, make] : list) {
      TwoGroups o(uses_adam(name));
      const std::unique_ptr<Schedule> s = make(o);
      std::vector<TensorFile> saved;
      std::vector<double> lr0, lr1, momentum;
      for (int t = 0; t < 60; ++t) {
        saved.push_back(s->state_dict());
        lr0.push_back(s->lr(0));
        lr1.push_back(s->lr(1));
        momentum.push_back(o.optimizer->momentum());
        advance(*s, name);
      }
      for (size_t from = 0; from < 60; from += from < 12 ? 1 : 7) {
        // Another optimizer, with other rates, as a program that starts anew would have before it loads.
        TwoGroups p(uses_adam(name), 0.7, 0.2);
        const std::unique_ptr<Schedule> next = make(p);
        next->load_state_dict(saved[from]);
        ASSERT_EQ(next->t(), static_cast<int64_t>(from));
        for (size_t t = from; t < 60; ++t) {
          ASSERT_EQ(next->lr(0), lr0[t]) << name << ", from " << from << ", t " << t;
          ASSERT_EQ(next->lr(1), lr1[t]) << name << ", from " << from << ", t " << t;
          if (name != "nested") {  // its momentum is left alone at first, so it is the optimizer's to restore
            ASSERT_EQ(p.optimizer->momentum(), momentum[t]) << name << ", from " << from << ", t " << t;
          }
          advance(*next, name);
        }
      }
    }
  }
}

TEST(ScheduleState, ThroughAFile) {
  TwoGroups o, p;
  SequentialLR a(o, {.rules = {LinearLROptions{.steps = 3}, CosineAnnealingOptions{.steps = 9}}, .milestones = {3}});
  for (int i = 0; i < 7; ++i) a.step();
  const std::string path = testing::TempDir() + "schedule.safetensors";
  save_safetensors(path, a.state_dict());
  SequentialLR b(p, {.rules = {LinearLROptions{.steps = 3}, CosineAnnealingOptions{.steps = 9}}, .milestones = {3}});
  b.load_state_dict(load_safetensors(path));
  EXPECT_EQ(b.t(), 7);
  EXPECT_EQ(b.lr(1), a.lr(1));
  for (const auto& [name, t] : a.state_dict().tensors) EXPECT_EQ(t.ndim(), 0) << name;
}

Tensor scalar(double v) { return tensor(std::vector<double>{v}, Shape{}); }
void set(TensorFile& file, const std::string& name, const Tensor& t) {
  for (auto& [key, value] : file.tensors)
    if (key == name) value = t;
}

TEST(ScheduleState, RefusesAnotherSchedulesState) {
  TwoGroups o, p, q;
  StepLR a(o, {.steps = 5});
  for (int i = 0; i < 6; ++i) a.step();
  const TensorFile good = a.state_dict();
  CosineAnnealing other(p, {.steps = 5});
  expect_error<FormatError>([&] { other.load_state_dict(good); },
                            "CosineAnnealing.load_state_dict: the state is of 'StepLR'");
  StepLR b(q, {.steps = 5});
  const auto refused = [&](const std::string& part, auto change) {
    TensorFile file = good;
    change(file);
    expect_error<FormatError>([&] { b.load_state_dict(file); }, part);
    EXPECT_EQ(b.t(), 0);
    EXPECT_EQ(b.lr(0), 0.1);
    EXPECT_EQ(b.lr(1), 0.03);
  };
  refused("the state is of ''", [](TensorFile& f) { f.metadata.clear(); });
  refused("version '2'", [](TensorFile& f) { f.metadata["version"] = "2"; });
  refused("gamma is 0.2 in the state and 0.1 here", [](TensorFile& f) { set(f, "setting.gamma", scalar(0.2)); });
  refused("entry 'setting.steps' is f64", [](TensorFile& f) { set(f, "setting.steps", scalar(5)); });
  refused("entry 't' is i64 [1]", [](TensorFile& f) { set(f, "t", tensor(std::vector<int64_t>{3}, Shape{1})); });
  refused("t must be at least 0, got -1",
          [](TensorFile& f) { set(f, "t", tensor(std::vector<int64_t>{-1}, Shape{})); });
  refused("group.1.base_lr must be finite", [](TensorFile& f) { set(f, "group.1.base_lr", scalar(kNaN)); });
  refused("group.0.base_lr must be finite and at least 0, got -1",
          [](TensorFile& f) { set(f, "group.0.base_lr", scalar(-1)); });
  refused("no entry 'group.1.base_lr'",
          [](TensorFile& f) { std::erase_if(f.tensors, [](const auto& e) { return e.first == "group.1.base_lr"; }); });
  refused("is not known here: 'group.2.base_lr'",
          [](TensorFile& f) { f.tensors.emplace_back("group.2.base_lr", scalar(0.1)); });
  b.load_state_dict(good);
  EXPECT_EQ(b.t(), 6);
}

TEST(ScheduleState, RefusesOtherSettingsOfParts) {
  TwoGroups o, p, q, r;
  const auto rules = [](RateRule second) {
    return ChainedLROptions{.rules = {LinearLROptions{.steps = 3}, std::move(second)}};
  };
  ChainedLR a(o, rules(StepLROptions{.steps = 4})), b(p, rules(StepLROptions{.steps = 5})),
      c(q, rules(LambdaLROptions{.factor = [](int64_t) { return 1.0; }}));
  expect_error<FormatError>([&] { b.load_state_dict(a.state_dict()); },
                            "rules.1.StepLR.steps is 4 in the state and 5 here");
  expect_error<FormatError>([&] { c.load_state_dict(a.state_dict()); }, "rules.1.LambdaLR");
  // A step past the end of a cycle is no state of it.
  OneCycle cycle(r, {.max_lr = 0.1, .steps = 3});
  TensorFile file = cycle.state_dict();
  set(file, "t", tensor(std::vector<int64_t>{4}, Shape{}));
  expect_error<FormatError>([&] { cycle.load_state_dict(file); }, "step 4 of a cycle of 3");
  EXPECT_EQ(cycle.t(), 0);
  // A rate refused after the base rates were read: they are as before.
  TwoGroups u;
  LambdaLR lambda(u, {.factor = [](int64_t t) { return t < 5 ? 1.0 : -1.0; }});
  file = lambda.state_dict();
  set(file, "t", tensor(std::vector<int64_t>{5}, Shape{}));
  set(file, "group.0.base_lr", scalar(0.5));
  expect_error<FormatError>([&] { lambda.load_state_dict(file); }, "the rate of group 0 at step 5");
  EXPECT_EQ(lambda.lr_at(1), 0.1);
  EXPECT_EQ(lambda.t(), 0);
}

TEST(ScheduleState, RefusesAnImpossiblePlateau) {
  TwoGroups o;
  ReduceOnPlateau s(o, {.patience = 3, .cooldown = 2});
  s.step(0.5);
  const auto refused = [&](const std::string& name, const Tensor& t) {
    TensorFile file = s.state_dict();
    set(file, name, t);
    expect_error<FormatError>([&] { s.load_state_dict(file); }, name);
    EXPECT_EQ(s.lr(), 0.1);
    EXPECT_EQ(s.best(), 0.5);
  };
  refused("bad_steps", tensor(std::vector<int64_t>{4}, Shape{}));
  refused("bad_steps", tensor(std::vector<int64_t>{-1}, Shape{}));
  refused("cooldown_left", tensor(std::vector<int64_t>{3}, Shape{}));
  refused("best", scalar(kNaN));
  refused("group.1.lr", scalar(-0.5));
}

// ---- errors

TEST(ScheduleErrors, Options) {
  TwoGroups o;
  const auto refused = [&](auto rule, const std::string& part) {
    expect_error<ValueError>([&] { ScheduleOf<decltype(rule)>(o, rule); }, part);
    EXPECT_EQ(o.optimizer->lr(0), 0.1) << part;
  };
  refused(StepLROptions{}, "StepLR: steps must be at least 1, got 0");
  refused(StepLROptions{.steps = 3, .gamma = 0}, "StepLR: gamma must be finite and above 0, got 0");
  refused(MultiStepLROptions{}, "MultiStepLR: milestones must not be empty");
  refused(MultiStepLROptions{.milestones = {0, 3}}, "milestones must be at least 1, got 0");
  refused(MultiStepLROptions{.milestones = {5, 5}}, "milestones must increase, got 5 after 5");
  refused(MultiStepLROptions{.milestones = {5}, .gamma = kNaN}, "gamma");
  refused(ExponentialLROptions{}, "ExponentialLR: gamma");
  refused(ExponentialLROptions{.gamma = -0.5}, "gamma");
  refused(PolynomialLROptions{.steps = -1}, "PolynomialLR: steps");
  refused(PolynomialLROptions{.steps = 5, .power = -1}, "power");
  refused(LinearLROptions{}, "LinearLR: steps");
  refused(LinearLROptions{.steps = 5, .start_factor = 1.5}, "start_factor must be in [0, 1], got 1.5");
  refused(LinearLROptions{.steps = 5, .end_factor = kNaN}, "end_factor");
  refused(ConstantLROptions{.steps = 0}, "ConstantLR: steps");
  refused(ConstantLROptions{.steps = 5, .factor = -0.1}, "factor");
  refused(CosineAnnealingOptions{}, "CosineAnnealing: steps");
  refused(CosineAnnealingOptions{.steps = 5, .min_lr = -1}, "min_lr");
  refused(CosineWarmRestartsOptions{}, "CosineWarmRestarts: steps");
  refused(CosineWarmRestartsOptions{.steps = 5, .growth = 0}, "growth must be at least 1, got 0");
  refused(CosineWarmRestartsOptions{.steps = 5, .min_lr = kNaN}, "min_lr");
  refused(OneCycleOptions{.steps = 10}, "OneCycle: max_lr must be finite and above 0, got 0");
  refused(OneCycleOptions{.max_lr = kNaN, .steps = 10}, "max_lr");
  refused(OneCycleOptions{.max_lr = {}, .steps = 10}, "max_lr is missing");
  refused(OneCycleOptions{.max_lr = {1, 2, 3}, .steps = 10}, "max_lr has 3 values, the optimizer has 2 groups");
  refused(OneCycleOptions{.max_lr = 0.1}, "steps must be at least 1, got 0");
  refused(OneCycleOptions{.max_lr = 0.1, .steps = 10, .warmup = 1.5}, "warmup must be in [0, 1], got 1.5");
  refused(OneCycleOptions{.max_lr = 0.1, .steps = 10, .warmup = 0.6, .three_phase = true}, "[0, 0.5]");
  refused(OneCycleOptions{.max_lr = 0.1, .steps = 10, .div_factor = 0}, "div_factor");
  refused(OneCycleOptions{.max_lr = 0.1, .steps = 10, .final_div_factor = kNaN}, "final_div_factor");
  refused(OneCycleOptions{.max_lr = 0.1, .steps = 10, .base_momentum = 1}, "base_momentum must be in [0, 1), got 1");
  refused(CyclicLROptions{}, "CyclicLR: max_lr");
  refused(CyclicLROptions{.max_lr = 0.1, .steps_up = 0}, "steps_up");
  refused(CyclicLROptions{.max_lr = 0.1, .steps_down = -1}, "steps_down");
  refused(CyclicLROptions{.max_lr = 0.1, .mode = Cycle::exp_range, .gamma = 1.1}, "gamma must be in (0, 1], got 1.1");
  refused(CyclicLROptions{.max_lr = 0.1, .max_momentum = -1}, "max_momentum");
  refused(NoamOptions{}, "Noam: d_model");
  refused(NoamOptions{.d_model = 8, .warmup = 0}, "warmup");
  refused(NoamOptions{.d_model = 8, .scale = -1}, "scale");
  refused(InverseSqrtOptions{}, "InverseSqrt: warmup");
  refused(LinearDecayOptions{}, "LinearDecay: steps");
  refused(InverseTimeDecayOptions{.alpha = -1}, "InverseTimeDecay: alpha must be finite and at least 0, got -1");
  refused(TwoLevelCyclicOptions{.lr1 = 0.1, .lr2 = 0.2}, "TwoLevelCyclic: period");
  refused(TwoLevelCyclicOptions{.lr1 = -0.1, .lr2 = 0.2, .period = 3}, "lr1");
  refused(TwoLevelCyclicOptions{.lr1 = 0.1, .lr2 = {0.2, kNaN}, .period = 3}, "lr2");
  refused(LambdaLROptions{}, "LambdaLR: factor is missing");
  refused(LambdaLROptions{.factor = StepFunction()}, "LambdaLR: factor is an empty function");
  refused(LambdaLROptions{.factor = [](int64_t) { return -2.0; }}, "the rate of group 0 at step 0 must be finite");
  refused(MultiplicativeLROptions{}, "MultiplicativeLR: factor is missing");
  refused(SequentialLROptions{}, "SequentialLR: rules must not be empty");
  refused(ChainedLROptions{}, "ChainedLR: rules must not be empty");
  const RateRule decay = LinearDecayOptions{.steps = 4};
  refused(SequentialLROptions{.rules = {decay, decay}}, "2 rules need 1 milestones, got 0");
  refused(SequentialLROptions{.rules = {decay, decay, decay}, .milestones = {5, 4}}, "milestones must increase");
  refused(SequentialLROptions{.rules = {decay, LinearDecayOptions{}}, .milestones = {5}}, "LinearDecay: steps");
}

TEST(ScheduleErrors, Plateau) {
  TwoGroups o;
  const auto refused = [&](ReduceOnPlateauOptions options, const std::string& part) {
    expect_error<ValueError>([&] { ReduceOnPlateau(o, options); }, "ReduceOnPlateau: " + part);
  };
  refused({.factor = 1}, "factor must be in [0, 1), got 1");
  refused({.factor = kNaN}, "factor");
  refused({.patience = -1}, "patience must be at least 0, got -1");
  refused({.threshold = -1}, "threshold");
  refused({.cooldown = -1}, "cooldown");
  refused({.min_lr = {0.1, -0.1}}, "min_lr must be finite and at least 0, got -0.1");
  refused({.min_lr = {0.1, 0.1, 0.1}}, "min_lr has 3 values");
  refused({.eps = kNaN}, "eps");
}

TEST(ScheduleErrors, StepsThatCannotBe) {
  TwoGroups o, p;
  OneCycle cycle(o, {.max_lr = 0.1, .steps = 3});
  for (int i = 0; i < 3; ++i) cycle.step();
  EXPECT_NEAR(cycle.lr(), 0.1 / 25 / 1e4, 1e-15);
  expect_error<ValueError>([&] { cycle.step(); }, "step 4 of a cycle of 3");
  EXPECT_EQ(cycle.t(), 3);
  expect_error<ValueError>([&] { cycle.lr_at(-1); }, "t must be at least 0, got -1");
  expect_error<ValueError>([&] { cycle.lr_at(0, 2); }, "group 2 of 2");
  // A function that fails for the second group only: the first keeps its rate.
  const auto good = [](int64_t) { return 0.5; };
  const auto bad = [](int64_t t) { return t < 2 ? 0.5 : kNaN; };
  LambdaLR lambda(p, {.factor = {good, bad}});
  p.optimizer->set_lr(0.0625, 0);
  lambda.step();
  p.optimizer->set_lr(0.0625, 0);
  expect_error<ValueError>([&] { lambda.step(); }, "LambdaLR: the rate of group 1 at step 2 must be finite");
  EXPECT_EQ(lambda.lr(0), 0.0625);
  EXPECT_EQ(lambda.t(), 1);
}

}  // namespace
}  // namespace hone
