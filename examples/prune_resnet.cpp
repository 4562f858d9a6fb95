// A ResNet on Fashion-MNIST, its filters pruned to a share of the multiply-adds, and trained on. Each network is saved;
// what is scored on the test images, once, and timed is the one that the file holds.

#include <algorithm>
#include <filesystem>

#include "fashion.h"
#include "latency.h"
#include "masked_channels.h"

using namespace hone;

namespace {

struct Options {
  CommonOptions common;
  int64_t depth = 8, width = 16, epochs = 6, tune_epochs = 5, batch = 128, images = 60000, validation = 5000;
  double lr = 4e-3, tune_lr = 2e-3, macs = 0.42;
  std::string criterion = "taylor", save;
};

const std::vector<compress::FilterCriterion> kCriteria = {
    compress::FilterCriterion::l1,       compress::FilterCriterion::l2,    compress::FilterCriterion::geometric_median,
    compress::FilterCriterion::bn_gamma, compress::FilterCriterion::apoz,  compress::FilterCriterion::taylor,
    compress::FilterCriterion::gradient, compress::FilterCriterion::random};

compress::FilterCriterion criterion_of(const std::string& text) {
  return *std::find_if(kCriteria.begin(), kCriteria.end(), [&](auto c) { return text == name(c); });
}

struct Timed {
  double seconds;
  double validation_accuracy;
};
Timed fit(graph::Network& network, optim::Optimizer& optimizer, const Fashion& fashion, const Options& o,
          int64_t epochs, double lr, const char* stage) {
  const Stopwatch watch;
  data::Loader batches(fashion.training,
                       {.batch = o.batch, .shuffle = true, .drop_last = true, .transform = fashion_transforms("flip")});
  optim::OneCycle schedule(optimizer, {.max_lr = lr, .steps = epochs * batches.size()});
  double accuracy = 0;
  for (int64_t epoch = 1; epoch <= epochs; ++epoch) {
    network.train();
    for (auto& [images, labels] : train::progress(batches, stage, epoch)) {
      const Tensor loss = cross_entropy(network(images), labels, {.label_smoothing = 0.05});
      optimizer.zero_grad();
      loss.backward();
      optimizer.step();
      schedule.step();
    }
    accuracy = evaluate(network, fashion.validation).accuracy;
    std::printf("%s, epoch %lld/%lld: %.2f %% of the images held out\n", stage, static_cast<long long>(epoch),
                static_cast<long long>(epochs), 100 * accuracy);
    std::fflush(stdout);
  }
  return {watch.seconds(), accuracy};
}

/// A network as its file holds it.
struct Measured {
  std::string name;
  Timed fitted;
  graph::Network fast;
  double accuracy;
  int64_t macs, file_bytes, parameters;
  double latency_us = 0, latency_us_batch_64 = 0;
};
Measured measure(const char* name, const Timed& fitted, const graph::Network& network, const std::string& path,
                 const Fashion& fashion) {
  graph::save(network, path);
  graph::Network loaded = graph::load(path);
  return {name,
          fitted,
          graph::optimize(loaded),
          evaluate(loaded, fashion.test).accuracy,
          loaded.macs(),
          static_cast<int64_t>(std::filesystem::file_size(path)),
          loaded.parameter_count()};
}

void run(const Options& o) {
  const Fashion fashion = open_fashion(o.common, o.validation, o.images);
  const std::string folder = o.save.empty() ? std::filesystem::temp_directory_path().string() : o.save;
  const auto path = [&](const char* part) {
    return str(folder, "/prune_resnet", o.save.empty() ? str("_", getpid()) : std::string(), "_", part, ".safetensors");
  };
  const Stopwatch total;

  nn::ResNet module({.depth = o.depth, .in = 3, .width = o.width});
  graph::Network network = graph::trace(module, randn({1, 3, 32, 32}));
  optim::Adam adam(network.parameters(), {.lr = o.lr});
  const Timed dense_fit = fit(network, adam, fashion, o, o.epochs, o.lr, "dense");
  graph::Network dense = network;

  data::Loader some(fashion.training.first(2048), {.batch = 128, .transform = fashion_transforms()});
  const compress::Pass data =
      compress::pass_over(some, [](const Tensor& y, const Tensor& labels) { return cross_entropy(y, labels); });
  const auto report = compress::prune_filters(network, {.criterion = criterion_of(o.criterion),
                                                        .macs = o.macs,
                                                        .scope = compress::FilterScope::global,
                                                        .min_channels = 4,
                                                        .data = data});
  std::printf("%s", report.table().c_str());
  for (const Shrink& s : report.shrinks) adam.apply(s);
  const double difference = difference_from_masked(dense, network, report.shrinks, fashion.validation);
  std::printf("masked and shrunk differ by %.1e of the largest answer\n", difference);
  const double untuned = evaluate(network, fashion.validation).accuracy;
  const Timed pruned_fit = fit(network, adam, fashion, o, o.tune_epochs, o.tune_lr, "pruned");

  train::Results results{.job = "prune_resnet", .figures = {}, .settings = {}, .rows = {}};
  Measured both[] = {measure("dense", dense_fit, dense, path("dense"), fashion),
                     measure("pruned", pruned_fit, network, path("pruned"), fashion)};
  if (o.save.empty())
    for (const char* part : {"dense", "pruned"}) std::filesystem::remove(path(part));
  const auto latencies = [&](int64_t batch) {
    return latencies_us({&both[0].fast, &both[1].fast}, randn({batch, 3, 32, 32}));
  };
  const std::vector<double> one = latencies(1), many = latencies(64);
  for (size_t i = 0; i < 2; ++i) {
    Measured& m = both[i];
    m.latency_us = one[i], m.latency_us_batch_64 = many[i];
    std::printf("%s: test accuracy %.2f %%, %lld multiply-adds, %lld bytes, %.0f us an image, %lld parameters\n",
                m.name.c_str(), 100 * m.accuracy, static_cast<long long>(m.macs), static_cast<long long>(m.file_bytes),
                m.latency_us, static_cast<long long>(m.parameters));
    results.rows.emplace_back()
        .set("name", m.name)
        .set("test_accuracy", m.accuracy)
        .set("validation_accuracy", m.fitted.validation_accuracy)
        .set("macs", m.macs)
        .set("file_bytes", m.file_bytes)
        .set("latency_us", m.latency_us)
        .set("latency_us_batch_64", m.latency_us_batch_64)
        .set("parameters", m.parameters)
        .set("seconds", m.fitted.seconds);
  }
  const Measured &before = both[0], &after = both[1];
  std::printf("multiply-adds / %.2f, bytes / %.2f, latency / %.2f (batch 64: / %.2f), accuracy %+.2f points\n",
              static_cast<double>(before.macs) / static_cast<double>(after.macs),
              static_cast<double>(before.file_bytes) / static_cast<double>(after.file_bytes),
              before.latency_us / after.latency_us, before.latency_us_batch_64 / after.latency_us_batch_64,
              100 * (after.accuracy - before.accuracy));
  results.settings.set("depth", o.depth)
      .set("width", o.width)
      .set("criterion", o.criterion)
      .set("macs", o.macs)
      .set("epochs", o.epochs)
      .set("tune_epochs", o.tune_epochs)
      .set("lr", o.lr)
      .set("tune_lr", o.tune_lr)
      .set("batch", o.batch)
      .set("training_images", fashion.training.size())
      .set("seed", o.common.seed)
      .set("threads", o.common.threads);
  results.figures.set("macs_ratio", static_cast<double>(before.macs) / static_cast<double>(after.macs))
      .set("file_ratio", static_cast<double>(before.file_bytes) / static_cast<double>(after.file_bytes))
      .set("latency_ratio", before.latency_us / after.latency_us)
      .set("latency_ratio_batch_64", before.latency_us_batch_64 / after.latency_us_batch_64)
      .set("masked_shrunk_difference", difference)
      .set("validation_accuracy_untuned", untuned)
      .set("seconds", total.seconds());
  if (!o.common.json.empty()) train::save_json(o.common.json, results);
}

}  // namespace

