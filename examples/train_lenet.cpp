// LeNet on Fashion-MNIST: what scripts/demo runs. Settings were chosen on images held out of the training set; the test
// images are read once for each network, at the end. With --save that is done by the network as reloaded from its file.
// With --prune a pruned network is made of the trained one, saved, reloaded, scored, and timed beside it; with --pack
// its weights are then shared and coded into a packed file, which a process of its own scores and times.

#include <cmath>
#include <memory>

#include "fashion.h"
#include "lenet_packing.h"
#include "lenet_report.h"

using namespace hone;

namespace {

struct Options {
  CommonOptions common;
  int64_t epochs = 15, batch = 64, validation = 5000;
  double lr = 4e-3, width = 1, label_smoothing = 0.05;
  std::string optimizer = "adam", augment = "flip", save, report, checkpoint;
  int64_t every = 0, seeds = 1;
  bool resume = false;
  PruneRecipe prune{.density = 0};  // 0: none
  ShareRecipe share;
  TeacherRecipe teacher;
  bool share_too = false;
  std::string save_pruned, pack, score;
  bool packs() const { return share_too || !pack.empty(); }
};

/// What one seed gave.
struct Outcome {
  train::Results results = {};
  double accuracy = 0, pruned_accuracy = 0, packed_accuracy = 0;  // on the test images
  double packed_bytes = 0;
};

std::unique_ptr<optim::Optimizer> make_optimizer(const Options& o, const std::vector<ParameterRef>& parameters) {
  if (o.optimizer == "sgd")
    return std::make_unique<optim::SGD>(
        parameters, optim::SGDOptions{.lr = o.lr, .momentum = 0.9, .weight_decay = 5e-4, .nesterov = true});
  if (o.optimizer == "adamw") return std::make_unique<optim::AdamW>(parameters, optim::AdamWOptions{.lr = o.lr});
  return std::make_unique<optim::Adam>(parameters, optim::AdamOptions{.lr = o.lr});
}

/// Shares the weights of the pruned network, trains the centroids, writes the packed file, and has it scored.
void pack(nn::LeNet& net, const compress::TeacherCache& answers, const Fashion& fashion, const Options& o,
          Outcome& outcome, std::vector<PathStage>& path) {
  const Stopwatch watch;
  std::vector<double> held;
  const auto shared = share_and_retrain(net, &answers, fashion.training, o.share, [&](int64_t epoch, double loss) {
    held.push_back(evaluate(net, fashion.validation).accuracy);
    const std::string trained =
        epoch == 0 ? "weights shared" : str("sharing epoch ", epoch, "/", o.share.retrain.epochs, ": loss ", loss);
    std::printf("%s; held out: accuracy %s\n", trained.c_str(), percent(held.back()).c_str());
    std::fflush(stdout);
  });
  const double seconds = watch.seconds();
  const graph::Network network = graph::trace(net, zeros({1, 3, 32, 32}));
  const compress::Packed packed = compress::pack(network, {.mantissa_bits = o.share.mantissa_bits});
  const compress::Packed huffman =
      compress::pack(network, {.coder = compress::Coder::huffman, .mantissa_bits = o.share.mantissa_bits});
  const TemporaryFile temporary("packed_lenet.hone");
  const std::string file = o.pack.empty() ? temporary.path : o.pack;
  packed.save(file);
  graph::Network loaded = compress::Packed::load(file).network();
  const std::string differs = graph::difference(loaded, huffman.network());
  HONE_CHECK(differs.empty(), FormatError, "the two coders' networks differ: ", differs);
  const double packed_held = evaluate(loaded, fashion.validation).accuracy;
  const FileScore score = score_in_a_process_of_its_own(file, data_options(o.common));
  outcome.packed_accuracy = score.accuracy();
  outcome.packed_bytes = static_cast<double>(packed.bytes().size());
  const auto add = [&](const char* stage, const compress::Packed& p) {
    path.push_back({.name = stage,
                    .bytes = static_cast<int64_t>(p.bytes().size()),
                    .held = packed_held,
                    .test = score.accuracy(),
                    .microseconds = score.microseconds});
  };
  add("shared, Huffman codes", huffman);
  add("shared, range coder", packed);
  std::printf("%s%stest accuracy %s by a process of its own, file %s bytes (Huffman codes %s), one image %.1f us\n",
              shared.table().c_str(), packed.table().c_str(), percent(score.accuracy()).c_str(),
              train::format_count(path.back().bytes).c_str(), train::format_count(path[path.size() - 2].bytes).c_str(),
              score.microseconds);
  outcome.results.settings.set("share_clusters", o.share.clusters)
      .set("share_epochs", o.share.retrain.epochs)
      .set("share_lr", o.share.retrain.lr);
  outcome.results.figures.set("shared_validation_accuracy", held.front())
      .set("packed_validation_accuracy", packed_held)
      .set("packed_test_accuracy", score.accuracy())
      .set("packed_file_bytes", path.back().bytes)
      .set("huffman_file_bytes", path[path.size() - 2].bytes)
      .set("packed_latency_us", score.microseconds)
      .set("sharing_seconds", seconds);
}

/// Makes a pruned network of the trained one, and a packed one of that; adds what was measured to the outcome and the
/// page.
void compress_trained(nn::LeNet& net, const Fashion& fashion, const Options& o, Outcome& outcome, LeNetRun& page) {
  train::Results& results = outcome.results;
  const Stopwatch watch;
  nn::LeNet pruned = net;
  const auto after_epoch = [&](int64_t epoch, double loss, double density) {
    const Evaluation held = evaluate(pruned, fashion.validation);
    std::printf("pruning epoch %lld/%lld: loss %.4f, %s of the weights kept; held out: accuracy %s\n",
                static_cast<long long>(epoch), static_cast<long long>(o.prune.retrain.epochs), loss,
                percent(density).c_str(), percent(held.accuracy).c_str());
    std::fflush(stdout);
    results.rows.emplace_back()
        .set("name", str("pruning epoch ", epoch))
        .set("train_loss", loss)
        .set("density", density)
        .set("validation_accuracy", held.accuracy);
  };
  nn::LeNet wide = o.teacher.train.epochs > 0 ? train_teacher(fashion.training, o.teacher) : net;
  const compress::TeacherCache answers = answers_of(wide, fashion.training);
  const double teacher_held = evaluate(wide, fashion.validation).accuracy;
  const double teacher_width = o.teacher.train.epochs > 0 ? o.teacher.width : o.width;
  std::printf("teacher of width %g: held out: accuracy %s, %.1f s\n", teacher_width, percent(teacher_held).c_str(),
              watch.seconds());
  std::fflush(stdout);
  const double density = prune_and_retrain(pruned, &answers, fashion.training, o.prune, after_epoch);
  const double seconds = watch.seconds();

  data::Loader images(fashion.validation, {.batch = 1, .transform = fashion_transforms()});
  const Tensor image = clone((*images.begin()).inputs);
  const Stored dense = through_file(graph::trace(net, image));
  Stored stored = through_file(graph::trace(pruned, image), o.save_pruned);
  const Evaluation test = evaluate(stored.network, fashion.test);
  Deployed d = deploy(dense.network, stored.network, image);
  const double held = evaluate(d.pruned, fashion.validation).accuracy;
  std::printf("%spruned to %s of the weights: test accuracy %s, file %s of %s bytes, one image %.1f of %.1f us\n",
              d.layers.table().c_str(), percent(density).c_str(), percent(test.accuracy).c_str(),
              train::format_count(stored.bytes).c_str(), train::format_count(dense.bytes).c_str(), d.pruned_us,
              d.dense_us);

  for (const graph::SparseLayer& l : d.layers.layers) {
    const graph::TimedForm &before = l.forms.at(0), &runs = l.forms[l.chosen];
    train::Record& row = results.rows.emplace_back();
    row.set("name", l.name).set("weights", l.total()).set("kept", l.kept);
    row.set("dense_bytes", before.bytes).set("dense_us", before.microseconds);
    if (const size_t sparse = l.fastest_sparse(); sparse > 0) {
      row.set("sparse_form", to_string(l.forms[sparse].form)).set("sparse_bytes", l.forms[sparse].bytes);
      row.set("sparse_us", l.forms[sparse].microseconds);
    }
    row.set("runs_as", to_string(runs.form)).set("reason", l.reason);
  }
  results.settings.set("teacher_width", teacher_width).set("teacher_epochs", o.teacher.train.epochs);
  results.settings.set("prune_density", o.prune.density)
      .set("prune_epochs", o.prune.retrain.epochs)
      .set("prune_criterion", o.prune.criterion.name)
      .set("prune_lr", o.prune.retrain.lr)
      .set("prune_temperature", o.prune.retrain.temperature)
      .set("prune_teacher_weight", o.prune.retrain.teacher_weight);
  results.figures.set("density", density)
      .set("teacher_validation_accuracy", teacher_held)
      .set("pruned_test_accuracy", test.accuracy)
      .set("pruned_validation_accuracy", held)
      .set("file_bytes", dense.bytes)
      .set("pruned_file_bytes", stored.bytes)
      .set("latency_us", d.dense_us)
      .set("pruned_latency_us", d.pruned_us)
      .set("pruning_seconds", seconds);
  page.more_figures = {
      {"Pruned: test accuracy", percent(test.accuracy)},
      {"Pruned: file, bytes", str(train::format_count(stored.bytes), " of ", train::format_count(dense.bytes))},
      {"Pruned: one image, µs",
       str(train::format_number(d.pruned_us, 1), " of ", train::format_number(d.dense_us, 1))}};
  outcome.pruned_accuracy = test.accuracy;
  std::vector<PathStage> path{{.name = "trained",
                               .bytes = dense.bytes,
                               .held = evaluate(net, fashion.validation).accuracy,
                               .test = outcome.accuracy,
                               .microseconds = d.dense_us},
                              {.name = str("pruned to ", percent(density)),
                               .bytes = stored.bytes,
                               .held = held,
                               .test = test.accuracy,
                               .microseconds = d.pruned_us}};
  if (o.packs()) {
    pack(pruned, answers, fashion, o, outcome, path);
    page.more_figures.emplace_back("Packed: test accuracy", percent(path.back().test));
    page.more_figures.emplace_back("Packed: file, bytes", train::format_count(path.back().bytes));
  }
  page.tables = {path_table(path), layer_table(d.layers)};
  page.charts = {path_chart(path)};
}

Outcome run_one(const Options& o) {
  const Fashion fashion = open_fashion(o.common, o.validation);
  const data::Dataset &training = fashion.training, &validation = fashion.validation;
  data::Loader batches(
      training, {.batch = o.batch, .shuffle = true, .drop_last = true, .transform = fashion_transforms(o.augment)});

  nn::LeNet net({.width = o.width});
  const auto optimizer = make_optimizer(o, net.parameters());
  optim::OneCycle schedule(*optimizer, {.max_lr = o.lr, .steps = o.epochs * batches.size()});
  train::Results results{.job = "train_lenet", .figures = {}, .settings = {}, .rows = {}};
  LeNetCurves curves;

  double loss_sum = 0, right = 0;  // of the epoch
  int64_t step = 0;                // in the epoch
  train::Checkpoint checkpoint;
  checkpoint.add("model", net).add("optimizer", *optimizer).add("schedule", schedule).add("loader", batches);
  checkpoint.add("loss_sum", loss_sum).add("right", right).add("step", step);
  checkpoint.add("train_loss", curves.train_loss.y).add("train_accuracy", curves.train_accuracy.y);
  checkpoint.add("held_loss", curves.held_loss.y).add("held_accuracy", curves.held_accuracy.y);
  checkpoint.require("--seed", o.common.seed).require("--optimizer", o.optimizer).require("--epochs", o.epochs);
  checkpoint.require("--lr", o.lr).require("--batch", o.batch).require("--augment", o.augment);
  checkpoint.require("--width", o.width).require("--label-smoothing", o.label_smoothing);
  checkpoint.require("--validation", o.validation);
  if (o.resume && !checkpoint.resume(o.checkpoint))
    std::printf("%s does not exist yet: starting from the beginning\n", o.checkpoint.c_str());
  else if (o.resume)
    std::printf("resumed from %s: epoch %lld, step %lld\n", o.checkpoint.c_str(),
                static_cast<long long>(batches.epoch() + 1), static_cast<long long>(step));
  std::fflush(stdout);

  // Times are of this process alone: an epoch that was over before has none.
  const Stopwatch total;
  double training_seconds = 0;
  int64_t steps_here = 0;
  std::vector<double> epoch_seconds(curves.held_loss.y.size(), std::nan(""));
  for (int64_t epoch = batches.epoch() + 1; epoch <= o.epochs; ++epoch) {
    const Stopwatch watch;
    const int64_t first_step = step;
    for (auto& [images, labels] : train::progress(batches, "epoch", epoch)) {
      Tensor logits = net(images);
      Tensor loss = cross_entropy(logits, labels, {.label_smoothing = o.label_smoothing});
      const double value = loss.item();
      HONE_CHECK(std::isfinite(value), NumericError, "the loss is ", std::isnan(value) ? "NaN" : "infinite",
                 " at epoch ", epoch, ", step ", step + 1, "; try a lower --lr");
      optimizer->zero_grad();
      loss.backward();
      optimizer->step();
      schedule.step();
      ++step;
      loss_sum += value;
      right += train::accuracy(logits, labels);
      if (o.every > 0 && schedule.t() % o.every == 0) checkpoint.save(o.checkpoint);
    }
    const double seconds = watch.seconds(), n = static_cast<double>(step);
    training_seconds += seconds;
    steps_here += step - first_step;
    epoch_seconds.push_back(seconds);
    const Evaluation held = evaluate(net, validation);
    curves.train_loss.y.push_back(loss_sum / n);
    curves.train_accuracy.y.push_back(100 * right / n);
    curves.held_loss.y.push_back(held.loss);
    curves.held_accuracy.y.push_back(100 * held.accuracy);
    std::printf("epoch %lld/%lld: loss %.4f, accuracy %s; held out: loss %.4f, accuracy %s; %.0f images/s\n",
                static_cast<long long>(epoch), static_cast<long long>(o.epochs), loss_sum / n,
                percent(right / n).c_str(), held.loss, percent(held.accuracy).c_str(),
                static_cast<double>((step - first_step) * o.batch) / seconds);
    std::fflush(stdout);
    loss_sum = right = 0;
    step = 0;
    if (!o.checkpoint.empty()) checkpoint.save(o.checkpoint);
  }
  for (size_t i = 0; i < curves.held_loss.y.size(); ++i)
    results.rows.emplace_back()
        .set("name", str("epoch ", i + 1))
        .set("train_loss", curves.train_loss.y[i])
        .set("train_accuracy", curves.train_accuracy.y[i] / 100)
        .set("validation_loss", curves.held_loss.y[i])
        .set("validation_accuracy", curves.held_accuracy.y[i] / 100)
        .set("seconds", epoch_seconds[i]);

  if (!o.save.empty()) {
    net.save(o.save);
    net = nn::LeNet({.width = o.width});
    net.load(o.save);
  }
  const Evaluation test = evaluate(net, fashion.test);
  const double seconds = total.seconds();
  const double rate = steps_here > 0 ? static_cast<double>(steps_here * o.batch) / training_seconds : 0;
  std::printf("test accuracy %s (%lld images), %.1f s, %.0f training images/s\n", percent(test.accuracy).c_str(),
              static_cast<long long>(fashion.test.size()), seconds, rate);

  results.settings.set("optimizer", o.optimizer)
      .set("lr", o.lr)
      .set("batch", o.batch)
      .set("schedule", "one cycle")
      .set("augment", o.augment)
      .set("label_smoothing", o.label_smoothing)
      .set("width", o.width)
      .set("training_images", training.size())
      .set("validation_images", validation.size())
      .set("seed", o.common.seed)
      .set("threads", o.common.threads);
  results.figures.set("test_accuracy", test.accuracy)
      .set("test_loss", test.loss)
      .set("validation_accuracy", curves.held_accuracy.y.back() / 100)
      .set("train_samples_per_second", rate)
      .set("epochs", o.epochs)
      .set("seconds", seconds)
      .set("training_seconds", training_seconds)
      .set("parameters", net.parameter_count())
      .set("threads", o.common.threads)
      .set("peak_rss_bytes", train::peak_rss_bytes());
  LeNetRun page{.test = fashion.test,
                .logits = test.logits,
                .labels = test.labels,
                .training_images = training.size(),
                .validation_images = validation.size(),
                .parameters = net.parameter_count(),
                .training_seconds = training_seconds,
                .images_per_second = rate,
                .more_figures = {},
                .charts = {},
                .tables = {}};
  Outcome outcome{.results = std::move(results), .accuracy = test.accuracy};
  if (o.prune.density > 0) compress_trained(net, fashion, o, outcome, page);
  if (!o.report.empty()) save_lenet_report(o.report, page, curves, outcome.results, fashion.classes);
  return outcome;
}

/// The first seed's files and figures; of several seeds also a row each, and means.
void run(const Options& o) {
  if (!o.score.empty()) {
    print_score(o.score, data::FashionMNIST::open(o.common.data).test, fashion_transforms());
    return;
  }
  Outcome first = run_one(o);
  train::Results& results = first.results;
  Figures dense, pruned, lost, packed, packed_lost, packed_bytes;
  const auto note = [&](const Outcome& outcome) {
    dense.values.push_back(outcome.accuracy);
    pruned.values.push_back(outcome.pruned_accuracy);
    lost.values.push_back(outcome.accuracy - outcome.pruned_accuracy);
    packed.values.push_back(outcome.packed_accuracy);
    packed_lost.values.push_back(outcome.accuracy - outcome.packed_accuracy);
    packed_bytes.values.push_back(outcome.packed_bytes);
  };
  note(first);
  for (int64_t s = 1; s < o.seeds; ++s) {
    Options other = o;
    other.share_too = o.packs();
    other.common.seed += static_cast<uint64_t>(s);
    other.save = other.save_pruned = other.pack = other.report = other.checkpoint = "";
    other.every = 0, other.resume = false;
    manual_seed(other.common.seed);
    note(run_one(other));
  }
  if (o.seeds > 1) {
    const bool prunes = o.prune.density > 0;
    for (size_t s = 0; s < dense.values.size(); ++s) {
      train::Record& row = results.rows.emplace_back();
      row.set("name", str("seed ", o.common.seed + s)).set("test_accuracy", dense.values[s]);
      if (prunes) row.set("pruned_test_accuracy", pruned.values[s]);
      if (o.packs()) row.set("packed_test_accuracy", packed.values[s]).set("packed_file_bytes", packed_bytes.values[s]);
    }
    results.settings.set("seeds", o.seeds);
    const auto add = [&](const char* name, const char* text, const Figures& f) {
      results.figures.set(str(name, "_mean"), f.mean()).set(str(name, "_sd"), f.sd());
      std::printf("%s, %lld seeds: %s, standard deviation %s\n", text, static_cast<long long>(o.seeds),
                  percent(f.mean()).c_str(), percent(f.sd()).c_str());
    };
    add("test_accuracy", "test accuracy", dense);
    if (prunes) add("pruned_test_accuracy", "test accuracy, pruned", pruned);
    if (prunes) add("lost_test_accuracy", "lost by pruning", lost);
    if (o.packs()) {
      add("packed_test_accuracy", "test accuracy, packed", packed);
      add("packed_lost_test_accuracy", "lost by pruning and sharing", packed_lost);
      results.figures.set("packed_file_bytes_mean", packed_bytes.mean());
      std::printf("packed files: %.0f bytes in the mean\n", packed_bytes.mean());
    }
  }
  if (!o.common.json.empty()) train::save_json(o.common.json, results);
}

}  // namespace

