// LeNet pruned on Fashion-MNIST: single weights, convolution kernels or pools, by every criterion and schedule, to a
// hundredth of the weights. Accuracy before and after retraining, bytes of the file, time of one image. Every figure is
// of a network as reloaded from its file. With --held-out, for choosing settings, accuracy is that of training images
// that are not trained on; else the test images score each network once.

#include <map>

#include "prune_lenet_channels.h"
#include "prune_lenet_weights.h"

using namespace hone;

namespace {

struct Structure {
  std::string name, size;  ///< what `size` of its cases is, as a name in the JSON object
  std::vector<Case> (*cases)(const PruneLeNetOptions&);
};
const std::vector<Structure> kStructures = {{"weights", "density", weights_cases},
                                            {"kernels", "macs_share", kernels_cases},
                                            {"pools", "channel_share", pools_cases}};

/// A case over the seeds.
struct Row {
  Case of;
  Figures before = {}, after = {}, weights = {}, macs = {}, bytes = {}, latency_us = {}, seconds = {};
  Figures difference = {};   ///< of the shrunk networks from the masked ones
  std::string refused = {};  ///< why networks cannot be pruned so
};

/// The cases that --only names, or all.
std::vector<Row> chosen_rows(const PruneLeNetOptions& o, const std::vector<Case>& cases) {
  std::vector<Row> rows;
  for (const Case& c : named_only(o.only, cases, &Case::method)) rows.push_back({.of = c});
  return rows;
}

void print(const Row& r) {
  const std::string name = r.of.method.substr(0, 40);
  std::printf("%-40s %5g %%", name.c_str(), 100 * r.of.size);
  if (!r.refused.empty()) {
    std::printf("  %s\n", r.refused.c_str());
    return;
  }
  std::printf(" %15s %15s %7.0f %8.0f %7.0f %6.1f %5.0f", points(r.before).c_str(), points(r.after).c_str(),
              r.weights.mean(), r.macs.mean(), r.bytes.mean(), r.latency_us.mean(), r.seconds.mean());
  if (!r.difference.values.empty()) std::printf("  masked and shrunk differ by %.1e", r.difference.mean());
  std::printf("\n");
  std::fflush(stdout);
}
void print_head() {
  std::printf("%-40s %7s %15s %15s %7s %8s %7s %6s %5s\n", "method", "size", "before", "after", "weights", "macs",
              "bytes", "us", "s");
}

void add(const Outcome& out, double seconds, Row& row) {
  row.refused = out.refused;
  if (!out.refused.empty()) return;
  if (out.before) row.before.values.push_back(out.before->accuracy);
  if (out.difference) row.difference.values.push_back(*out.difference);
  row.after.values.push_back(out.after.accuracy);
  row.weights.values.push_back(static_cast<double>(out.weights));
  row.macs.values.push_back(static_cast<double>(out.after.macs));
  row.bytes.values.push_back(static_cast<double>(out.after.bytes));
  row.latency_us.values.push_back(out.after.latency_us);
  row.seconds.values.push_back(seconds);
}

train::Record record(const Row& r, const std::string& size, const std::string& accuracy) {
  train::Record saved;
  saved.set("name", r.of.method).set(size, r.of.size);
  if (!r.refused.empty()) return saved.set("refused", r.refused);
  if (!r.before.values.empty())
    saved.set(accuracy + "_before_mean", r.before.mean()).set(accuracy + "_before_sd", r.before.sd());
  saved.set(accuracy + "_mean", r.after.mean())
      .set(accuracy + "_sd", r.after.sd())
      .set("weights", r.weights.mean())
      .set("macs", r.macs.mean())
      .set("file_bytes", r.bytes.mean())
      .set("latency_us", r.latency_us.mean())
      .set("seconds", r.seconds.mean());
  if (!r.difference.values.empty()) saved.set("masked_shrunk_difference", r.difference.mean());
  return saved;
}

/// Accuracy against bytes and against time: a line a method, a few to a chart, beside the dense network.
void save_picture(const std::string& path, const std::vector<Row>& rows, const compress::Sensitivity& sensitivity,
                  const train::Results& results) {
  constexpr size_t kLines = 5;
  struct Axis {
    std::string title, label;
    double (*x)(const Row&);
  };
  const std::vector<Axis> axes = {
      {"Accuracy by size of the file", "bytes", [](const Row& r) { return r.bytes.mean(); }},
      {"Accuracy by time of one image", "microseconds", [](const Row& r) { return r.latency_us.mean(); }}};
  train::Report page;
  page.title = "LeNet pruned on Fashion-MNIST";
  page.machine = train::machine();
  for (const auto& [name, value] : results.settings.items())
    page.settings.emplace_back(name, std::visit([](const auto& v) { return str(v); }, value));
  for (const Axis& axis : axes) {
    std::map<std::string, size_t> line_of;
    std::vector<train::Curve> lines;
    for (const Row& r : rows) {
      if (r.after.values.empty()) continue;
      const auto [at, fresh] = line_of.emplace(r.of.method, lines.size());
      if (fresh) lines.push_back({.name = r.of.method, .y = {}});
      lines[at->second].x.push_back(axis.x(r));
      lines[at->second].y.push_back(100 * r.after.mean());
    }
    for (size_t first = 1; first < lines.size(); first += kLines) {
      train::Chart& chart = page.charts.emplace_back();
      chart = {
          .title = axis.title, .x_label = axis.label, .y_label = "accuracy (%)", .curves = {lines[0]}, .log_x = true};
      for (size_t i = first; i < std::min(lines.size(), first + kLines); ++i) chart.curves.push_back(lines[i]);
    }
  }
  if (!sensitivity.layers.empty()) {
    train::Chart& chart = page.charts.emplace_back();
    chart = {.title = "What each layer bears: the dense network with one layer pruned",
             .x_label = "weights of the layer that stay (%)",
             .y_label = "accuracy on images held out (%)",
             .curves = {},
             .log_x = true};
    for (size_t i = 0; i < sensitivity.layers.size(); ++i) {
      train::Curve& curve = chart.curves.emplace_back(train::Curve{.name = sensitivity.layers[i], .y = {}});
      for (size_t k = 0; k < sensitivity.densities.size(); ++k) {
        if (sensitivity.densities[k] <= 0) continue;
        curve.x.push_back(100 * sensitivity.densities[k]);
        curve.y.push_back(100 * sensitivity.score[i][k]);
      }
    }
  }
  train::save_report(path, page);
}

/// Accuracy on the images held out, by layer and density, of the dense network.
compress::Sensitivity layer_sensitivity(const PruneLeNetOptions& o, const Seed& seed) {
  nn::LeNet net = seed.dense;
  const auto accuracy = [&] { return evaluate(net, seed.fashion.validation).accuracy; };
  return compress::sensitivity(net, accuracy, {.densities = o.densities});
}

void run(const PruneLeNetOptions& o) {
  const Structure& structure =
      *std::find_if(kStructures.begin(), kStructures.end(), [&](const Structure& s) { return s.name == o.structure; });
  std::vector<Row> rows = chosen_rows(o, structure.cases(o));
  Case dense{.method = "dense", .run = [](Seed& seed) {
               return Outcome{.after = seed.score(seed.dense), .weights = weights_left(seed.dense)};
             }};
  rows.insert(rows.begin(), {.of = dense});

  const Stopwatch total;
  compress::Sensitivity sensitivity;
  for (int64_t s = 0; s < o.seeds; ++s) {
    const uint64_t number = o.common.seed + static_cast<uint64_t>(s);
    std::printf("seed %llu\n", static_cast<unsigned long long>(number));
    Stopwatch watch;
    Seed seed(o, number);
    if (s == 0 && o.structure == "weights") {
      sensitivity = layer_sensitivity(o, seed);
      std::printf("images held out, one layer pruned by magnitude, not retrained:\n%s", sensitivity.table().c_str());
    }
    print_head();
    for (Row& row : rows) {
      manual_seed(number + 1000);
      Row of_seed{.of = row.of};
      const Outcome out = row.of.run(seed);
      add(out, watch.seconds(), row);
      add(out, watch.seconds(), of_seed);
      print(of_seed);
      watch = {};
    }
  }
  if (o.seeds > 1) {
    std::printf("\n%lld seeds\n", static_cast<long long>(o.seeds));
    print_head();
    for (const Row& row : rows) print(row);
  }

  train::Results results{.job = "prune_lenet", .figures = {}, .settings = {}, .rows = {}};
  for (const Row& row : rows)
    results.rows.push_back(record(row, structure.size, o.held_out ? "validation_accuracy" : "test_accuracy"));
  results.settings.set("structure", o.structure)
      .set("seed", o.common.seed)
      .set("seeds", o.seeds)
      .set("dense_epochs", o.dense_epochs)
      .set("retrain", o.retrain)
      .set("teacher_epochs", o.teacher_epochs)
      .set("recipe_epochs", o.recipe_epochs)
      .set("epochs", o.epochs)
      .set("images", o.images)
      .set("validation", o.validation)
      .set("scored_on", o.held_out ? "held out" : "test")
      .set("threads", o.common.threads);
  results.figures.set("seconds", total.seconds());
  if (!o.common.json.empty()) train::save_json(o.common.json, results);
  if (!o.report.empty()) save_picture(o.report, rows, sensitivity, results);
}

}  // namespace

