#pragma once
// The HTML page of train_lenet.

#include <hone/hone.h>

#include <string>
#include <utility>
#include <variant>
#include <vector>

/// What an epoch adds to the curves: losses in nats, accuracies in per cent.
struct LeNetCurves {
  hone::train::Curve train_loss{"training", {}}, held_loss{"held out", {}};
  hone::train::Curve train_accuracy{"training", {}}, held_accuracy{"held out", {}};
};

struct LeNetRun {
  const hone::data::Dataset& test;
  const hone::Tensor &logits, &labels;  // of the test images
  int64_t training_images = 0, validation_images = 0, parameters = 0;
  double training_seconds = 0, images_per_second = 0;
  std::vector<std::pair<std::string, std::string>> more_figures;
  std::vector<hone::train::Chart> charts;
  std::vector<hone::train::ReportTable> tables;
};

inline std::string percent(double share) { return hone::train::format_number(100 * share, 2) + " %"; }

/// A file that compression wrote, on its way from the trained network to the packed one.
struct PathStage {
  std::string name;
  int64_t bytes = 0;
  double held = 0, test = 0, microseconds = 0;
};
inline hone::train::ReportTable path_table(const std::vector<PathStage>& path) {
  using namespace hone::train;
  ReportTable table{
      .title = "From the trained network to the packed file",
      .note =
          "Files were read again and then scored, the range coder's by a process that had nothing but the file. The "
          "Huffman coder's file would hold the same network, bit for bit, and has its accuracy and time. Times are "
          "of one image by one thread.",
      .columns = {"Network", "File, bytes", "Times smaller", "Held-out accuracy", "Test accuracy", "µs"},
      .rows = {}};
  for (const PathStage& s : path)
    table.rows.push_back({s.name, format_count(s.bytes),
                          format_number(static_cast<double>(path[0].bytes) / static_cast<double>(s.bytes), 1),
                          percent(s.held), percent(s.test), format_number(s.microseconds, 1)});
  return table;
}
inline hone::train::Chart path_chart(const std::vector<PathStage>& path) {
  hone::train::Chart chart{.title = "Accuracy against bytes",
                           .x_label = "file (bytes)",
                           .y_label = "test accuracy (%)",
                           .curves = {{"test images", {}, {}}},
                           .log_x = true};
  for (const PathStage& s : path) {
    chart.curves[0].x.push_back(static_cast<double>(s.bytes));
    chart.curves[0].y.push_back(100 * s.test);
  }
  return chart;
}

/// Writes the page; settings stand in `results`.
inline void save_lenet_report(const std::string& path, const LeNetRun& run, LeNetCurves curves,
                              const hone::train::Results& results, const std::vector<std::string>& class_names) {
  using namespace hone;
  const auto count = train::format_count;
  const size_t epochs = curves.held_loss.y.size();
  train::Report page;
  page.title = "LeNet on Fashion-MNIST";
  page.summary = str("Trained from random weights on ", count(run.training_images), " images for ", epochs,
                     epochs == 1 ? " epoch, with " : " epochs, with ", count(run.validation_images),
                     " held out; tested once on ", count(run.test.size()), " images it never saw.");
  page.figures = {{"Test accuracy", percent(train::accuracy(run.logits, run.labels))},
                  {"Training time", train::format_seconds(run.training_seconds)},
                  {"Training images per second", train::format_number(run.images_per_second, 0)},
                  {"Parameters", count(run.parameters)}};
  page.figures.insert(page.figures.end(), run.more_figures.begin(), run.more_figures.end());
  page.tables = run.tables;
  for (const auto& [name, value] : results.settings.items()) {
    page.settings.emplace_back(name, std::visit([](const auto& v) { return str(v); }, value));
    const double* smoothing = name == "label_smoothing" ? std::get_if<double>(&value) : nullptr;
    if (smoothing && *smoothing > 0) curves.train_loss.name = "training (smoothed labels)";
  }
  page.machine = train::machine();
  page.charts = {{"Accuracy", "epoch", "accuracy (%)", {curves.train_accuracy, curves.held_accuracy}},
                 {"Loss", "epoch", "cross-entropy (nats)", {curves.train_loss, curves.held_loss}}};
  page.charts.insert(page.charts.begin(), run.charts.begin(), run.charts.end());
  page.classes = class_names;
  page.confusion.emplace(static_cast<int64_t>(class_names.size()));
  page.confusion->update(run.logits, run.labels);
  page.mistakes = train::most_confident_mistakes(run.test.all_inputs(), run.logits, run.labels, 24);
  train::save_report(path, page);
}
