#pragma once
// Schedule-free AdamW (Defazio et al., "The road less scheduled", 2024).

#include "hone/optim/optimizer.h"

namespace hone::optim {

struct ScheduleFreeAdamWOptions {
  double lr = 2.5e-3;            ///< γ ≥ 0
  double beta1 = 0.9;            ///< in (0, 1): where gradients are taken, between z (0) and the average x (1)
  double beta2 = 0.999;          ///< in [0, 1)
  double eps = 1e-8;             ///< ≥ 0
  double weight_decay = 0;       ///< λ ≥ 0
  int64_t warmup_steps = 0;      ///< ≥ 0: γ_t = γ min(1, t/warmup_steps)
  bool decoupled_decay = true;   ///< z moves by −γ_t λ y too. false: g ← g + λ y
  bool maximize = false;         ///< climb: g ← −g
  bool eps_inside_sqrt = false;  ///< √(v̂ + ε) in place of √v̂ + ε
  void fields(FieldVisitor& v);
};

/// With g the gradient at y = (1−β₁) z + β₁ x: v ← β₂ v + (1−β₂) g⊙g, z ← z − γ_t (g/(√v̂ + ε) + λ y),
/// x ← (1−c) x + c z, c = γ_t²/Σ_{i≤t} γ_i². No schedule of the rate is needed. While training the parameters hold y;
/// eval() makes them x, for measuring and shipping, and train() makes them y again (up to rounding in their dtype). A
/// step in eval mode throws ValueError. State that is saved knows in which mode it was.
class ScheduleFreeAdamW : public GroupedOptimizer<ScheduleFreeAdamW, ScheduleFreeAdamWOptions> {
 public:
  static constexpr const char* kName = "ScheduleFreeAdamW";
  using GroupedOptimizer::GroupedOptimizer;
  static void check(const ScheduleFreeAdamWOptions& o);
  void eval();   ///< parameters ← x; nothing if they are
  void train();  ///< parameters ← y; nothing if they are
  bool training() const { return !eval_; }

  using GroupedOptimizer::step;
  void step() override;
  bool has_momentum() const override { return false; }  // x is found through beta1: it does not move
  double momentum(int group = 0) const override { return Optimizer::momentum(group); }
  void set_momentum(double value, int group) override { Optimizer::set_momentum(value, group); }
  std::vector<std::string> state_names() const override { return {"z", "exp_avg_sq"}; }

 protected:
  int slots(int) const override { return 2; }
  int scalars() const override { return 1; }  // Σ γ_i²
  Tensor initial_state(int group, int slot, const Tensor& value) const override;
  detail::UpdateKernels kernels(int group) const override;
  void coefficients(Entry& entry, double* c) const override;
  void visit_options(int group, FieldVisitor& v) override;

 private:
  void move_towards_z(bool to_eval);
  bool eval_ = false;
};

}  // namespace hone::optim
