// The survey's three programs, weight pruning, quantization and distillation, beside what they were meant to be. By
// default each runs corrected, on Fashion-MNIST; --as-written runs the statements that are at fault as they stand in
// the survey, and shows the error that names each fault, or what it does to a trained network. Every network is packed
// into a file, which a process of its own scores on the test images.

#include <functional>

#include "lenet_packing.h"

using namespace hone;
namespace quantize = compress::quantize;

namespace {

struct Options {
  CommonOptions common;
  std::string program = "all", score;
  int64_t epochs = 10, seeds = 1, validation = 5000;
  bool as_written = false;
};

struct Row {
  std::string name;
  Figures accuracy, file_bytes;
  std::string error, says, means;
};

const char* type_of(const Error& e) {
  if (dynamic_cast<const ShapeError*>(&e)) return "ShapeError";
  if (dynamic_cast<const DTypeError*>(&e)) return "DTypeError";
  if (dynamic_cast<const ValueError*>(&e)) return "ValueError";
  if (dynamic_cast<const GradError*>(&e)) return "GradError";
  return "Error";
}

/// What all three programs use: images, one trained network, and the rows of the result.
class Desk {
 public:
  Desk(const CommonOptions& common, const Fashion& fashion, int64_t epochs, std::vector<Row>& rows)
      : common(common), fashion(fashion), epochs(epochs), rows_(rows) {
    train(trained, batches(), epochs);
    score("trained", trained);
  }

  data::Loader batches() const { return loader(fashion.training); }
  static data::Loader loader(const data::Dataset& images) {
    return data::Loader(images, {.batch = 50, .shuffle = true, .drop_last = true, .transform = fashion_transforms()});
  }

  using Loss = std::function<Tensor(const Tensor& logits, const data::Batch& batch)>;
  static Tensor labels_loss(const Tensor& logits, const data::Batch& batch) {
    return cross_entropy(logits, batch.targets);
  }
  static void train(
      nn::LeNet& net, data::Loader batches, int64_t epochs, double lr = 2e-3, const Loss& loss = labels_loss,
      const std::function<void()>& after_step = [] {}) {
    optim::Adam adam(net.parameters(), {.lr = lr});
    optim::OneCycle schedule(adam, {.max_lr = lr, .steps = epochs * batches.size()});
    for (int64_t epoch = 0; epoch < epochs; ++epoch)
      for (auto& batch : batches) {
        adam.zero_grad();
        loss(net(batch.inputs), batch).backward();
        adam.step();
        schedule.step();
        after_step();
      }
  }

  /// Adds a row: accuracy on the test images of what the network's file holds, and the file's bytes.
  void score(const std::string& name, nn::LeNet& net, const std::string& means = "") {
    const auto path = std::filesystem::temp_directory_path() / str("hone_documents_", getpid(), ".hone");
    compress::pack(graph::trace(net, zeros({1, 3, 32, 32}))).save(path.string());
    const auto bytes = std::filesystem::file_size(path);
    const FileScore found = score_in_a_process_of_its_own(path.string(), data_options(common));
    std::filesystem::remove(path);
    Row& r = row(name);
    r.accuracy.values.push_back(found.accuracy());
    r.file_bytes.values.push_back(static_cast<double>(bytes));
    if (!means.empty()) r.means = means;
    std::printf("  %-52s %6.2f %% of the test images, %lld bytes\n", name.c_str(), 100 * r.accuracy.values.back(),
                static_cast<long long>(bytes));
    if (!means.empty()) std::printf("    %s\n", means.c_str());
    std::fflush(stdout);
  }

  /// A statement that Hone refuses; adds a row with the error.
  void refused(const std::string& name, const std::string& means, const std::function<void()>& statement) {
    try {
      statement();
    } catch (const Error& e) {
      Row& r = row(name);
      r.error = type_of(e), r.says = e.what(), r.means = means;
      std::printf("  %s\n    %s: %s\n    %s\n", name.c_str(), r.error.c_str(), e.what(), means.c_str());
      return;
    }
    throw ValueError(name + ": ran, though it is at fault");
  }

