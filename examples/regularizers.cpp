// What each regularizer does to the gap between training and test accuracy: LeNet on few images of Fashion-MNIST, from
// the same beginnings. Strengths were chosen, from one or two values each, by --held-out, which scores on training
// images that are not trained on; the test images are scored once a run.

#include <algorithm>
#include <functional>

#include "fashion.h"

using namespace hone;

namespace {

struct Options {
  CommonOptions common;
  int64_t images = 2000, epochs = 12, seeds = 3;
  std::vector<std::string> only;
  bool held_out = false;
};

enum class Layer { none, dropout, spatial, block, connect };

struct Method {
  std::string name;
  Layer layer = Layer::none;
  double smoothing = 0;
  std::function<Tensor(nn::Module& net, const Tensor& logits)> penalty = {};  ///< added to the loss
  std::function<data::Batch(const data::Batch& batch, uint64_t seed, int64_t step)> mix = {};
  std::function<void(nn::Module& net, int64_t step)> before_step = {};  ///< changes the gradients
  std::function<void(nn::Module& net)> after_step = {};
  bool early = false;
};

/// LeNet with room for a regularizing layer behind its second pool, and dropout between the linear layers.
struct Net : nn::Module {
  nn::LeNet body;
  nn::Dropout2d spatial{{.p = 0.05}};
  nn::DropBlock block{{.p = 0.2, .block = 3}};
  nn::DropConnect wide{{.in = 400, .out = 120, .p = 0.3}};
  Layer layer;
  HONE_MODULE(Net, body, spatial, block, wide)
  explicit Net(Layer l) : layer(l) {}
  Tensor forward(const Tensor& x) {
    Tensor h = max_pool2d(relu(body.conv1(x)), 2);
    h = relu(body.conv2(h));
    if (layer == Layer::block) h = block(h);
    h = max_pool2d(h, 2);
    if (layer == Layer::spatial) h = spatial(h);
    h = flatten(h, 1);
    h = relu(layer == Layer::connect ? wide(h) : body.fc1(h));
    if (layer == Layer::dropout) h = dropout(h, 0.3, training());
    return body.fc3(relu(body.fc2(h)));
  }
};

std::vector<Method> methods() {
  const auto weights = [](double l1, double l2) {
    return [=](nn::Module& net, const Tensor&) {
      return optim::elastic_net(net.parameters(), {.l1 = l1, .l2 = l2, .weights_only = true});
    };
  };
  std::vector<Method> all(21);
  size_t i = 0;
  all[i++] = {.name = "none"};
  all[i++] = {.name = "l1", .penalty = weights(1e-4, 0)};
  all[i++] = {.name = "l2", .penalty = weights(0, 5e-4)};
  all[i++] = {.name = "elastic_net", .penalty = weights(5e-5, 1e-3)};
  all[i++] = {.name = "prox_l1",
              .after_step = [](nn::Module& net) { optim::prox_l1(net.parameters(), 1e-5, {.weights_only = true}); }};
  all[i++] = {.name = "group_lasso",
              .penalty = [](nn::Module& net, const Tensor&) { return optim::group_lasso(net.parameters(), 3e-5); }};
  all[i++] = {.name = "orthogonality",
              .penalty = [](nn::Module& net, const Tensor&) { return optim::orthogonality(net.parameters(), 1e-4); }};
  all[i++] = {.name = "max_norm", .after_step = [](nn::Module& net) { optim::max_norm(net.parameters(), {.max = 1}); }};
  all[i++] = {.name = "dropout", .layer = Layer::dropout};
  all[i++] = {.name = "spatial_dropout", .layer = Layer::spatial};
  all[i++] = {.name = "drop_block", .layer = Layer::block};
  all[i++] = {.name = "drop_connect", .layer = Layer::connect};
  all[i++] = {.name = "label_smoothing", .smoothing = 0.1};
  all[i++] = {.name = "confidence_penalty",
              .penalty = [](nn::Module&, const Tensor& logits) { return optim::confidence_penalty(logits, 0.05); }};
  all[i++] = {.name = "mixup", .mix = [](const data::Batch& b, uint64_t seed, int64_t step) {
                return data::mixup(b, {.classes = 10, .alpha = 0.4, .seed = seed}, step);
              }};
  all[i++] = {.name = "cutmix", .mix = [](const data::Batch& b, uint64_t seed, int64_t step) {
                return data::cutmix(b, {.classes = 10, .alpha = 0.4, .seed = seed}, step);
              }};
  all[i++] = {.name = "gradient_noise", .before_step = [](nn::Module& net, int64_t step) {
                optim::add_gradient_noise(net.parameters(), step, {.eta = 1e-4});
              }};
  all[i++] = {.name = "gradient_centralization",
              .before_step = [](nn::Module& net, int64_t) { optim::centralize_gradients(net.parameters()); }};
  all[i++] = {.name = "clip_norm",
              .before_step = [](nn::Module& net, int64_t) { optim::clip_grad_norm(net.parameters(), 0.5); }};
  all[i++] = {.name = "clip_adaptive",
              .before_step = [](nn::Module& net, int64_t) { optim::clip_grad_adaptive(net.parameters()); }};
  all[i++] = {.name = "early_stopping", .early = true};
  return all;
}

struct Run {
  double train_accuracy, test_accuracy;
};
Run run_one(const Method& m, const Options& o, uint64_t seed, const data::Dataset& training,
            const data::Dataset& watched, const data::Dataset& test) {
  manual_seed(seed);
  Net net(m.layer);
  optim::Adam adam(net.parameters(), {.lr = 2e-3});
  data::Loader batches(training, {.batch = 50, .shuffle = true, .seed = seed, .transform = fashion_transforms()});
  train::EarlyStopping early({.patience = 3});
  TensorFile best;
  int64_t step = 0;
  for (int64_t epoch = 0; epoch < o.epochs && !(m.early && early.stop()); ++epoch) {
    for (auto& batch : batches) {
      const auto [x, y] = m.mix ? m.mix(batch, seed, step) : batch;
      const Tensor logits = net(x);
      Tensor loss = cross_entropy(logits, y, {.label_smoothing = m.smoothing});
      if (m.penalty) loss = loss + m.penalty(net, logits);
      adam.zero_grad();
      loss.backward();
      if (m.before_step) m.before_step(net, step);
      adam.step();
      if (m.after_step) m.after_step(net);
      ++step;
    }
    if (m.early && early.update(evaluate(net, watched).loss)) best = net.state_dict();
  }
  if (m.early) net.load_state_dict(best);
  return {evaluate(net, training).accuracy, evaluate(net, test).accuracy};
}

void run(const Options& o) {
  const std::vector<Method> chosen = named_only(o.only, methods(), &Method::name);
  const auto fashion = data::FashionMNIST::open(o.common.data);
  const double n = static_cast<double>(fashion.train.size());
  const auto [training, watched, held] =
      data::random_split(fashion.train, {static_cast<double>(o.images) / n, 1000 / n, 5000 / n}, 1);
  train::Results results{.job = "regularizers", .figures = {}, .settings = {}, .rows = {}};
  results.settings.set("images", o.images)
      .set("epochs", o.epochs)
      .set("seeds", o.seeds)
      .set("scored_on", o.held_out ? "held out" : "test");
  std::printf("%-24s %-17s %-17s %s\n", "accuracy, %", "training", o.held_out ? "held out" : "test", "gap");
  const Stopwatch total;
  for (const Method& m : chosen) {
    const Stopwatch watch;
    Figures train, test, gap;
    for (int64_t s = 0; s < o.seeds; ++s) {
      const Run r =
          run_one(m, o, o.common.seed + static_cast<uint64_t>(s), training, watched, o.held_out ? held : fashion.test);
      train.values.push_back(r.train_accuracy);
      test.values.push_back(r.test_accuracy);
      gap.values.push_back(r.train_accuracy - r.test_accuracy);
    }
    std::printf("%-24s %-17s %-17s %s\n", m.name.c_str(), points(train).c_str(), points(test).c_str(),
                points(gap).c_str());
    std::fflush(stdout);
    results.rows.emplace_back()
        .set("name", m.name)
        .set("train_accuracy_mean", train.mean())
        .set("train_accuracy_sd", train.sd())
        .set("test_accuracy_mean", test.mean())
        .set("test_accuracy_sd", test.sd())
        .set("gap_mean", gap.mean())
        .set("gap_sd", gap.sd())
        .set("seconds", watch.seconds());
  }
  results.figures.set("seconds", total.seconds());
  std::printf("%.0f s\n", total.seconds());
  if (!o.common.json.empty()) train::save_json(o.common.json, results);
}

}  // namespace

int main(int argc, char** argv) {
  CLI::App app("Train-test gap of LeNet on few images, for each regularizer.", "regularizers");
  Options o;
  o.common.add_to(app, "Folder of the four IDX files (default: $HONE_DATA, else Debian's dataset-fashion-mnist)");
  app.add_option("--images", o.images, "Training images")->check(CLI::Range(50, 50000))->capture_default_str();
  app.add_option("--epochs", o.epochs, "Passes over them")->check(CLI::Range(1, 1000))->capture_default_str();
  app.add_option("--seeds", o.seeds, "Runs of each")->check(CLI::Range(1, 100))->capture_default_str();
  app.add_option("--only", o.only, "Names, separated by commas")->delimiter(',');
  app.add_flag("--held-out", o.held_out, "Score on 5,000 training images that are not trained on, not on the test set");
  return run_example(app, argc, argv, o.common, [&] { run(o); });
}
