#include "hone/optim/schedule.h"

#include <bit>
#include <cmath>

#include "hone/core/basic_ops.h"
#include "hone/core/error.h"
#include "hone/optim/state_reader.h"

namespace hone::optim {
namespace {

constexpr const char* kVersion = "1";
constexpr const char* kSetting = "setting.";

Tensor number_tensor(const detail::Numbers::Value& v) {
  return std::visit([](auto x) { return detail::scalar_tensor(x); }, v);
}
std::string text(const detail::Numbers::Value& v) {
  return std::visit([](auto x) { return str(x); }, v);
}
bool same(const detail::Numbers::Value& a, const detail::Numbers::Value& b) {
  if (a.index() != b.index()) return false;
  if (const double* x = std::get_if<double>(&a))
    return std::bit_cast<uint64_t>(*x) == std::bit_cast<uint64_t>(std::get<double>(b));
  return a == b;
}

// The number under this name, of the type that `like` has.
detail::Numbers::Value take(detail::StateReader& reader, const std::string& name, const detail::Numbers::Value& like) {
  return std::visit([&]<class T>(T) { return detail::Numbers::Value(reader.number<T>(name)); }, like);
}

}  // namespace

namespace detail {

Numbers::Numbers() = default;
Numbers::~Numbers() = default;
void Numbers::add(const char* name, int64_t v) { items.emplace_back(prefix + name, v); }
void Numbers::add(const char* name, double v) { items.emplace_back(prefix + name, v); }
void Numbers::add(const char* name, const PerGroup<double>& v) {
  for (size_t i = 0; i < v.values().size(); ++i) items.emplace_back(str(prefix, name, ".", i), v.values()[i]);
}
void Numbers::add(const char* name, const std::vector<int64_t>& v) {
  for (size_t i = 0; i < v.size(); ++i) items.emplace_back(str(prefix, name, ".", i), v[i]);
}

void check_steps(const char* schedule, const char* field, int64_t v) {
  HONE_CHECK(v >= 1, ValueError, schedule, ": ", field, " must be at least 1, got ", v);
}
void check_fraction(const char* schedule, const char* field, double v) {
  HONE_CHECK(v >= 0 && v <= 1, ValueError, schedule, ": ", field, " must be in [0, 1], got ", v);
}
void check_count(const char* schedule, const char* field, size_t values, int groups) {
  HONE_CHECK(values > 0, ValueError, schedule, ": ", field, " is missing");
  HONE_CHECK(values == 1 || values == static_cast<size_t>(groups), ValueError, schedule, ": ", field, " has ", values,
             " values, the optimizer has ", groups, groups == 1 ? " group" : " groups");
}
void check_rates(const char* schedule, const char* field, const PerGroup<double>& v, int groups) {
  check_count(schedule, field, v.values().size(), groups);
  for (double x : v.values()) check_at_least_zero(schedule, field, x);
}
void check_milestones(const char* schedule, const std::vector<int64_t>& v) {
  HONE_CHECK(!v.empty(), ValueError, schedule, ": milestones must not be empty");
  HONE_CHECK(v[0] >= 1, ValueError, schedule, ": milestones must be at least 1, got ", v[0]);
  for (size_t i = 1; i < v.size(); ++i)
    HONE_CHECK(v[i] > v[i - 1], ValueError, schedule, ": milestones must increase, got ", v[i], " after ", v[i - 1]);
}

}  // namespace detail

TensorFile Schedule::state_dict() const {
  TensorFile file;
  file.metadata["schedule"] = name();
  file.metadata["version"] = kVersion;
  file.tensors.emplace_back("t", detail::scalar_tensor(t_));
  for (const auto& [name, v] : state().items) file.tensors.emplace_back(name, number_tensor(v));
  for (const auto& [name, v] : settings().items) file.tensors.emplace_back(kSetting + name, number_tensor(v));
  return file;
}

void Schedule::load_state_dict(const TensorFile& file) {
  const std::string what = str(name(), ".load_state_dict");
  detail::StateReader reader(file, what);
  reader.expect_kind("schedule", name());
  reader.expect_version(kVersion);
  for (const auto& [name, here] : settings().items) {
    const auto there = take(reader, kSetting + name, here);
    HONE_CHECK(same(here, there), FormatError, what, ": ", name, " is ", text(there), " in the state and ", text(here),
               " here");
  }
  const int64_t t = reader.count("t");
  detail::Numbers next = state();
  for (auto& [name, v] : next.items) v = take(reader, name, v);
  reader.finish();
  restore(t, next);
}

TimedSchedule::TimedSchedule(Optimizer& optimizer, RateRule rule) : Schedule(optimizer), rule_(std::move(rule)) {
  rule_.check(optimizer.groups());
  for (int g = 0; g < optimizer.groups(); ++g) base_lrs_.push_back(optimizer.lr(g));
  rates_.resize(base_lrs_.size());
  apply(0);
}

double TimedSchedule::lr_at(int64_t t, int group) const {
  HONE_CHECK(t >= 0, ValueError, name(), ": t must be at least 0, got ", t);
  HONE_CHECK(group >= 0 && group < optimizer_.groups(), ValueError, name(), ": group ", group, " of ",
             optimizer_.groups());
  return rule_.rate(t, base_lrs_[static_cast<size_t>(group)], group);
}

double TimedSchedule::momentum_at(int64_t t) const {
  HONE_CHECK(t >= 0, ValueError, name(), ": t must be at least 0, got ", t);
  return rule_.momentum(t);
}

void TimedSchedule::apply(int64_t t) {
  for (int g = 0; g < optimizer_.groups(); ++g) {
    const double rate = lr_at(t, g);
    HONE_CHECK(std::isfinite(rate) && rate >= 0, ValueError, name(), ": the rate of group ", g, " at step ", t,
               " must be finite and at least 0, got ", rate);
    rates_[static_cast<size_t>(g)] = rate;
  }
  const double momentum = rule_.momentum(t);
  if (!std::isnan(momentum) && optimizer_.has_momentum())  // first: the optimizer may refuse it
    for (int g = 0; g < optimizer_.groups(); ++g) optimizer_.set_momentum(momentum, g);
  for (int g = 0; g < optimizer_.groups(); ++g) optimizer_.set_lr(rates_[static_cast<size_t>(g)], g);
  t_ = t;
}

detail::Numbers TimedSchedule::settings() const {
  detail::Numbers n;
  rule_.settings(n);
  return n;
}

detail::Numbers TimedSchedule::state() const {
  detail::Numbers n;
  for (size_t g = 0; g < base_lrs_.size(); ++g) n.items.emplace_back(str("group.", g, ".base_lr"), base_lrs_[g]);
  return n;
}

void TimedSchedule::restore(int64_t t, const detail::Numbers& state) {
  std::vector<double> next;
  for (const auto& [entry, v] : state.items) {
    next.push_back(std::get<double>(v));
    HONE_CHECK(std::isfinite(next.back()) && next.back() >= 0, FormatError, name(), ".load_state_dict: ", entry,
               " must be finite and at least 0, got ", next.back());
  }
  base_lrs_.swap(next);
  try {
    apply(t);
  } catch (const ValueError& e) {
    base_lrs_.swap(next);
    throw FormatError(str(name(), ".load_state_dict: ", e.what()));
  } catch (...) {
    base_lrs_.swap(next);
    throw;
  }
}

}  // namespace hone::optim
