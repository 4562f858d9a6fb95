#include "hone/optim/schedule_plateau.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "hone/core/error.h"

namespace hone::optim {

ReduceOnPlateau::ReduceOnPlateau(Optimizer& optimizer, ReduceOnPlateauOptions o)
    : Schedule(optimizer),
      options_(std::move(o)),
      best_((options_.mode == Aim::min ? 1 : -1) * std::numeric_limits<double>::infinity()) {
  HONE_CHECK(options_.factor >= 0 && options_.factor < 1, ValueError, kName, ": factor must be in [0, 1), got ",
             options_.factor);
  HONE_CHECK(options_.patience >= 0, ValueError, kName, ": patience must be at least 0, got ", options_.patience);
  HONE_CHECK(options_.cooldown >= 0, ValueError, kName, ": cooldown must be at least 0, got ", options_.cooldown);
  detail::check_at_least_zero(kName, "threshold", options_.threshold);
  detail::check_at_least_zero(kName, "eps", options_.eps);
  detail::check_rates(kName, "min_lr", options_.min_lr, optimizer.groups());
}

bool ReduceOnPlateau::better(double metric) const {
  const bool relative = options_.threshold_mode == Threshold::rel;
  const double by = options_.threshold;
  if (options_.mode == Aim::min) return metric < (relative ? best_ * (1 - by) : best_ - by);
  return metric > (relative ? best_ * (1 + by) : best_ + by);
}

void ReduceOnPlateau::step(double metric) {
  ++t_;
  if (better(metric)) {
    best_ = metric;
    bad_steps_ = 0;
  } else {
    ++bad_steps_;
  }
  if (cooldown_left_ > 0) {
    --cooldown_left_;
    bad_steps_ = 0;
  }
  if (bad_steps_ <= options_.patience) return;
  for (int g = 0; g < optimizer_.groups(); ++g) {
    const double before = optimizer_.lr(g), after = std::max(before * options_.factor, options_.min_lr[g]);
    if (before - after > options_.eps) optimizer_.set_lr(after, g);
  }
  cooldown_left_ = options_.cooldown;
  bad_steps_ = 0;
}

detail::Numbers ReduceOnPlateau::settings() const {
  detail::Numbers n;
  n.add("mode", static_cast<int64_t>(options_.mode));
  n.add("factor", options_.factor);
  n.add("patience", options_.patience);
  n.add("threshold", options_.threshold);
  n.add("threshold_mode", static_cast<int64_t>(options_.threshold_mode));
  n.add("cooldown", options_.cooldown);
  n.add("min_lr", options_.min_lr);
  n.add("eps", options_.eps);
  return n;
}

// The rates are part of it: they follow from no formula.
detail::Numbers ReduceOnPlateau::state() const {
  detail::Numbers n;
  n.add("best", best_);
  n.add("bad_steps", bad_steps_);
  n.add("cooldown_left", cooldown_left_);
  for (int g = 0; g < optimizer_.groups(); ++g) n.items.emplace_back(str("group.", g, ".lr"), optimizer_.lr(g));
  return n;
}

void ReduceOnPlateau::restore(int64_t t, const detail::Numbers& state) {
  const auto& items = state.items;
  const double best = std::get<double>(items[0].second);
  const int64_t bad = std::get<int64_t>(items[1].second), cooldown = std::get<int64_t>(items[2].second);
  HONE_CHECK(!std::isnan(best), FormatError, kName, ".load_state_dict: best is NaN");
  HONE_CHECK(bad >= 0 && bad <= options_.patience, FormatError, kName, ".load_state_dict: bad_steps must be in [0, ",
             options_.patience, "], got ", bad);
  HONE_CHECK(cooldown >= 0 && cooldown <= options_.cooldown, FormatError, kName,
             ".load_state_dict: cooldown_left must be in [0, ", options_.cooldown, "], got ", cooldown);
  for (size_t i = 3; i < items.size(); ++i) {
    const double lr = std::get<double>(items[i].second);
    HONE_CHECK(std::isfinite(lr) && lr >= 0, FormatError, kName, ".load_state_dict: ", items[i].first,
               " must be finite and at least 0, got ", lr);
  }
  for (int g = 0; g < optimizer_.groups(); ++g)
    optimizer_.set_lr(std::get<double>(items[3 + static_cast<size_t>(g)].second), g);
  t_ = t;
  best_ = best;
  bad_steps_ = bad;
  cooldown_left_ = cooldown;
}

}  // namespace hone::optim
