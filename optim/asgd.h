#pragma once
// Averaged SGD (Polyak and Juditsky, "Acceleration of stochastic approximation by averaging", 1992), with the rates of
// Bottou, "Stochastic gradient descent tricks", 2012.

#include "hone/optim/optimizer.h"

namespace hone::optim {

struct ASGDOptions {
  double lr = 1e-2;              ///< η ≥ 0
  double lambd = 1e-4;           ///< ≥ 0: decay of the weights and of the rate
  double alpha = 0.75;           ///< ≥ 0
  double t0 = 1e6;               ///< ≥ 0: the average starts after this many updates
  double weight_decay = 0;       ///< λ ≥ 0
  bool decoupled_decay = false;  ///< w ← w − η λ w in place of g ← g + λ w
  bool maximize = false;         ///< climb: g ← −g
  void fields(FieldVisitor& v);
};

/// w ← (1 − lambd η_t) w − η_t g with η_t = η / (1 + lambd η (t−1))^alpha. The average, state(p, 0): a ← a + μ_t (w −
/// a), μ_t = 1/max(1, t − 1 − t0): the last weights until then. It is for the user to copy where it is wanted.
class ASGD : public GroupedOptimizer<ASGD, ASGDOptions> {
 public:
  static constexpr const char* kName = "ASGD";
  using GroupedOptimizer::GroupedOptimizer;
  static void check(const ASGDOptions& o);
  std::vector<std::string> state_names() const override { return {"ax"}; }

 protected:
  int slots(int) const override { return 1; }
  detail::UpdateKernels kernels(int group) const override;
  void coefficients(Entry& entry, double* c) const override;
};

}  // namespace hone::optim
