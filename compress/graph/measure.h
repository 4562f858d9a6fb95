#pragma once
// The latency that examples and benchmarks report.

#include <cstdint>
#include <vector>

#include "hone/compress/graph/executor.h"

namespace hone::graph {

struct MeasureOptions {
  int threads = 1;
  double seconds = 1;   ///< runs are timed until these have passed
  int64_t runs = 0;     ///< where above 0: exactly so many runs instead
  int64_t warmup = 20;  ///< runs before, untimed
};

/// Times of single runs; p50 and p95: the smallest time that half, or 95 of 100, of the runs do not exceed.
struct Latency {
  double p50_us = 0, p95_us = 0, mean_us = 0;
  int64_t batch = 1, runs = 0;
  int threads = 1;
};

/// Runs an Executor of the network as it is (optimize() it first where that is what will be shipped) on `input`, again
/// and again, and times each run. The thread count is what it was afterwards. ValueError for options out of range, and
/// what Executor throws.
Latency measure(const Network& network, const Tensor& input, MeasureOptions options = {});

/// The median time of each node that runs, over as many runs, or seconds, as measure() would time; their sum is a
/// little above the latency, for reading the clock takes time. Errors as there.
std::vector<NodeTime> profile(const Network& network, const Tensor& input, MeasureOptions options = {});

}  // namespace hone::graph
