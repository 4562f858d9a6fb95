#pragma once
// Adafactor (Shazeer and Stern, "Adafactor: adaptive learning rates with sublinear memory cost", 2018).

#include "hone/optim/optimizer.h"

namespace hone::optim {

struct AdafactorOptions {
  double lr = 1e-2;           ///< ≥ 0: ρ_t = min(lr, 1/√t)
  double beta2_decay = -0.8;  ///< ≤ 0: second moments keep 1 − t^beta2_decay of themselves
  double eps1 = 0;     ///< ≥ 0; 0: the machine epsilon of the parameter's dtype (bf16: 2⁻⁷), as PyTorch has it
  double eps2 = 1e-3;  ///< ≥ 0: smallest scale of a tensor's step
  double clip_threshold = 1;    ///< d ≥ 1: the root mean square that a step may have
  double weight_decay = 0;      ///< λ ≥ 0
  bool decoupled_decay = true;  ///< w ← w − lr λ w. false: g ← g + λ w
  bool maximize = false;        ///< climb: g ← −g
  void fields(FieldVisitor& v);
};

/// For a matrix (the last two dimensions, any others a batch) second moments are kept for rows and columns alone:
/// r ← r + t^b (mean over a row of g⊙g − r), c the same over columns, v = r cᵀ / max(mean(r), ε₁); for vectors v ← v +
/// t^b (g⊙g − v). u = g/√max(v, ε₁²), w ← w − max(ε₂, RMS(w)) ρ_t u / max(1, RMS(u)/d). As torch.optim.Adafactor.
/// State: R + C numbers for R×C weights.
class Adafactor : public GroupedOptimizer<Adafactor, AdafactorOptions> {
 public:
  static constexpr const char* kName = "Adafactor";
  using GroupedOptimizer::GroupedOptimizer;
  static void check(const AdafactorOptions& o);
  /// A parameter with rows and columns has an empty variance; one without has the variance alone.
  std::vector<std::string> state_names() const override { return {"row_var", "col_var", "variance"}; }

 protected:
  int slots(int) const override { return 3; }
  Tensor initial_state(int group, int slot, const Tensor& value) const override;
  Tensor slice_state(int slot, const Tensor& state, const Shape& before, int64_t dim,
                     const Tensor& kept) const override;
  void update(std::span<Item> items) override;
};

}  // namespace hone::optim
