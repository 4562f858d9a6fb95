#pragma once
// The JSON object that every example and benchmark writes.

#include <concepts>
#include <cstdint>
#include <string>
#include <utility>
#include <variant>
#include <vector>

namespace hone::train {

/// Named values in the order they were set; units stand in the names ("latency_us", "peak_rss_bytes").
class Record {
 public:
  using Value = std::variant<bool, int64_t, double, std::string>;
  template <class T> Record& set(std::string name, const T& v) {
    if constexpr (std::same_as<T, bool>)
      return put(std::move(name), v);
    else if constexpr (std::integral<T>)
      return put(std::move(name), static_cast<int64_t>(v));
    else if constexpr (std::floating_point<T>)
      return put(std::move(name), static_cast<double>(v));
    else
      return put(std::move(name), std::string(v));
  }
  const std::vector<std::pair<std::string, Value>>& items() const { return items_; }

 private:
  Record& put(std::string name, Value v);  // replaces one of the same name
  std::vector<std::pair<std::string, Value>> items_;
};

struct Results {
  std::string job;  ///< the program or benchmark
  Record figures;   ///< at the top level of the object
  Record settings;
  std::vector<Record> rows;  ///< each with a "name"
};

/// {figures…, job, machine {processor, cores, simd, versions}, settings, rows}; a NaN or infinity becomes null.
std::string to_json(const Results& results);
/// Written to a temporary, then renamed. IoError.
void save_json(const std::string& path, const Results& results);

}  // namespace hone::train
