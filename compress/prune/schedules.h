#pragma once
// When a Pruner decides masks anew, and how many weights stay. t counts its step() calls, from 0 at its construction; d
// is PruneOptions::density.

#include <cstdint>
#include <optional>
#include <string>
#include <variant>

namespace hone::compress {

/// d at t = 0: prune, then fine-tune.
struct OneShot {};

/// Rounds of pruning and retraining: d^(k/rounds) at t = (k − 1) · every, k = 1 … rounds, so that each round prunes the
/// same part of what is left; 0 takes one round. Han et al., "Learning both weights and connections", 2015.
struct Iterative {
  int64_t rounds = 5, every = 1;  ///< ≥ 1
};

/// d + (from − d) (1 − (t − begin)/(end − begin))³ at t = begin, begin + every, … and at end. Zhu and Gupta, "To prune,
/// or not to prune", 2017.
struct CubicRamp {
  int64_t begin = 0, end = 0, every = 1;  ///< 0 ≤ begin ≤ end, end ≥ 1, every ≥ 1
  double from = 1;                        ///< in [d, 1]
};

/// Dynamic network surgery (Guo et al., 2016): weights learn on behind their mask and can be spliced back. CubicRamp's
/// densities; then masks are decided anew every `every` steps until `last`. A kept weight goes below a = τ/(1 +
/// margin), a pruned one comes back above b = τ/(1 − margin), where τ is what makes the count exact. With movement()
/// and margin 0 this is movement pruning.
struct Surgery {
  int64_t begin = 0, end = 0, every = 1;
  int64_t last = 0;  ///< ≥ end; 0: end
  double from = 1;
  double margin = 0.1;  ///< in [0, 1)
};

/// RigL (Evci et al., 2020): d at t = 0 by the criterion (random() there, with PruneScope::erdos_renyi); then, every
/// `every` steps up to `end`, each layer drops its ⌊f_t · kept⌋ smallest weights, f_t = fraction/2 (1 + cos(π t/end)),
/// and grows as many where the dense gradient is largest, at 0. The gradient is what the parameters hold, or that of
/// PruneOptions::losses. Unstructured patterns only.
struct RigL {
  int64_t every = 100, end = 0;  ///< ≥ 1
  double fraction = 0.3;         ///< in [0, 1]
};

using PruneSchedule = std::variant<OneShot, Iterative, CubicRamp, Surgery, RigL>;

/// The density that a schedule sets at t; nothing where it leaves the masks alone.
std::optional<double> density_at(const PruneSchedule& schedule, int64_t t, double density);
const char* name(const PruneSchedule& schedule);

namespace detail {
/// ValueError; without a density (of a pattern) for the fields alone.
void check(const PruneSchedule& schedule, std::optional<double> density);
std::string text(const PruneSchedule& schedule);  ///< name and fields: "Iterative(rounds 5, every 1)"
}  // namespace detail

}  // namespace hone::compress
