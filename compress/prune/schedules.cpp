#include "hone/compress/prune/schedules.h"

#include <cmath>

#include "hone/core/error.h"

namespace hone::compress {
namespace {

template <class... Fs> struct Overloaded : Fs... { using Fs::operator()...; };
template <class... Fs> Overloaded(Fs...) -> Overloaded<Fs...>;

/// A cubic ramp's density at t, where it decides.
std::optional<double> ramp_at(int64_t begin, int64_t end, int64_t every, double from, int64_t t, double density) {
  if (t < begin || t > end || (t != end && (t - begin) % every != 0)) return {};
  if (t == end) return density;
  const double left = 1 - static_cast<double>(t - begin) / static_cast<double>(end - begin);
  return density + (from - density) * left * left * left;
}

}  // namespace

const char* name(const PruneSchedule& schedule) {
  constexpr const char* names[] = {"OneShot", "Iterative", "CubicRamp", "Surgery", "RigL"};
  return names[schedule.index()];
}

std::optional<double> density_at(const PruneSchedule& schedule, int64_t t, double density) {
  using Density = std::optional<double>;
  const Overloaded at = {
      [&](const Iterative& s) -> Density {
        if (t % s.every != 0 || t / s.every >= s.rounds) return {};
        return std::pow(density, static_cast<double>(t / s.every + 1) / static_cast<double>(s.rounds));
      },
      [&](const CubicRamp& s) -> Density { return ramp_at(s.begin, s.end, s.every, s.from, t, density); },
      [&](const Surgery& s) -> Density {
        if (t <= s.end) return ramp_at(s.begin, s.end, s.every, s.from, t, density);
        return t <= s.last && (t - s.begin) % s.every == 0 ? Density(density) : Density();
      },
      [&](const auto&) -> Density { return t == 0 ? Density(density) : Density(); },  // OneShot, RigL
  };
  return std::visit(at, schedule);
}

namespace detail {

void check(const PruneSchedule& schedule, std::optional<double> given) {
  const double density = given.value_or(0);
  const char* what = name(schedule);
  const auto at_least = [&](const char* field, int64_t v, int64_t least) {
    HONE_CHECK(v >= least, ValueError, what, ": ", field, " must be at least ", least, ", got ", v);
  };
  const auto check_ramp = [&](const auto& s) {
    at_least("begin", s.begin, 0);
    at_least("end", s.end, std::max<int64_t>(s.begin, 1));
    at_least("every", s.every, 1);
    HONE_CHECK(s.from >= density && s.from <= 1, ValueError, what, ": from must be in [density, 1] = [", density,
               ", 1], got ", s.from);
  };
  std::visit(Overloaded{
                 [](const OneShot&) {},
                 [&](const Iterative& s) {
                   at_least("rounds", s.rounds, 1);
                   at_least("every", s.every, 1);
                   HONE_CHECK(s.rounds == 1 || given != 0.0, ValueError, what, ": density 0 by ", s.rounds,
                              " rounds that each keep the same part would be reached in the first; give one above 0, "
                              "or CubicRamp");
                 },
                 [&](const CubicRamp& s) { check_ramp(s); },
                 [&](const Surgery& s) {
                   check_ramp(s);
                   if (s.last != 0) at_least("last", s.last, s.end);
                   HONE_CHECK(s.margin >= 0 && s.margin < 1, ValueError, what, ": margin must be in [0, 1), got ",
                              s.margin);
                 },
                 [&](const RigL& s) {
                   at_least("every", s.every, 1);
                   at_least("end", s.end, 1);
                   HONE_CHECK(s.fraction >= 0 && s.fraction <= 1, ValueError, what,
                              ": fraction must be in [0, 1], got ", s.fraction);
                 },
             },
             schedule);
}

std::string text(const PruneSchedule& schedule) {
  const auto ramp = [](const auto& s) { return str("begin ", s.begin, ", end ", s.end, ", every ", s.every); };
  const Overloaded fields = {
      [](const OneShot&) { return std::string(); },
      [](const Iterative& s) { return str("rounds ", s.rounds, ", every ", s.every); },
      [&](const CubicRamp& s) { return str(ramp(s), ", from ", s.from); },
      [&](const Surgery& s) { return str(ramp(s), ", last ", s.last, ", from ", s.from, ", margin ", s.margin); },
      [](const RigL& s) { return str("every ", s.every, ", end ", s.end, ", fraction ", s.fraction); },
  };
  return str(name(schedule), "(", std::visit(fields, schedule), ")");
}

}  // namespace detail

}  // namespace hone::compress
