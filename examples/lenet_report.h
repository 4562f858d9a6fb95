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
  std::vector<hone::train::ReportTable> tables;
};

inline std::string percent(double share) { return hone::train::format_number(100 * share, 2) + " %"; }

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
  page.classes = class_names;
  page.confusion.emplace(static_cast<int64_t>(class_names.size()));
  page.confusion->update(run.logits, run.labels);
  page.mistakes = train::most_confident_mistakes(run.test.all_inputs(), run.logits, run.labels, 24);
  train::save_report(path, page);
}
