// Weights of LeNet pruned on Fashion-MNIST by every criterion and schedule, to densities down to 1 %: accuracy before
// and after retraining, bytes of the file. With --held-out, for choosing settings, it scores on training images that
// are not trained on. Every figure is of a network as reloaded from its file.

#include <algorithm>
#include <functional>
#include <memory>

#include "fashion.h"

using namespace hone;

namespace {

struct Options {
  CommonOptions common;
  int64_t seeds = 1, dense_epochs = 15, retrain = 1, epochs = 8, long_epochs = 25;
  std::vector<double> densities = {0.5, 0.2, 0.1, 0.05, 0.02, 0.01};
  std::vector<std::string> only;
  std::string structure = "weights";
  bool held_out = false;
};

constexpr int64_t kBatch = 64;
constexpr double kLr = 4e-3, kSmoothing = 0.05;

enum class Length { retrain, epochs, long_epochs };
enum class Start { trained, early, untrained };

struct Method {
  std::string name;
  compress::Criterion criterion = compress::magnitude();
  std::function<compress::PruneSchedule(int64_t steps)> schedule = {};  ///< none: one shot
  compress::PruneScope scope = compress::PruneScope::global;
  Length length = Length::retrain;
  Start start = Start::trained;
  double teacher = 0;       ///< weight of the dense network's answers in the loss
  bool per_sample = false;  ///< the criterion looks at one image at a time
};

std::vector<Method> methods() {
  using namespace compress;
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
      {.name = "iterative",
       .schedule = [](int64_t steps) { return Iterative{.rounds = 4, .every = steps / 4}; },
       .length = Length::epochs},
      {.name = "cubic ramp", .schedule = ramp, .length = Length::epochs},
      {.name = "movement",
       .criterion = movement(),
       .schedule = [](int64_t steps) { return Surgery{.begin = 50, .end = steps / 2, .every = 50, .margin = 0}; },
       .length = Length::epochs},
      {.name = "surgery",
       .schedule = [](int64_t steps) { return Surgery{.end = steps / 2, .every = 50, .last = steps * 3 / 4}; },
       .length = Length::epochs},
      {.name = "rigl, untrained",
       .criterion = compress::random(),
       .schedule = [](int64_t steps) { return RigL{.every = 100, .end = steps * 3 / 4}; },
       .scope = PruneScope::erdos_renyi,
       .length = Length::epochs,
       .start = Start::untrained},
      {.name = "snip, untrained", .criterion = snip(), .length = Length::epochs, .start = Start::untrained},
      {.name = "lottery ticket", .length = Length::epochs, .start = Start::early},
      {.name = "long ramp, distilled",
       .criterion = lamp(),
       .schedule = ramp,
       .length = Length::long_epochs,
       .teacher = 0.9},
  };
}

/// A batch's loss: cross-entropy, with a teacher its mean with KL(teacher ‖ net) at temperature T, times T² (Hinton et
/// al., "Distilling the knowledge in a neural network", 2015).
Tensor loss_of(nn::LeNet& net, nn::LeNet* teacher, double weight, const data::Batch& batch) {
  constexpr double kTemperature = 4;
  const Tensor logits = net(batch.inputs);
  if (!teacher) return cross_entropy(logits, batch.targets, {.label_smoothing = kSmoothing});
  Tensor soft;
  {
    const NoGrad no_grad;
    soft = softmax((*teacher)(batch.inputs) / kTemperature, 1);
  }
  const Tensor distance = kl_div(log_softmax(logits / kTemperature, 1), soft);
  return (1 - weight) * cross_entropy(logits, batch.targets) + weight * kTemperature * kTemperature * distance;
}

/// One cycle of Adam; `after` sees every step, between backward and update and after the update.
struct Training {
  nn::LeNet& net;
  data::Loader& batches;
  int64_t epochs;
  nn::LeNet* teacher = nullptr;
  double teacher_weight = 0;
  compress::Pruner* pruner = nullptr;
  std::function<void(int64_t epoch)> after_epoch = {};

  void run() {
    optim::Adam adam(net.parameters(), {.lr = kLr});
    optim::OneCycle schedule(adam, {.max_lr = kLr, .steps = epochs * batches.size()});
    for (int64_t epoch = 0; epoch < epochs; ++epoch) {
      for (auto& batch : batches) {
        adam.zero_grad();
        const Tensor loss = loss_of(net, teacher, teacher_weight, batch);
        loss.backward();
        if (pruner && pruner_observes) pruner->observe();
        adam.step();
        schedule.step();
        if (pruner) pruner->step();
      }
      if (after_epoch) after_epoch(epoch);
    }
  }
  bool pruner_observes = false;
};

