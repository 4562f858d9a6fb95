// LeNet's weights on Fashion-MNIST in few values, by the survey's quantizers, a learned step and codebooks: bits a
// weight, accuracy at once and after retraining. With --held-out, for choosing settings, it scores on training images
// that are not trained on. Biases stay floats.

#include <functional>
#include <memory>

#include "fashion.h"

using namespace hone;
namespace quantize = compress::quantize;

namespace {

struct Options {
  CommonOptions common;
  int64_t seeds = 1, epochs = 10, retrain = 1, validation = 5000;
  std::vector<std::string> only;
  bool held_out = false;
};
constexpr double kLr = 2e-3, kRetrainLr = 3e-4;

/// What a quantizer leaves behind: its report, and what is to be called after each step of retraining.
struct Quantized {
  double bits_per_weight = 0;
  std::function<void()> after_step = {};
};
struct Method {
  std::string name;
  std::function<Quantized(nn::LeNet& net, const std::function<double()>& validation)> quantize;
};

quantize::Range range_of(int64_t bits) {
  const double half = std::exp2(static_cast<double>(bits - 1));
  return {-half, half - 1};
}

std::vector<Method> methods() {
  std::vector<Method> all;
  const auto add = [&](std::string name, auto apply) {
    all.push_back({std::move(name), [apply](nn::LeNet& net, const std::function<double()>&) {
                     return Quantized{apply(net).bits_per_weight()};
                   }});
  };
  for (const int64_t bits : {8, 4, 3, 2}) {
    const quantize::Range range = range_of(bits);
    add(str("uniform, ", bits, " bits"), [=](nn::LeNet& net) { return quantize::uniform(net, {.range = range}); });
    add(str("global, ", bits, " bits"),
        [=](nn::LeNet& net) { return quantize::uniform(net, {.range = range, .global = true}); });
    add(str("learned step, ", bits, " bits"), [=](nn::LeNet& net) {
      return quantize::uniform(net, {.range = range, .shift = quantize::Shift::none, .learned = true});
    });
  }
  for (const int64_t every : {0, 100})
    for (const int64_t bits : {4, 2})
      all.push_back({str("dynamic, ", bits, " bits, ", every == 0 ? "frozen" : "fitted again"),
                     [=](nn::LeNet& net, const std::function<double()>&) {
                       const auto levels = std::make_shared<quantize::DynamicQuantizer>(
                           net,
                           quantize::DynamicOptions{.by = quantize::LevelBy::kmeans,
                                                    .levels = 3,
                                                    .range = range_of(bits),
                                                    .shift = quantize::Shift::mean},
                           quantize::RefitOptions{.every = every});
                       return Quantized{levels->report().bits_per_weight(), [levels] { levels->step(); }};
                     }});
  const auto rest = [](quantize::Outside outside) {
    return quantize::MixedOptions{
        .part = !quantize::outliers(0.02), .inside = {.range = range_of(3)}, .outside = outside};
  };
  add("mixed, 3 bits, outliers float",
      [=](nn::LeNet& net) { return quantize::mixed(net, rest(quantize::Outside::keep_float)); });
  add("mixed, 3 bits, outliers coarse",
      [=](nn::LeNet& net) { return quantize::mixed(net, rest(quantize::Outside::coarse)); });
  add("mixed, fc1 alone, rest to integers", [=](nn::LeNet& net) {
    return quantize::mixed(net, {.part = quantize::in_layers({"fc1"}),
                                 .inside = {.range = range_of(8)},
                                 .outside = quantize::Outside::round_to_integer});
  });
  all.push_back(
      {"a width a layer, 3 bits in the mean", [](nn::LeNet& net, const std::function<double()>& validation) {
         const auto plan = quantize::plan_bits(net, validation, {.bits = {2, 3, 4, 6, 8}, .bits_per_weight = 3});
         std::fputs(plan.table().c_str(), stdout);
         return Quantized{quantize::apply(net, plan).bits_per_weight()};
       }});
  for (const int64_t clusters : {16, 8, 4})
    for (const quantize::KMeansStart start : {quantize::KMeansStart::linear, quantize::KMeansStart::optimal})
      add(str("codebook of ", clusters, ", ", quantize::name(start)), [=](nn::LeNet& net) {
        quantize::share_weights(net, {.clusters = clusters, .start = start});
        return quantize::quantize_report(net);
      });
  return all;
}

data::Loader training_batches(const Fashion& fashion) {
  return data::Loader(fashion.training,
                      {.batch = 64, .shuffle = true, .drop_last = true, .transform = fashion_transforms("flip")});
}

void train(nn::LeNet& net, data::Loader& batches, int64_t epochs, double lr,
           const std::function<void()>& after_step = {}) {
  std::vector<ParameterRef> all = net.parameters();
  for (const ParameterRef& p : net.parameters())
    if (p.scale().defined() && p.scale().raw().requires_grad()) all.push_back(p.scale());
  optim::Adam adam(all, {.lr = lr});
  optim::OneCycle schedule(adam, {.max_lr = lr, .steps = epochs * batches.size()});
  for (int64_t epoch = 0; epoch < epochs; ++epoch)
    for (auto& [images, labels] : batches) {
      adam.zero_grad();
      cross_entropy(net(images), labels, {.label_smoothing = 0.05}).backward();
      adam.step();
      schedule.step();
      if (after_step) after_step();
    }
}

/// Accuracy of the network as its file holds it.
double score_saved(nn::LeNet& net, const data::Dataset& images) {
  const auto path = std::filesystem::temp_directory_path() / str("hone_quantize_lenet_", getpid(), ".safetensors");
  graph::save(graph::trace(net, zeros({1, 3, 32, 32})), path.string());
  graph::Network network = graph::load(path.string());
  std::filesystem::remove(path);
  return evaluate(network, images).accuracy;
}

void run(const Options& o) {
  std::vector<Method> chosen;
  for (const Method& m : methods())
    if (o.only.empty() || std::find(o.only.begin(), o.only.end(), m.name) != o.only.end()) chosen.push_back(m);
  HONE_CHECK(!chosen.empty(), ValueError, "--only names none of the methods");
  struct Row {
    Figures before, after;
    double bits = 0;
  };
  std::vector<Row> rows(chosen.size());
  Figures floats;
  const Stopwatch total;
  for (int64_t s = 0; s < o.seeds; ++s) {
    CommonOptions common = o.common;
    common.seed += static_cast<uint64_t>(s);
    manual_seed(common.seed);
    const Fashion fashion = open_fashion(common, o.validation);
    const data::Dataset& scored = o.held_out ? fashion.validation : fashion.test;
    data::Loader batches = training_batches(fashion);
    nn::LeNet trained;
    train(trained, batches, o.epochs, kLr);
    floats.values.push_back(score_saved(trained, scored));
    std::printf("seed %llu, floats: %.2f %%\n", static_cast<unsigned long long>(common.seed),
                100 * floats.values.back());
    for (size_t i = 0; i < chosen.size(); ++i) {
      manual_seed(common.seed + 1000);
      nn::LeNet net = trained;
      const Quantized q = chosen[i].quantize(net, [&] { return evaluate(net, fashion.validation).accuracy; });
      rows[i].bits = q.bits_per_weight;
      rows[i].before.values.push_back(score_saved(net, scored));
      train(net, batches, o.retrain, kRetrainLr, q.after_step);
      rows[i].after.values.push_back(score_saved(net, scored));
      std::printf("%-36s %6.2f bits: %6.2f %% -> %6.2f %%\n", chosen[i].name.c_str(), q.bits_per_weight,
                  100 * rows[i].before.values.back(), 100 * rows[i].after.values.back());
      std::fflush(stdout);
    }
  }
  const std::string accuracy = o.held_out ? "validation_accuracy" : "test_accuracy";
  train::Results results{.job = "quantize_lenet", .figures = {}, .settings = {}, .rows = {}};
  std::printf("\n%-36s %8s %10s %10s %6s\n", "method", "bits", "at once", "retrained", "sd");
  std::printf("%-36s %8d %10.2f\n", "floats", 32, 100 * floats.mean());
  for (size_t i = 0; i < chosen.size(); ++i) {
    const Row& r = rows[i];
    std::printf("%-36s %8.2f %10.2f %10.2f %6.2f\n", chosen[i].name.c_str(), r.bits, 100 * r.before.mean(),
                100 * r.after.mean(), 100 * r.after.sd());
    results.rows.emplace_back()
        .set("name", chosen[i].name)
        .set("bits_per_weight", r.bits)
        .set(accuracy + "_at_once_mean", r.before.mean())
        .set(accuracy + "_mean", r.after.mean())
        .set(accuracy + "_sd", r.after.sd());
  }
  results.settings.set("seed", o.common.seed)
      .set("seeds", o.seeds)
      .set("epochs", o.epochs)
      .set("retrain", o.retrain)
      .set("validation", o.validation)
      .set("scored_on", o.held_out ? "held out" : "test")
      .set("threads", o.common.threads);
  results.figures.set(accuracy + "_of_floats", floats.mean()).set("seconds", total.seconds());
  if (!o.common.json.empty()) train::save_json(o.common.json, results);
}

}  // namespace

int main(int argc, char** argv) {
  CLI::App app("LeNet's weights in few values on Fashion-MNIST, by quantizer.", "quantize_lenet");
  Options o;
  o.common.add_to(app, "Folder of the four IDX files (default: $HONE_DATA, else Debian's dataset-fashion-mnist)");
  app.add_option("--only", o.only, "Names of methods, separated by ';'")->delimiter(';');
  app.add_option("--seeds", o.seeds, "Runs of each")->check(CLI::Range(1, 100))->capture_default_str();
  app.add_option("--epochs", o.epochs, "Epochs of the network of floats")->check(CLI::Range(1, 1000));
  app.add_option("--retrain", o.retrain, "Epochs after quantization")->check(CLI::Range(1, 1000));
  app.add_option("--validation", o.validation, "Training images held out")->capture_default_str();
  app.add_flag("--held-out", o.held_out, "Score on the training images that are not trained on, not on the test set");
  return run_example(app, argc, argv, o.common, [&] { run(o); });
}
