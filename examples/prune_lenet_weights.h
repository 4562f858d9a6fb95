#pragma once
// Single weights, by every criterion in one shot and by schedules while training.

#include "prune_lenet.h"

namespace prune_lenet_weights {

using namespace hone;
using namespace hone::compress;

enum class Start { trained, early, untrained };

struct Method {
  std::string name;
  Criterion criterion = magnitude();
  std::function<PruneSchedule(int64_t steps)> schedule = {};  ///< none: one shot
  PruneScope scope = PruneScope::global;
  Pattern pattern = {};  ///< n:m has a density of its own
  int64_t PruneLeNetOptions::*epochs = &PruneLeNetOptions::retrain;
  Start start = Start::trained;
  bool observed = false;    ///< the criterion averages training's own gradients
  bool per_sample = false;  ///< the criterion looks at one image at a time
  double lr = from_labels(1).lr;
};

inline std::vector<Method> methods() {
  const auto ramp = [](int64_t steps) { return CubicRamp{.end = steps / 2, .every = 50}; };
  const auto gradient_by = [](Reduce r, GradientOf of = GradientOf::loss) { return gradient({.reduce = r, .of = of}); };
  return {
      {.name = "magnitude"},
      {.name = "magnitude, each layer", .scope = PruneScope::per_layer},
      {.name = "lamp", .criterion = lamp()},
      {.name = "gradient, |mean|", .criterion = gradient_by(Reduce::abs_of_mean)},
      {.name = "gradient, mean | |", .criterion = gradient_by(Reduce::mean_of_abs), .per_sample = true},
      {.name = "gradient, mean square", .criterion = gradient_by(Reduce::mean_of_square), .per_sample = true},
      {.name = "gradient of output", .criterion = gradient_by(Reduce::abs_of_mean, GradientOf::output)},
      {.name = "taylor", .criterion = taylor(), .per_sample = true},
      {.name = "snip", .criterion = snip()},
      {.name = "hessian", .criterion = hessian()},
      {.name = "random", .criterion = compress::random()},
      {.name = "magnitude, 2:4", .pattern = n_m(2, 4)},
      {.name = "magnitude, 4:8", .pattern = n_m(4, 8)},
      {.name = "magnitude, blocks of 4 x 4", .pattern = block(4, 4)},
      {.name = "taylor, blocks of 4 x 4", .criterion = taylor(), .pattern = block(4, 4), .per_sample = true},
      {.name = "iterative",
       .schedule = [](int64_t steps) { return Iterative{.rounds = 4, .every = std::max<int64_t>(1, steps / 4)}; },
       .epochs = &PruneLeNetOptions::epochs},
      {.name = "cubic ramp", .schedule = ramp, .epochs = &PruneLeNetOptions::epochs},
      {.name = "movement",
       .criterion = movement(),
       .schedule = [](int64_t steps) { return Surgery{.end = steps / 2, .every = 50, .margin = 0}; },
       .epochs = &PruneLeNetOptions::epochs,
       .observed = true},
      {.name = "surgery",
       .schedule = [](int64_t steps) { return Surgery{.end = steps / 2, .every = 50, .last = steps * 3 / 4}; },
       .epochs = &PruneLeNetOptions::epochs,
       .lr = 1e-3},  // Adam moves hidden weights by its rate, however small their gradients
      {.name = "rigl, untrained",
       .criterion = compress::random(),
       .schedule = [](int64_t steps) { return RigL{.every = 100, .end = steps * 3 / 4}; },
       .scope = PruneScope::erdos_renyi,
       .epochs = &PruneLeNetOptions::epochs,
       .start = Start::untrained},
      {.name = "snip, untrained", .criterion = snip(), .epochs = &PruneLeNetOptions::epochs, .start = Start::untrained},
      {.name = "lottery ticket", .epochs = &PruneLeNetOptions::epochs, .start = Start::early},
      {.name = "taylor ramp",
       .criterion = taylor(),
       .schedule = ramp,
       .epochs = &PruneLeNetOptions::epochs,
       .observed = true},
  };
}

inline Outcome prune_and_fit(const Method& m, double density, const PruneLeNetOptions& o, Seed& seed) {
  nn::LeNet net = m.start == Start::untrained ? seed.untrained : seed.dense;
  data::Loader few(seed.fashion.training.first(m.per_sample || m.criterion.order > 1 ? 1000 : 5000),
                   {.batch = m.per_sample ? 1 : 100, .transform = fashion_transforms()});
  PruneOptions options{.criterion = m.criterion, .scope = m.scope, .pattern = m.pattern};
  if (m.pattern.kind != Pattern::Kind::n_m) options.density = density;
  if (m.criterion.order > 0 && !m.observed)
    options.losses = over(few, [&](const data::Batch& b) {
      const Tensor logits = net(b.inputs);
      return m.criterion.of == GradientOf::output ? logits : cross_entropy(logits, b.targets);
    });
  const int64_t epochs = o.*m.epochs;
  if (m.schedule) options.schedule = m.schedule(steps_of(seed.fashion, epochs));
  Pruner pruner(net, options);
  Outcome out;
  if (!m.schedule) out.before = seed.score(net);
  if (m.start == Start::early) Snapshot(seed.early).rewind(net);
  const auto observe = [&] {
    if (m.observed) pruner.observe();
  };
  RetrainRecipe recipe = from_labels(epochs);
  recipe.lr = m.lr;
  retrain(
      net, nullptr, seed.fashion.training, recipe, observe, [&] { pruner.step(); }, [](int64_t, double) {});
  out.after = seed.score(net);
  out.weights = weights_left(net);
  return out;
}

}  // namespace prune_lenet_weights

/// size: the density.
inline std::vector<Case> weights_cases(const PruneLeNetOptions& o) {
  using namespace prune_lenet_weights;
  std::vector<Case> cases;
  for (const Method& m : methods())
    for (const double density : m.pattern.kind == Pattern::Kind::n_m ? std::vector{0.5} : o.densities)
      cases.push_back({m.name, density, [=, &o](Seed& seed) { return prune_and_fit(m, density, o, seed); }});
  for (const double density : o.densities)
    cases.push_back({"train_lenet --prune", density, [=, &o](Seed& seed) {
                       nn::LeNet net = seed.dense;
                       PruneRecipe recipe{.density = density};
                       recipe.retrain.epochs = o.recipe_epochs;
                       prune_and_retrain(net, &seed.answers(), seed.fashion.training, recipe,
                                         [](int64_t, double, double) {});
                       return Outcome{.after = seed.score(net), .weights = weights_left(net)};
                     }});
  return cases;
}
