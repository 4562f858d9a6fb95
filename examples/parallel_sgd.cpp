// LeNet by stochastic gradient descent on several threads: pieces of each mini-batch in parallel with one result,
// workers that average their weights now and then, and workers without locks.

#include "fashion.h"

using namespace hone;

namespace {

struct Row {
  std::string mode;
  optim::ParallelSGDOptions options;
};

struct Outcome {
  double accuracy = 0, seconds = 0, loss = 0;
};

Outcome train_one(const Fashion& fashion, const CommonOptions& common, optim::ParallelSGDOptions options,
                  int64_t epochs, int64_t batch, double lr) {
  set_num_threads(static_cast<int>(options.workers));
  manual_seed(common.seed);
  nn::LeNet net;
  data::Loader batches(fashion.training,
                       {.batch = batch, .shuffle = true, .drop_last = true, .transform = fashion_transforms("flip")});
  options.sgd.lr = lr;
  optim::ParallelSGD parallel(net, options);
  optim::OneCycle schedule(parallel.optimizer(),
                           {.max_lr = lr, .steps = epochs * batches.size(), .cycle_momentum = false});
  Outcome out;
  const Stopwatch watch;
  for (int64_t epoch = 1; epoch <= epochs; ++epoch) {
    out.loss = 0;
    for (auto& [images, labels] : batches) {
      out.loss += parallel.step(images, labels, [](nn::LeNet& n, const Tensor& x, const Tensor& y) {
        return cross_entropy(n(x), y);
      }) / static_cast<double>(batches.size());
      schedule.step();
    }
    HONE_CHECK(std::isfinite(out.loss), NumericError, "the loss is not finite in epoch ", epoch, "; try a lower --lr");
  }
  parallel.synchronize();
  out.seconds = watch.seconds();
  set_num_threads(common.threads);
  out.accuracy = test_accuracy_of_saved(net, fashion.test);
  return out;
}

void run(const CommonOptions& common, int64_t epochs, int64_t batch, double lr, int64_t images) {
  const Fashion fashion = open_fashion(common, 5000, images);
  using optim::ParallelMode;
  const optim::SGDOptions momentum{.momentum = 0.9, .nesterov = true};
  const std::vector<Row> modes = {
      {"synchronous", {.sgd = momentum, .mode = ParallelMode::synchronous, .shards = 4}},
      {"local_sgd", {.sgd = momentum, .mode = ParallelMode::local_sgd, .period = 8}},
      {"hogwild", {.mode = ParallelMode::hogwild, .shards = 4}},
  };
  train::Results results{.job = "parallel_sgd", .figures = {}, .settings = {}, .rows = {}};
  std::printf("%-14s %8s %10s %10s %10s %9s\n", "mode", "workers", "accuracy", "loss", "images/s", "speed-up");
  for (const Row& mode : modes) {
    double alone = 0;
    for (int workers = 1; workers <= std::max(2, common.threads); workers *= 2) {
      optim::ParallelSGDOptions options = mode.options;
      options.workers = workers;
      // Hogwild applies the gradient of each piece, without momentum: as many steps as pieces.
      const double rate = mode.options.mode == ParallelMode::hogwild ? 3 * lr : lr;
      const Outcome o = train_one(fashion, common, options, epochs, batch, rate);
      if (workers == 1) alone = o.seconds;
      const double per_second = static_cast<double>(epochs * (fashion.training.size() / batch * batch)) / o.seconds;
      std::printf("%-14s %8d %9.2f%% %10.4f %10.0f %8.2fx\n", mode.mode.c_str(), workers, 100 * o.accuracy, o.loss,
                  per_second, alone / o.seconds);
      std::fflush(stdout);
      results.rows.emplace_back()
          .set("name", str(mode.mode, " ", workers))
          .set("workers", workers)
          .set("test_accuracy", o.accuracy)
          .set("final_loss", o.loss)
          .set("seconds", o.seconds)
          .set("samples_per_second", per_second)
          .set("speed_up", alone / o.seconds);
    }
  }
  results.settings.set("epochs", epochs).set("batch", batch).set("lr", lr).set("images", fashion.training.size());
  results.settings.set("seed", common.seed).set("threads", common.threads);
  if (!common.json.empty()) train::save_json(common.json, results);
}

}  // namespace

int main(int argc, char** argv) {
  CLI::App app("LeNet on Fashion-MNIST by SGD in parallel: accuracy and speed-up of each mode.", "parallel_sgd");
  CommonOptions common;
  common.add_to(app, "Folder of the four IDX files (default: $HONE_DATA, else Debian's dataset-fashion-mnist)");
  int64_t epochs = 4, batch = 128, images = 55000;
  double lr = 0.05;
  app.add_option("--epochs", epochs, "Passes over the training images")
      ->check(CLI::Range(1, 10000))
      ->capture_default_str();
  app.add_option("--batch", batch, "Images in a mini-batch")->check(CLI::Range(16, 60000))->capture_default_str();
  app.add_option("--lr", lr, "Highest rate of the one-cycle schedule")->check(positive())->capture_default_str();
  app.add_option("--images", images, "Training images used")->check(CLI::Range(256, 55000))->capture_default_str();
  return run_example(app, argc, argv, common, [&] { run(common, epochs, batch, lr, images); });
}
