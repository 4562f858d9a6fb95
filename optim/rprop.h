#pragma once
// Rprop (Riedmiller and Braun, "A direct adaptive method for faster backpropagation learning: the RPROP algorithm",
// 1993).

#include "hone/optim/optimizer.h"

namespace hone::optim {

struct RpropOptions {
  double lr = 1e-2;  ///< ≥ 0: each element's step at first. A rate set later has no effect on elements that moved
  double eta_minus = 0.5;        ///< in (0, 1)
  double eta_plus = 1.2;         ///< > 1
  double step_min = 1e-6;        ///< ≥ 0
  double step_max = 50;          ///< ≥ step_min
  double weight_decay = 0;       ///< λ ≥ 0
  bool decoupled_decay = false;  ///< w ← w − lr λ w in place of g ← g + λ w
  bool maximize = false;         ///< climb: g ← −g
  void fields(FieldVisitor& v);
};

/// Each element has a step δ, multiplied by η+ where g has the sign that it had, by η− where the sign turned (g is
/// then taken as 0), and kept between step_min and step_max; w ← w − δ sign(g). For whole batches: it sees signs only.
class Rprop : public GroupedOptimizer<Rprop, RpropOptions> {
 public:
  static constexpr const char* kName = "Rprop";
  using GroupedOptimizer::GroupedOptimizer;
  static void check(const RpropOptions& o);
  std::vector<std::string> state_names() const override { return {"prev", "step_size"}; }

 protected:
  int slots(int) const override { return 2; }
  Tensor initial_state(int group, int slot, const Tensor& value) const override;
  detail::UpdateKernels kernels(int group) const override;
  void coefficients(Entry& entry, double* c) const override;
};

}  // namespace hone::optim
