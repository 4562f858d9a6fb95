#pragma once
// Times of several networks that are to be compared.

#include <algorithm>
#include <vector>

#include "common.h"

/// The median time of one run of each network on `input`, by one thread, in µs. They take turns, so that a disturbance
/// of the machine meets all of them: the median of `rounds` medians.
inline std::vector<double> latencies_us(const std::vector<const hone::graph::Network*>& networks,
                                        const hone::Tensor& input, int rounds = 5, double seconds = 0.1) {
  std::vector<std::vector<double>> times(networks.size());
  for (int r = 0; r < rounds; ++r)
    for (size_t i = 0; i < networks.size(); ++i)
      times[i].push_back(hone::graph::measure(*networks[i], input, {.threads = 1, .seconds = seconds}).p50_us);
  std::vector<double> medians;
  for (std::vector<double>& t : times) {
    std::sort(t.begin(), t.end());
    medians.push_back(t[t.size() / 2]);
  }
  return medians;
}
