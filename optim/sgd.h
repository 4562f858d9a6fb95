#pragma once
// Gradient descent with momentum.

#include "hone/optim/optimizer.h"

namespace hone::optim {

struct SGDOptions {
  double lr = 1e-2;         ///< η ≥ 0
  double momentum = 0;      ///< μ ≥ 0
  double dampening = 0;     ///< τ
  double weight_decay = 0;  ///< λ ≥ 0: g ← g + λ w
  bool nesterov = false;    ///< needs momentum > 0 and no dampening
  bool maximize = false;    ///< climb: g ← −g
};

/// w ← w − η g. With momentum: b ← μ b + (1−τ) g (b = g at the first update), w ← w − η b; Nesterov (Sutskever et al.,
/// "On the importance of initialization and momentum in deep learning", 2013): w ← w − η (g + μ b).
class SGD : public Optimizer {
 public:
  using Options = SGDOptions;
  explicit SGD(const std::vector<ParameterRef>& parameters, SGDOptions options = {});
  explicit SGD(std::vector<ParameterGroup<SGDOptions>> groups);

  const char* name() const override { return "SGD"; }
  using Optimizer::set_lr;
  double lr(int group = 0) const override { return options(group).lr; }
  void set_lr(double lr, int group) override;
  bool has_momentum() const override { return with_momentum_; }
  double momentum(int group = 0) const override { return options(group).momentum; }
  void set_momentum(double value, int group) override;
  std::vector<std::string> state_names() const override;
  const SGDOptions& options(int group = 0) const;

 protected:
  int slots(int group) const override;
  detail::UpdateKernels kernels(int group) const override;
  void coefficients(int group, int64_t t, double* c) const override;

 private:
  std::vector<SGDOptions> options_;
  bool with_momentum_ = false;  // any group has momentum: all keep a buffer
};

}  // namespace hone::optim
