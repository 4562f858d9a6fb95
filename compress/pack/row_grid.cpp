#include "hone/compress/pack/row_grid.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <limits>

namespace hone::compress::detail {
namespace {

constexpr int kParts = 16;  // of the least distance

double value_of(uint64_t pattern) { return std::bit_cast<float>(static_cast<uint32_t>(pattern)); }

/// The number in [low, high], above 0, with the fewest mantissa bits.
double simplest_in(double low, double high) {
  for (int bits = 0; bits <= 52; ++bits) {
    const double unit = std::ldexp(1.0, std::ilogb(high) - bits), v = std::ceil(low / unit) * unit;
    if (v <= high) return v;
  }
  return high;
}

/// The scale near `guess` at which all values are multiples; 0: none.
double scale_near(double guess, const std::vector<double>& values, int64_t most) {
  double low = 0, high = std::numeric_limits<double>::max();
  for (const double v : values) {
    const double k = std::round(v / guess);
    if (!(k >= 1 && k <= static_cast<double>(most))) return 0;
    // What rounds to it lies between the middles to its neighbours; the middles themselves do if its last bit is 0.
    const auto f = static_cast<float>(v);
    const bool even = std::bit_cast<uint32_t>(f) % 2 == 0;
    const auto below = static_cast<double>(std::nextafter(f, 0.0f));
    const auto above = static_cast<double>(std::nextafter(f, std::numeric_limits<float>::infinity()));
    const double least = (v + below) / 2 / k, largest = (v + above) / 2 / k;
    low = std::max(low, even ? least : std::nextafter(least, largest));
    high = std::min(high, even ? largest : std::nextafter(largest, least));
    if (low > high) return 0;
  }
  const double scale = simplest_in(low, high);
  for (const double v : values)
    if (value_of(multiple(scale, std::llround(v / scale))) != v) return 0;
  return scale;
}

}  // namespace

uint64_t multiple(double scale, int64_t k) {
  return std::bit_cast<uint32_t>(static_cast<float>(scale * static_cast<double>(k)));
}

double scale_of_multiples(std::vector<double>& values, int64_t most) {
  if (!std::all_of(values.begin(), values.end(), [](double v) { return std::abs(v) < 1e37; })) return 0;
  for (double& v : values) v = std::abs(v);
  std::sort(values.begin(), values.end());
  values.erase(std::unique(values.begin(), values.end()), values.end());
  if (!values.empty() && values.front() == 0) values.erase(values.begin());
  if (values.empty()) return 1;
  double distance = values.front();
  for (size_t i = 1; i < values.size(); ++i) distance = std::min(distance, values[i] - values[i - 1]);
  const double largest = values.back();
  for (int parts = 1; parts <= kParts; ++parts) {
    const double times = std::round(largest / (distance / parts));  // of the largest the multiple is surest
    if (times > static_cast<double>(most)) return 0;
    if (const double scale = scale_near(largest / times, values, most); scale != 0) return scale;
  }
  return 0;
}

namespace {

std::optional<RowGrid> grid_of_runs(const Kept& kept, int64_t cols, int64_t length, int64_t most) {
  RowGrid grid{.length = length};
  std::vector<double> values;
  std::vector<int32_t> multiples;
  int64_t low = std::numeric_limits<int64_t>::max(), high = -low;
  bool fits = true;
  each_run(kept, cols, length, [&](size_t begin, size_t end) {
    values.clear();
    for (size_t i = begin; i < end; ++i)
      if (kept.at(i)) values.push_back(value_of(kept.data[i]));
    const double scale = scale_of_multiples(values, most);
    fits = scale != 0;
    grid.scales.push_back(scale);
    for (size_t i = begin; fits && i < end; ++i) {
      if (!kept.at(i)) continue;
      const int64_t k = std::llround(value_of(kept.data[i]) / scale);
      low = std::min(low, k), high = std::max(high, k);
      fits = multiple(scale, k) == kept.data[i] && high - low < most;
      multiples.push_back(static_cast<int32_t>(k));
    }
    return fits;
  });
  if (!fits || multiples.empty()) return std::nullopt;
  grid.low = low, grid.count = static_cast<uint32_t>(high - low + 1);
  for (const int32_t k : multiples) grid.codes.push_back(static_cast<uint16_t>(k - low));
  return grid;
}

}  // namespace

std::optional<RowGrid> row_grid_of(const Kept& kept, int64_t cols, int64_t most) {
  if (cols < kShortestRun) return std::nullopt;
  if (auto grid = grid_of_runs(kept, cols, cols, most)) return grid;
  for (int64_t length = 1024; length >= 2 * kShortestRun; length /= 2)
    if (length < cols)
      if (auto grid = grid_of_runs(kept, cols, length, most)) return grid;
  return std::nullopt;
}

}  // namespace hone::compress::detail
