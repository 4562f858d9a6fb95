#pragma once
// How train_lenet makes its network sparse: pruned while it is retrained, saved, loaded, and run with sparse weights
// where those are faster.

#include <algorithm>
#include <filesystem>

#include "fashion.h"
#include "latency.h"

/// How a network is trained, its teacher too, and trained on after compression.
struct RetrainRecipe {
  int64_t epochs = 5, batch = 64;
  double lr = 4e-3;                                               ///< highest of Adam's one-cycle schedule
  double temperature = 2, teacher_weight = 0.9;                   ///< of the teacher's answers; labels have the rest
  double label_smoothing = 0;                                     ///< without a teacher
  hone::data::Transforms transform = fashion_transforms("flip");  ///< without a teacher
};

/// A frozen copy of a network, as fast as it gets: folded, fused, packed.
inline hone::compress::Teacher fast_teacher(hone::nn::Module& net,
                                            const hone::Tensor& sample = hone::zeros({1, 3, 32, 32})) {
  return hone::compress::Teacher(hone::graph::optimize(hone::graph::trace(net, sample)));
}

/// The answers of such a copy to training images and their mirrors: computed once, for all that it teaches.
inline hone::compress::TeacherCache answers_of(hone::nn::Module& net, const hone::data::Dataset& training,
                                               const hone::data::Transforms& transform = fashion_transforms("flip"),
                                               const hone::Tensor& sample = hone::zeros({1, 3, 32, 32})) {
  return {fast_teacher(net, sample), training, {.transform = transform}};
}

/// Adam for one cycle: on the images, with the transforms, that a teacher has answered, or, where `answers` is null, on
/// labels alone. before_step() follows backward(), after_step() the optimizer; after_epoch(epoch, mean loss).
template <class BeforeStep, class AfterStep, class AfterEpoch>
void retrain(hone::nn::Module& net, const hone::compress::TeacherCache* answers, const hone::data::Dataset& training,
             const RetrainRecipe& r, const BeforeStep& before_step, const AfterStep& after_step,
             const AfterEpoch& after_epoch) {
  using namespace hone;
  data::LoaderOptions options{.batch = r.batch, .shuffle = true, .drop_last = true};
  if (!answers) options.transform = r.transform;
  data::Loader batches = answers ? answers->loader(options) : data::Loader(training, options);
  optim::Adam adam(net.parameters(), {.lr = r.lr});
  optim::OneCycle schedule(adam, {.max_lr = r.lr, .steps = std::max<int64_t>(1, r.epochs * batches.size())});
  for (int64_t epoch = 1; epoch <= r.epochs; ++epoch) {
    double loss_sum = 0;
    for (auto& [images, targets] : train::progress(batches, "training, epoch", epoch)) {
      adam.zero_grad();
      const Tensor logits = net(images);
      const Tensor loss = answers ? compress::kd_loss(logits, answers->logits(targets), answers->targets(targets),
                                                      {.temperature = r.temperature, .alpha = r.teacher_weight})
                                  : cross_entropy(logits, targets, {.label_smoothing = r.label_smoothing});
      loss.backward();
      before_step();
      adam.step();
      schedule.step();
      after_step();
      loss_sum += loss.item();
    }
    after_epoch(epoch, loss_sum / static_cast<double>(batches.size()));
  }
}

/// The same with nothing but training.
inline void retrain(hone::nn::Module& net, const hone::compress::TeacherCache* answers,
                    const hone::data::Dataset& training, const RetrainRecipe& r) {
  retrain(
      net, answers, training, r, [] {}, [] {}, [](int64_t, double) {});
}

/// Who teaches what is compressed: a wider LeNet that saw the images shifted and mirrored.
struct TeacherRecipe {
  double width = 2;
  RetrainRecipe train = {.epochs = 12, .lr = 2e-3, .transform = fashion_transforms("crop")};
};
inline hone::nn::LeNet train_teacher(const hone::data::Dataset& training, const TeacherRecipe& r = {}) {
  hone::nn::LeNet wide({.width = r.width});
  retrain(wide, nullptr, training, r.train);
  return wide;
}

