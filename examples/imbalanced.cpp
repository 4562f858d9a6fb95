// Long-tailed Fashion-MNIST (100:1): what each remedy for classes of unequal size gains over plain cross-entropy. All
// share one recipe. It and each method's one setting were chosen on images held out of the training set (--tune, which
// opens no test image); the test images are read once for each network, as reloaded from its file.

#include <algorithm>
#include <functional>
#include <optional>

#include "fashion.h"

using namespace hone;

namespace {

struct Options {
  CommonOptions common;
  int64_t epochs = 15, batch = 64, seeds = 5;
  double lr = 4e-3, width = 1, ratio = 100;
  std::string augment = "flip";
  std::vector<std::string> only;
  bool tune = false;
};

/// A method and its one setting: the value chosen, and those that --tune tries.
struct Method {
  std::string name, setting;
  double value = 0;
  std::vector<double> candidates;
};

const std::vector<Method> kMethods = {
    {"cross_entropy", "", 0, {}},
    {"inverse_frequency", "", 0, {}},
    {"effective_number", "beta", 0.9999, {0.99, 0.999, 0.9999}},
    {"focal", "gamma", 1, {0.5, 1, 2}},
    {"logit_adjustment", "tau", 1, {0.5, 1, 1.5}},
    {"logit_adjustment_post_hoc", "tau", 1, {0.5, 1, 1.5}},
    {"weighted_sampler", "", 0, {}},
    {"class_aware_sampler", "", 0, {}},
    {"square_root_sampler", "", 0, {}},
    {"progressively_balanced_sampler", "", 0, {}},
    {"deferred_reweighting", "start", 0.7, {0.7, 0.8, 0.9}},  // Cao et al., 2019: weights in the last epochs alone
    {"classifier_retraining", "epochs", 5, {2, 5, 10}},       // cRT (Kang et al., 2020): the last layer, anew
};

using Loss = std::function<Tensor(const Tensor& logits, const Tensor& labels, double progress)>;

/// Everything that one seed's networks share.
struct Task {
  const Options& o;
  uint64_t seed;
  data::Dataset training;
  std::vector<int64_t> counts = data::class_counts(training);
  Tensor log_priors = data::log_priors(counts);
  std::optional<nn::LeNet> plain = std::nullopt;  // trained with cross-entropy; two methods begin with it

  void fit(nn::LeNet& net, const std::vector<ParameterRef>& parameters, const data::Sampler& sampler, int64_t epochs,
           const Loss& loss) const {
    data::Loader batches(training, {.batch = o.batch,
                                    .shuffle = !sampler,
                                    .sampler = sampler,
                                    .seed = seed,
                                    .drop_last = true,
                                    .transform = fashion_transforms(o.augment)});
    optim::Adam adam(parameters, {.lr = o.lr});
    optim::OneCycle schedule(adam, {.max_lr = o.lr, .steps = epochs * batches.size()});
    for (int64_t epoch = 0; epoch < epochs; ++epoch)
      for (auto& [images, labels] : batches) {
        Tensor l = loss(net(images), labels, static_cast<double>(epoch) / static_cast<double>(epochs));
        adam.zero_grad();
        l.backward();
        adam.step();
        schedule.step();
      }
  }

