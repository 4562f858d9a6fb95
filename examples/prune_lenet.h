#pragma once
// What all parts of prune_lenet share: a seed's images and dense network, training, and scores of what a file holds.

#include <algorithm>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "lenet_pruning.h"

struct PruneLeNetOptions {
  CommonOptions common;
  int64_t seeds = 1, dense_epochs = 15, retrain = 1, epochs = 8;
  int64_t teacher_epochs = TeacherRecipe().train.epochs, recipe_epochs = PruneRecipe().retrain.epochs;
  int64_t images = 60000, validation = 5000;
  std::vector<double> densities = {0.5, 0.2, 0.1, 0.05, 0.02, 0.01}, shares = {0.75, 0.5, 0.25};
  std::vector<std::string> only;
  std::string structure = "weights", report, keep;
  double latency_seconds = 0.3;
  bool held_out = false;
};

/// How the dense network is trained, and what has no teacher.
inline RetrainRecipe from_labels(int64_t epochs) { return {.epochs = epochs, .label_smoothing = 0.05}; }
/// Steps that training makes.
inline int64_t steps_of(const Fashion& fashion, int64_t epochs) { return epochs * (fashion.training.size() / 64); }

inline const hone::Tensor& sample_image() {
  static const hone::Tensor image = hone::zeros({1, 3, 32, 32});
  return image;
}

/// A network as its file holds it: saved and reloaded; and, optimized, with sparse weights where those are faster, the
/// median time of one image on one thread.
struct Saved {
  double accuracy = 0, latency_us = 0;
  int64_t bytes = 0, macs = 0;
};

/// What every method starts from, for one seed.
class Seed {
 public:
  Seed(const PruneLeNetOptions& options, uint64_t seed) : options_(options) {
    CommonOptions common = options.common;
    common.seed = seed;
    hone::manual_seed(seed);
    fashion = open_fashion(common, options.validation, options.images);
    untrained = hone::nn::LeNet();
    early = dense = untrained;
    name_ = hone::str(options.keep, "/lenet_", seed, "_of_", fashion.training.size(), "_");
    const auto file = [&](const char* stage) {
      return hone::str(name_, stage, "_of_", options.dense_epochs, ".safetensors");
    };
    if (!options.keep.empty() && std::filesystem::exists(file("last"))) {
      early.load(file("first"));
      dense.load(file("last"));
      return;
    }
    const auto nothing = [] {};
    retrain(dense, nullptr, fashion.training, from_labels(options.dense_epochs), nothing, nothing,
            [&](int64_t epoch, double) {
              if (epoch == 1) early = dense;
            });
    if (options.keep.empty()) return;
    early.save(file("first"));
    dense.save(file("last"));
  }

  /// On the test images, or those held out.
  Saved score(const hone::graph::Network& network) const {
    using namespace hone;
    const TemporaryFile file("prune_lenet.safetensors");
    graph::save(network, file.path);
    Saved saved{.bytes = static_cast<int64_t>(std::filesystem::file_size(file.path))};
    graph::Network loaded = graph::load(file.path);
    saved.macs = loaded.macs();
    saved.accuracy = evaluate(loaded, options_.held_out ? fashion.validation : fashion.test).accuracy;
    graph::Network fast = graph::optimize(loaded);
    graph::sparsify(fast, sample_image(), {.threads = 1, .seconds = options_.latency_seconds});
    saved.latency_us = graph::measure(fast, sample_image(), {.threads = 1, .seconds = options_.latency_seconds}).p50_us;
    return saved;
  }
  Saved score(hone::nn::LeNet& net) const { return score(hone::graph::trace(net, sample_image())); }

  /// Those of the wide network that teaches in train_lenet's recipe, which is trained when first asked for.
  const hone::compress::TeacherCache& answers() {
    if (answers_) return *answers_;
    TeacherRecipe recipe;
    recipe.train.epochs = options_.teacher_epochs;
    hone::nn::LeNet wide({.width = recipe.width});
    const std::string file = hone::str(name_, "teacher_", recipe.train.epochs, ".safetensors");
    if (!options_.keep.empty() && std::filesystem::exists(file)) {
      wide.load(file);
    } else {
      wide = train_teacher(fashion.training, recipe);
      if (!options_.keep.empty()) wide.save(file);
    }
    return answers_.emplace(answers_of(wide, fashion.training));
  }

  Fashion fashion = {};
  hone::nn::LeNet untrained, early, dense;  ///< early: after the first epoch

 private:
  const PruneLeNetOptions& options_;
  std::string name_ = {};  // of files that are kept, to their stage
  std::optional<hone::compress::TeacherCache> answers_ = {};
};

/// What a method made of a seed's dense network.
struct Outcome {
  std::optional<Saved> before = {};  ///< retraining
  Saved after = {};
  int64_t weights = 0;                    ///< that are left, biases apart
  std::optional<double> difference = {};  ///< of the shrunk network from the masked one
  std::string refused = {};               ///< why the network cannot be pruned so
};

/// A method at one size: a line of the table.
struct Case {
  std::string method;
  double size = 1;  ///< the share that stays of what the structure counts
  std::function<Outcome(Seed&)> run;
};

inline int64_t weights_left(hone::nn::Module& module) {
  int64_t kept = 0;
  for (const auto& layer : hone::compress::prune_report(module).layers)
    if (layer.name.ends_with("weight")) kept += layer.kept;
  return kept;
}
