#pragma once
// Adadelta (Zeiler, "ADADELTA: an adaptive learning rate method", 2012).

#include "hone/optim/optimizer.h"

namespace hone::optim {

struct AdadeltaOptions {
  double lr = 1;                 ///< η ≥ 0
  double rho = 0.9;              ///< in [0, 1)
  double eps = 1e-6;             ///< ≥ 0
  double weight_decay = 0;       ///< λ ≥ 0
  bool decoupled_decay = false;  ///< w ← w − η λ w in place of g ← g + λ w
  bool maximize = false;         ///< climb: g ← −g
  bool eps_inside_sqrt = true;   ///< as the paper has it. false: √s + ε and √d + ε
  void fields(FieldVisitor& v);
};

/// s ← ρ s + (1−ρ) g⊙g, δ = √(d + ε)/√(s + ε) g, d ← ρ d + (1−ρ) δ⊙δ, w ← w − η δ.
class Adadelta : public GroupedOptimizer<Adadelta, AdadeltaOptions> {
 public:
  static constexpr const char* kName = "Adadelta";
  using GroupedOptimizer::GroupedOptimizer;
  static void check(const AdadeltaOptions& o);
  std::vector<std::string> state_names() const override { return {"square_avg", "acc_delta"}; }

 protected:
  int slots(int) const override { return 2; }
  detail::UpdateKernels kernels(int group) const override;
  void coefficients(Entry& entry, double* c) const override;
};

}  // namespace hone::optim