data::Loader training_batches(const Fashion& fashion) {
  return data::Loader(fashion.training,
                      {.batch = kBatch, .shuffle = true, .drop_last = true, .transform = fashion_transforms("flip")});
}

/// A network as its file holds it.
struct Saved {
  double accuracy = 0;
  int64_t bytes = 0;
};
Saved score_saved(nn::LeNet& net, const data::Dataset& images) {
  const auto path = std::filesystem::temp_directory_path() / str("hone_prune_lenet_", getpid(), ".safetensors");
  graph::save(graph::trace(net, zeros({1, 3, 32, 32})), path.string());
  Saved saved{.bytes = static_cast<int64_t>(std::filesystem::file_size(path))};
  graph::Network network = graph::load(path.string());
  std::filesystem::remove(path);
  saved.accuracy = evaluate(network, images).accuracy;
  return saved;
}

/// What every method starts from, for one seed.
struct Dense {
  nn::LeNet untrained, early, trained;
  Saved saved;
};
Dense train_dense(const Options& o, const Fashion& fashion, const data::Dataset& scored) {
  Dense d;
  data::Loader batches = training_batches(fashion);
  nn::LeNet net = d.untrained;
  Training{.net = net,
           .batches = batches,
           .epochs = o.dense_epochs,
           .after_epoch =
               [&](int64_t epoch) {
                 if (epoch == 0) d.early = net;
               }}
      .run();
  d.trained = net;
  d.saved = score_saved(d.trained, scored);
  return d;
}

struct Outcome {
  Saved before, after;
  int64_t kept = 0;
  double seconds = 0;
};
Outcome run_one(const Method& m, double density, const Options& o, Dense& dense, const Fashion& fashion,
                const data::Dataset& scored) {
  const Stopwatch watch;
  nn::LeNet net = m.start == Start::untrained ? dense.untrained : dense.trained;
  data::Loader few(fashion.training.first(m.per_sample ? 1000 : 5000),
                   {.batch = m.per_sample ? 1 : 100, .transform = fashion_transforms()});
  const auto losses = compress::over(few, [&](const data::Batch& b) {
    const Tensor logits = net(b.inputs);
    return m.criterion.of == compress::GradientOf::output ? logits : cross_entropy(logits, b.targets);
  });
  data::Loader batches = training_batches(fashion);
  const int64_t epochs = m.length == Length::retrain  ? o.retrain
                         : m.length == Length::epochs ? o.epochs
                                                      : o.long_epochs;
  compress::PruneOptions options{.criterion = m.criterion, .density = density, .scope = m.scope};
  const bool observes = m.criterion.lasting;
  if (m.criterion.order > 0 && !observes) options.losses = losses;
  if (m.schedule) options.schedule = m.schedule(epochs * batches.size());
  compress::Pruner pruner(net, options);
  Outcome out;
  if (!m.schedule) out.before = score_saved(net, scored);
  if (m.start == Start::early) compress::Snapshot(dense.early).rewind(net);
  Training{.net = net,
           .batches = batches,
           .epochs = epochs,
           .teacher = m.teacher > 0 ? &dense.trained : nullptr,
           .teacher_weight = m.teacher,
           .pruner = &pruner,
           .pruner_observes = observes}
      .run();
  out.after = score_saved(net, scored);
  out.kept = pruner.report().kept();
  out.seconds = watch.seconds();
  return out;
}

std::string points(const Figures& f) {
  return train::format_number(100 * f.mean(), 2) +
         (f.values.size() > 1 ? " ± " + train::format_number(100 * f.sd(), 2) : "");
}

std::vector<Method> chosen_methods(const Options& o) {
  std::vector<Method> all = methods(), chosen;
  if (o.only.empty()) return all;
  for (const std::string& name : o.only) {
    const auto at = std::find_if(all.begin(), all.end(), [&](const Method& m) { return m.name == name; });
    std::string names;
    for (const Method& m : all) names += (names.empty() ? "'" : ", '") + m.name + "'";
    HONE_CHECK(at != all.end(), ValueError, "--only: there is no '", name, "' among ", names);
    chosen.push_back(*at);
  }
  return chosen;
}

