#include "hone/optim/train/early_stopping.h"

#include <cmath>
#include <limits>

#include "hone/core/error.h"

namespace hone::train {
namespace {

constexpr const char* kVersion = "1";

using optim::Aim;

const char* name(Aim a) { return a == Aim::min ? "lower" : "higher"; }

template <class T> Tensor scalar_tensor(T v) { return tensor(std::vector<T>{v}, Shape{}); }

Tensor take(const TensorFile& file, const char* entry, DType dtype) {
  const Tensor& t = file.at(entry);
  HONE_CHECK(t.ndim() == 0 && t.dtype() == dtype, FormatError, "EarlyStopping.load_state_dict: entry '", entry, "' is ",
             t.dtype(), " ", t.shape(), ", expected ", dtype, " []");
  return t;
}

}  // namespace

EarlyStopping::EarlyStopping(EarlyStoppingOptions options)
    : options_(options),
      best_(options.mode == Aim::min ? std::numeric_limits<double>::infinity()
                                     : -std::numeric_limits<double>::infinity()) {
  HONE_CHECK(options.patience >= 1, ValueError, "EarlyStopping: patience must be at least 1, got ", options.patience);
  HONE_CHECK(options.min_delta >= 0 && std::isfinite(options.min_delta), ValueError,
             "EarlyStopping: min_delta must be finite and at least 0, got ", options.min_delta);
}

bool EarlyStopping::update(double metric) {
  const bool better =
      options_.mode == Aim::min ? metric < best_ - options_.min_delta : metric > best_ + options_.min_delta;
  if (better) {
    best_ = metric;
    best_at_ = updates_;
    waited_ = 0;
  } else {
    ++waited_;
  }
  ++updates_;
  return better;
}

TensorFile EarlyStopping::state_dict() const {
  TensorFile file;
  file.metadata["early_stopping"] = name(options_.mode);
  file.metadata["version"] = kVersion;
  file.tensors.emplace_back("best", scalar_tensor(best_));
  file.tensors.emplace_back("best_at", scalar_tensor(best_at_));
  file.tensors.emplace_back("updates", scalar_tensor(updates_));
  file.tensors.emplace_back("waited", scalar_tensor(waited_));
  return file;
}

void EarlyStopping::load_state_dict(const TensorFile& file) {
  const auto text = [&](const char* key) {
    const auto found = file.metadata.find(key);
    return found == file.metadata.end() ? std::string() : found->second;
  };
  HONE_CHECK(text("early_stopping") == name(options_.mode), FormatError,
             "EarlyStopping.load_state_dict: the state's better metric is '", text("early_stopping"), "', here it is '",
             name(options_.mode), "'");
  HONE_CHECK(text("version") == kVersion, FormatError, "EarlyStopping.load_state_dict: the state has version '",
             text("version"), "', this program reads version ", kVersion);
  const double best = take(file, "best", DType::f64).item<double>();
  const int64_t best_at = take(file, "best_at", DType::i64).item<int64_t>();
  const int64_t updates = take(file, "updates", DType::i64).item<int64_t>();
  const int64_t waited = take(file, "waited", DType::i64).item<int64_t>();
  HONE_CHECK(file.tensors.size() == 4, FormatError, "EarlyStopping.load_state_dict: the state has ",
             file.tensors.size(), " entries, expected 4");
  HONE_CHECK(!std::isnan(best) && updates >= 0 && waited >= 0 && waited <= updates && best_at >= -1 &&
                 best_at + waited + 1 == updates,
             FormatError, "EarlyStopping.load_state_dict: best ", best, " at update ", best_at, ", ", waited,
             " waited and ", updates, " updates do not belong together");
  best_ = best;
  best_at_ = best_at;
  updates_ = updates;
  waited_ = waited;
}

}  // namespace hone::train
