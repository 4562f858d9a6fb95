#include "hone/optim/state_reader.h"

#include "hone/core/error.h"

namespace hone::optim::detail {

StateReader::StateReader(const TensorFile& file, std::string what) : what_(std::move(what)), metadata_(file.metadata) {
  for (const auto& [name, t] : file.tensors)
    HONE_CHECK(entries_.emplace(name, t).second, FormatError, what_, ": entry '", name, "' appears twice");
}

std::string StateReader::text(const char* key) const {
  const auto found = metadata_.find(key);
  return found == metadata_.end() ? std::string() : found->second;
}

void StateReader::expect_kind(const char* key, const std::string& kind) const {
  HONE_CHECK(text(key) == kind, FormatError, what_, ": the state is of '", text(key), "'");
}

void StateReader::expect_version(const char* version) const {
  HONE_CHECK(text("version") == version, FormatError, what_, ": the state has version '", text("version"),
             "', this program reads version ", version);
}

Tensor StateReader::take(const std::string& name, const Shape& shape, DType dtype) {
  const auto found = entries_.find(name);
  HONE_CHECK(found != entries_.end(), FormatError, what_, ": the state has no entry '", name, "'");
  const Tensor t = found->second;
  HONE_CHECK(t.shape() == shape && t.dtype() == dtype, FormatError, what_, ": entry '", name, "' is ", t.dtype(), " ",
             t.shape(), ", expected ", dtype, " ", shape);
  entries_.erase(found);
  return t;
}

int64_t StateReader::count(const std::string& name) {
  const int64_t n = number<int64_t>(name);
  HONE_CHECK(n >= 0, FormatError, what_, ": ", name, " must be at least 0, got ", n);
  return n;
}

void StateReader::finish() const {
  HONE_CHECK(entries_.empty(), FormatError, what_, ": the state has an entry that is not known here: '",
             entries_.begin()->first, "'", entries_.size() > 1 ? str(" and ", entries_.size() - 1, " more") : "");
}

}  // namespace hone::optim::detail