int main(int argc, char** argv) {
  CLI::App app("LeNet pruned on Fashion-MNIST: weights, kernels or pools.", "prune_lenet");
  PruneLeNetOptions o;
  o.common.add_to(app, "Folder of the four IDX files (default: $HONE_DATA, else Debian's dataset-fashion-mnist)");
  std::vector<std::string> structures;
  for (const Structure& s : kStructures) structures.push_back(s.name);
  app.add_option("--structure", o.structure, "What is pruned")->check(CLI::IsMember(structures))->capture_default_str();
  app.add_option("--densities", o.densities, "weights: the parts that stay, separated by commas")
      ->delimiter(',')
      ->check(between(0.0, 1.0));
  app.add_option("--shares", o.shares, "kernels: the parts of the multiply-adds that may stay; pools: of the channels")
      ->delimiter(',')
      ->check(between(0.01, 0.99));
  app.add_option("--only", o.only, "Names of methods, separated by ';'")->delimiter(';');
  const auto count = [&](const char* name, int64_t& value, const char* help, int most = 1000) {
    app.add_option(name, value, help)->check(CLI::Range(1, most))->capture_default_str();
  };
  count("--seeds", o.seeds, "Runs of each, from --seed upwards", 100);
  count("--dense-epochs", o.dense_epochs, "Epochs of the dense network");
  count("--retrain", o.retrain, "Epochs after weights were pruned in one shot");
  count("--teacher-epochs", o.teacher_epochs, "Epochs of the wide network that teaches in train_lenet --prune");
  count("--recipe-epochs", o.recipe_epochs, "Epochs of what train_lenet --prune does");
  count("--epochs", o.epochs, "Epochs of schedules, and after kernels or pools went");
  count("--images", o.images, "Training images used, at most", 60000);
  count("--validation", o.validation, "Training images held out", 59999);
  app.add_option("--latency-seconds", o.latency_seconds, "How long each network is timed")
      ->check(positive())
      ->capture_default_str();
  app.add_option("--keep", o.keep, "Keep dense networks in this folder, and start from those that are there")
      ->check(CLI::ExistingDirectory);
  app.add_option("--report", o.report, "Draw accuracy against bytes and time, in this HTML file")->check(writable());
  app.add_flag("--held-out", o.held_out, "Score on the images held out, not on the test images");
  return run_example(app, argc, argv, o.common, [&] { run(o); });
}
