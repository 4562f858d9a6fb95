// The smallest training loop: a line through noisy points, y = 3x₀ − 2x₁ + 0.5, found by gradient descent.

#include "common.h"
#include "table.h"

using namespace hone;

static Table noisy_points(int64_t count, double noise) {
  Tensor x = randn({count, 2});
  Tensor y = matmul(x, tensor<float>({3, -2}, {2, 1})) + 0.5 + randn({count, 1}) * noise;
  return {x, y};
}

int main(int argc, char** argv) {
  CLI::App app("Fits a linear model by gradient descent and prints its weights.", "linear_regression");
  CommonOptions common;
  common.add_to(app, "CSV file of numbers, the target in the last column (default: 1,000 made points)");
  int64_t steps = 200;
  double lr = 0.1, noise = 0.1;
  app.add_option("--steps", steps, "Steps of gradient descent")->check(CLI::Range(1, 1000000))->capture_default_str();
  app.add_option("--lr", lr, "Learning rate")->check(positive())->capture_default_str();
  app.add_option("--noise", noise, "Standard deviation of the made points' noise")
      ->check(CLI::NonNegativeNumber)
      ->capture_default_str();

  return run_example(app, argc, argv, common, [&] {
    const Table table = common.data.empty() ? noisy_points(1000, noise) : read_csv(common.data);
    nn::Linear model({.in = table.x.size(1), .out = 1});
    optim::SGD sgd(model.parameters(), {.lr = lr});

    const Stopwatch watch;
    double last = 0;
    for (int64_t step = 0; step < steps; ++step) {
      Tensor loss = mse_loss(model(table.x), table.y);
      sgd.zero_grad();
      loss.backward();
      sgd.step();
      last = loss.item();
      HONE_CHECK(std::isfinite(last), NumericError, "the loss is ", std::isnan(last) ? "NaN" : "infinite", " at step ",
                 step, "; try a lower --lr");
    }
    const double seconds = watch.seconds();

    const std::vector<double> weights = model.weight.raw().to_vector<double>();
    std::printf("mean squared error %.5f after %lld steps\ny =", last, static_cast<long long>(steps));
    for (size_t i = 0; i < weights.size(); ++i) std::printf(" %+.4f x%zu", weights[i], i);
    std::printf(" %+.4f\n", model.bias.raw().item());

    if (common.json.empty()) return;
    train::Results results{.job = "linear_regression", .figures = {}, .settings = {}, .rows = {}};
    results.figures.set("mean_squared_error", last).set("seconds", seconds).set("bias", model.bias.raw().item());
    for (size_t i = 0; i < weights.size(); ++i)
      results.rows.emplace_back().set("name", str("weight ", i)).set("value", weights[i]);
    results.settings.set("steps", steps).set("lr", lr).set("seed", common.seed).set("threads", common.threads);
    train::save_json(common.json, results);
  });
}
