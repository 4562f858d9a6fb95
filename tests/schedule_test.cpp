// Schedules: against PyTorch's rates, and their formulas written again.

#include <gtest/gtest.h>

#include <cmath>
#include <fstream>
#include <memory>
#include <numbers>
#include <set>
#include <sstream>
#include <string>
#include <vector>

#include "hone/hone.h"
#include "schedule_cases.h"

namespace hone {
namespace {

using namespace schedule_cases;

// "lr 0.1*3 0.05" → {0.1, 0.1, 0.1, 0.05}
std::vector<double> values(const std::string& line, const std::string& word) {
  std::istringstream in(line);
  std::string token;
  in >> token;
  EXPECT_EQ(token, word);
  std::vector<double> out;
  while (in >> token) {
    const size_t star = token.find('*');
    out.insert(out.end(), star == std::string::npos ? 1 : std::stoul(token.substr(star + 1)), std::stod(token));
  }
  return out;
}

TEST(ScheduleGolden, EqualPyTorch) {
  std::ifstream file(HONE_GOLDEN_DIR "/schedules.txt");
  ASSERT_TRUE(file) << HONE_GOLDEN_DIR;
  std::set<std::string> seen;
  std::string line;
  while (std::getline(file, line)) {
    if (!line.starts_with("schedule ")) continue;
    std::istringstream head(line.substr(9));
    std::string name;
    size_t count = 0;
    head >> name >> count;
    std::string lr_line, momentum_line, lr1_line;
    std::getline(file, lr_line);
    std::getline(file, momentum_line);
    std::getline(file, lr1_line);
    const std::vector<double> lr = values(lr_line, "lr"), momentum = values(momentum_line, "momentum"),
                              lr1 = values(lr1_line, "lr1");
    ASSERT_EQ(lr.size(), count);
    ASSERT_EQ(momentum.size(), count);
    ASSERT_EQ(lr1.size(), (count + 6) / 7);
    TwoGroups o(uses_adam(name));
    std::unique_ptr<Schedule> s;
    for (const auto& [twin, make] : twins())
      if (twin == name) s = make(o);
    ASSERT_TRUE(s) << name;
    for (size_t t = 0; t < count; ++t) {
      ASSERT_NEAR(s->lr(0), lr[t], 1e-12 * std::max(0.1, lr[t])) << name << ", t " << t;
      ASSERT_NEAR(o.optimizer->momentum(), momentum[t], 1e-12) << name << ", t " << t;
      ASSERT_EQ(o.optimizer->momentum(1), o.optimizer->momentum(0));
      if (t % 7 == 0) { ASSERT_NEAR(s->lr(1), lr1[t / 7], 1e-12 * std::max(0.03, lr1[t / 7])) << name << ", t " << t; }
      if (t + 1 < count) advance(*s, name);
    }
    seen.insert(name);
  }
  EXPECT_EQ(seen.size(), twins().size());
}

// ---- ours, as their formulas are written

TEST(Schedules, TheDocumentsRates) {
  TwoGroups a, b, c;
  LinearDecay linear(a, {.steps = 30});
  InverseTimeDecay inverse(b, {.alpha = 0.25});
  TwoLevelCyclic cyclic(c, {.lr1 = {0.5, 0.4}, .lr2 = {0.05, 0.04}, .period = 6});
  const double base[] = {0.1, 0.03}, lr1[] = {0.5, 0.4}, lr2[] = {0.05, 0.04};
  for (int t = 0; t < 100; ++t) {
    for (int g = 0; g < 2; ++g) {
      EXPECT_NEAR(linear.lr(g), t < 30 ? base[g] * (1 - t / 30.0) : 0, 1e-16) << t;
      EXPECT_NEAR(inverse.lr(g), base[g] / (1 + 0.25 * t), 1e-16) << t;
      EXPECT_EQ(cyclic.lr(g), t % 6 == 0 ? lr1[g] : lr2[g]) << t;
    }
    linear.step();
    inverse.step();
    cyclic.step();
  }
  EXPECT_EQ(linear.lr(), 0);
}

TEST(Schedules, InverseSquareRoots) {
  TwoGroups a, b;
  Noam noam(a, {.d_model = 64, .warmup = 40, .scale = {1, 0.5}});
  InverseSqrt inverse(b, {.warmup = 40});
  for (int t = 0; t < 200; ++t) {
    const double n = t + 1;  // the paper counts from 1
    const double want = std::pow(64, -0.5) * std::min(std::pow(n, -0.5), n * std::pow(40, -1.5));
    EXPECT_NEAR(noam.lr(0), want, 1e-15) << t;
    EXPECT_NEAR(noam.lr(1), want / 2, 1e-15) << t;
    EXPECT_NEAR(inverse.lr(0), n <= 40 ? 0.1 * n / 40 : 0.1 * std::sqrt(40 / n), 1e-15) << t;
    EXPECT_NEAR(inverse.lr(1), inverse.lr(0) * 0.3, 1e-15) << t;
    noam.step();
    inverse.step();
  }
  EXPECT_EQ(inverse.lr_at(39), 0.1);  // the peak is the base rate
}

TEST(Schedules, ClosedFormIsWhatStepsReach) {
  for (const auto& list : {twins(), others()}) {
    for (const auto& [name, make] : list) {
      TwoGroups o(uses_adam(name)), p(uses_adam(name));
      const std::unique_ptr<Schedule> s = make(o), fresh = make(p);
      auto* stepped = dynamic_cast<TimedSchedule*>(s.get());
      if (!stepped) continue;  // a plateau has none
      const auto& form = dynamic_cast<TimedSchedule&>(*fresh);
      for (int t = 0; t < 60; ++t) {
        const int64_t jump = 59 - t;  // backwards too: what was asked before must not matter
        const double later = form.lr_at(jump, 1);
        for (int g = 0; g < 2; ++g) ASSERT_EQ(form.lr_at(t, g), s->lr(g)) << name << ", t " << t;
        ASSERT_EQ(form.lr_at(jump, 1), later) << name;
        if (const double m = form.momentum_at(t); !std::isnan(m)) { ASSERT_EQ(m, o.optimizer->momentum(1)) << name; }
        stepped->step();
      }
      EXPECT_EQ(fresh->t(), 0);
    }
  }
}

TEST(Schedules, CompositionsByTheirParts) {
  // By hand: in a sequence each rule starts at its own 0 from the base rate; in a chain each takes the rate before it.
  TwoGroups a, b, c;
  SequentialLR sequence(a, {.rules = {LinearLROptions{.steps = 4, .start_factor = 0},
                                      ChainedLROptions{.rules = {CosineAnnealingOptions{.steps = 10, .min_lr = 0.01},
                                                                 StepLROptions{.steps = 3, .gamma = 0.5}}},
                                      LinearDecayOptions{.steps = 5}},
                            .milestones = {4, 12}});
  for (int t = 0; t < 20; ++t) {
    for (int g = 0; g < 2; ++g) {
      const double base = g == 0 ? 0.1 : 0.03;
      double want = base * t / 4;
      if (t >= 4)
        want =
            (0.01 + (base - 0.01) * (1 + std::cos(std::numbers::pi * (t - 4) / 10)) / 2) * std::pow(0.5, (t - 4) / 3);
      if (t >= 12) want = base * std::max(0.0, 1 - (t - 12) / 5.0);
      ASSERT_NEAR(sequence.lr(g), want, 1e-16) << t;
    }
    sequence.step();
  }
  // Momentum in a sequence: held by the last that moved it, from where a rule leaves it alone.
  SequentialLR moving(b, {.rules = {OneCycleOptions{.max_lr = 0.2, .steps = 6}, ExponentialLROptions{.gamma = 0.9}},
                          .milestones = {6}});
  EXPECT_EQ(b.optimizer->momentum(), 0.95);
  for (int i = 0; i < 8; ++i) moving.step();
  EXPECT_NEAR(b.optimizer->momentum(), 0.95, 1e-15);
  EXPECT_NEAR(moving.lr(), 0.1 * 0.81, 1e-16);
  // The order of a chain counts where a rule adds: the floor comes after the factor.
  ChainedLR floor(c, {.rules = {ConstantLROptions{.steps = 5, .factor = 0.5},
                                CosineAnnealingOptions{.steps = 10, .min_lr = 0.02}}});
  EXPECT_NEAR(floor.lr_at(10), 0.02, 1e-16);
  EXPECT_NEAR(floor.lr_at(0), 0.05, 1e-16);
}

TEST(Schedules, MultiplicativeCallsItsFunctionOnceAStep) {
  int64_t calls = 0;
  TwoGroups o;
  MultiplicativeLR s(o, {.factor = [&calls](int64_t) {
                       ++calls;
                       return 0.99;
                     }});
  for (int i = 0; i < 100; ++i) s.step();
  EXPECT_EQ(calls, 200);  // two groups
}

TEST(Schedules, OneRuleServesSeveralOptimizers) {
  const RateRule rule = MultiplicativeLROptions{.factor = [](int64_t) { return 0.5; }};
  TwoGroups two;
  Parameter p(zeros({1}));
  SGD one({p.ref()}, {.lr = 1});
  ChainedLR a(two, {.rules = {rule}}), b(one, {.rules = {rule}});
  for (int i = 0; i < 3; ++i) {
    a.step();
    if (i > 0) b.step();
  }
  EXPECT_EQ(a.lr(1), 0.03 * 0.125);
  EXPECT_EQ(b.lr(), 0.25);
}

TEST(Schedules, MomentumOnlyWhereThereIsAny) {
  Parameter p(zeros({1}));
  SGD plain({p.ref()}, {.lr = 0.1});
  CyclicLR s(plain, {.max_lr = 0.5, .steps_up = 3});
  for (int i = 0; i < 3; ++i) s.step();
  EXPECT_EQ(s.lr(), 0.5);
  EXPECT_FALSE(plain.has_momentum());
  Adam adam({p.ref()}, {.lr = 0.1});
  CyclicLR t(adam, {.max_lr = 0.5, .steps_up = 3});
  EXPECT_EQ(adam.options().beta1, 0.9);
  for (int i = 0; i < 3; ++i) t.step();
  EXPECT_NEAR(adam.options().beta1, 0.8, 1e-16);
}

TEST(Schedules, PlateauTakesNaNForNoImprovement) {
  TwoGroups o;
  ReduceOnPlateau s(o, {.patience = 1});
  s.step(1.0);
  s.step(kNaN);
  EXPECT_EQ(s.lr(), 0.1);
  s.step(kNaN);
  EXPECT_NEAR(s.lr(), 0.01, 1e-17);
  EXPECT_EQ(s.best(), 1.0);
}

}  // namespace
}  // namespace hone
