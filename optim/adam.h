#pragma once
// Adam (Kingma and Ba, "Adam: a method for stochastic optimization", 2015), AMSGrad (Reddi et al., "On the convergence
// of Adam and beyond", 2018) and AdamW (Loshchilov and Hutter, "Decoupled weight decay regularization", 2019).

#include "hone/optim/optimizer.h"

namespace hone::optim {

struct AdamOptions {
  double lr = 1e-3;         ///< η ≥ 0
  double beta1 = 0.9;       ///< in [0, 1)
  double beta2 = 0.999;     ///< in [0, 1)
  double eps = 1e-8;        ///< ≥ 0
  double weight_decay = 0;  ///< λ ≥ 0
  bool amsgrad = false;     ///< v̂ is the largest v so far
  bool bias_correction = true;  ///< false: w ← w − η m/(√v + ε), whose first step is about 3.2 η at the usual betas
  bool decoupled_decay = false;  ///< false: g ← g + λ w (an L2 penalty). true: w ← w − η λ w (AdamW)
  bool maximize = false;         ///< climb: g ← −g
  bool eps_inside_sqrt = false;  ///< √(v̂ + ε) in place of √v̂ + ε
  void fields(FieldVisitor& v);
};

/// m ← β₁ m + (1−β₁) g, v ← β₂ v + (1−β₂) g⊙g, w ← w − η m̂/(√v̂ + ε), with m̂ = m/(1−β₁ᵗ), v̂ = v/(1−β₂ᵗ) and t the
/// parameter's own count of updates.
class Adam : public GroupedOptimizer<Adam, AdamOptions> {
 public:
  static constexpr const char* kName = "Adam";
  using GroupedOptimizer::GroupedOptimizer;
  static void check(const AdamOptions& o);
  std::vector<std::string> state_names() const override { return {"exp_avg", "exp_avg_sq", "max_exp_avg_sq"}; }

 protected:
  int slots(int group) const override { return options(group).amsgrad ? 3 : 2; }
  detail::UpdateKernels kernels(int group) const override;
  void coefficients(Entry& entry, double* c) const override;
};

struct AdamWOptions {
  double lr = 1e-3;
  double beta1 = 0.9;
  double beta2 = 0.999;
  double eps = 1e-8;
  double weight_decay = 1e-2;  ///< decoupled: w ← w − η λ w before the update
  bool amsgrad = false;
  bool bias_correction = true;
  bool maximize = false;
  bool eps_inside_sqrt = false;
};

/// Adam with decoupled weight decay.
class AdamW : public Adam {
 public:
  explicit AdamW(const std::vector<ParameterRef>& parameters, AdamWOptions options = {});
  explicit AdamW(const std::vector<ParameterGroup<AdamWOptions>>& groups);
  const char* name() const override { return "AdamW"; }
};

}  // namespace hone::optim
