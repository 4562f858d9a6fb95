// LeNet on Fashion-MNIST quantized by every scheme Hone has: the survey's (uniform, global, dynamic, mixed), learned
// steps, codebooks, a width a layer, 8- and 4-bit integers, and weights and activations quantized in training (LSQ,
// PACT, DoReFa). A row: bits a weight, accuracy at once and after retraining, the bytes of the packed file, and the
// time of one image; the last accuracy is what a process of its own gets out of the file, the time the reloaded
// network's. With --held-out, for choosing settings, it scores on training images that are not trained on.

#include <functional>
#include <memory>

#include "lenet_packing.h"

using namespace hone;
namespace quantize = compress::quantize;

namespace {

struct Options {
  CommonOptions common;
  int64_t seeds = 1, epochs = 10, retrain = 1, long_retrain = 4, validation = 5000;
  std::vector<std::string> only;
  std::string keep, score;
  double latency_seconds = 0.1;
  bool held_out = false;
};
constexpr double kLr = 2e-3, kRetrainLr = 3e-4, kIntegerLr = 1e-3;

/// LeNet with quantized activations: DoReFa's in [0, 1], or PACT's up to learned bounds; with DoReFa's weights, but for
/// the first and the last layer, as the paper has it, or with whatever its parameters are.
struct QuantizedLeNet : nn::Module {
  nn::Conv2d conv1{{.in = 3, .out = 6, .kernel = 5}}, conv2{{.in = 6, .out = 16, .kernel = 5}};
  nn::Linear fc1{{.in = 400, .out = 120}}, fc2{{.in = 120, .out = 84}}, fc3{{.in = 84, .out = 10}};
  Parameter bound1{full({1}, 6.0)}, bound2{full({1}, 6.0)}, bound3{full({1}, 6.0)}, bound4{full({1}, 6.0)};
  int64_t bits;
  bool dorefa_weights, pact_activations;
  HONE_MODULE(QuantizedLeNet, conv1, conv2, fc1, fc2, fc3, bound1, bound2, bound3, bound4)

