// Single ops: time, bytes or multiply-adds a second. Threads: HONE_THREADS. Options are Google Benchmark's:
//   ops_bench --benchmark_filter=conv --benchmark_repetitions=5

#include <benchmark/benchmark.h>
#include <hone/hone.h>

using namespace hone;

namespace {

// Runs f() under no_grad; `bytes` it must move and `macs` it must multiply at each call.
template <class F> void run(benchmark::State& state, int64_t bytes, int64_t macs, const F& f) {
  const NoGrad no_grad;
  for (auto _ : state) {
    Tensor y = f();
    benchmark::DoNotOptimize(y.raw_data());
  }
  if (bytes > 0) state.SetBytesProcessed(state.iterations() * bytes);
  if (macs > 0)
    state.counters["flop/s"] =
        benchmark::Counter(2.0 * static_cast<double>(macs), benchmark::Counter::kIsIterationInvariantRate);
}

void add(benchmark::State& state) {
  const int64_t n = state.range(0);
  const Tensor a = randn({n}), b = randn({n});
  run(state, 12 * n, 0, [&] { return a + b; });
}
BENCHMARK(add)->RangeMultiplier(64)->Range(1 << 10, 1 << 22);

void exponential(benchmark::State& state) {
  const int64_t n = state.range(0);
  const Tensor a = randn({n});
  run(state, 8 * n, 0, [&] { return exp(a); });
}
BENCHMARK(exponential)->RangeMultiplier(64)->Range(1 << 10, 1 << 22);

void sum_all(benchmark::State& state) {
  const int64_t n = state.range(0);
  const Tensor a = randn({n});
  run(state, 4 * n, 0, [&] { return sum(a); });
}
BENCHMARK(sum_all)->Arg(1 << 22);

void softmax_rows(benchmark::State& state) {
  const Tensor a = randn({1024, 1000});
  run(state, 8 * a.numel(), 0, [&] { return softmax(a, 1); });
}
BENCHMARK(softmax_rows);

void layer_norm_rows(benchmark::State& state) {
  const Tensor a = randn({1024, 1000}), weight = ones({1000}), bias = zeros({1000});
  run(state, 8 * a.numel(), 0, [&] { return layer_norm(a, {1000}, weight, bias); });
}
BENCHMARK(layer_norm_rows);

void matmul_square(benchmark::State& state) {
  const int64_t n = state.range(0);
  const Tensor a = randn({n, n}), b = randn({n, n});
  run(state, 0, n * n * n, [&] { return matmul(a, b); });
}
BENCHMARK(matmul_square)->Arg(64)->Arg(512);

// Channels in and out, side of the image, side of the kernel; batch 64.
void convolution(benchmark::State& state) {
  const int64_t c = state.range(0), o = state.range(1), side = state.range(2), k = state.range(3);
  const Tensor x = randn({64, c, side, side}), weight = randn({o, c, k, k}), bias = zeros({o});
  const int64_t out = side - k + 1;
  run(state, 0, 64 * o * c * k * k * out * out, [&] { return conv2d(x, weight, bias); });
}
BENCHMARK(convolution)->Args({3, 6, 32, 5})->Args({6, 16, 14, 5})->Args({64, 64, 16, 3})->Args({256, 256, 8, 3});

void max_pooling(benchmark::State& state) {
  const Tensor x = randn({64, 6, 28, 28});
  run(state, 5 * x.numel(), 0, [&] { return max_pool2d(x, 2); });
}
BENCHMARK(max_pooling);

}  // namespace

BENCHMARK_MAIN();