void run(const Options& o) {
  const std::vector<Method> chosen = chosen_methods(o);
  const Stopwatch total;
  struct Row {
    Figures before, after;
    Outcome last;
  };
  std::vector<std::vector<Row>> table(chosen.size(), std::vector<Row>(o.densities.size()));
  Figures dense_accuracy;
  int64_t dense_bytes = 0;
  for (int64_t s = 0; s < o.seeds; ++s) {
    CommonOptions common = o.common;
    common.seed += static_cast<uint64_t>(s);
    manual_seed(common.seed);
    const Fashion fashion = open_fashion(common);
    const data::Dataset& scored = o.held_out ? fashion.validation : fashion.test;
    Dense dense = train_dense(o, fashion, scored);
    dense_accuracy.values.push_back(dense.saved.accuracy);
    dense_bytes = dense.saved.bytes;
    std::printf("seed %llu, dense: %.2f %%, %lld bytes\n", static_cast<unsigned long long>(common.seed),
                100 * dense.saved.accuracy, static_cast<long long>(dense.saved.bytes));
    for (size_t i = 0; i < chosen.size(); ++i)
      for (size_t k = 0; k < o.densities.size(); ++k) {
        manual_seed(common.seed + 1000);
        const Outcome out = run_one(chosen[i], o.densities[k], o, dense, fashion, scored);
        Row& row = table[i][k];
        if (out.before.bytes > 0) row.before.values.push_back(out.before.accuracy);
        row.after.values.push_back(out.after.accuracy);
        row.last = out;
        std::printf(
            "%-24s %5.1f %%: %s %.2f %%, %lld bytes, %.0f s\n", chosen[i].name.c_str(), 100 * o.densities[k],
            out.before.bytes > 0 ? str(train::format_number(100 * out.before.accuracy, 2), " % ->").c_str() : "",
            100 * out.after.accuracy, static_cast<long long>(out.after.bytes), out.seconds);
        std::fflush(stdout);
      }
  }
  train::Results results{.job = "prune_lenet", .figures = {}, .settings = {}, .rows = {}};
  std::printf("\n%-24s %8s %16s %16s %8s %8s\n", "method", "density", "before", "after", "weights", "bytes");
  std::printf("%-24s %6d %% %16s %16s %8s %8lld\n", "dense", 100, "", points(dense_accuracy).c_str(), "",
              static_cast<long long>(dense_bytes));
  for (size_t i = 0; i < chosen.size(); ++i)
    for (size_t k = 0; k < o.densities.size(); ++k) {
      const Row& row = table[i][k];
      std::printf("%-24s %6g %% %16s %16s %8lld %8lld\n", chosen[i].name.c_str(), 100 * o.densities[k],
                  row.before.values.empty() ? "" : points(row.before).c_str(), points(row.after).c_str(),
                  static_cast<long long>(row.last.kept), static_cast<long long>(row.last.after.bytes));
      auto& saved = results.rows.emplace_back();
      saved.set("name", chosen[i].name).set("density", o.densities[k]).set("weights", row.last.kept);
      if (!row.before.values.empty()) saved.set("accuracy_before_mean", row.before.mean());
      saved.set("accuracy_mean", row.after.mean()).set("accuracy_sd", row.after.sd());
      saved.set("file_bytes", row.last.after.bytes);
    }
  results.settings.set("seed", o.common.seed)
      .set("seeds", o.seeds)
      .set("dense_epochs", o.dense_epochs)
      .set("retrain", o.retrain)
      .set("epochs", o.epochs)
      .set("long_epochs", o.long_epochs)
      .set("held_out", o.held_out)
      .set("threads", o.common.threads);
  results.figures.set("dense_accuracy", dense_accuracy.mean()).set("dense_file_bytes", dense_bytes);
  results.figures.set("seconds", total.seconds());
  if (!o.common.json.empty()) train::save_json(o.common.json, results);
}

}  // namespace

int main(int argc, char** argv) {
  CLI::App app("Weights of LeNet pruned on Fashion-MNIST, by criterion, schedule and density.", "prune_lenet");
  Options o;
  o.common.add_to(app, "Folder of the four IDX files (default: $HONE_DATA, else Debian's dataset-fashion-mnist)");
  app.add_option("--densities", o.densities, "Parts of the weights that stay, separated by commas")
      ->delimiter(',')
      ->check(CLI::Range(0.0, 1.0));
  app.add_option("--structure", o.structure, "What is pruned")
      ->check(CLI::IsMember({"weights"}))
      ->capture_default_str();
  app.add_option("--only", o.only, "Names of methods, separated by ';'")->delimiter(';');
  app.add_option("--seeds", o.seeds, "Runs of each")->check(CLI::Range(1, 100))->capture_default_str();
  app.add_option("--dense-epochs", o.dense_epochs, "Epochs of the dense network")->check(CLI::Range(1, 1000));
  app.add_option("--retrain", o.retrain, "Epochs after pruning in one shot")->check(CLI::Range(1, 1000));
  app.add_option("--epochs", o.epochs, "Epochs of the schedules")->check(CLI::Range(1, 1000));
  app.add_option("--long-epochs", o.long_epochs, "Epochs of the long ramp")->check(CLI::Range(1, 1000));
  app.add_flag("--held-out", o.held_out, "Score on 5,000 training images that are not trained on, not on the test set");
  return run_example(app, argc, argv, o.common, [&] { run(o); });
}
