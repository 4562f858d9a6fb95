#pragma once
// Relatives of Adam: Adamax, NAdam, RAdam.

#include "hone/optim/optimizer.h"

namespace hone::optim {

struct AdamaxOptions {
  double lr = 2e-3;              ///< η ≥ 0
  double beta1 = 0.9;            ///< in [0, 1)
  double beta2 = 0.999;          ///< in [0, 1)
  double eps = 1e-8;             ///< ≥ 0
  double weight_decay = 0;       ///< λ ≥ 0
  bool decoupled_decay = false;  ///< w ← w − η λ w in place of g ← g + λ w
  bool maximize = false;         ///< climb: g ← −g
  void fields(FieldVisitor& v);
};

/// Adam under the infinity norm (Kingma and Ba, "Adam: a method for stochastic optimization", 2015, section 7.1):
/// m ← β₁ m + (1−β₁) g, u ← max(β₂ u, |g| + ε), w ← w − η/(1−β₁ᵗ) m/u.
class Adamax : public GroupedOptimizer<Adamax, AdamaxOptions> {
 public:
  static constexpr const char* kName = "Adamax";
  using GroupedOptimizer::GroupedOptimizer;
  static void check(const AdamaxOptions& o);
  std::vector<std::string> state_names() const override { return {"exp_avg", "exp_inf"}; }

 protected:
  int slots(int) const override { return 2; }
  detail::UpdateKernels kernels(int group) const override;
  void coefficients(Entry& entry, double* c) const override;
};

struct NAdamOptions {
  double lr = 2e-3;              ///< η ≥ 0
  double beta1 = 0.9;            ///< in [0, 1)
  double beta2 = 0.999;          ///< in [0, 1)
  double eps = 1e-8;             ///< ≥ 0
  double weight_decay = 0;       ///< λ ≥ 0
  double momentum_decay = 4e-3;  ///< ψ ≥ 0
  bool decoupled_decay = false;  ///< w ← w − η λ w in place of g ← g + λ w
  bool maximize = false;         ///< climb: g ← −g
  bool eps_inside_sqrt = false;  ///< √(v̂ + ε) in place of √v̂ + ε
  void fields(FieldVisitor& v);
};

/// Adam with Nesterov's momentum (Dozat, "Incorporating Nesterov momentum into Adam", 2016): m and v as Adam's,
/// μ_t = β₁ (1 − ½ 0.96^(t ψ)), w ← w − η [(1−μ_t) g/(1 − Π_{i≤t} μ_i) + μ_{t+1} m/(1 − Π_{i≤t+1} μ_i)]/(√v̂ + ε).
class NAdam : public GroupedOptimizer<NAdam, NAdamOptions> {
 public:
  static constexpr const char* kName = "NAdam";
  using GroupedOptimizer::GroupedOptimizer;
  static void check(const NAdamOptions& o);
  std::vector<std::string> state_names() const override { return {"exp_avg", "exp_avg_sq"}; }

 protected:
  int slots(int) const override { return 2; }
  int scalars() const override { return 1; }  // the product of μ
  detail::UpdateKernels kernels(int group) const override;
  void coefficients(Entry& entry, double* c) const override;
};

struct RAdamOptions {
  double lr = 1e-3;              ///< η ≥ 0
  double beta1 = 0.9;            ///< in [0, 1)
  double beta2 = 0.999;          ///< in [0, 1)
  double eps = 1e-8;             ///< ≥ 0
  double weight_decay = 0;       ///< λ ≥ 0
  bool decoupled_decay = false;  ///< w ← w − η λ w in place of g ← g + λ w
  bool maximize = false;         ///< climb: g ← −g
  bool eps_inside_sqrt = false;  ///< √(v + ε) in place of √v + ε
  void fields(FieldVisitor& v);
};

/// Rectified Adam (Liu et al., "On the variance of the adaptive learning rate and beyond", 2020): m and v as Adam's,
/// ρ∞ = 2/(1−β₂) − 1, ρ_t = ρ∞ − 2t β₂ᵗ/(1−β₂ᵗ). Where ρ_t > 5, w ← w − η r_t m̂ √(1−β₂ᵗ)/(√v + ε) with
/// r_t² = (ρ_t−4)(ρ_t−2) ρ∞ / ((ρ∞−4)(ρ∞−2) ρ_t); before, w ← w − η m̂.
class RAdam : public GroupedOptimizer<RAdam, RAdamOptions> {
 public:
  static constexpr const char* kName = "RAdam";
  using GroupedOptimizer::GroupedOptimizer;
  static void check(const RAdamOptions& o);
  std::vector<std::string> state_names() const override { return {"exp_avg", "exp_avg_sq"}; }

 protected:
  int slots(int) const override { return 2; }
  detail::UpdateKernels kernels(int group) const override;
  void coefficients(Entry& entry, double* c) const override;
};

}  // namespace hone::optim
