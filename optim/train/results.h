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
  Record& set(const std::string& name, bool v);
  Record& set(const std::string& name, double v);
  Record& set(const std::string& name, const std::string& v);
  Record& set(const std::string& name, const char* v);
  template <std::integral T> Record& set(const std::string& name, T v) {
    return set_whole(name, static_cast<int64_t>(v));
  }
  const std::vector<std::pair<std::string, Value>>& items() const { return items_; }

 private:
  Record& set_whole(const std::string& name, int64_t v);
  Record& put(const std::string& name, Value v);  // replaces one of the same name
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
