#include "hone/compress/graph/memory_plan.h"

#include <algorithm>
#include <numeric>

namespace hone::graph {

namespace {
constexpr int64_t kAlignment = 64;
int64_t rounded(int64_t bytes) { return (bytes + kAlignment - 1) / kAlignment * kAlignment; }
}  // namespace

int64_t plan_memory(std::vector<Allocation>& arrays) {
  std::vector<size_t> order(arrays.size());
  std::iota(order.begin(), order.end(), size_t{0});
  std::stable_sort(order.begin(), order.end(), [&](size_t a, size_t b) { return arrays[a].bytes > arrays[b].bytes; });
  std::vector<size_t> placed;  // by offset
  int64_t total = 0;
  for (const size_t i : order) {
    Allocation& a = arrays[i];
    a.offset = 0;
    for (const size_t k : placed) {
      const Allocation& b = arrays[k];
      if (b.last < a.first || a.last < b.first) continue;
      if (a.offset + rounded(a.bytes) <= b.offset) break;  // the gap before it is wide enough
      a.offset = std::max(a.offset, b.offset + rounded(b.bytes));
    }
    total = std::max(total, a.offset + rounded(a.bytes));
    const auto after =
        std::find_if(placed.begin(), placed.end(), [&](size_t k) { return arrays[k].offset > a.offset; });
    placed.insert(after, i);
  }
  return total;
}

}  // namespace hone::graph
