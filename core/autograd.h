#pragma once
// Define-by-run reverse mode. apply() records a Node per op whose inputs require grad; backward() and grad() walk
// them from the newest to the oldest. Modes are per thread.

#include <span>
#include <vector>

#include "hone/core/op.h"

namespace hone {

bool grad_enabled();
bool inference_mode();
bool anomaly_mode();

/// No recording in this scope.
class NoGrad {
 public:
  NoGrad();
  ~NoGrad();
  NoGrad(const NoGrad&) = delete;

 private:
  bool former_;
};
/// Recording on again inside a NoGrad scope.
class EnableGrad {
 public:
  EnableGrad();
  ~EnableGrad();
  EnableGrad(const EnableGrad&) = delete;

 private:
  bool former_;
};
/// NoGrad, and what is made here can never be saved for a backward pass (GradError if tried).
class InferenceMode {
 public:
  InferenceMode();
  ~InferenceMode();
  InferenceMode(const InferenceMode&) = delete;

 private:
  bool former_grad_, former_;
};
/// While it lives, the first op (forward or backward) to make a NaN from NaN-free inputs (and, backward, what it saved)
/// throws NumericError with its name. Slow: every result is read.
class AnomalyMode {
 public:
  explicit AnomalyMode(bool on = true);
  ~AnomalyMode();
  AnomalyMode(const AnomalyMode&) = delete;

 private:
  bool former_;
};

struct Edge;

/// What an op's backward sees. Gradients it sets have their input's shape and dtype.
class BackwardContext {
 public:
  BackwardContext(Node& node, std::span<const Tensor> grads, std::span<const uint8_t> needs, std::span<Tensor> results);
  const char* op() const;
  int inputs() const;
  bool needs(int i) const { return needs_[static_cast<size_t>(i)] != 0; }  ///< is input i's gradient wanted
  bool has(int i) const;                                                   ///< was optional input i given
  Tensor input(int i) const;       ///< a saved input, with its edge; GradError if changed in place since
  Tensor output(int o = 0) const;  ///< a saved output, re-attached
  Tensor grad(int o = 0) const;    ///< of output o; zeros where none arrived
  bool has_grad(int o) const { return grads_[static_cast<size_t>(o)].defined(); }
  const Shape& input_shape(int i) const;
  DType input_dtype(int i) const;
  const Shape& output_shape(int o = 0) const;
  template <class A> const A& attrs() const { return raw_attrs().as<A>(); }
  const Attrs& raw_attrs() const;
  void set(int i, Tensor g) { results_[static_cast<size_t>(i)] = std::move(g); }

 private:
  Node& node_;
  std::span<const Tensor> grads_;
  std::span<const uint8_t> needs_;
  std::span<Tensor> results_;
};

struct GradOptions {
  bool retain_graph = false;
  bool create_graph = false;
  bool allow_unused = false;  ///< an input the outputs do not depend on gives an undefined tensor instead of GradError
};
/// d(sum_k <outputs_k, seeds_k>)/d(inputs_i), without touching any grad(). Seeds default to 1 for single elements.
std::vector<Tensor> grad(const std::vector<Tensor>& outputs, const std::vector<Tensor>& inputs,
                         GradOptions options = {}, const std::vector<Tensor>& seeds = {});

/// Backward of an op by differentiating `composite`, the same function written with differentiable ops: sets every
/// needed gradient of `c`. For the second derivatives of fused kernels. All inputs must be saved; an output may be
/// undefined where no gradient flows.
void composite_backward(BackwardContext& c, Outputs (*composite)(std::span<const Tensor> inputs, const Attrs& attrs));

struct GradCheckOptions {
  double eps = 1e-6, rtol = 1e-4, atol = 1e-6;
  uint64_t seed = 1;  ///< of the random cotangents
};
using GradCheckFn = std::function<std::vector<Tensor>(const std::vector<Tensor>&)>;
/// Compares the gradient of <f(x), random cotangent> with central differences, element by element, for every floating
/// f64 input that requires grad. Throws GradError naming the input, the element and both values.
void gradcheck(const GradCheckFn& f, const std::vector<Tensor>& inputs, GradCheckOptions options = {});
/// gradcheck of the gradient: second derivatives, with random cotangents.
void gradgradcheck(const GradCheckFn& f, const std::vector<Tensor>& inputs, GradCheckOptions options = {});

}  // namespace hone
