// Integer products beside f32 ones on the same shapes: OpenBLAS for square matrices, Hone's packed f32 layers for the
// layers of LeNet and ResNet-8, and the two networks whole, then node by node. Prints a row each: microseconds (medians
// of calls in turns) and f32 / int8, of the medians and of the times that a tenth of the calls are below: those of a
// core of its own, where other work shares it now and then.
//   HONE_THREADS=1 int8_bench --seconds 0.3 --sizes 512,1024,2048 --target AVX2 --json FILE
// --target: kernels of that Highway target alone (by default the machine's best), OpenBLAS has its own
// OPENBLAS_CORETYPE.

#include <hone/hone.h>
#include <hwy/targets.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <functional>
#include <map>
#include <string>
#include <vector>

using namespace hone;

namespace {

double seconds_a_row = 0.3;
train::Results results{"int8_bench", {}, {}, {}};

using Clock = std::chrono::steady_clock;
double since(Clock::time_point begin) {
  return std::chrono::duration<double, std::micro>(Clock::now() - begin).count();
}
/// The element that `share` of all are below.
double quantile(std::vector<double> v, double share) {
  const auto at = v.begin() + static_cast<std::ptrdiff_t>(share * static_cast<double>(v.size()));
  std::nth_element(v.begin(), at, v.end());
  return *at;
}
double median(std::vector<double> v) { return quantile(std::move(v), 0.5); }

void row(const std::string& name, int64_t macs, const std::function<Tensor()>& real,
         const std::function<Tensor()>& eight, const std::function<Tensor()>& four) {
  // In turns, so that what else the machine does meets all alike.
  const std::function<Tensor()>* const all[] = {&real, &eight, &four};
  std::vector<double> times[3];
  for (const auto begin = Clock::now(); times[0].size() < 7 || since(begin) < seconds_a_row * 1e6;) {
    for (int k = 0; k < 3; ++k) {
      (*all[k])();  // its own arrays into the cache
      const auto start = Clock::now();
      (*all[k])();
      times[k].push_back(since(start));
    }
  }
  const double f = median(times[0]), e = median(times[1]), q = median(times[2]);
  const double fast = quantile(times[0], 0.1) / quantile(times[1], 0.1);
  std::printf("%-28s %10.1f us f32 %10.1f us int8 %10.1f us int4   f32/int8 %5.2f (quick %5.2f)   %6.1f GMAC/s int8\n",
              name.c_str(), f, e, q, f / e, fast, static_cast<double>(macs) / e / 1e3);
  std::fflush(stdout);
  results.rows.emplace_back();
  results.rows.back()
      .set("name", name)
      .set("f32_us", f)
      .set("int8_us", e)
      .set("int4_us", q)
      .set("ratio", f / e)
      .set("ratio_quick", fast);
}

Tensor codes(const Shape& shape, DType dtype, int64_t low, int64_t high) {
  return cast(randint(low, high, shape), dtype);
}
Int8Output output(int64_t outs) { return Int8Output::codes(std::vector<double>(static_cast<size_t>(outs), 1e-4), 10); }

void product(int64_t n) {
  const Tensor a = randn({n, n}), b = randn({n, n}), x = codes({n, n}, u8, 0, 256);
  const Int8Matrix w = Int8Matrix::pack(codes({n, n}, i8, -127, 128)),
                   v = Int8Matrix::pack(codes({n, n}, i8, -7, 8), 4);
  const Tensor start = w.start({}, 10);
  const Int8Output to = output(n);
  row(
      "gemm " + std::to_string(n), n * n * n, [&] { return matmul(a, b); },
      [&] { return int8_linear(x, w, start, to); }, [&] { return int8_linear(x, v, start, to); });
}

void layer(const std::string& name, const Shape& input, const Shape& shape, const Conv2dOptions& options = {},
           const Shape& pool = {}) {
  const int64_t outs = shape[0];
  const Tensor real = randn(shape), x = randn(input), q = codes(input, u8, 0, 256), bias = randn({outs});
  const Int8Matrix w = Int8Matrix::pack(codes(shape, i8, -127, 128)), v = Int8Matrix::pack(codes(shape, i8, -7, 8), 4);
  const PanelMatrix panels = PanelMatrix::pack(real);
  const Tensor start = w.start({}, 10);
  const Int8Output to = output(outs);
  if (shape.ndim() == 2)
    return row(
        name, input[0] * shape.numel(), [&] { return panel_linear(x, panels, bias, Activation::relu); },
        [&] { return int8_linear(q, w, start, to); }, [&] { return int8_linear(q, v, start, to); });
  const Int8ConvOptions o = {.conv = options, .pool = pool, .x_zero_point = 10};
  const FusedConv2dOptions f = {.conv = options, .activation = Activation::relu, .pool = pool};
  const Tensor y = conv2d(x, real, bias, options);
  row(
      name, y.numel() * shape.numel() / outs, [&] { return panel_conv2d(x, panels, bias, f); },
      [&] { return int8_conv2d(q, w, start, to, o); }, [&] { return int8_conv2d(q, v, start, to, o); });
}

/// Times of nodes over many runs, by name.
using Nodes = std::map<std::string, std::vector<double>>;
double take(Nodes& nodes, const std::string& name) {
  const auto found = nodes.find(name);
  return found == nodes.end() ? 0 : median(std::move(nodes.extract(found).mapped()));
}

// Nodes of one name do the same in both networks; what only one has is a row of its own.
void nodes(graph::Executor& real, graph::Executor& eight, const Tensor& x) {
  Nodes f, e;
  std::vector<std::string> order;
  const auto see = [&](graph::Executor& executor, Nodes& to) {
    for (const graph::NodeTime& n : executor.profile({x}, 1)) {
      if (!f.count(n.name) && !e.count(n.name)) order.push_back(n.name);
      to[n.name].push_back(n.microseconds);
    }
  };
  const auto begin = Clock::now();
  do see(real, f), see(eight, e);
  while (since(begin) < seconds_a_row * 1e6);
  for (const std::string& name : order) {
    const double a = take(f, name), b = take(e, name);
    std::printf("  %-26s %10.1f us f32 %10.1f us int8", name.c_str(), a, b);
    a > 0 && b > 0 ? std::printf("   f32/int8 %5.2f\n", a / b) : std::printf("\n");
  }
}

// Whole networks in their executors: optimized f32, static integers of 8 and of 4 bits.
void network(const std::string& name, nn::Module& module, int64_t batch) {
  const Tensor x = randn({batch, 3, 32, 32});
  const graph::Network traced = graph::trace(module, x);
  const auto data = compress::quantize::calibration({randn({32, 3, 32, 32})});
  graph::Executor f32(graph::optimize(traced), {.batch = batch});
  graph::Executor eight(compress::quantize::quantize_static(traced, data), {.batch = batch});
  graph::Executor four(compress::quantize::quantize_static(traced, data, {.bits = 4}), {.batch = batch});
  row(
      name + " b" + std::to_string(batch), batch * traced.macs(), [&] { return f32.run(x); },
      [&] { return eight.run(x); }, [&] { return four.run(x); });
  nodes(f32, eight, x);
}

/// Leaves kernels of the one target; false where this machine does not have it.
bool only_target(const std::string& name) {
  for (int64_t left = hwy::SupportedTargets(); left != 0; left &= left - 1)
    if (name == hwy::TargetName(left & -left)) {
      hwy::SetSupportedTargetsForTest(left & -left);
      return true;
    }
  return false;
}

}  // namespace

