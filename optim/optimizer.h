#pragma once
// Optimizer: parameter groups, state keyed by parameter identity, and one fused pass over all parameters per step.

#include <array>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "hone/core/parameter.h"

namespace hone::optim {

/// Parameters that share options: Adam adam({{.parameters = a, .options = {.lr = 1e-3}}, {…}}).
template <class Options> struct ParameterGroup {
  std::vector<ParameterRef> parameters;
  Options options = {};
};

namespace detail {

inline constexpr int kMaxSlots = 4;
inline constexpr int kMaxCoefficients = 12;

/// Updates n contiguous elements: p from g and the state, with the coefficients of the parameter's group and step.
using UpdateKernel = void (*)(void* p, const void* g, void* const* state, int64_t n, const double* coefficients);

/// An update rule's kernels: bf16 parameters are computed in f32 and their state is f32.
struct UpdateKernels {
  UpdateKernel f32 = nullptr, f64 = nullptr;
};

}  // namespace detail

/// Base of all optimizers. Parameters are updated in place, in one parallel pass whose pieces depend on their sizes
/// alone: the same bits at any number of threads. State (moments) is made at a parameter's first step and belongs to
/// its identity. Construction throws ValueError for an empty list, an undefined parameter, one that stands twice, or
/// options outside their range.
class Optimizer {
 public:
  virtual ~Optimizer() = default;
  Optimizer(const Optimizer&) = delete;
  Optimizer& operator=(const Optimizer&) = delete;

  /// Updates every parameter that has a gradient; those without one keep their values, state and step count. Everything
  /// is checked before anything changes. GradError naming the parameter's index: a gradient of another shape or dtype,
  /// a parameter whose shape changed under its state (stale generation), or no gradient at all.
  void step();
  /// Drops the gradients of all parameters.
  void zero_grad();

  virtual const char* name() const = 0;
  int groups() const { return static_cast<int>(first_.size()) - 1; }
  int64_t size() const { return static_cast<int64_t>(entries_.size()); }  ///< parameters, over all groups
  const ParameterRef& parameter(int64_t i) const { return entries_[static_cast<size_t>(i)].parameter; }

  /// The rate of a group. set_lr: ValueError for a negative rate or NaN.
  virtual double lr(int group = 0) const = 0;
  void set_lr(double lr);  ///< of every group
  virtual void set_lr(double lr, int group) = 0;

  /// What one-cycle schedules move against the rate: SGD's momentum, Adam's beta1. False: this optimizer has none.
  virtual bool has_momentum() const { return false; }
  virtual double momentum(int group = 0) const;
  virtual void set_momentum(double value, int group);

  /// Names of the state tensors that each parameter has ("exp_avg", …), in the order of slots.
  virtual std::vector<std::string> state_names() const = 0;
  /// State of a parameter, of its shape; undefined before its first step. ValueError for a parameter that is not here.
  Tensor state(const ParameterRef& p, int slot) const;
  int64_t steps(const ParameterRef& p) const;  ///< updates this parameter has had

 protected:
  Optimizer() = default;
  /// Called once by each group, in order, before any step.
  void add_parameters(const char* name, const std::vector<ParameterRef>& parameters);
  void finish_groups(const char* name);
  void check_group(int group) const;

  /// What update rules say about themselves.
  virtual int slots(int group) const = 0;
  virtual detail::UpdateKernels kernels(int group) const = 0;
  /// Coefficients for a parameter of `group` at its update number `t`, counted from 1.
  virtual void coefficients(int group, int64_t t, double* c) const = 0;

 private:
  struct Entry {
    ParameterRef parameter;
    int group;
    uint64_t generation;
    int64_t steps = 0;
    std::array<Tensor, detail::kMaxSlots> state;
  };
  struct Segment {
    void* p;
    const void* g;
    void* state[detail::kMaxSlots];
    detail::UpdateKernel kernel;
    int64_t begin;             // in the concatenation of all segments
    int64_t size, state_size;  // bytes of an element of p and g, and of the state
    double c[detail::kMaxCoefficients];
  };
  struct Pending {
    size_t entry;
    Tensor raw, work, grad;
  };

  const Entry& entry(const ParameterRef& p) const;
  Pending check_entry(size_t i) const;
  void add_segment(Pending& pending, int64_t begin);
  void run_segments(int64_t begin, int64_t end) const;

  std::vector<Entry> entries_;
  std::vector<size_t> first_;  // entries_ index at which each group starts, and the end
  PoolVector<Segment> segments_;
  PoolVector<Pending> pending_;
};

namespace detail {
/// ValueError "Adam: lr must be …, got …" unless the value is finite and in the range.
void check_at_least_zero(const char* optimizer, const char* field, double v);
void check_unit_interval(const char* optimizer, const char* field, double v);  ///< [0, 1)
}  // namespace detail

}  // namespace hone::optim
