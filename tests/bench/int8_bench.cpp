// Integer products beside f32 ones on the same shapes: OpenBLAS for square matrices, Hone's packed f32 layers for the
// layers of LeNet and ResNet-8, and the two networks whole, then node by node. Prints a row each: microseconds (medians
// of calls in turns) and f32 / int8.
//   HONE_THREADS=1 int8_bench [seconds a row]

#include <hone/hone.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <map>
#include <string>
#include <vector>

using namespace hone;

namespace {

double seconds_a_row = 0.3;

using Clock = std::chrono::steady_clock;
double since(Clock::time_point begin) {
  return std::chrono::duration<double, std::micro>(Clock::now() - begin).count();
}
double median(std::vector<double> v) {
  std::nth_element(v.begin(), v.begin() + static_cast<std::ptrdiff_t>(v.size() / 2), v.end());
  return v[v.size() / 2];
}

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
  std::printf("%-28s %10.1f us f32 %10.1f us int8 %10.1f us int4   f32/int8 %5.2f   %6.1f GMAC/s int8\n", name.c_str(),
              f, e, q, f / e, static_cast<double>(macs) / e / 1e3);
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

}  // namespace

int main(int argc, char** argv) {
  if (argc > 1) seconds_a_row = std::atof(argv[1]);
  const NoGrad no_grad;
  manual_seed(1);
  for (const int64_t n : {512, 1024}) product(n);
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
  nn::LeNet lenet;
  nn::ResNet resnet{{.depth = 8}};
  for (const int64_t b : {1, 64}) network("lenet executor", lenet, b), network("resnet8 executor", resnet, b);
  return 0;
}