int main(int argc, char** argv) {
  std::vector<int64_t> sizes = {512, 1024, 2048};
  std::string target, json;
  bool networks_only = false;
  CLI::App app("Integers of 8 and 4 bits beside f32: products, layers, networks.");
  app.add_option("--seconds", seconds_a_row, "a row")->check(CLI::PositiveNumber)->capture_default_str();
  app.add_option("--sizes", sizes, "of square products")->delimiter(',')->check(CLI::Range(1, 16384));
  app.add_option("--target", target, "of SIMD, by Highway's name: AVX2, AVX3, AVX3_DL, NEON");
  app.add_flag("--networks", networks_only, "LeNet and ResNet-8 whole alone");
  app.add_option("--json", json, "a file for the rows");
  CLI11_PARSE(app, argc, argv);
  if (!target.empty() && !only_target(target)) {
    std::fprintf(stderr, "int8_bench: this machine has no target %s\n", target.c_str());
    return 1;
  }
  const NoGrad no_grad;
  manual_seed(1);
  if (!networks_only) {
    for (const int64_t n : sizes) product(n);
    for (const int64_t b : {1, 64}) {
      const std::string at = " b" + std::to_string(b);
      layer("lenet conv1" + at, {b, 3, 32, 32}, {6, 3, 5, 5}, {}, {2});
      layer("lenet conv2" + at, {b, 6, 14, 14}, {16, 6, 5, 5}, {}, {2});
      layer("lenet fc1" + at, {b, 400}, {120, 400});
      layer("lenet fc2" + at, {b, 120}, {84, 120});
      layer("resnet8 conv 3-16" + at, {b, 3, 32, 32}, {16, 3, 3, 3}, {.padding = {1}});
      layer("resnet8 conv 16-16" + at, {b, 16, 32, 32}, {16, 16, 3, 3}, {.padding = {1}});
      layer("resnet8 conv 16-32 s2" + at, {b, 16, 32, 32}, {32, 16, 3, 3}, {.stride = {2}, .padding = {1}});
      layer("resnet8 conv 32-32" + at, {b, 32, 16, 16}, {32, 32, 3, 3}, {.padding = {1}});
      layer("resnet8 conv 64-64" + at, {b, 64, 8, 8}, {64, 64, 3, 3}, {.padding = {1}});
    }
  }
  nn::LeNet lenet;
  nn::ResNet resnet{{.depth = 8}};
  for (const int64_t b : {1, 64}) network("lenet executor", lenet, b), network("resnet8 executor", resnet, b);
  if (!json.empty()) {
    results.settings.set("seconds", seconds_a_row).set("target", target).set("threads", num_threads());
    train::save_json(json, results);
  }
  return 0;
}
