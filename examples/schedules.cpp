// Every learning-rate schedule, drawn: the rate at each step of a training of 200 steps, from a base rate of 0.1.

#include <algorithm>

#include "common.h"

using namespace hone;

namespace {

struct Drawing {
  std::string name;
  std::vector<double> rates;
};

// Steps a schedule through the training, as a loop would, and notes the rate that each step is made with.
template <class Options> Drawing draw(const std::string& name, int64_t steps, double lr, Options options) {
  Parameter w(zeros({1}));
  optim::SGD sgd({w.ref()}, {.lr = lr, .momentum = 0.9});
  optim::ScheduleOf<Options> schedule(sgd, std::move(options));
  Drawing d{name, {}};
  for (int64_t t = 0; t < steps; ++t, schedule.step()) d.rates.push_back(schedule.lr());
  return d;
}

// A loss that falls and comes to rest.
Drawing draw_plateau(int64_t steps, double lr) {
  Parameter w(zeros({1}));
  optim::SGD sgd({w.ref()}, {.lr = lr});
  optim::ReduceOnPlateau schedule(sgd, {.factor = 0.5, .patience = 10, .threshold = 1e-2});
  Drawing d{"ReduceOnPlateau", {}};
  for (int64_t t = 0; t < steps; ++t) {
    d.rates.push_back(schedule.lr());
    schedule.step(0.3 + std::exp(-10.0 * static_cast<double>(t) / static_cast<double>(steps)));
  }
  return d;
}

std::vector<Drawing> draw_all(int64_t n, double lr) {
  using namespace optim;
  const int64_t tenth = std::max<int64_t>(n / 10, 1);
  const double top = 3 * lr, halves = std::pow(0.5, 1.0 / static_cast<double>(2 * tenth));
  const auto wave = [=](int64_t t) { return 1 + 0.5 * std::sin(static_cast<double>(t) / static_cast<double>(tenth)); };
  const LinearLROptions warm{.steps = tenth, .start_factor = 0.01};
  const auto cyclic = [&](Cycle mode, double gamma) {
    return CyclicLROptions{.max_lr = top, .steps_up = tenth, .mode = mode, .gamma = gamma};
  };
  return {
      draw("StepLR", n, lr, StepLROptions{.steps = 3 * tenth, .gamma = 0.5}),
      draw("MultiStepLR", n, lr, MultiStepLROptions{.milestones = {2 * tenth, 7 * tenth}, .gamma = 0.3}),
      draw("ExponentialLR", n, lr, ExponentialLROptions{.gamma = halves}),
      draw("PolynomialLR", n, lr, PolynomialLROptions{.steps = n, .power = 2}),
      draw("LinearLR", n, lr, warm),
      draw("ConstantLR", n, lr, ConstantLROptions{.steps = tenth}),
      draw("CosineAnnealing", n, lr, CosineAnnealingOptions{.steps = n}),
      draw("CosineWarmRestarts", n, lr, CosineWarmRestartsOptions{.steps = tenth, .growth = 2}),
      draw("OneCycle", n, lr, OneCycleOptions{.max_lr = top, .steps = n}),
      draw("OneCycle, three phases", n, lr, OneCycleOptions{.max_lr = top, .steps = n, .three_phase = true}),
      draw("CyclicLR, triangular", n, lr, cyclic(Cycle::triangular, 1)),
      draw("CyclicLR, triangular2", n, lr, cyclic(Cycle::triangular2, 1)),
      draw("CyclicLR, exp_range", n, lr, cyclic(Cycle::exp_range, halves)),
      draw("Noam", n, lr, NoamOptions{.d_model = 512, .warmup = tenth}),
      draw("InverseSqrt", n, lr, InverseSqrtOptions{.warmup = tenth}),
      draw("LambdaLR", n, lr, LambdaLROptions{.factor = wave}),
      draw("MultiplicativeLR", n, lr, MultiplicativeLROptions{.factor = [=](int64_t) { return halves; }}),
      draw("SequentialLR: linear, then cosine", n, lr,
           SequentialLROptions{.rules = {warm, CosineAnnealingOptions{.steps = n - tenth}}, .milestones = {tenth}}),
      draw("ChainedLR: linear × steps", n, lr,
           ChainedLROptions{.rules = {warm, StepLROptions{.steps = 3 * tenth, .gamma = 0.5}}}),
      draw_plateau(n, lr),
      draw("LinearDecay", n, lr, LinearDecayOptions{.steps = n - 2 * tenth}),
      draw("InverseTimeDecay", n, lr, InverseTimeDecayOptions{.alpha = 10 / static_cast<double>(n)}),
      draw("TwoLevelCyclic", n, lr, TwoLevelCyclicOptions{.lr1 = lr, .lr2 = lr / 2, .period = tenth}),
  };
}

}  // namespace

int main(int argc, char** argv) {
  CLI::App app("Draws every learning-rate schedule.", "schedules");
  CommonOptions common;
  std::string html;
  int64_t steps = 200;
  double lr = 0.1;
  app.add_option("--json", common.json, "Write the rates' ends and extremes to this file, as one JSON object");
  app.add_option("--html", html, "Write the curves to this file");
  app.add_option("--steps", steps, "Steps of the training")->check(CLI::Range(20, 100000))->capture_default_str();
  app.add_option("--lr", lr, "Base rate")->check(positive())->capture_default_str();
  return run_example(app, argc, argv, common, [&] {
    train::Results results{.job = "schedules", .figures = {}, .settings = {}, .rows = {}};
    results.settings.set("steps", steps).set("lr", lr);
    train::Report page;
    page.title = "Learning-rate schedules";
    page.summary = str("The rate at each of ", steps, " steps, from a base rate of ", lr, ".");
    std::printf("%-36s %11s %11s %11s %11s\n", "schedule", "first", "lowest", "highest", "last");
    for (const Drawing& d : draw_all(steps, lr)) {
      const auto [low, high] = std::minmax_element(d.rates.begin(), d.rates.end());
      std::printf("%-36s %11.4g %11.4g %11.4g %11.4g\n", d.name.c_str(), d.rates.front(), *low, *high, d.rates.back());
      results.rows.emplace_back()
          .set("name", d.name)
          .set("first_lr", d.rates.front())
          .set("lowest_lr", *low)
          .set("highest_lr", *high)
          .set("last_lr", d.rates.back());
      page.charts.push_back({d.name, "step", "learning rate", {{"rate", d.rates}}});
    }
    if (!common.json.empty()) train::save_json(common.json, results);
    if (!html.empty()) train::save_report(html, page);
  });
}