  const CommonOptions& common;
  const Fashion& fashion;
  const int64_t epochs;
  nn::LeNet trained;

 private:
  Row& row(const std::string& name) {
    for (Row& r : rows_)
      if (r.name == name) return r;
    rows_.push_back({.name = name, .accuracy = {}, .file_bytes = {}, .error = {}, .says = {}, .means = {}});
    return rows_.back();
  }
  std::vector<Row>& rows_;
};

std::string share(double part) { return train::format_number(100 * part, 2) + " %"; }

// ---- 1: weight pruning ----

void pruning_as_written(Desk& desk) {
  nn::LeNet net = desk.trained;
  desk.refused("1: cross_entropy(net(x), integers [1, 10])",
               "one image has one label, a class index [N] = [1]; ten numbers would have to be probabilities", [&] {
                 cross_entropy(net(zeros({1, 3, 32, 32})), randint(0, 10, {1, 10})).backward();
               });

  const double density = compress::threshold(net, {.below = 1e-3, .biases = true}).density();
  desk.score(
      "1: every |w| < 0.001 becomes 0, biases too", net,
      str("warning: keeps ", share(density), " of the parameters, so nothing is compressed; biases are 0.4 % of all"));

  nn::LeNet by_gradient = desk.trained;
  desk.refused("1: prune where the gradient is small, without data",
               "the gradient of a loss needs a loss: hand over batches",
               [&] { compress::prune(by_gradient, {.criterion = compress::gradient(), .density = 0.1}); });
  data::Loader batches = Desk::loader(desk.fashion.training.first(1000));
  compress::prune(by_gradient, {.criterion = compress::gradient(),  // |1/N Σ ∂l/∂w|: the survey's formula
                                .density = 0.1,
                                .losses = compress::over(batches, [&](const data::Batch& b) {
                                  return cross_entropy(by_gradient(b.inputs), b.targets);
                                })});
  desk.score("1: the smallest gradients become 0, 10 % stay", by_gradient,
             "warning: at a minimum the mean gradient is near 0 for every weight, and says nothing of its worth");
  Desk::train(by_gradient, desk.batches(), std::max<int64_t>(1, desk.epochs / 2));
  desk.score("1: the same, retrained", by_gradient);
}

void pruning(Desk& desk) {
  nn::LeNet net = desk.trained;
  const int64_t epochs = std::max<int64_t>(1, desk.epochs / 2), steps = epochs * desk.batches().size();
  compress::Pruner pruner(net, {.criterion = compress::magnitude(),
                                .density = 0.1,
                                .schedule = compress::CubicRamp{.end = steps / 2, .every = 20}});
  Desk::train(net, desk.batches(), epochs, 2e-3, Desk::labels_loss, [&] { pruner.step(); });
  desk.score("1: 10 % of the weights stay, by magnitude", net);
}

// ---- 2: quantization ----

void quantization_as_written(Desk& desk) {
  nn::LeNet net = desk.trained;
  desk.refused("2: an integer tensor as a parameter's data",
               "a parameter is trained, so it is floating; quantizers keep its floats beside the grid",
               [&] { net.fc1.weight.ref().replace(cast(round(net.fc1.weight.value() * 127.0), i32)); });

  double zero = 0, all = 0;
  for (const ParameterRef& p : net.parameters()) {
    const Tensor q = floor(clamp(p.raw().detach() - 64.0, 0.0, 127.0) / 1.0);  // shift, clip, divide, truncate
    p.replace(q);
    zero += sum(cast(eq(q, 0.0), f64)).item(), all += static_cast<double>(q.numel());
  }
  desk.score("2: (w - 64) clipped to [0, 127], divided by a step of 1", net,
             str("warning: ", share(zero / all),
                 " of the parameters are 0: weights are within ±1, and 64 below that is clipped"));

  nn::LeNet unshifted = desk.trained;
  const auto report = quantize::uniform(
      unshifted, {.range = {0, 127}, .shift = quantize::Shift::none, .rounding = quantize::Rounding::truncate});
  double clipped = 0, weights = 0;
  for (const auto& layer : report.layers)
    clipped += layer.clipped * static_cast<double>(layer.kept), weights += static_cast<double>(layer.kept);
  desk.score("2: clipped to [0, 127] without the shift, w * step", unshifted,
             str("warning: ", share(clipped / weights), " of the weights, all below 0, are clipped"));

  nn::LeNet whole = desk.trained;
  const auto rounded =
      quantize::mixed(whole, {.part = quantize::in_layers({"conv1"}), .outside = quantize::Outside::round_to_integer});
  desk.score("2: the mixed formula: round(w) outside of A = conv1", whole, "warning: " + rounded.warnings.at(0));
}

void quantization(Desk& desk) {
  nn::LeNet eight = desk.trained, four = desk.trained;
  quantize::uniform(eight, {.range = {-128, 127}});  // w_q = clamp(round((w - mean) * step)), undone when read
  desk.score("2: uniform, 8 bits", eight);
  quantize::uniform(four, {.range = {-8, 7}});
  desk.score("2: uniform, 4 bits", four);
  Desk::train(four, desk.batches(), std::max<int64_t>(1, desk.epochs / 5), 3e-4);
  desk.score("2: uniform, 4 bits, retrained", four);
}

// ---- 3: distillation ----

data::Dataset tenth(const Desk& desk) { return desk.fashion.training.first(desk.fashion.training.size() / 10); }

void distillation_as_written(Desk& desk) {
  nn::LeNet teacher, student;
  desk.refused("3: cross_entropy(student(x), integers [1, 10])",
               "one image has one label, a class index [N] = [1]; ten numbers would have to be probabilities", [&] {
                 cross_entropy(student(zeros({1, 3, 32, 32})), randint(0, 10, {1, 10})).backward();
               });

  const int64_t epochs = desk.epochs;
  Desk::train(student, Desk::loader(tenth(desk)), epochs, 2e-3, [](const Tensor& logits, const data::Batch&) {
    return cross_entropy(logits, randint(0, 10, {logits.size(0)}));
  });
  const auto all = teacher.parameters();
  const bool unread = std::none_of(all.begin(), all.end(), [](const ParameterRef& p) { return p.grad().defined(); });
  desk.score("3: random labels, the teacher unused", student,
             str("warning: labels say nothing of the images", unread ? ", and no loss has read the teacher" : ""));

  nn::LeNet taught;
  const compress::Teacher untrained(teacher);
  Desk::train(taught, Desk::loader(tenth(desk)), epochs, 2e-3, [&](const Tensor& logits, const data::Batch& batch) {
    return compress::kd_loss(logits, untrained.logits(batch.inputs), {}, {.temperature = 4, .alpha = 1});
  });
  desk.score("3: taught by a teacher that was never trained", taught,
             "warning: a student learns what its teacher knows");

  nn::LeNet piled;
  data::Loader batches = Desk::loader(tenth(desk));
  optim::Adam adam(piled.parameters(), {.lr = 2e-3});
  for (int64_t epoch = 0; epoch < epochs; ++epoch)
    for (auto& batch : batches) {
      Desk::labels_loss(piled(batch.inputs), batch).backward();
      adam.step();
    }
  desk.score("3: true labels, gradients never cleared", piled,
             "warning: each step goes along the sum of all gradients since the first");
}

void distillation(Desk& desk) {
  // The same number of steps as the teacher had, on a tenth of its images.
  const int64_t epochs = 10 * desk.epochs;
  nn::LeNet alone, student;
  Desk::train(alone, Desk::loader(tenth(desk)), epochs);
  desk.score("3: a student on 10 % of the images, alone", alone);
  const compress::Teacher teacher(desk.trained);
  Desk::train(student, Desk::loader(tenth(desk)), epochs, 2e-3, [&](const Tensor& logits, const data::Batch& batch) {
    return compress::kd_loss(logits, teacher.logits(batch.inputs), batch.targets, {.temperature = 4, .alpha = 0.9});
  });
  desk.score("3: a student on 10 % of the images, taught", student);
}

void run(const Options& o) {
  const Stopwatch watch;
  std::vector<Row> rows;
  for (int64_t s = 0; s < o.seeds; ++s) {
    CommonOptions common = o.common;
    common.seed += static_cast<uint64_t>(s);
    manual_seed(common.seed);
    const Fashion fashion = open_fashion(common, o.validation);
    std::printf("seed %llu\n", static_cast<unsigned long long>(common.seed));
    Desk desk(common, fashion, o.epochs, rows);
    const auto wanted = [&](const char* program) { return o.program == "all" || o.program == program; };
    if (wanted("1")) o.as_written ? pruning_as_written(desk) : pruning(desk);
    if (wanted("2")) o.as_written ? quantization_as_written(desk) : quantization(desk);
    if (wanted("3")) o.as_written ? distillation_as_written(desk) : distillation(desk);
  }
  train::Results results{.job = "documents", .figures = {}, .settings = {}, .rows = {}};
  std::printf("\n%-58s %14s %8s\n", o.as_written ? "as written" : "corrected", "test %", "bytes");
  for (const Row& r : rows) {
    train::Record& row = results.rows.emplace_back().set("name", r.name);
    if (!r.means.empty()) row.set("means", r.means);
    if (!r.error.empty()) {
      row.set("error", r.error).set("says", r.says);
      std::printf("%-58s %s\n", r.name.c_str(), r.error.c_str());
      continue;
    }
    row.set("test_accuracy_mean", r.accuracy.mean())
        .set("test_accuracy_sd", r.accuracy.sd())
        .set("file_bytes", r.file_bytes.mean());
    std::printf("%-58s %14s %8.0f\n", r.name.c_str(), points(r.accuracy).c_str(), r.file_bytes.mean());
  }
  results.settings.set("as_written", o.as_written)
      .set("program", o.program)
      .set("epochs", o.epochs)
      .set("seeds", o.seeds)
      .set("validation", o.validation)
      .set("seed", o.common.seed)
      .set("threads", o.common.threads);
  results.figures.set("seconds", watch.seconds());
  if (!o.common.json.empty()) train::save_json(o.common.json, results);
}

}  // namespace

int main(int argc, char** argv) {
  CLI::App app("The survey's three programs, corrected or as they are written.", "documents");
  Options o;
  o.common.add_to(app, "Folder of the four IDX files (default: $HONE_DATA, else Debian's dataset-fashion-mnist)");
  app.add_flag("--as-written", o.as_written, "Run what is at fault as it stands, and say what is wrong with it");
  app.add_option("--program", o.program, "1: weight pruning, 2: quantization, 3: distillation, or all")
      ->check(CLI::IsMember({"1", "2", "3", "all"}))
      ->capture_default_str();
  app.add_option("--epochs", o.epochs, "Epochs of the trained network")
      ->check(CLI::Range(1, 1000))
      ->capture_default_str();
  app.add_option("--seeds", o.seeds, "Runs")->check(CLI::Range(1, 100))->capture_default_str();
  app.add_option("--validation", o.validation, "Training images held out")->capture_default_str();
  app.add_option("--score", o.score, "Score this packed file on the test images, and nothing else");
  return run_example(app, argc, argv, o.common, [&] {
    if (!o.score.empty())
      return print_score(o.score, data::FashionMNIST::open(o.common.data).test, fashion_transforms(), false);
    run(o);
  });
}