  nn::LeNet train(const Method& m, double value) {
    manual_seed(seed);  // every method starts from the same weights
    nn::LeNet net({.width = o.width});
    const Loss plain_loss = [](const Tensor& x, const Tensor& y, double) { return cross_entropy(x, y); };
    const auto fit_all = [&](const data::Sampler& sampler, const Loss& loss) {
      fit(net, net.parameters(), sampler, o.epochs, loss);
      return net;
    };
    const auto weighted = [&](const Tensor& weight, double start) {
      return fit_all({}, [=](const Tensor& x, const Tensor& y, double progress) {
        return cross_entropy(x, y, {.weight = progress < start ? Tensor() : weight});
      });
    };
    if (m.name == "inverse_frequency") return weighted(data::inverse_frequency_weights(counts), 0);
    if (m.name == "effective_number") return weighted(data::effective_number_weights(counts, value), 0);
    if (m.name == "deferred_reweighting") return weighted(data::inverse_frequency_weights(counts), value);
    if (m.name == "focal")
      return fit_all({}, [=](const Tensor& x, const Tensor& y, double) { return focal_loss(x, y, {.gamma = value}); });
    if (m.name == "logit_adjustment")
      return fit_all({}, [&](const Tensor& x, const Tensor& y, double) {
        return logit_adjusted_cross_entropy(x, y, log_priors, {.tau = value});
      });
    if (m.name == "weighted_sampler") {
      std::vector<double> weights;
      for (const int64_t c : data::class_labels(training))
        weights.push_back(1 / static_cast<double>(counts[static_cast<size_t>(c)]));
      return fit_all(data::weighted_sampler(weights), plain_loss);
    }
    if (m.name == "class_aware_sampler") return fit_all(data::class_aware_sampler(training), plain_loss);
    if (m.name == "square_root_sampler") return fit_all(data::square_root_sampler(training), plain_loss);
    if (m.name == "progressively_balanced_sampler")
      return fit_all(data::progressively_balanced_sampler(training, o.epochs), plain_loss);

    if (!plain) plain = fit_all({}, plain_loss);
    net = *plain;
    if (m.name == "classifier_retraining") {
      manual_seed(seed);
      net.fc3 = nn::Linear({.in = net.fc3.weight.shape()[1], .out = net.fc3.weight.shape()[0]});
      fit(net, net.fc3.parameters(), data::class_aware_sampler(training), static_cast<int64_t>(value), plain_loss);
    }
    return net;
  }

