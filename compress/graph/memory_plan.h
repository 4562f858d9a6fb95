#pragma once
// Arrays that live at different times share one arena.

#include <cstdint>
#include <vector>

namespace hone::graph {

/// An array that is made in step `first` and read in step `last` for the last time.
struct Allocation {
  int32_t value = -1;  ///< the Network's value that it holds
  int64_t bytes = 0;
  int32_t first = 0, last = 0;
  int64_t offset = 0;  ///< in the arena, a multiple of 64
};

/// Gives every array an offset at which it overlaps no other that lives in a common step: the largest first, each at
/// the lowest place that is free (Pisarchyk and Lee, "Efficient memory management for deep neural net inference", 2020:
/// greedy by size). Returns the size of the arena in bytes, a multiple of 64.
int64_t plan_memory(std::vector<Allocation>& arrays);

}  // namespace hone::graph
