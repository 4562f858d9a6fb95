#pragma once

#include <cstdint>

#include "hone/core/serialize.h"
#include "hone/optim/schedule_plateau.h"

namespace hone::train {

struct EarlyStoppingOptions {
  int64_t patience = 10;  ///< ≥ 1: updates in a row without a new best after which stop() is true
  double min_delta = 0;   ///< ≥ 0: what a new best must be better by, at least; 0: any improvement
  optim::Aim mode = optim::Aim::min;
};

/// Stops a run whose metric on held-out data no longer improves (Prechelt, "Early stopping – but when?", 1998).
///
///   train::EarlyStopping early({.patience = 5});
///   while (!early.stop()) {
///     …;                                                   // an epoch
///     if (early.update(loss_on_held_out_data)) best = net.state_dict();
///   }
///   net.load_state_dict(best);
class EarlyStopping {
 public:
  /// ValueError for options outside their range.
  explicit EarlyStopping(EarlyStoppingOptions options = {});
  /// Whether `metric` is a new best: below best() − min_delta, or for Aim::max above best() + min_delta. NaN
  /// never is one.
  bool update(double metric);
  bool stop() const { return waited_ >= options_.patience; }
  double best() const { return best_; }         ///< infinite, on the bad side, before there is one
  int64_t best_at() const { return best_at_; }  ///< the update, counted from 0, that gave best(); −1: none yet
  int64_t updates() const { return updates_; }
  int64_t waited() const { return waited_; }  ///< updates since the best one

  /// The counters and the best as 0-d tensors.
  TensorFile state_dict() const;
  /// FormatError naming what is missing or wrong, or that the state looks for the other kind of metric; on error
  /// nothing has changed. Patience and min_delta stay as they were given.
  void load_state_dict(const TensorFile& file);

 private:
  EarlyStoppingOptions options_;
  double best_;
  int64_t best_at_ = -1, updates_ = 0, waited_ = 0;
};

}  // namespace hone::train
