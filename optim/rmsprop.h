#pragma once
// RMSprop (Tieleman and Hinton, "Lecture 6.5: RMSprop", 2012); centred: Graves, "Generating sequences with recurrent
// neural networks", 2013.

#include "hone/optim/optimizer.h"

namespace hone::optim {

struct RMSpropOptions {
  double lr = 1e-2;              ///< η ≥ 0
  double beta = 0.99;            ///< in [0, 1)
  double eps = 1e-8;             ///< ≥ 0
  double weight_decay = 0;       ///< λ ≥ 0
  double momentum = 0;           ///< μ ≥ 0
  bool centered = false;         ///< divides by the deviation, √(s − a⊙a), a the mean gradient, in place of √s
  bool decoupled_decay = false;  ///< w ← w − η λ w in place of g ← g + λ w
  bool maximize = false;         ///< climb: g ← −g
  bool eps_inside_sqrt = false;  ///< √(s + ε) in place of √s + ε
  void fields(FieldVisitor& v);
};

/// s ← β s + (1−β) g⊙g, w ← w − η g/(√s + ε): the documents' RMSprop. Centred: a ← β a + (1−β) g, and s − a⊙a (at
/// least 0) stands in the root. With momentum: b ← μ b + g/(√s + ε), w ← w − η b.
class RMSprop : public GroupedOptimizer<RMSprop, RMSpropOptions> {
 public:
  static constexpr const char* kName = "RMSprop";
  explicit RMSprop(const std::vector<ParameterRef>& parameters, RMSpropOptions options = {});
  explicit RMSprop(const std::vector<ParameterGroup<RMSpropOptions>>& groups);
  static void check(const RMSpropOptions& o);

  bool has_momentum() const override { return with_momentum_; }
  void set_momentum(double value, int group) override;  ///< ValueError if no group was made with momentum
  std::vector<std::string> state_names() const override;

 protected:
  int slots(int) const override { return 1 + centered_ + with_momentum_; }
  detail::UpdateKernels kernels(int group) const override;
  void coefficients(Entry& entry, double* c) const override;
  void check_options(int group) const override;

 private:
  bool centered_ = false, with_momentum_ = false;  // any group is: all keep that state
};

}  // namespace hone::optim
