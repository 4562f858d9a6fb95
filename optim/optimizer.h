#pragma once
// Optimizer: parameter groups, state keyed by parameter identity, and one fused pass over all parameters per step.
// A new one is an options struct, an update rule (update_rules.cpp) and a class of a few lines: see adagrad.h.

#include <array>
#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <vector>

#include "hone/core/parameter.h"
#include "hone/core/serialize.h"

namespace hone {
struct FieldVisitor;
}

namespace hone::optim {

/// Parameters that share options: Adam adam({{.parameters = a, .options = {.lr = 1e-3}}, {…}}).
template <class Options> struct ParameterGroup {
  std::vector<ParameterRef> parameters;
  Options options = {};
};

/// What step() does where a gradient holds NaN or infinity.
enum class NonFinite : uint8_t {
  error,  ///< throws NumericError naming the parameter; nothing has changed
  skip,   ///< leaves every parameter and all state as they are
  clip,   ///< takes NaN as 0 and ±infinity as ± the largest finite magnitude in the same gradient
};

/// Computes the loss and its gradients anew: zero_grad, forward, backward; returns the loss.
using Closure = std::function<Tensor()>;

namespace detail {

inline constexpr int kMaxSlots = 4;
inline constexpr int kMaxCoefficients = 16;
inline constexpr int kMaxScalars = 2;

/// Updates n contiguous elements: p from g and the state, with the coefficients of the parameter's group and step.
using UpdateKernel = void (*)(void* p, const void* g, void* const* state, int64_t n, const double* coefficients);
/// Adds to sums[0] and sums[1] what it names over n elements, changing none.
using SumKernel = void (*)(const void* p, const void* g, void* const* state, int64_t n, const double* coefficients,
                           double* sums);

/// An update rule's kernels: bf16 parameters are computed in f32 and their state is f32.
struct UpdateKernels {
  UpdateKernel f32 = nullptr, f64 = nullptr;
};
struct SumKernels {
  SumKernel f32 = nullptr, f64 = nullptr;
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
  /// a parameter whose shape changed under its state (stale generation), or no gradient at all. NumericError: see
  /// NonFinite.
  virtual void step();
  /// Runs the closure, then step(); returns the closure's loss. Those that need several evaluations a step (LBFGS, SAM)
  /// call it more often.
  virtual double step(const Closure& closure);
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

  void set_non_finite(NonFinite policy) { non_finite_ = policy; }
  NonFinite non_finite() const { return non_finite_; }
  int64_t non_finite_steps() const { return non_finite_steps_; }  ///< steps that were skipped or clipped

  /// Names of the state tensors that each parameter has ("exp_avg", …), in the order of slots.
  virtual std::vector<std::string> state_names() const = 0;
  /// State of a parameter; undefined before its first step. ValueError for a parameter that is not here.
  Tensor state(const ParameterRef& p, int slot) const;
  int64_t steps(const ParameterRef& p) const;  ///< updates this parameter has had
  virtual int64_t state_bytes() const;         ///< of all state there is

  /// Options of every group, state and counts; metadata "optimizer" holds the name. Parameters are known by their
  /// index, so the list must be given in the same order when it is loaded.
  virtual TensorFile state_dict() const;
  /// Copies values in. FormatError naming the difference: another optimizer, other groups, parameters, shapes or
  /// dtypes, missing or unexpected entries; on error nothing has changed.
  virtual void load_state_dict(const TensorFile& file);

  /// Slices the state of a parameter that has kept only some indices of a dimension, and accepts its new shape. A
  /// parameter that is not here is ignored. ValueError if the state does not have the shape from before the shrink.
  virtual void apply(const Shrink& shrink);

 protected:
  struct Entry {
    ParameterRef parameter;
    int group;
    uint64_t generation;
    Shape shape;  ///< of the parameter in that generation
    int64_t steps = 0;
    std::array<Tensor, detail::kMaxSlots> state;
    std::array<double, detail::kMaxScalars> scalars{};  ///< what a rule keeps besides tensors; 0 at first
  };
  /// A parameter that this step updates; entry.steps counts this update already.
  struct Item {
    Entry& entry;
    Tensor value;  ///< the parameter's array, outside the graph: to be updated where it lies
    Tensor grad;   ///< contiguous
  };
  /// The same as plain data.
  struct Segment {
    void* p;
    const void* g;
    void* state[detail::kMaxSlots];
    int64_t begin, n;          // place in the concatenation of all segments
    int64_t size, state_size;  // bytes of an element of p and g, and of the state
    Entry* entry;
    detail::UpdateKernels kernels;
    double c[detail::kMaxCoefficients];
    double sums[2];
  };

  Optimizer() = default;
  /// Called once by each group, in order, before any step.
  void add_parameters(const char* name, const std::vector<ParameterRef>& parameters);
  void finish_groups(const char* name);
  void check_group(int group) const;
  void count_non_finite() { ++non_finite_steps_; }
  std::vector<Entry>& entries() { return entries_; }
  const std::vector<Entry>& entries() const { return entries_; }

