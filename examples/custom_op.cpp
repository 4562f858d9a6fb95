// An operation of your own: swish with a learnable slope, y = x σ(βx), forward and backward in one OpDef. It is checked
// against central differences, then trained inside a small network. docs/adding_an_op.md adds another one step by step.

#include <cmath>

#include "common.h"
#include "table.h"

using namespace hone;

namespace {

// What `apply` checks before anything is allocated: the rules, and the shape of what comes out.
void swish_shapes(ShapeContext& c) {
  check_inputs(c, 2, 2);
  check_floating(c, 0, "x");
  check_same_dtype(c, 0, 1);
  check_ndim(c, 1, 0, "beta");
  c.add(c.shape(0), c.dtype(0));
}

// The kernel sees contiguous pieces; the driver deals with strides, broadcasting (here: of beta), dtypes and threads.
template <class T> void swish_kernel(const void* const* in, void* out, int64_t n, const double*) {
  const T* x = static_cast<const T*>(in[0]);
  const T* beta = static_cast<const T*>(in[1]);
  T* y = static_cast<T*>(out);
  for (int64_t i = 0; i < n; ++i) y[i] = x[i] / (1 + std::exp(-beta[i] * x[i]));
}
void swish_run(RunContext& c) {
  const DType compute = compute_dtype(c.out[0].dtype);
  elementwise(c.in, c.out[0], compute, compute, compute == f64 ? swish_kernel<double> : swish_kernel<float>);
}

// Written with ops, so it can be differentiated again: y' = σ + βx σ(1−σ) for x, x² σ(1−σ) for β.
void swish_backward(BackwardContext& c) {
  const Tensor x = c.input(0), beta = c.input(1), g = c.grad();
  const Tensor s = sigmoid(beta * x), slope = s * (1.0 - s);
  if (c.needs(0)) c.set(0, g * (s + beta * x * slope));
  if (c.needs(1)) c.set(1, sum(g * x * x * slope));
}

const OpDef kSwish = {
    .name = "swish", .shapes = swish_shapes, .run = swish_run, .saves = {.inputs = 0b11}, .backward = swish_backward};

/// y = x / (1 + exp(−βx)). x: any shape, floating; beta: 0-d, of x's dtype.
Tensor swish(const Tensor& x, const Tensor& beta) { return apply(kSwish, {}, {x, beta}); }

struct Curve : nn::Module {
  nn::Linear fc1{{.in = 1, .out = 32}}, fc2{{.in = 32, .out = 1}};
  Parameter beta{ones({})};
  HONE_MODULE(Curve, fc1, fc2, beta)
  Tensor forward(const Tensor& x) { return fc2(swish(fc1(x), beta.value())); }
};

}  // namespace

int main(int argc, char** argv) {
  CLI::App app("Defines an op, checks its gradients and trains a network with it.", "custom_op");
  CommonOptions common;
  common.add_to(app, "CSV file of two columns, x and y (default: a parabola with noise)");
  int64_t steps = 1000;
  app.add_option("--steps", steps, "Training steps")->check(CLI::Range(1, 1000000))->capture_default_str();

  return run_example(app, argc, argv, common, [&] {
    const auto f = [](const std::vector<Tensor>& in) { return std::vector<Tensor>{swish(in[0], in[1])}; };
    const std::vector<Tensor> point = {randn({3, 4}, f64).requires_grad_(), scalar(0.8, f64).requires_grad_()};
    gradcheck(f, point);
    gradgradcheck(f, point);
    std::printf("swish: first and second derivatives agree with central differences\n");

    Table table;
    if (common.data.empty()) {
      table.x = rand({256, 1}) * 4.0 - 2.0;
      table.y = square(table.x) + randn({256, 1}) * 0.05;
    } else {
      table = read_csv(common.data);
      HONE_CHECK(table.x.size(1) == 1, FormatError, common.data, ": ", table.x.size(1) + 1,
                 " columns; two are needed, x and y");
    }
    Curve net;
    optim::Adam adam(net.parameters(), {.lr = 0.01});
    const Stopwatch watch;
    double first = 0, last = 0;
    for (int64_t step = 0; step < steps; ++step) {
      Tensor loss = mse_loss(net(table.x), table.y);
      adam.zero_grad();
      loss.backward();
      adam.step();
      last = loss.item();
      if (step == 0) first = last;
      HONE_CHECK(std::isfinite(last), NumericError, "the loss is ", last, " at step ", step);
    }
    const double beta = net.beta.raw().item();
    std::printf("mean squared error %.5f, then %.5f after %lld steps; beta %.3f\n", first, last,
                static_cast<long long>(steps), beta);

    if (common.json.empty()) return;
    train::Results results{.job = "custom_op", .figures = {}, .settings = {}, .rows = {}};
    results.figures.set("mean_squared_error", last).set("beta", beta).set("seconds", watch.seconds());
    results.settings.set("steps", steps).set("seed", common.seed).set("threads", common.threads);
    results.rows.emplace_back().set("name", "first step").set("mean_squared_error", first);
    results.rows.emplace_back().set("name", "last step").set("mean_squared_error", last);
    train::save_json(common.json, results);
  });
}
