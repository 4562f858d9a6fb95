#include "hone/compress/graph/measure.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <numeric>

#include "hone/compress/graph/pass_support.h"

namespace hone::graph {
namespace {

using detail::ThreadScope;

void check(const MeasureOptions& o) {
  HONE_CHECK(o.runs >= 0 && o.warmup >= 0, ValueError, "measure: runs ", o.runs, " and warmup ", o.warmup,
             " must not be negative");
  HONE_CHECK(o.runs > 0 || (o.seconds > 0 && std::isfinite(o.seconds)), ValueError, "measure: seconds ", o.seconds,
             " must be above 0");
}

Executor executor_of(const Network& network, const Tensor& input) {
  HONE_CHECK(input.defined(), ValueError, "measure: the input is an undefined tensor");
  // The network outlives the call: it is borrowed, not owned.
  return Executor(std::shared_ptr<const Network>(std::shared_ptr<const Network>(), &network),
                  {.batch = std::max<int64_t>(network.batch_of({input.shape()}), 1)});
}

}  // namespace

Latency measure(const Network& network, const Tensor& input, MeasureOptions o) {
  using Clock = std::chrono::steady_clock;
  check(o);
  const ThreadScope threads(o.threads);
  Executor executor = executor_of(network, input);
  const std::vector<Tensor> inputs{input};
  for (int64_t i = 0; i < o.warmup; ++i) executor.run(inputs);
  std::vector<double> times;
  const auto begin = Clock::now();
  const auto more = [&] {
    const auto done = static_cast<int64_t>(times.size());
    return o.runs > 0 ? done < o.runs
                      : done == 0 || std::chrono::duration<double>(Clock::now() - begin).count() < o.seconds;
  };
  while (more()) {
    const auto start = Clock::now();
    executor.run(inputs);
    times.push_back(std::chrono::duration<double, std::micro>(Clock::now() - start).count());
  }
  const auto count = static_cast<double>(times.size());
  Latency latency{.mean_us = std::accumulate(times.begin(), times.end(), 0.0) / count,
                  .batch = executor.batch(),
                  .runs = static_cast<int64_t>(times.size()),
                  .threads = o.threads};
  std::sort(times.begin(), times.end());
  const auto rank = [&](double share) { return times[static_cast<size_t>(std::ceil(share * count)) - 1]; };
  latency.p50_us = rank(0.5);
  latency.p95_us = rank(0.95);
  return latency;
}

std::vector<NodeTime> profile(const Network& network, const Tensor& input, MeasureOptions o) {
  check(o);
  const ThreadScope threads(o.threads);
  Executor executor = executor_of(network, input);
  const std::vector<Tensor> inputs{input};
  for (int64_t i = 0; i < o.warmup; ++i) executor.run(inputs);
  return executor.profile(inputs, o.runs, o.seconds);
}

}  // namespace hone::graph