/// Chosen with prune_lenet --held-out.
struct PruneRecipe {
  double density = 0.1;  ///< part of the weights (of two dims and more) that stays
  RetrainRecipe retrain = {.epochs = 40};
  double ramp = 0.4;                                               ///< part of the steps in which the density falls
  int64_t every = 50;                                              ///< steps between decisions
  hone::compress::Criterion criterion = hone::compress::taylor();  ///< of order 1: by training's own gradients
};

/// Masks the network's weights to the recipe's density while it is retrained. after_epoch(epoch, mean loss, density).
/// Returns the density at the end.
template <class AfterEpoch>
double prune_and_retrain(hone::nn::Module& net, const hone::compress::TeacherCache* answers,
                         const hone::data::Dataset& training, const PruneRecipe& r, const AfterEpoch& after_epoch) {
  using namespace hone;
  const double steps = static_cast<double>(r.retrain.epochs * (training.size() / r.retrain.batch));
  compress::Pruner pruner(
      net, {.criterion = r.criterion,
            .density = r.density,
            .schedule = compress::CubicRamp{.end = static_cast<int64_t>(r.ramp * steps), .every = r.every}});
  const auto observe = [&] {
    if (r.criterion.order == 1) pruner.observe();
  };
  retrain(
      net, answers, training, r.retrain, observe, [&] { pruner.step(); },
      [&](int64_t epoch, double loss) { after_epoch(epoch, loss, pruner.report().density()); });
  return pruner.report().density();
}

/// A network as its file holds it.
struct Stored {
  hone::graph::Network network;
  int64_t bytes = 0;
};
/// Saved to `path` (a temporary file where that is empty), and loaded again.
inline Stored through_file(const hone::graph::Network& network, std::string path = "") {
  const TemporaryFile temporary("graph.safetensors");
  if (path.empty()) path = temporary.path;
  hone::graph::save(network, path);
  return {hone::graph::load(path), static_cast<int64_t>(std::filesystem::file_size(path))};
}

/// The dense and the pruned network as they run: on one image, by one thread.
struct Deployed {
  hone::graph::Network dense, pruned;  ///< optimized; the pruned one with sparse weights where they are faster
  hone::graph::SparseReport layers;
  double dense_us = 0, pruned_us = 0;
};
inline Deployed deploy(const hone::graph::Network& dense, const hone::graph::Network& pruned,
                       const hone::Tensor& image) {
  using namespace hone;
  Deployed d{.dense = graph::optimize(dense), .pruned = graph::optimize(pruned), .layers = {}};
  d.layers = graph::sparsify(d.pruned, image, {.threads = 1});
  const std::vector<double> us = latencies_us({&d.dense, &d.pruned}, image);
  d.dense_us = us[0], d.pruned_us = us[1];
  return d;
}

/// A row a layer: what is kept, and which form of its weight runs, how fast, and why.
inline hone::train::ReportTable layer_table(const hone::graph::SparseReport& report) {
  using namespace hone;
  using train::format_count, train::format_number;
  train::ReportTable table{
      .title = "Pruned layers",
      .note = str("Weights kept; bytes of the weight in memory and median time of the layer, with the activation and "
                  "pooling that are one with it, for one image by one thread: as a dense layer, by its fastest sparse "
                  "form, and what runs. A layer that would be slower sparse stays dense."),
      .columns = {"Layer", "Weights", "Kept", "Dense bytes", "Dense µs", "Fastest sparse form", "Sparse bytes",
                  "Sparse µs", "What runs, and why"},
      .rows = {}};
  for (const graph::SparseLayer& l : report.layers) {
    const double kept = static_cast<double>(l.kept) / static_cast<double>(l.total());
    std::vector<std::string> row{l.name, format_count(l.total()),
                                 str(format_count(l.kept), " (", format_number(100 * kept, 1), " %)")};
    const size_t sparse = l.fastest_sparse();
    row.push_back(format_count(l.forms.at(0).bytes));
    row.push_back(format_number(l.forms[0].microseconds, 2));
    row.push_back(sparse > 0 ? to_string(l.forms[sparse].form) : "");
    row.push_back(sparse > 0 ? format_count(l.forms[sparse].bytes) : "");
    row.push_back(sparse > 0 ? format_number(l.forms[sparse].microseconds, 2) : "");
    row.push_back(l.reason);
    table.rows.push_back(std::move(row));
  }
  return table;
}
