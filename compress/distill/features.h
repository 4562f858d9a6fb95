#pragma once
// Losses between what two networks compute on the way to their answers, and a tap to get at it. The teacher's features
// are constants: no gradient flows to them. Each result is 0-d, of the features' dtype (bf16 computes in f32). Errors
// they share: ShapeError for features that do not fit or are empty, DTypeError, ValueError.

#include <memory>
#include <string>
#include <vector>

#include "hone/ops/nn/module.h"

namespace hone::compress {

/// What modules of a network return, by their names (`named_modules()`), whenever the network is called:
///
///   compress::Taps taps(student, {"conv1", "conv2"});
///   Tensor logits = student(images);
///   Tensor features = relu(taps[1]);
///
/// They hold the last call's tensors, graph included, until the next call. Destroyed taps leave no hook behind; those
/// of a destroyed network keep what they saw.
class Taps {
 public:
  /// ValueError for a name that the network does not have; the message lists those it has.
  Taps(nn::Module& network, const std::vector<std::string>& names);
  ~Taps();
  Taps(Taps&&) noexcept = default;
  Taps& operator=(Taps&&) noexcept;

  int64_t size() const { return static_cast<int64_t>(taps_.size()); }
  /// Output i of the last call; of a module called several times, that of the last time. ValueError for an i outside
  /// [0, size()), or a module that was not called yet.
  const Tensor& operator[](int64_t i) const;

 private:
  struct Tap {
    std::string name;
    std::shared_ptr<Tensor> output;
    HookHandle hook;
  };
  void remove();
  std::vector<Tap> taps_;
};

/// Mean of (student − teacher)² over all elements, of one shape. The paper's ½‖·‖² a sample is this times half its
/// number of elements. The student's features usually pass through a regressor first, which learns with it:
/// hint_loss(regressor(f), g). Romero et al., "FitNets: hints for thin deep nets", 2015.
Tensor hint_loss(const Tensor& student, const Tensor& teacher);

/// A layer that brings features of the student's shape to the teacher's: a 1×1 convolution for [N, C, H, W], Linear for
/// [N, F]. ShapeError for other forms and for images of different size: pool the larger ones.
nn::AnyModule hint_regressor(const Shape& student, const Shape& teacher);

/// Mean over N and places of (q(s) − q(t))², where q = a/‖a‖ of a sample and a = Σ_c x_c², its map of attention.
/// Features [N, C, H, W], whose C may differ. A sample of zeros has q = 0 and no gradient.
/// Zagoruyko, Komodakis, "Paying more attention to attention", 2017, scaled as in the authors' program.
Tensor attention_transfer_loss(const Tensor& student, const Tensor& teacher);

struct RelationalKdOptions {
  double distance = 25, angle = 50;  ///< weights, >= 0
};

/// distance · D + angle · A, between a batch's relations rather than its features: [N, …], taken as N rows whose
/// lengths may differ between student and teacher.
///   D = mean over (i, j) of h(d(s_i, s_j) − d(t_i, t_j)), d = ‖x_i − x_j‖ over its mean for i ≠ j;
///   A = mean over (i, j, k) of h(cos(s_i, s_j, s_k) − cos(t_i, t_j, t_k)), the cosine of the angle at x_i between
///       x_j and x_k, 0 where one of them equals x_i;
/// h is the Huber loss with δ = 1. Takes memory for N³ + N² F values. Rows that are equal have distance 0 and no
/// gradient. Park, Kim, Lu, Cho, "Relational knowledge distillation", 2019.
Tensor relational_kd_loss(const Tensor& student, const Tensor& teacher, const RelationalKdOptions& options = {});

}  // namespace hone::compress
