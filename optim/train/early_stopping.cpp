#include "hone/optim/train/early_stopping.h"

#include <cmath>
#include <limits>

#include "hone/core/error.h"
#include "hone/optim/state_reader.h"

namespace hone::train {
namespace {

constexpr const char* kVersion = "1";

using optim::Aim;
using optim::detail::scalar_tensor;

const char* name(Aim a) { return a == Aim::min ? "lower" : "higher"; }

}  // namespace

EarlyStopping::EarlyStopping(EarlyStoppingOptions options)
    : options_(options),
      best_(options.mode == Aim::min ? std::numeric_limits<double>::infinity()
                                     : -std::numeric_limits<double>::infinity()) {
  HONE_CHECK(options.patience >= 1, ValueError, "EarlyStopping: patience must be at least 1, got ", options.patience);
  optim::detail::check_at_least_zero("EarlyStopping", "min_delta", options.min_delta);
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
  optim::detail::StateReader reader(file, "EarlyStopping.load_state_dict");
  HONE_CHECK(reader.text("early_stopping") == name(options_.mode), FormatError,
             "EarlyStopping.load_state_dict: the state's better metric is '", reader.text("early_stopping"),
             "', here it is '", name(options_.mode), "'");
  reader.expect_version(kVersion);
  const double best = reader.number<double>("best");
  const int64_t best_at = reader.number<int64_t>("best_at");
  const int64_t updates = reader.count("updates"), waited = reader.count("waited");
  reader.finish();
  HONE_CHECK(!std::isnan(best) && waited <= updates && best_at >= -1 && best_at + waited + 1 == updates, FormatError,
             "EarlyStopping.load_state_dict: best ", best, " at update ", best_at, ", ", waited, " waited and ",
             updates, " updates do not belong together");
  best_ = best;
  best_at_ = best_at;
  updates_ = updates;
  waited_ = waited;
}

}  // namespace hone::train
