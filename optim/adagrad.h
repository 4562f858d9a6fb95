#pragma once
// AdaGrad (Duchi et al., "Adaptive subgradient methods for online learning and stochastic optimization", 2011).

#include "hone/optim/optimizer.h"

namespace hone::optim {

struct AdagradOptions {
  double lr = 1e-2;                ///< η ≥ 0
  double lr_decay = 0;             ///< κ ≥ 0: η_t = η / (1 + (t−1) κ)
  double weight_decay = 0;         ///< λ ≥ 0
  double initial_accumulator = 0;  ///< ≥ 0: s at first
  double eps = 1e-10;              ///< ≥ 0
  bool decoupled_decay = false;    ///< w ← w − η λ w in place of g ← g + λ w
  bool maximize = false;           ///< climb: g ← −g
  bool eps_inside_sqrt = false;    ///< √(s + ε) in place of √s + ε
  void fields(FieldVisitor& v);
};

/// s ← s + g⊙g, w ← w − η_t g/(√s + ε): the documents' AdaGrad.
class Adagrad : public GroupedOptimizer<Adagrad, AdagradOptions> {
 public:
  static constexpr const char* kName = "Adagrad";
  using GroupedOptimizer::GroupedOptimizer;
  static void check(const AdagradOptions& o);
  std::vector<std::string> state_names() const override { return {"sum"}; }

 protected:
  int slots(int) const override { return 1; }
  Tensor initial_state(int group, int slot, const Tensor& value) const override;
  detail::UpdateKernels kernels(int group) const override;
  void coefficients(Entry& entry, double* c) const override;
};

}  // namespace hone::optim
