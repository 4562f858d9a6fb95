#pragma once
// A table of numbers for the small examples: features and a target, read from a CSV file, or made.

#include <hone/hone.h>

#include <fstream>
#include <sstream>
#include <string>
#include <vector>

struct Table {
  hone::Tensor x, y;  // [N, features] and [N, 1], f32
};

/// A CSV file of numbers: features, the target last. The first line may be names, none of them a number. FormatError
/// names a bad line.
inline Table read_csv(const std::string& path) {
  std::ifstream file(path);
  HONE_CHECK(file, hone::IoError, path, ": cannot be read");
  std::vector<float> x, y;
  int64_t columns = 0, number = 0;
  for (std::string line; std::getline(file, line);) {
    ++number;
    if (line.find_first_not_of(" \t\r") == std::string::npos) continue;
    std::vector<float> values;
    std::istringstream cells(line);
    size_t numbers = 0;
    for (std::string cell; std::getline(cells, cell, ',');) {
      std::istringstream text(cell);
      float v = 0;
      numbers += text >> v && (text >> std::ws).eof();
      values.push_back(v);
    }
    if (number == 1 && numbers == 0) continue;  // names
    if (columns == 0) columns = static_cast<int64_t>(values.size());
    HONE_CHECK(numbers == values.size() && columns >= 2 && static_cast<int64_t>(values.size()) == columns,
               hone::FormatError, path, ": line ", number, " does not hold ",
               columns < 2 ? "two or more" : std::to_string(columns), " numbers");
    y.push_back(values.back());
    x.insert(x.end(), values.begin(), values.end() - 1);
  }
  HONE_CHECK(!y.empty(), hone::FormatError, path, ": holds no numbers");
  const int64_t n = static_cast<int64_t>(y.size());
  return {hone::tensor(x, {n, columns - 1}), hone::tensor(y, {n, 1})};
}