int main(int argc, char** argv) {
  CLI::App app("Trains LeNet on Fashion-MNIST.", "train_lenet");
  Options o;
  o.common.add_to(app, "Folder of the four IDX files (default: $HONE_DATA, else Debian's dataset-fashion-mnist)");
  app.add_option("--epochs", o.epochs, "Passes over the training images")
      ->check(CLI::Range(1, 10000))
      ->capture_default_str();
  app.add_option("--batch", o.batch, "Images a step")->check(CLI::Range(1, 60000))->capture_default_str();
  app.add_option("--lr", o.lr, "Highest learning rate of the one-cycle schedule")
      ->check(positive())
      ->capture_default_str();
  app.add_option("--optimizer", o.optimizer, "sgd (Nesterov), adam or adamw")
      ->check(CLI::IsMember({"sgd", "adam", "adamw"}))
      ->capture_default_str();
  app.add_option("--width", o.width, "Factor for the number of channels")
      ->check(between(0.05, 64.0))
      ->capture_default_str();
  app.add_option("--augment", o.augment, "none, flip, or crop (flip and shift)")
      ->check(CLI::IsMember({"none", "flip", "crop"}))
      ->capture_default_str();
  app.add_option("--label-smoothing", o.label_smoothing, "Share of each target spread over all classes")
      ->check(between(0.0, 1.0))
      ->capture_default_str();
  app.add_option("--validation", o.validation, "Training images held out")
      ->check(CLI::Range(1, 59999))
      ->capture_default_str();
  app.add_option("--save", o.save, "Write the trained network to this safetensors file")->check(writable());
  auto* file = app.add_option("--checkpoint", o.checkpoint, "Keep all that the run needs to go on in this file")
                   ->check(writable());
  app.add_option("--every", o.every, "Steps between checkpoints; 0: at the end of each epoch only")
      ->check(CLI::Range(0, 1000000000))
      ->needs(file)
      ->capture_default_str();
  app.add_flag("--resume", o.resume, "Go on from the checkpoint; from the beginning if there is none")->needs(file);
  app.add_option("--report", o.report, "Write an HTML report to this file")->check(writable());
  auto* prune =
      app.add_option("--prune", o.prune.density, "Part of the weights that a pruned network keeps; 0: make none")
          ->check(between(0.0, 1.0))
          ->capture_default_str();
  app.add_option("--prune-epochs", o.prune.retrain.epochs, "Epochs in which it is pruned and retrained")
      ->check(CLI::Range(1, 10000))
      ->capture_default_str();
  app.add_option("--teacher-epochs", o.teacher.train.epochs,
                 "Epochs of the wider network that teaches the compressed one; 0: the trained network does")
      ->check(CLI::Range(0, 10000))
      ->capture_default_str();
  app.add_option("--save-pruned", o.save_pruned, "Write the pruned network to this safetensors file, with its graph")
      ->check(writable())
      ->needs(prune);
  app.add_option("--pack", o.pack, "Share the pruned network's weights and write it to this packed file")
      ->check(writable())
      ->needs(prune);
  app.add_option("--clusters", o.share.clusters, "Values of a layer's weights in the packed file")
      ->check(CLI::Range(1, 256))
      ->capture_default_str();
  app.add_option("--share-epochs", o.share.retrain.epochs, "Epochs in which these values are trained")
      ->check(CLI::Range(0, 10000))
      ->capture_default_str();
  app.add_option("--score", o.score, "Only score this packed file on the test images, and time it");
  app.add_option("--seeds", o.seeds, "Runs, of seeds one after the other; files are the first one's")
      ->check(CLI::Range(1, 100))
      ->capture_default_str();
  return run_example(app, argc, argv, o.common, [&] {
    HONE_CHECK(o.prune.density > 0 || (o.pack.empty() && o.save_pruned.empty()), ValueError,
               "--pack and --save-pruned are of the pruned network; --prune 0 makes none");
    run(o);
  });
}
