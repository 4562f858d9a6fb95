#include "hone/optim/train/results.h"

#include <cmath>
#include <nlohmann/json.hpp>

#include "hone/core/error.h"
#include "hone/core/serialize.h"
#include "hone/optim/train/machine.h"

namespace hone::train {
namespace {

using Json = nlohmann::ordered_json;

void write(const Record& r, Json& out) {
  for (const auto& [name, value] : r.items())
    std::visit(
        [&, &name = name](const auto& v) {
          if constexpr (std::same_as<std::decay_t<decltype(v)>, double>)
            out[name] = std::isfinite(v) ? Json(v) : Json(nullptr);
          else
            out[name] = v;
        },
        value);
}

}  // namespace

Record& Record::set(const std::string& name, bool v) { return put(name, v); }
Record& Record::set(const std::string& name, double v) { return put(name, v); }
Record& Record::set(const std::string& name, const std::string& v) { return put(name, v); }
Record& Record::set(const std::string& name, const char* v) { return put(name, std::string(v)); }
Record& Record::set_whole(const std::string& name, int64_t v) { return put(name, v); }

Record& Record::put(const std::string& name, Value v) {
  for (auto& [key, value] : items_) {
    if (key == name) {
      value = std::move(v);
      return *this;
    }
  }
  items_.emplace_back(name, std::move(v));
  return *this;
}

std::string to_json(const Results& results) {
  Json json = Json::object();
  json["job"] = results.job;
  write(results.figures, json);
  const Machine m = machine();
  Json versions = Json::object();
  for (const auto& [name, version] : m.versions) versions[name] = version;
  json["machine"] = {{"processor", m.processor}, {"cores", m.cores}, {"simd", m.simd}, {"versions", versions}};
  json["settings"] = Json::object();
  write(results.settings, json["settings"]);
  json["rows"] = Json::array();
  for (const Record& row : results.rows) {
    HONE_CHECK(!row.items().empty() && row.items().front().first == "name", ValueError, "results of ", results.job,
               ": a row's first entry must be its name");
    write(row, json["rows"].emplace_back(Json::object()));
  }
  return json.dump(2, ' ', false, Json::error_handler_t::replace) + "\n";
}

void save_json(const std::string& path, const Results& results) {
  const std::string text = to_json(results);
  write_file_atomically(path, text.data(), text.size());
}

}  // namespace hone::train