  /// What update rules say about themselves. `scalars` of entry.scalars are saved. Slots hold tensors of the
  /// parameter's shape, zero at first, in f32 for bf16 parameters, unless these say otherwise.
  virtual int slots(int group) const = 0;
  virtual int scalars() const { return 0; }
  virtual Tensor initial_state(int group, int slot, const Tensor& value) const;
  virtual Tensor slice_state(int slot, const Tensor& state, const Shape& before, int64_t dim, const Tensor& kept) const;
  /// The options of a group by name, and their check: ValueError.
  virtual void visit_options(int group, FieldVisitor& v) = 0;
  virtual void check_options(int group) const = 0;

  /// One step over what has gradients. The usual one is a pass of the kernels over all segments.
  virtual void update(std::span<Item> items);
  virtual detail::UpdateKernels kernels(int group) const;
  /// Coefficients for a parameter at its update number entry.steps, counted from 1. c[0], c[1], c[2] are the sign of
  /// the gradient, the λ of coupled decay and the factor of decoupled decay in every rule (update_rules.h).
  virtual void coefficients(Entry& entry, double* c) const;

  // For rules in several passes: the segments of this step, with their kernels and coefficients.
  std::span<Segment> segments() { return {segments_.data(), segments_.size()}; }
  void run_segments() const;
  /// The sums of each segment, added in an order that depends on sizes alone.
  void sum_segments(const detail::SumKernels& kernels);

 private:
  const Entry& entry(const ParameterRef& p) const;
  void collect();
  void add_item(size_t i);
  bool settle_non_finite();
  void add_state(Segment& s);

  std::vector<Entry> entries_;
  std::vector<size_t> first_;  // entries_ index at which each group starts, and the end
  std::vector<Item> items_;
  std::vector<Segment> segments_;
  std::vector<double> partial_;
  NonFinite non_finite_ = NonFinite::error;
  int64_t non_finite_steps_ = 0;
};

/// What optimizers with options of their own share. Self has kName and check(options) (ValueError); Options is an
/// aggregate with `lr` and fields(FieldVisitor&).
template <class Self, class OptionsType> class GroupedOptimizer : public Optimizer {
 public:
  using Options = OptionsType;
  explicit GroupedOptimizer(const std::vector<ParameterRef>& parameters, Options options = {})
      : GroupedOptimizer({{parameters, options}}) {}
  explicit GroupedOptimizer(const std::vector<ParameterGroup<Options>>& groups) {
    for (const auto& g : groups) {
      Self::check(g.options);
      add_parameters(Self::kName, g.parameters);
      options_.push_back(g.options);
    }
    finish_groups(Self::kName);
  }

  const char* name() const override { return Self::kName; }
  const Options& options(int group = 0) const {
    check_group(group);
    return options_[static_cast<size_t>(group)];
  }
  using Optimizer::set_lr;
  double lr(int group = 0) const override { return options(group).lr; }
  void set_lr(double lr, int group) override {
    change(group, [&](Options& o) { o.lr = lr; });
  }
  bool has_momentum() const override { return kBeta1 || kMomentum; }
  double momentum(int group = 0) const override {
    if constexpr (kBeta1) return options(group).beta1;
    if constexpr (kMomentum) return options(group).momentum;
    return Optimizer::momentum(group);
  }
  void set_momentum(double value, int group) override {
    if constexpr (kBeta1) return change(group, [&](Options& o) { o.beta1 = value; });
    if constexpr (kMomentum) return change(group, [&](Options& o) { o.momentum = value; });
    Optimizer::set_momentum(value, group);
  }

 protected:
  static constexpr bool kBeta1 = requires(Options & o) { o.beta1; };
  static constexpr bool kMomentum = requires(Options & o) { o.momentum; };

  const Options& of(const Entry& e) const { return options_[static_cast<size_t>(e.group)]; }
  void visit_options(int group, FieldVisitor& v) override { options_[static_cast<size_t>(group)].fields(v); }
  void check_options(int group) const override { Self::check(options_[static_cast<size_t>(group)]); }

 private:
  template <class F> void change(int group, F&& f) {
    Options o = options(group);
    f(o);
    Self::check(o);
    options_[static_cast<size_t>(group)] = o;
  }
  std::vector<Options> options_;
};

namespace detail {
/// ValueError "Adam: lr must be …, got …" unless the value is finite and in the range.
void check_at_least_zero(const char* optimizer, const char* field, double v);
void check_above_zero(const char* optimizer, const char* field, double v);
void check_unit_interval(const char* optimizer, const char* field, double v);  ///< [0, 1)
void check_finite(const char* optimizer, const char* field, double v);
}  // namespace detail

}  // namespace hone::optim
