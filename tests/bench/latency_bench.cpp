// Latency of one network on one batch size: the median of single runs of its Executor, of that of its integers of 8
// bits (static quantization), and of the module itself under no_grad. scripts/bench --latency runs it beside the same
// network in PyTorch (scripts/bench_latency_torch.py). Prints one line of JSON.
//   latency_bench --net lenet --batch 1 --threads 1 --seconds 1 --profile 0

#include <hone/hone.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>
#include <vector>

using namespace hone;

namespace {

const char* option(int argc, char** argv, const char* name, const char* otherwise) {
  for (int i = 1; i + 1 < argc; i += 2)
    if (std::strcmp(argv[i], name) == 0) return argv[i + 1];
  return otherwise;
}

double module_p50(nn::Module& module, const Tensor& x, double seconds) {
  using Clock = std::chrono::steady_clock;
  NoGrad no_grad;
  for (int i = 0; i < 20; ++i) module(x);
  std::vector<double> times;
  for (const auto begin = Clock::now(); std::chrono::duration<double>(Clock::now() - begin).count() < seconds;) {
    const auto start = Clock::now();
    module(x);
    times.push_back(std::chrono::duration<double, std::micro>(Clock::now() - start).count());
  }
  std::nth_element(times.begin(), times.begin() + static_cast<std::ptrdiff_t>(times.size() / 2), times.end());
  return times[times.size() / 2];
}

}  // namespace

int main(int argc, char** argv) {
  const std::string net = option(argc, argv, "--net", "lenet");
  const int64_t batch = std::atoll(option(argc, argv, "--batch", "1"));
  const int threads = std::atoi(option(argc, argv, "--threads", "1"));
  const double seconds = std::atof(option(argc, argv, "--seconds", "1"));
  manual_seed(0);
  set_num_threads(threads);
  nn::AnyModule module = net == "lenet"     ? nn::AnyModule(std::make_unique<nn::LeNet>())
                         : net == "resnet8" ? nn::AnyModule(std::make_unique<nn::ResNet>(nn::ResNetOptions{.depth = 8}))
                                            : nn::AnyModule(std::make_unique<nn::LeNet300_100>());
  module->eval();
  const Tensor x = net == "mlp" ? randn({batch, 784}) : randn({batch, 3, 32, 32});
  const graph::Network traced = graph::trace(*module, x), fast = graph::optimize(traced);
  const graph::MeasureOptions options{.threads = threads, .seconds = seconds};
  if (std::atoi(option(argc, argv, "--profile", "0")) != 0) {
    for (const auto& n : graph::profile(fast, x, options))
      std::printf("%-28s %-16s %8.2f us\n", n.name.c_str(), n.op.c_str(), n.microseconds);
    graph::Executor executor(fast, {.batch = batch});
    std::fputs(executor.plan().c_str(), stdout);
  }
  const graph::Network integers = compress::quantize::quantize_static(traced, compress::quantize::calibration({x}));
  const graph::Latency plain = graph::measure(traced, x, options), best = graph::measure(fast, x, options);
  const graph::Latency int8 = graph::measure(integers, x, options);
  const train::Machine machine = train::machine();
  std::string version;
  for (const auto& [key, value] : machine.versions)
    if (key == "hone") version = value;
  std::printf(
      "{\"p50_us\": %.2f, \"p95_us\": %.2f, \"mean_us\": %.2f, \"int8_p50_us\": %.2f, \"traced_p50_us\": %.2f, "
      "\"module_p50_us\": %.2f, "
      "\"version\": \"hone %s\", \"simd\": \"%s\"}\n",
      best.p50_us, best.p95_us, best.mean_us, int8.p50_us, plain.p50_us, module_p50(*module, x, seconds),
      version.c_str(), machine.simd.c_str());
  return 0;
}