int main(int argc, char** argv) {
  CLI::App app("Prunes the filters of a ResNet trained on Fashion-MNIST.", "prune_resnet");
  Options o;
  o.common.add_to(app, "Folder of the four IDX files (default: $HONE_DATA, else Debian's dataset-fashion-mnist)");
  app.add_option("--depth", o.depth, "Depth of the network")->check(CLI::IsMember({8, 20}))->capture_default_str();
  app.add_option("--width", o.width, "Channels of the first stage")->check(CLI::Range(8, 128))->capture_default_str();
  app.add_option("--epochs", o.epochs, "Passes before pruning")->check(CLI::Range(1, 1000))->capture_default_str();
  app.add_option("--tune-epochs", o.tune_epochs, "Passes after it")->check(CLI::Range(1, 1000))->capture_default_str();
  app.add_option("--lr", o.lr, "Highest rate before pruning")->check(positive())->capture_default_str();
  app.add_option("--tune-lr", o.tune_lr, "Highest rate after it")->check(positive())->capture_default_str();
  app.add_option("--macs", o.macs, "Share of the multiply-adds that may stay")
      ->check(between(0.01, 0.99))
      ->capture_default_str();
  std::vector<std::string> names;
  for (const auto c : kCriteria) names.emplace_back(name(c));
  app.add_option("--criterion", o.criterion, "How filters are scored")
      ->check(CLI::IsMember(names))
      ->capture_default_str();
  app.add_option("--batch", o.batch, "Images a step")->check(CLI::Range(1, 60000))->capture_default_str();
  app.add_option("--images", o.images, "Training images used, at most")
      ->check(CLI::Range(1, 60000))
      ->capture_default_str();
  app.add_option("--validation", o.validation, "Training images held out")
      ->check(CLI::Range(1, 59999))
      ->capture_default_str();
  app.add_option("--save", o.save, "Keep both networks' files in this folder")->check(CLI::ExistingDirectory);
  return run_example(app, argc, argv, o.common, [&] { run(o); });
}
