#pragma once
// A schedule that looks at a metric.

#include "hone/optim/schedule.h"

namespace hone::optim {

enum class Aim : uint8_t { min, max };        ///< what is better: a lower metric, or a higher one
enum class Threshold : uint8_t { rel, abs };  ///< how much better: by a part of the best, or by an amount

struct ReduceOnPlateauOptions {
  Aim mode = Aim::min;
  double factor = 0.1;      ///< in [0, 1)
  int64_t patience = 10;    ///< ≥ 0: steps without improvement that are borne
  double threshold = 1e-4;  ///< ≥ 0
  Threshold threshold_mode = Threshold::rel;
  int64_t cooldown = 0;         ///< ≥ 0: steps after a reduction that are not counted
  PerGroup<double> min_lr = 0;  ///< ≥ 0; one, or one a group
  double eps = 1e-8;            ///< ≥ 0: a reduction by no more than this is left out
};

/// Multiplies every group's rate by `factor`, to min_lr at the lowest, after more than `patience` steps in a row whose
/// metric is no better than the best: better is below best·(1 − threshold) or best − threshold, for max above best·(1 +
/// threshold) or best + threshold. As PyTorch's ReduceLROnPlateau: a NaN metric is no improvement, and `rel` means what
/// it says for metrics above 0 only.
class ReduceOnPlateau : public Schedule {
 public:
  static constexpr const char* kName = "ReduceOnPlateau";
  /// ValueError for options outside their range.
  explicit ReduceOnPlateau(Optimizer& optimizer, ReduceOnPlateauOptions options = {});
  const char* name() const override { return kName; }
  /// Once an epoch, with what it measured.
  void step(double metric);
  double best() const { return best_; }  ///< infinite before the first step

 protected:
  detail::Numbers settings() const override;
  detail::Numbers state() const override;
  void restore(int64_t t, const detail::Numbers& state) override;

 private:
  bool better(double metric) const;
  ReduceOnPlateauOptions options_;
  double best_;
  int64_t bad_steps_ = 0, cooldown_left_ = 0;
};

}  // namespace hone::optim
