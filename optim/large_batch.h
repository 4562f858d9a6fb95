#pragma once
// For large batches, a rate for each tensor from the norms of its weights and of its step: LARS and LAMB. Biases and
// norm layers are commonly given to another group or optimizer.

#include <limits>

#include "hone/optim/optimizer.h"

namespace hone::optim {

struct LARSOptions {
  double lr = 0.1;                  ///< γ ≥ 0
  double momentum = 0.9;            ///< μ ≥ 0
  double weight_decay = 0;          ///< β ≥ 0
  double trust_coefficient = 1e-3;  ///< η > 0
  double eps = 0;                   ///< ≥ 0, added to ‖g‖ + β ‖w‖
  bool decoupled_decay = false;     ///< w ← w − γ β w first, and β nowhere else
  bool maximize = false;            ///< climb: g ← −g
  void fields(FieldVisitor& v);
};

/// LARS (You, Gitman and Ginsburg, "Large batch training of convolutional networks", 2017), for each tensor:
/// r = η ‖w‖/(‖g‖ + β ‖w‖ + ε), 1 where ‖w‖ or ‖g‖ is 0; v ← μ v + γ r (g + β w), w ← w − v.
class LARS : public GroupedOptimizer<LARS, LARSOptions> {
 public:
  static constexpr const char* kName = "LARS";
  using GroupedOptimizer::GroupedOptimizer;
  static void check(const LARSOptions& o);
  std::vector<std::string> state_names() const override { return {"momentum_buffer"}; }

 protected:
  int slots(int) const override { return 1; }
  detail::UpdateKernels kernels(int group) const override;
  void coefficients(Entry& entry, double* c) const override;
  void update(std::span<Item> items) override;
};

struct LAMBOptions {
  double lr = 1e-3;                                           ///< η ≥ 0
  double beta1 = 0.9;                                         ///< in [0, 1)
  double beta2 = 0.999;                                       ///< in [0, 1)
  double eps = 1e-6;                                          ///< ≥ 0
  double weight_decay = 1e-2;                                 ///< λ ≥ 0
  double norm_min = 0;                                        ///< ≥ 0
  double norm_max = std::numeric_limits<double>::infinity();  ///< ≥ norm_min: φ(‖w‖) = ‖w‖ kept between the two
  bool bias_correction = true;
  bool decoupled_decay = true;   ///< inside the direction u, as the paper has it. false: g ← g + λ w
  bool maximize = false;         ///< climb: g ← −g
  bool eps_inside_sqrt = false;  ///< √(v̂ + ε) in place of √v̂ + ε
  void fields(FieldVisitor& v);
};

/// LAMB (You et al., "Large batch optimization for deep learning: training BERT in 76 minutes", 2020), for each tensor:
/// u = m̂/(√v̂ + ε) + λ w with Adam's m̂ and v̂, w ← w − η φ(‖w‖)/‖u‖ u; the ratio is 1 where φ or ‖u‖ is 0.
class LAMB : public GroupedOptimizer<LAMB, LAMBOptions> {
 public:
  static constexpr const char* kName = "LAMB";
  using GroupedOptimizer::GroupedOptimizer;
  static void check(const LAMBOptions& o);
  std::vector<std::string> state_names() const override { return {"exp_avg", "exp_avg_sq"}; }

 protected:
  int slots(int) const override { return 2; }
  detail::UpdateKernels kernels(int group) const override;
  void coefficients(Entry& entry, double* c) const override;
  void update(std::span<Item> items) override;
};

}  // namespace hone::optim
