#pragma once
// Gradient descent with momentum.

#include "hone/optim/optimizer.h"

namespace hone::optim {

struct SGDOptions {
  double lr = 1e-2;              ///< η ≥ 0
  double momentum = 0;           ///< μ ≥ 0
  double dampening = 0;          ///< τ
  double weight_decay = 0;       ///< λ ≥ 0: g ← g + λ w
  bool nesterov = false;         ///< needs momentum > 0 and no dampening
  bool maximize = false;         ///< climb: g ← −g
  bool decoupled_decay = false;  ///< w ← w − η λ w in place of g ← g + λ w
  void fields(FieldVisitor& v);
};

/// w ← w − η g. With momentum: b ← μ b + (1−τ) g (b = g at the first update), w ← w − η b; Nesterov (Sutskever et al.,
/// "On the importance of initialization and momentum in deep learning", 2013): w ← w − η (g + μ b).
class SGD : public GroupedOptimizer<SGD, SGDOptions> {
 public:
  static constexpr const char* kName = "SGD";
  explicit SGD(const std::vector<ParameterRef>& parameters, SGDOptions options = {});
  explicit SGD(const std::vector<ParameterGroup<SGDOptions>>& groups);
  static void check(const SGDOptions& o);

  bool has_momentum() const override { return with_momentum_; }
  void set_momentum(double value, int group) override;  ///< ValueError if no group was made with momentum
  std::vector<std::string> state_names() const override;

 protected:
  int slots(int group) const override;
  detail::UpdateKernels kernels(int group) const override;
  void coefficients(Entry& entry, double* c) const override;
  void check_options(int group) const override;

 private:
  bool with_momentum_ = false;  // any group has momentum: all keep a buffer
};

}  // namespace hone::optim
