// LeNet on Fashion-MNIST by every optimizer: accuracy, loss, time of an update, bytes of state. The rates are the usual
// ones, not tuned for this network; the rate falls along a cosine to 0.

#include <algorithm>
#include <sstream>

#include "fashion.h"

using namespace hone;

namespace {

using Optimizers = std::vector<std::unique_ptr<optim::Optimizer>>;
enum class Around { nothing, sam, lookahead, ema, swa, accumulation, full_batch };

struct Method {
  std::string name;
  std::function<Optimizers(nn::LeNet&)> make;
  int64_t batch = 64;
  Around around = Around::nothing;
};

template <class Optimizer>
Method method(const std::string& name, typename Optimizer::Options options, int64_t batch = 64,
              Around around = Around::nothing) {
  const auto make = [options](nn::LeNet& net) {
    Optimizers all;
    all.push_back(std::make_unique<Optimizer>(net.parameters(), options));
    return all;
  };
  return {name, make, batch, around};
}

// Muon takes matrices: the layers in between. Adam takes the rest.
Optimizers muon_and_adam(nn::LeNet& net) {
  std::vector<ParameterRef> matrices{net.fc1.weight.ref(), net.fc2.weight.ref()}, rest;
  for (const ParameterRef& p : net.parameters())
    if (std::find(matrices.begin(), matrices.end(), p) == matrices.end()) rest.push_back(p);
  Optimizers all;
  all.push_back(std::make_unique<optim::Muon>(matrices, optim::MuonOptions{.lr = 0.02}));
  all.push_back(std::make_unique<optim::Adam>(rest, optim::AdamOptions{.lr = 2e-3}));
  return all;
}

std::vector<Method> methods() {
  using namespace optim;
  return {
      method<SGD>("gradient_descent", {.lr = 0.1}, 1000, Around::full_batch),  // one update a pass
      method<SGD>("sgd", {.lr = 0.05}),
      method<SGD>("momentum", {.lr = 0.02, .momentum = 0.9}),
      method<SGD>("nesterov", {.lr = 0.02, .momentum = 0.9, .nesterov = true}),
      method<ASGD>("asgd", {.lr = 0.05}),
      method<Adagrad>("adagrad", {.lr = 0.02}),
      method<Adadelta>("adadelta", {.lr = 1}),
      method<RMSprop>("rmsprop", {.lr = 1e-3}),
      method<RMSprop>("rmsprop_centered", {.lr = 1e-3, .momentum = 0.5, .centered = true}),
      method<Adam>("adam", {.lr = 2e-3}),
      method<Adam>("adam_without_correction", {.lr = 2e-3, .bias_correction = false}),  // the documents' formula
      method<Adam>("amsgrad", {.lr = 2e-3, .amsgrad = true}),
      method<Adam>("adamw", {.lr = 2e-3, .weight_decay = 1e-2, .decoupled_decay = true}),
      method<Adamax>("adamax", {.lr = 4e-3}),
      method<NAdam>("nadam", {.lr = 2e-3}),
      method<RAdam>("radam", {.lr = 2e-3}),
      method<Lion>("lion", {.lr = 3e-4}),
      method<LAMB>("lamb", {.lr = 1e-2}, 256),
      method<LARS>("lars", {.lr = 2, .momentum = 0.9}, 256),
      method<Adafactor>("adafactor", {.lr = 2e-2}),
      method<Rprop>("rprop", {.lr = 1e-3, .step_max = 0.1}, 5000),  // signs need nearly exact gradients
      method<LBFGS>("lbfgs", {.max_iterations = 4, .history = 10}, 5000),
      {"muon", muon_and_adam},
      method<ScheduleFreeAdamW>("schedule_free_adamw", {.lr = 4e-3, .warmup_steps = 300}),
      method<SGD>("sam", {.lr = 0.02, .momentum = 0.9}, 64, Around::sam),
      method<Adam>("lookahead_adam", {.lr = 3e-3}, 64, Around::lookahead),
      method<Adam>("ema_of_adam", {.lr = 2e-3}, 64, Around::ema),
      method<SGD>("swa_of_momentum", {.lr = 0.02, .momentum = 0.9}, 64, Around::swa),
      method<Adam>("accumulated_adam", {.lr = 2e-3}, 32, Around::accumulation),  // two batches an update
  };
}

struct Outcome {
  double accuracy = 0, loss = 0, step_us = 0;
  int64_t state_bytes = 0, steps = 0;
  train::Curve curve;
};

Outcome train_one(const Fashion& fashion, const Method& m, const CommonOptions& common, int64_t epochs) {
  manual_seed(common.seed);
  nn::LeNet net;
  const Optimizers optimizers = m.make(net);
  optim::Optimizer& first = *optimizers.front();
  data::Loader batches(fashion.training,
                       {.batch = m.batch,
                        .shuffle = true,
                        .drop_last = m.around != Around::full_batch,
                        .transform = fashion_transforms(m.around == Around::full_batch ? "none" : "flip")});
  std::vector<std::unique_ptr<optim::CosineAnnealing>> schedules;
  const bool scheduled = m.name != "schedule_free_adamw" && m.name != "lbfgs" && m.name != "rprop";
  const int64_t steps = epochs * (m.around == Around::full_batch ? 1 : batches.size());
  for (const auto& o : optimizers)
    if (scheduled)
      schedules.push_back(std::make_unique<optim::CosineAnnealing>(*o, optim::CosineAnnealingOptions{.steps = steps}));
  optim::SAM sam(first);
  optim::Lookahead lookahead(first);
  optim::EMA ema(net.parameters(), {.decay = 0.998});
  optim::SWA swa(net.parameters());
  optim::GradientAccumulation accumulation(first, {.steps = 2});

  Outcome out;
  out.curve.name = m.name;
  double update_seconds = 0;
  // One update; the time that it took beyond the closure's own.
  const auto update = [&](const optim::Closure& gradients) {
    double inside = 0;
    const optim::Closure timed = [&] {
      const Stopwatch watch;
      const Tensor loss = gradients();
      inside += watch.seconds();
      return loss;
    };
    const Stopwatch watch;
    double loss = 0;
    if (m.around == Around::sam) {
      loss = sam.step(timed);
    } else if (m.around == Around::lookahead) {
      loss = timed().item();
      lookahead.step();
    } else if (m.around == Around::accumulation) {
      loss = timed().item();
      accumulation.step();
    } else if (optimizers.size() == 1) {
      loss = first.step(timed);
    } else {
      loss = timed().item();
      for (const auto& o : optimizers) o->step();
    }
    if (m.around == Around::ema) ema.update();
    if (m.around == Around::swa && 2 * out.steps >= steps) swa.update();  // of the second half
    update_seconds += watch.seconds() - inside;
    for (const auto& s : schedules) s->step();
    ++out.steps;
    HONE_CHECK(std::isfinite(loss), NumericError, m.name, ": the loss is not finite at step ", out.steps);
    return loss;
  };

  for (int64_t epoch = 0; epoch < epochs; ++epoch) {
    double sum = 0;
    if (m.around == Around::full_batch) {
      sum = update([&] {
        net.zero_grad();
        return scalar(
            optim::full_batch(batches, [&](const Tensor& x, const Tensor& y) { return cross_entropy(net(x), y); }));
      });
    } else {
      for (auto& [images, labels] : batches) {
        sum += update([&, x = images, y = labels] {
                 if (accumulation.pending() == 0) net.zero_grad();
                 Tensor loss = cross_entropy(net(x), y);
                 loss.backward();
                 return loss;
               }) /
               static_cast<double>(batches.size());
      }
    }
    out.loss = sum;
    out.curve.y.push_back(sum);
  }
  if (m.around == Around::ema) ema.copy_to_parameters();
  if (m.around == Around::swa) swa.copy_to_parameters();
  if (auto* o = dynamic_cast<optim::ScheduleFreeAdamW*>(&first)) o->eval();
  for (const auto& o : optimizers) out.state_bytes += o->state_bytes();
  if (m.around == Around::ema || m.around == Around::swa || m.around == Around::lookahead)
    out.state_bytes += net.parameter_count() * 4;
  out.step_us = 1e6 * update_seconds / static_cast<double>(out.steps);
  out.accuracy = test_accuracy_of_saved(net, fashion.test);
  return out;
}

void run(const CommonOptions& common, int64_t epochs, const std::vector<std::string>& only, const std::string& html) {
  const std::vector<Method> chosen = named_only(only, methods(), &Method::name);
  const Fashion fashion = open_fashion(common);
  train::Results results{.job = "optimizers", .figures = {}, .settings = {}, .rows = {}};
  train::Chart chart{"Training loss", "epoch", "cross-entropy (nats)", {}};
  std::printf("%-24s %9s %9s %10s %12s\n", "optimizer", "accuracy", "loss", "update", "state");
  for (const Method& m : chosen) {
    const Outcome o = train_one(fashion, m, common, epochs);
    std::printf("%-24s %8.2f%% %9.4f %7.0f us %9lld B\n", m.name.c_str(), 100 * o.accuracy, o.loss, o.step_us,
                static_cast<long long>(o.state_bytes));
    std::fflush(stdout);
    results.rows.emplace_back()
        .set("name", m.name)
        .set("test_accuracy", o.accuracy)
        .set("final_loss", o.loss)
        .set("step_us", o.step_us)
        .set("state_bytes", o.state_bytes)
        .set("batch", m.batch)
        .set("steps", o.steps);
    chart.curves.push_back(o.curve);
  }
  results.settings.set("epochs", epochs).set("seed", common.seed).set("threads", common.threads);
  if (!common.json.empty()) train::save_json(common.json, results);
  if (html.empty()) return;
  train::Report page;
  page.title = "Optimizers";
  page.summary = str("LeNet on Fashion-MNIST, ", epochs, " epochs, usual rates falling along a cosine.");
  page.machine = train::machine();
  page.charts = {chart};
  train::save_report(html, page);
}

}  // namespace

int main(int argc, char** argv) {
  CLI::App app("LeNet on Fashion-MNIST by every optimizer.", "optimizers");
  CommonOptions common;
  common.add_to(app, "Folder of the four IDX files (default: $HONE_DATA, else Debian's dataset-fashion-mnist)");
  int64_t epochs = 3;
  std::vector<std::string> only;
  std::string html;
  app.add_option("--epochs", epochs, "Passes over the training images")
      ->check(CLI::Range(1, 10000))
      ->capture_default_str();
  app.add_option("--only", only, "These alone: NAME,NAME,…")->delimiter(',');
  app.add_option("--html", html, "Write the loss curves to this file");
  return run_example(app, argc, argv, common, [&] { run(common, epochs, only, html); });
}