  QuantizedLeNet(const nn::LeNet& net, int64_t bits, bool dorefa, bool pact)
      : conv1(net.conv1),
        conv2(net.conv2),
        fc1(net.fc1),
        fc2(net.fc2),
        fc3(net.fc3),
        bits(bits),
        dorefa_weights(dorefa),
        pact_activations(pact) {}
  Tensor weight(const Parameter& w) const { return dorefa_weights ? dorefa_weight(w.value(), bits) : w.value(); }
  Tensor activation(const Tensor& x, const Parameter& bound) const {
    return pact_activations ? pact(x, bound.value(), bits) : dorefa_activation(x, bits);
  }
  Tensor forward(const Tensor& x) {
    Tensor h = max_pool2d(activation(conv1(x), bound1), 2);
    h = max_pool2d(activation(conv2d(h, weight(conv2.weight), conv2.bias.value()), bound2), 2);
    h = activation(linear(flatten(h, 1), weight(fc1.weight), fc1.bias.value()), bound3);
    return fc3(activation(linear(h, weight(fc2.weight), fc2.bias.value()), bound4));
  }
};

/// A quantized network on its way into a file.
struct Quantized {
  nn::AnyModule net;
  double bits_per_weight = 0;  ///< of codes, scales and ids of levels; of integers and of DoReFa's weights, of codes
  std::function<void()> after_step = {};  ///< of retraining
  int64_t epochs = 0;                     ///< of retraining
  double lr = kRetrainLr;
  std::function<graph::Network(nn::Module&)> finish = {};  ///< what the file holds, where not the traced one
};

graph::Network traced(nn::Module& net) { return graph::trace(net, zeros({1, 3, 32, 32})); }

/// What quantizers may use.
struct Context {
  const Options& o;
  const Fashion& fashion;
  double held(nn::Module& net) const { return evaluate(net, fashion.validation).accuracy; }
};
struct Method {
  std::string name;
  std::function<Quantized(const nn::LeNet& trained, const Context& context)> quantize;
};

nn::AnyModule module(const nn::Module& net) { return nn::AnyModule(net.clone()); }

quantize::Range range_of(int64_t bits) {
  const double half = std::exp2(static_cast<double>(bits - 1));
  return {-half, half - 1};
}

/// Steps that begin as LSQ's do, not at the largest weight.
quantize::QuantizeReport lsq(nn::Module& net, int64_t bits) {
  auto report = quantize::uniform(net, {.range = range_of(bits), .shift = quantize::Shift::none, .learned = true});
  for (const ParameterRef& p : net.parameters())
    if (p.scale().defined())
      p.scale().replace(reshape(lsq_start(p.raw().detach(), {.bits = bits}), p.scale().raw().shape()));
  return report;
}

std::vector<Method> methods() {
  std::vector<Method> all;
  // What training on alone gives.
  all.push_back({"floats, trained on", [](const nn::LeNet& trained, const Context& context) {
                   return Quantized{.net = module(trained), .bits_per_weight = 32, .epochs = context.o.retrain};
                 }});
  all.push_back({"floats, trained on for long", [](const nn::LeNet& trained, const Context& context) {
                   return Quantized{
                       .net = module(trained), .bits_per_weight = 32, .epochs = context.o.long_retrain, .lr = kLr};
                 }});
  // Weights alone; all else stays as it is, and a short retraining follows.
  const auto add = [&](std::string name, auto apply) {
    all.push_back({std::move(name), [apply](const nn::LeNet& trained, const Context& context) {
                     Quantized q{.net = module(trained), .epochs = context.o.retrain};
                     q.bits_per_weight = apply(*q.net).bits_per_weight();
                     return q;
                   }});
  };
  for (const int64_t bits : {8, 4, 3, 2}) {
    const quantize::Range range = range_of(bits);
    add(str("uniform, ", bits, " bits"), [=](nn::Module& net) { return quantize::uniform(net, {.range = range}); });
    add(str("global, ", bits, " bits"),
        [=](nn::Module& net) { return quantize::uniform(net, {.range = range, .global = true}); });
    add(str("LSQ weights, ", bits, " bits"), [=](nn::Module& net) { return lsq(net, bits); });
  }
  for (const int64_t every : {0, 100})
    for (const int64_t bits : {4, 2})
      all.push_back({str("dynamic, ", bits, " bits, ", every == 0 ? "frozen" : "fitted again"),
                     [=](const nn::LeNet& trained, const Context& context) {
                       Quantized q{.net = module(trained), .epochs = context.o.retrain};
                       const auto levels = std::make_shared<quantize::DynamicQuantizer>(
                           *q.net,
                           quantize::DynamicOptions{.by = quantize::LevelBy::kmeans,
                                                    .levels = 3,
                                                    .range = range_of(bits),
                                                    .shift = quantize::Shift::mean},
                           quantize::RefitOptions{.every = every});
                       q.bits_per_weight = levels->report().bits_per_weight();
                       q.after_step = [levels] { levels->step(); };
                       return q;
                     }});
  for (const int64_t bits : {4, 2})
    for (const auto& [name, by] :
         {std::pair{"magnitude", quantize::LevelBy::magnitude}, std::pair{"tensor", quantize::LevelBy::tensor},
          std::pair{"channel", quantize::LevelBy::channel}})
      add(str("dynamic by ", name, ", ", bits, " bits"), [=, by = by](nn::Module& net) {
        return quantize::dynamic(net, {.by = by, .levels = 3, .range = range_of(bits)});
      });
  const auto rest = [](quantize::Outside outside) {
    return quantize::MixedOptions{
        .part = !quantize::outliers(0.02), .inside = {.range = range_of(3)}, .outside = outside};
  };
  add("mixed, 3 bits, outliers float",
      [=](nn::Module& net) { return quantize::mixed(net, rest(quantize::Outside::keep_float)); });
  add("mixed, 3 bits, outliers coarse",
      [=](nn::Module& net) { return quantize::mixed(net, rest(quantize::Outside::coarse)); });
  add("mixed, fc1 alone, rest to integers", [=](nn::Module& net) {
    return quantize::mixed(net, {.part = quantize::in_layers({"fc1"}),
                                 .inside = {.range = range_of(8)},
                                 .outside = quantize::Outside::round_to_integer});
  });
  all.push_back({"a width a layer, 3 bits in the mean", [](const nn::LeNet& trained, const Context& context) {
                   Quantized q{.net = module(trained), .epochs = context.o.retrain};
                   const auto plan = quantize::plan_bits(*q.net, [&] { return context.held(*q.net); },
                                                         {.bits = {2, 3, 4, 6, 8}, .bits_per_weight = 3});
                   std::fputs(plan.table().c_str(), stdout);
                   q.bits_per_weight = quantize::apply(*q.net, plan).bits_per_weight();
                   return q;
                 }});
  for (const int64_t clusters : {16, 8, 4})
    for (const quantize::KMeansStart start : {quantize::KMeansStart::linear, quantize::KMeansStart::optimal})
      add(str("codebook of ", clusters, ", ", quantize::name(start)), [=](nn::Module& net) {
        quantize::share_weights(net, {.clusters = clusters, .start = start});
        return quantize::quantize_report(net);
      });

  // Affine codes for weights alone, with a scale for each channel or group: values that a packed file has as codes.
  const auto affine = [&](const char* name, const quantize::AffineSpec& spec) {
    all.push_back({str("affine, ", name, ", ", spec.bits, " bits"), [=](const nn::LeNet& trained, const Context&) {
                     Quantized q{.net = module(trained)};
                     const NoGrad no_grad;
                     double bits = 0, count = 0;
                     for (const ParameterRef& p : q.net->parameters()) {
                       if (p.shape().ndim() < 2) continue;
                       const auto a = quantize::Affine::of(p.raw(), spec);
                       Tensor(p.raw()).copy_(a.values(a.codes(p.raw())));
                       const auto n = static_cast<double>(p.shape().numel());
                       const int64_t each = 32 + (spec.symmetric ? 0 : spec.bits);  // a scale, a zero point
                       bits += n * static_cast<double>(spec.bits) + static_cast<double>(each * std::ssize(a.scale));
                       count += n;
                     }
                     q.bits_per_weight = bits / count;
                     return q;
                   }});
  };
  for (const int64_t bits : {8, 6, 4, 3, 2}) {
    using quantize::Granularity;
    affine("a scale a channel", {.bits = bits, .granularity = Granularity::channel});
    affine("groups of 32", {.bits = bits, .granularity = Granularity::group, .group = 32});
    affine("groups of 32, asymmetric",
           {.bits = bits, .symmetric = false, .granularity = Granularity::group, .group = 32});
  }

  // Integers, without retraining.
  const auto integers = [&](const std::string& name, const quantize::StaticOptions& options, double density = 1) {
    all.push_back({name, [=](const nn::LeNet& trained, const Context& context) {
                     Quantized q{.net = module(trained), .bits_per_weight = static_cast<double>(options.bits)};
                     if (density < 1) {
                       compress::prune(*q.net, {.density = density, .scope = compress::PruneScope::per_layer});
                       q.epochs = context.o.retrain;
                     }
                     q.finish = [options, &context](nn::Module& net) {
                       data::Loader batches(context.fashion.training, {.batch = 64, .transform = fashion_transforms()});
                       return quantize::quantize_static(traced(net), quantize::calibration(batches, 20), options);
                     };
                     return q;
                   }});
  };
  integers("int8 static", {.bias_correction = true});
  for (const auto& [name, method] :
       {std::pair{"moving average", quantize::Observe::moving_average},
        std::pair{"percentile", quantize::Observe::percentile}, std::pair{"entropy", quantize::Observe::entropy},
        std::pair{"mse", quantize::Observe::mse}})
    integers(str("int8 static, ", name), {.activations = {.method = method}, .bias_correction = true});
  integers("int8 static, a scale a tensor", {.weights = quantize::Granularity::tensor, .bias_correction = true});
  integers("pruned to 20 %, int8 static", {.bias_correction = true}, 0.2);
  integers("int4 static", {.bits = 4, .bias_correction = true});
  integers("int4 static, a scale a tensor",
           {.bits = 4, .weights = quantize::Granularity::tensor, .bias_correction = true});
  integers("int4 static, a scale a tensor, equalized",
           {.bits = 4, .weights = quantize::Granularity::tensor, .equalize = true, .bias_correction = true});
  integers("int4 static, adaptive rounding",
           {.bits = 4, .ada_round = quantize::AdaRoundOptions(), .bias_correction = true});
  for (const int64_t bits : {8, 4}) {
    all.push_back({str("int", bits, " dynamic"), [=](const nn::LeNet& trained, const Context&) {
                     Quantized q{.net = module(trained), .bits_per_weight = static_cast<double>(bits)};
                     q.finish = [bits](nn::Module& net) { return quantize::quantize_dynamic(traced(net), bits); };
                     return q;
                   }});
    // The same integers, trained.
    all.push_back({str("int", bits, " trained"), [=](const nn::LeNet& trained, const Context& context) {
                     nn::LeNet copy = trained;
                     auto net = std::make_unique<quantize::QatNetwork>(
                         traced(copy), quantize::QatOptions{.bits = bits, .learned_steps = bits < 8});
                     data::Loader batches(context.fashion.training, {.batch = 64, .transform = fashion_transforms()});
                     int64_t seen = 0;
                     for (auto& [images, labels] : batches) {
                       if (++seen > 20) break;
                       const NoGrad no_grad;
                       (*net)(images);
                     }
                     Quantized q{.net = nn::AnyModule(std::move(net)),
                                 .bits_per_weight = static_cast<double>(bits),
                                 .epochs = context.o.long_retrain,
                                 .lr = kIntegerLr};
                     auto& qat = static_cast<quantize::QatNetwork&>(*q.net);
                     const int64_t half = q.epochs * batches.size() / 2;
                     q.after_step = [&qat, half, steps = int64_t{0}]() mutable {
                       if (++steps == half) qat.freeze();
                     };
                     q.finish = [](nn::Module& module) { return static_cast<quantize::QatNetwork&>(module).convert(); };
                     return q;
                   }});
  }

  // Weights and activations, in training.
  const auto folded = [](nn::Module& net) {  // DoReFa's weights are then their few values
    graph::Network n = traced(net);
    graph::drop_training(n);
    graph::fold_constants(n, {.parameters = true});
    return n;
  };
  for (const int64_t bits : {4, 3, 2}) {
    const auto in_training = [&](const char* name, bool dorefa, bool pact) {
      all.push_back({str(name, ", ", bits, " bits"), [=](const nn::LeNet& trained, const Context& context) {
                       QuantizedLeNet net(trained, bits, dorefa, pact);
                       Quantized q{.net = module(net), .epochs = context.o.long_retrain, .lr = kLr, .finish = folded};
                       const double inner = 2400 + 48000 + 10080;  // weights of conv2, fc1, fc2; the others are floats
                       q.bits_per_weight = (inner * static_cast<double>(bits) + 1290 * 32) / (inner + 1290);
                       if (!dorefa) q.bits_per_weight = lsq(*q.net, bits).bits_per_weight();
                       return q;
                     }});
    };
    in_training("DoReFa, weights and activations", true, false);
    in_training("DoReFa weights, PACT activations", true, true);
    in_training("LSQ weights, PACT activations", false, true);
  }
  return all;
}

/// Shows the images in an order of its own: no row depends on which others are made.
void train(nn::Module& net, const Fashion& fashion, int64_t epochs, double lr,
           const std::function<void()>& after_step = {}) {
  data::Loader batches(fashion.training,
                       {.batch = 64, .shuffle = true, .drop_last = true, .transform = fashion_transforms("flip")});
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

graph::Network network_of(const Quantized& q) { return q.finish ? q.finish(*q.net) : traced(*q.net); }

struct Row {
  std::string name;
  Figures before = {}, after = {}, drop = {}, file_bytes = {};
  double bits = 0, microseconds = 0;
};

void print(const std::vector<Row>& rows) {
  std::printf("\n%-40s %6s %14s %14s %14s %8s %8s\n", "method", "bits", "at once", "retrained", "drop", "bytes", "µs");
  for (const Row& r : rows)
    std::printf("%-40s %6.2f %14s %14s %14s %8.0f %8.1f\n", r.name.c_str(), r.bits, points(r.before).c_str(),
                points(r.after).c_str(), points(r.drop).c_str(), r.file_bytes.mean(), r.microseconds);
}

void run(const Options& o) {
  const std::vector<Method> chosen = named_only(o.only, methods(), &Method::name);
  std::vector<Row> rows{{.name = "floats", .bits = 32}};
  for (const Method& m : chosen) rows.push_back({.name = m.name});
  std::vector<graph::Network> to_time;  // those of the first seed
  const Stopwatch total;
  for (int64_t s = 0; s < o.seeds; ++s) {
    CommonOptions common = o.common;
    common.seed += static_cast<uint64_t>(s);
    manual_seed(common.seed);
    const Fashion fashion = open_fashion(common, o.validation);
    const auto path_of = [&](std::string name, const char* suffix) {
      std::replace_if(
          name.begin(), name.end(), [](char c) { return c == ' ' || c == ','; }, '_');
      return str(o.keep, "/quantize_lenet_", name, "_seed_", common.seed, suffix);
    };
    /// Scores what a packed file of the network holds; the file of the end stays, with --keep.
    const auto score = [&](const Row& row, const Quantized& q, bool at_end, Figures& accuracy) {
      const TemporaryFile temporary("quantized.hone");
      const std::string path = at_end && !o.keep.empty() ? path_of(row.name, ".hone") : temporary.path;
      compress::pack(network_of(q)).save(path);
      compress::Packed packed = compress::Packed::load(path);
      graph::Network network = packed.network();
      accuracy.values.push_back(o.held_out ? evaluate(network, fashion.validation).accuracy
                                           : score_in_a_process_of_its_own(path, data_options(common)).accuracy());
      return packed;
    };
    const auto add = [&](Row& row, const Quantized& q) {
      const compress::Packed packed = score(row, q, true, row.after);
      row.file_bytes.values.push_back(static_cast<double>(packed.bytes().size()));
      row.drop.values.push_back(rows[0].after.values.back() - row.after.values.back());
      if (s == 0) to_time.push_back(graph::optimize(packed.network()));
    };

    nn::LeNet trained;
    const std::string kept =
        path_of(str("floats of ", o.epochs, " epochs on ", fashion.training.size()), ".safetensors");
    if (!o.keep.empty() && std::filesystem::exists(kept)) {
      trained.load(kept);
    } else {
      train(trained, fashion, o.epochs, kLr);
      if (!o.keep.empty()) trained.save(kept);
    }
    const Context context{o, fashion};
    add(rows[0], {.net = module(trained)});
    rows[0].before = rows[0].after;
    std::printf("seed %llu, floats: %.2f %%\n", static_cast<unsigned long long>(common.seed),
                100 * rows[0].after.values.back());
    for (size_t i = 0; i < chosen.size(); ++i) {
      manual_seed(common.seed + 1000);
      Quantized q = chosen[i].quantize(trained, context);
      Row& row = rows[i + 1];
      row.bits = q.bits_per_weight;
      if (q.epochs > 0) {
        score(row, q, false, row.before);
        train(*q.net, fashion, q.epochs, q.lr, q.after_step);
      }
      add(row, q);
      if (q.epochs == 0) row.before = row.after;
      std::printf("%-40s %6.2f bits: %6.2f %% -> %6.2f %%, %.0f bytes\n", row.name.c_str(), row.bits,
                  100 * row.before.values.back(), 100 * row.after.values.back(), row.file_bytes.values.back());
      std::fflush(stdout);
    }
  }
  std::vector<const graph::Network*> networks;
  for (const graph::Network& network : to_time) networks.push_back(&network);
  const std::vector<double> times = latencies_us(networks, randn({1, 3, 32, 32}), 5, o.latency_seconds);
  for (size_t i = 0; i < rows.size(); ++i) rows[i].microseconds = times[i];
  print(rows);

  const std::string accuracy = o.held_out ? "validation_accuracy" : "test_accuracy";
  train::Results results{.job = "quantize_lenet", .figures = {}, .settings = {}, .rows = {}};
  for (const Row& r : rows)
    results.rows.emplace_back()
        .set("name", r.name)
        .set("bits_per_weight", r.bits)
        .set(accuracy + "_at_once_mean", r.before.mean())
        .set(accuracy + "_mean", r.after.mean())
        .set(accuracy + "_sd", r.after.sd())
        .set("drop_points_mean", 100 * r.drop.mean())
        .set("drop_points_sd", 100 * r.drop.sd())
        .set("file_bytes", r.file_bytes.mean())
        .set("latency_us", r.microseconds);
  results.settings.set("seed", o.common.seed)
      .set("seeds", o.seeds)
      .set("epochs", o.epochs)
      .set("retrain", o.retrain)
      .set("long_retrain", o.long_retrain)
      .set("validation", o.validation)
      .set("scored_on", o.held_out ? "held out" : "test")
      .set("threads", o.common.threads);
  results.figures.set(accuracy + "_of_floats", rows[0].after.mean()).set("seconds", total.seconds());
  if (!o.common.json.empty()) train::save_json(o.common.json, results);
}

}  // namespace

int main(int argc, char** argv) {
  CLI::App app("LeNet quantized by every scheme on Fashion-MNIST: bits, accuracy, bytes, time.", "quantize_lenet");
  Options o;
  o.common.add_to(app, "Folder of the four IDX files (default: $HONE_DATA, else Debian's dataset-fashion-mnist)");
  app.add_option("--only", o.only, "Names of methods, separated by ';'")->delimiter(';');
  app.add_option("--seeds", o.seeds, "Runs of each")->check(CLI::Range(1, 100))->capture_default_str();
  app.add_option("--epochs", o.epochs, "Epochs of the network of floats")->check(CLI::Range(1, 1000));
  app.add_option("--retrain", o.retrain, "Epochs after the weights are quantized")->check(CLI::Range(1, 1000));
  app.add_option("--long-retrain", o.long_retrain, "Epochs where activations are quantized too")
      ->check(CLI::Range(1, 1000));
  app.add_option("--validation", o.validation, "Training images held out")->capture_default_str();
  app.add_option("--keep", o.keep, "Folder for networks of floats, used again, and for packed files")
      ->check(CLI::ExistingDirectory);
  app.add_option("--latency-seconds", o.latency_seconds, "Time to take for each of five timings")->check(positive());
  app.add_flag("--held-out", o.held_out, "Score on the training images that are not trained on, not on the test set");
  app.add_option("--score", o.score, "Score this packed file on the test images, and nothing else");
  return run_example(app, argc, argv, o.common, [&] {
    if (!o.score.empty())
      return print_score(o.score, data::FashionMNIST::open(o.common.data).test, fashion_transforms(), false);
    run(o);
  });
}
