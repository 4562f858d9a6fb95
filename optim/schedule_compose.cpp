#include "hone/optim/schedule_compose.h"

#include <algorithm>
#include <cmath>

#include "hone/core/error.h"

namespace hone::optim {
namespace {

void check_functions(const char* name, const PerGroup<StepFunction>& f, int groups) {
  detail::check_count(name, "factor", f.values().size(), groups);
  for (const StepFunction& one : f.values()) HONE_CHECK(one, ValueError, name, ": factor is an empty function");
}

void check_rules(const char* name, const std::vector<RateRule>& rules, int groups) {
  HONE_CHECK(!rules.empty(), ValueError, name, ": rules must not be empty");
  for (const RateRule& r : rules) r.check(groups);
}

void add_rules(detail::Numbers& n, const std::vector<RateRule>& rules) {
  n.add("rules", static_cast<int64_t>(rules.size()));
  const std::string before = n.prefix;
  for (size_t i = 0; i < rules.size(); ++i) {
    n.prefix = str(before, "rules.", i, ".", rules[i].name(), ".");
    // A rule whose settings are functions alone would leave no trace of its name.
    n.add("rule", static_cast<int64_t>(i));
    rules[i].settings(n);
  }
  n.prefix = before;
}

// Which rule of a sequence is on at t, and its own step number.
std::pair<const RateRule&, int64_t> rule_at(const SequentialLROptions& o, int64_t t) {
  const auto k = std::upper_bound(o.milestones.begin(), o.milestones.end(), t) - o.milestones.begin();
  return {o.rules[static_cast<size_t>(k)], k == 0 ? t : t - o.milestones[static_cast<size_t>(k - 1)]};
}

}  // namespace

void LambdaLROptions::check(int groups) const { check_functions(kName, factor, groups); }
double LambdaLROptions::rate(int64_t t, double base, int group) const { return base * factor[group](t); }
void LambdaLROptions::settings(detail::Numbers&) const {}

void MultiplicativeLROptions::check(int groups) const { check_functions(kName, factor, groups); }
double MultiplicativeLROptions::rate(int64_t t, double base, int group) const {
  const size_t g = static_cast<size_t>(group);
  if (products.last.size() <= g) products.last.resize(g + 1);
  detail::Products::Last& last = products.last[g];
  detail::Products::Last at = t < last.t ? detail::Products::Last{} : last;
  while (at.t < t) {
    at.product *= factor[group](at.t + 1);
    ++at.t;
  }
  last = at;  // only now: the function may throw
  return base * at.product;
}
void MultiplicativeLROptions::settings(detail::Numbers&) const {}

void SequentialLROptions::check(int groups) const {
  check_rules(kName, rules, groups);
  HONE_CHECK(milestones.size() + 1 == rules.size(), ValueError, "SequentialLR: ", rules.size(), " rules need ",
             rules.size() - 1, " milestones, got ", milestones.size());
  if (!milestones.empty()) detail::check_milestones(kName, milestones);
}
double SequentialLROptions::rate(int64_t t, double base, int group) const {
  const auto [rule, own] = rule_at(*this, t);
  return rule.rate(own, base, group);
}
double SequentialLROptions::momentum(int64_t t) const {
  const auto [rule, own] = rule_at(*this, t);
  return rule.momentum(own);
}
void SequentialLROptions::settings(detail::Numbers& n) const {
  add_rules(n, rules);
  n.add("milestones", milestones);
}

void ChainedLROptions::check(int groups) const { check_rules(kName, rules, groups); }
double ChainedLROptions::rate(int64_t t, double base, int group) const {
  for (const RateRule& r : rules) base = r.rate(t, base, group);
  return base;
}
double ChainedLROptions::momentum(int64_t t) const {
  double momentum = detail::kNoMomentum;
  for (const RateRule& r : rules)
    if (const double m = r.momentum(t); !std::isnan(m)) momentum = m;
  return momentum;
}
void ChainedLROptions::settings(detail::Numbers& n) const { add_rules(n, rules); }

}  // namespace hone::optim
