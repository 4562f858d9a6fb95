#pragma once
// Muon (Jordan et al., "Muon: an optimizer for hidden layers in neural networks", 2024).

#include "hone/optim/optimizer.h"

namespace hone::optim {

/// How the rate follows the shape of an R×C matrix.
enum class MuonAdjust : int64_t {
  original = 0,            ///< × √max(1, R/C) (Jordan et al.)
  match_rms_adamw = 1,     ///< × 0.2 √max(R, C): steps as large as AdamW's (Liu et al., "Muon is scalable for LLM
                           ///< training", 2025)
  spectral_unclamped = 2,  ///< × √(R/C) (Bernstein, "Deriving Muon", 2025)
};

struct MuonOptions {
  double lr = 1e-3;                            ///< η ≥ 0
  double weight_decay = 0.1;                   ///< λ ≥ 0
  double momentum = 0.95;                      ///< μ in [0, 1)
  bool nesterov = true;                        ///< u = (1−μ) g + μ b in place of u = b
  double a = 3.4445, b = -4.7750, c = 2.0315;  ///< finite: coefficients of the Newton-Schulz iteration
  double eps = 1e-7;                           ///< > 0: the smallest norm to divide by
  int64_t iterations = 5;                      ///< 1 to 99
  MuonAdjust adjust = MuonAdjust::original;
  bool decoupled_decay = true;  ///< w ← w − η λ w, with η before it is adjusted. false: g ← g + λ w
  bool maximize = false;        ///< climb: g ← −g
  void fields(FieldVisitor& v);
};

/// For matrices alone: b ← μ b + (1−μ) g, u of b and g, X = u/‖u‖; `iterations` times X ← a X + (b A + c A²) X with
/// A = X Xᵀ, which takes X near the orthogonal matrix closest to u; w ← w − η_adjusted X. As torch.optim.Muon, whose
/// iteration rounds to bf16: this one stays in the parameter's dtype (f32 for bf16). Construction throws ValueError
/// naming a parameter that has not two dimensions: biases, norms and embeddings are for AdamW. For convolutions give
/// the weight a matrix's shape.
class Muon : public GroupedOptimizer<Muon, MuonOptions> {
 public:
  static constexpr const char* kName = "Muon";
  explicit Muon(const std::vector<ParameterRef>& parameters, MuonOptions options = {});
  explicit Muon(const std::vector<ParameterGroup<MuonOptions>>& groups);
  static void check(const MuonOptions& o);
  std::vector<std::string> state_names() const override { return {"momentum_buffer"}; }

 protected:
  int slots(int) const override { return 1; }
  detail::UpdateKernels kernels(int group) const override;
  void coefficients(Entry& entry, double* c) const override;
  void update(std::span<Item> items) override;
};

}  // namespace hone::optim
