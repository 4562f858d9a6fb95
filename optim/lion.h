#pragma once
// Lion (Chen et al., "Symbolic discovery of optimization algorithms", 2023).

#include "hone/optim/optimizer.h"

namespace hone::optim {

struct LionOptions {
  double lr = 1e-4;             ///< η ≥ 0: 3 to 10 times smaller than AdamW's
  double beta1 = 0.9;           ///< in [0, 1)
  double beta2 = 0.99;          ///< in [0, 1)
  double weight_decay = 0;      ///< λ ≥ 0
  bool decoupled_decay = true;  ///< w ← w − η λ w, as the paper has it. false: g ← g + λ w
  bool maximize = false;        ///< climb: g ← −g
  void fields(FieldVisitor& v);
};

/// w ← w − η (sign(β₁ m + (1−β₁) g) + λ w), m ← β₂ m + (1−β₂) g; sign(0) = 0.
class Lion : public GroupedOptimizer<Lion, LionOptions> {
 public:
  static constexpr const char* kName = "Lion";
  using GroupedOptimizer::GroupedOptimizer;
  static void check(const LionOptions& o);
  std::vector<std::string> state_names() const override { return {"exp_avg"}; }

 protected:
  int slots(int) const override { return 1; }
  detail::UpdateKernels kernels(int group) const override;
  void coefficients(Entry& entry, double* c) const override;
};

}  // namespace hone::optim
