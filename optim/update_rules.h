#pragma once
// The arithmetic of update rules: kernels for the best SIMD target of this machine.

#include "hone/optim/optimizer.h"

namespace hone::optim::detail {

/// Each rule first makes g ← c[0] g + c[1] w (direction, coupled decay) and w ← c[2] w (decoupled decay, 1 − ηλ); what
/// follows is its own, with the coefficients named at the rule.
struct UpdateRules {
  UpdateKernels sgd, sgd_momentum;
  UpdateKernels adam, amsgrad;
  UpdateKernels adagrad, adadelta;
  UpdateKernels rmsprop[2][2];  ///< [centred][with momentum]
  UpdateKernels adamax, nadam, radam;
  UpdateKernels rprop, asgd, lion, lamb, lars, schedule_free, muon_momentum;
  UpdateKernels adafactor;    ///< for one row: the state is the columns' factors, which are only read
  UpdateKernels add_squares;  ///< p ← c[2] p + c[3] g²
  SumKernels non_finite;      ///< sums[0]: how many of g are NaN or infinite; sums[1]: 0
  SumKernels squares;         ///< Σ p², Σ g²
  SumKernels lamb_norms;      ///< Σ p², Σ u² of LAMB's next direction u
  SumKernels adafactor_norm;  ///< Σ u² of Adafactor's next direction in one row
};
const UpdateRules& update_rules();

/// c[0], c[1], c[2] of options that have maximize, weight_decay, lr and perhaps decoupled_decay.
template <class Options> void common_coefficients(const Options& o, bool decoupled, double* c) {
  c[0] = o.maximize ? -1 : 1;
  c[1] = decoupled ? 0 : o.weight_decay;
  c[2] = decoupled ? 1 - o.lr * o.weight_decay : 1;
}

/// c[0] and c[1]: ε inside and outside of the root, one of them 0.
inline void place_epsilon(double eps, bool inside_sqrt, double* c) {
  c[0] = inside_sqrt ? eps : 0;
  c[1] = inside_sqrt ? 0 : eps;
}

}  // namespace hone::optim::detail