  train::ConfusionMatrix score(nn::LeNet& net, const Method& m, double value, const data::Dataset& images) const {
    const Evaluation e = evaluate(net, images);
    train::ConfusionMatrix confusion(static_cast<int64_t>(counts.size()));
    confusion.update(m.name == "logit_adjustment_post_hoc" ? logit_adjusted(e.logits, log_priors, value) : e.logits,
                     e.labels);
    return confusion;
  }
};

/// Mean recall over the classes whose training samples number in [low, high).
double recall(const train::ConfusionMatrix& confusion, const std::vector<int64_t>& counts, int64_t low, int64_t high) {
  Figures recalls;
  for (size_t c = 0; c < counts.size(); ++c)
    if (counts[c] >= low && counts[c] < high)
      recalls.values.push_back(confusion.scores(static_cast<int64_t>(c)).recall);
  return recalls.mean();
}

void run(const Options& o) {
  const std::vector<Method> chosen = named_only(o.only, kMethods, &Method::name);
  const auto fashion = data::FashionMNIST::open(o.common.data);
  const auto [rest, held_out] = data::random_split(fashion.train, {5.0 / 6, 1.0 / 6}, 1);
  std::vector<Task> tasks;
  for (int64_t s = 0; s < o.seeds; ++s) {
    const uint64_t seed = o.common.seed + static_cast<uint64_t>(s);
    tasks.push_back({.o = o, .seed = seed, .training = data::long_tailed(rest, {.ratio = o.ratio, .seed = seed})});
  }
  std::printf("training images a class:");
  for (const int64_t n : tasks[0].counts) std::printf(" %lld", static_cast<long long>(n));
  std::printf("\n%-40s %14s %16s %7s %7s %7s %8s\n", "%", "held out", o.tune ? "" : "test, balanced", "many", "medium",
              "few", "seconds");

  train::Results results{.job = "imbalanced", .figures = {}, .settings = {}, .rows = {}};
  double baseline = 0, best = 0;
  for (const Method& m : chosen) {
    for (const double value : o.tune && !m.candidates.empty() ? m.candidates : std::vector<double>{m.value}) {
      Figures held, balanced, many, medium, few, seconds;
      for (Task& task : tasks) {
        const Stopwatch watch;
        nn::LeNet net = task.train(m, value);
        seconds.values.push_back(watch.seconds());
        held.values.push_back(task.score(net, m, value, held_out).balanced_accuracy());
        if (o.tune) continue;
        nn::LeNet saved = reloaded(net);
        const train::ConfusionMatrix test = task.score(saved, m, value, fashion.test);
        balanced.values.push_back(test.balanced_accuracy());
        many.values.push_back(recall(test, task.counts, 1000, 1 << 30));
        medium.values.push_back(recall(test, task.counts, 150, 1000));
        few.values.push_back(recall(test, task.counts, 0, 150));
      }
      const std::string label = m.setting.empty() ? m.name : str(m.name, ", ", m.setting, " ", value);
      auto& row = results.rows.emplace_back();
      row.set("name", o.tune ? label : m.name);
      if (!m.setting.empty()) row.set(m.setting, value);
      row.set("validation_balanced_accuracy_mean", held.mean()).set("validation_balanced_accuracy_sd", held.sd());
      std::printf("%-40s %14s", label.c_str(), points(held).c_str());
      if (!o.tune) {
        row.set("balanced_accuracy_mean", balanced.mean())
            .set("balanced_accuracy_sd", balanced.sd())
            .set("many_shot_recall_mean", many.mean())
            .set("medium_shot_recall_mean", medium.mean())
            .set("few_shot_recall_mean", few.mean());
        std::printf("   %14s %7.2f %7.2f %7.2f", points(balanced).c_str(), 100 * many.mean(), 100 * medium.mean(),
                    100 * few.mean());
        if (m.name == "cross_entropy") baseline = balanced.mean();
        best = std::max(best, balanced.mean());
      }
      row.set("seconds", seconds.mean());
      std::printf(" %8.1f\n", seconds.mean());
      std::fflush(stdout);
    }
  }
  results.settings.set("ratio", o.ratio)
      .set("training_images", tasks[0].training.size())
      .set("validation_images", held_out.size())
      .set("epochs", o.epochs)
      .set("batch", o.batch)
      .set("lr", o.lr)
      .set("width", o.width)
      .set("augment", o.augment)
      .set("seed", o.common.seed)
      .set("seeds", o.seeds)
      .set("threads", o.common.threads);
  if (baseline > 0) {
    std::printf("best method: %+.2f points over cross_entropy\n", 100 * (best - baseline));
    results.figures.set("baseline_balanced_accuracy", baseline).set("best_balanced_accuracy", best);
  }
  if (!o.common.json.empty()) train::save_json(o.common.json, results);
}

}  // namespace

int main(int argc, char** argv) {
  CLI::App app("Compares remedies for imbalanced classes on a long-tailed Fashion-MNIST.", "imbalanced");
  Options o;
  o.common.add_to(app, "Folder of the four IDX files (default: $HONE_DATA, else Debian's dataset-fashion-mnist)");
  app.add_option("--seeds", o.seeds, "Runs of each method, from --seed upwards")
      ->check(CLI::Range(1, 1000))
      ->capture_default_str();
  app.add_option("--epochs", o.epochs, "Passes over as many images as the training set has")
      ->check(CLI::Range(1, 10000))
      ->capture_default_str();
  app.add_option("--only", o.only, "These methods alone: NAME,…")->delimiter(',');
  app.add_option("--batch", o.batch, "Images a step")->check(CLI::Range(1, 10000))->capture_default_str();
  app.add_option("--lr", o.lr, "Highest learning rate of the one-cycle schedule")
      ->check(positive())
      ->capture_default_str();
  app.add_option("--width", o.width, "Factor for the number of channels")
      ->check(between(0.05, 64.0))
      ->capture_default_str();
  app.add_option("--ratio", o.ratio, "Images of the first class for one of the last")
      ->check(between(1.0, 5000.0))
      ->capture_default_str();
  app.add_option("--augment", o.augment, "none, flip, or crop (flip and shift)")
      ->check(CLI::IsMember({"none", "flip", "crop"}))
      ->capture_default_str();
  app.add_flag("--tune", o.tune, "Try each method's settings on the held-out images; no test image is read");
  return run_example(app, argc, argv, o.common, [&] { run(o); });
}
