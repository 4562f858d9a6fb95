#include "hone/core/text_table.h"

#include <algorithm>
#include <cstdint>
#include <numeric>

namespace hone::detail {

std::string text_table(const std::vector<std::vector<std::string>>& lines, size_t left) {
  std::vector<size_t> width;
  for (const auto& line : lines) {
    width.resize(std::max(width.size(), line.size()));
    for (size_t i = 0; i < line.size(); ++i) width[i] = std::max(width[i], line[i].size());
  }
  std::string text;
  for (const auto& line : lines) {
    for (size_t i = 0; i < line.size(); ++i) {
      const std::string gap(width[i] - line[i].size(), ' ');
      text += i < left ? line[i] + gap : gap + line[i];
      text += i + 1 < line.size() ? "  " : "\n";
    }
  }
  return text;
}

std::string grouped(int64_t n) {
  std::string s = std::to_string(n);
  for (int64_t at = static_cast<int64_t>(s.size()) - 3; at > (n < 0 ? 1 : 0); at -= 3)
    s.insert(static_cast<size_t>(at), 1, ',');
  return s;
}

namespace {
/// Levenshtein's: the fewest letters inserted, removed or changed.
size_t distance(const std::string& a, const std::string& b) {
  std::vector<size_t> row(b.size() + 1);
  std::iota(row.begin(), row.end(), size_t{0});
  for (size_t i = 1; i <= a.size(); ++i) {
    size_t diagonal = row[0];
    row[0] = i;
    for (size_t j = 1; j <= b.size(); ++j) {
      const size_t change = diagonal + (a[i - 1] == b[j - 1] ? 0 : 1);
      diagonal = row[j];
      row[j] = std::min({row[j] + 1, row[j - 1] + 1, change});
    }
  }
  return row.back();
}
}  // namespace

std::string nearest_names(const std::string& name, const std::vector<std::string>& names) {
  std::vector<std::pair<size_t, std::string>> order;
  for (const std::string& n : names) order.emplace_back(distance(name, n), n);
  std::stable_sort(order.begin(), order.end(), [](const auto& a, const auto& b) { return a.first < b.first; });
  if (order.size() > 3) order.resize(3);
  std::string text;
  for (const auto& [d, n] : order) text += (text.empty() ? "; the nearest are '" : ", '") + n + "'";
  return text;
}

}  // namespace hone::detail
