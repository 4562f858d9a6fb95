#pragma once
// An operation is one constant that says everything about it once: eager calls, autograd, tracing, the executor, the
// file loader and the tests all read that constant. docs/adding_an_op.md shows one end to end.
//
//   struct SoftmaxAttrs { int64_t dim = -1; void fields(FieldVisitor& v) { v("dim", dim); } };
//   const OpDef kSoftmax = {.name = "softmax", .attributes = attributes<SoftmaxAttrs>(), .shapes = softmax_shapes,
//                           .run = softmax_run, .saves = {.outputs = 1}, .backward = softmax_backward};
//   Tensor softmax(const Tensor& x, int64_t dim) { return apply(kSoftmax, SoftmaxAttrs{dim}, {x}); }

#include <array>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <initializer_list>
#include <memory>
#include <span>
#include <type_traits>
#include <utility>

#include "hone/core/tensor.h"

namespace hone {

struct ParameterState;

/// Reads or writes an op's attributes by name: saving, loading, printing.
struct FieldVisitor {
  virtual ~FieldVisitor() = default;
  virtual void operator()(const char* name, int64_t& v) = 0;
  virtual void operator()(const char* name, double& v) = 0;
  virtual void operator()(const char* name, bool& v) = 0;
  virtual void operator()(const char* name, Shape& v) = 0;
  virtual void operator()(const char* name, DType& v) = 0;
};

struct AttrType {
  size_t size;
  void (*init)(void*);  ///< writes the defaults
  void (*visit)(void*, FieldVisitor&);
};

namespace detail {
template <class A>
inline constexpr AttrType kAttrType = {sizeof(A), [](void* p) { new (p) A(); },
                                       [](void* p, FieldVisitor& v) { static_cast<A*>(p)->fields(v); }};
}  // namespace detail

/// The one AttrType of an attribute struct: trivially copyable, with defaults and fields(FieldVisitor&).
template <class A> constexpr const AttrType* attributes() {
  static_assert(std::is_trivially_copyable_v<A>);
  return &detail::kAttrType<A>;
}

/// An op's attributes, held inline.
class Attrs {
 public:
  static constexpr size_t kCapacity = 192;
  Attrs() = default;
  template <class A>
  requires requires(A& a, FieldVisitor& v) { a.fields(v); }
  Attrs(const A& a) : type_(attributes<A>()) {
    static_assert(sizeof(A) <= kCapacity);
    std::memcpy(bytes_, &a, sizeof(A));
  }
  explicit Attrs(const AttrType* type) : type_(type) {
    if (type) type->init(bytes_);
  }
  template <class A> const A& as() const {
    HONE_ASSERT(type_ == attributes<A>());
    return *std::launder(reinterpret_cast<const A*>(bytes_));
  }
  const AttrType* type() const { return type_; }
  void visit(FieldVisitor& v) {
    if (type_) type_->visit(bytes_, v);
  }

 private:
  const AttrType* type_ = nullptr;
  alignas(16) std::byte bytes_[kCapacity];
};

inline constexpr int kMaxOutputs = 4;

namespace detail {
/// Arrays from the caching allocator, 64-byte aligned, handed out one after the other.
class Blocks {
 public:
  Blocks() = default;
  Blocks(Blocks&& other) noexcept : blocks_(std::move(other.blocks_)), used_(std::exchange(other.used_, 0)) {}
  ~Blocks();
  /// The next one, with room for n bytes; what is in it stays where it had.
  void* next(size_t n);
  size_t used() const { return used_; }
  void rewind(size_t used) { used_ = used; }
  bool next_has(size_t n) const { return used_ < blocks_.size() && blocks_[used_].second >= n; }
  size_t bytes() const;  ///< of all of them

 private:
  PoolVector<std::pair<void*, size_t>> blocks_;
  size_t used_ = 0;
};
}  // namespace detail

/// Memory for one run of an op; it is freed when the run ends, or handed out again by whoever runs many.
class Workspace {
 public:
  /// What once() made for one op with the same attributes, shapes and inputs but the first, on one SIMD target: kept
  /// from run to run.
  class Kept {
   public:
    Kept() = default;
    Kept(Kept&& other) noexcept : blocks_(std::move(other.blocks_)), filled_(std::exchange(other.filled_, 0)) {}
    size_t bytes() const { return blocks_.bytes(); }

   private:
    friend Workspace;
    detail::Blocks blocks_;
    size_t filled_ = 0;
  };

  Workspace() = default;
  Workspace(const Workspace&) = delete;
  Workspace& operator=(const Workspace&) = delete;

  /// Uninitialized room for n elements of T.
  template <class T> T* get(int64_t n) { return static_cast<T*>(scratch_.next(static_cast<size_t>(n) * sizeof(T))); }
  /// n elements that fill(T*) makes, of attributes, shapes and all inputs but the first: tables, weights in the form
  /// that a kernel takes. In a run that keeps, fill is called the first time alone; it may take scratch memory, throw
  /// where the inputs are wrong, and not call once().
  template <class T, class Fill> const T* once(int64_t n, const Fill& fill) {
    static_assert(std::is_trivially_destructible_v<T>);
    const size_t bytes = static_cast<size_t>(n) * sizeof(T);
    detail::Blocks& from = kept_ ? kept_->blocks_ : scratch_;
    const bool filled = kept_ && from.used() < kept_->filled_;
    HONE_ASSERT(!filled || from.next_has(bytes));
    T* const to = static_cast<T*>(from.next(bytes));
    if (filled) return to;
    const size_t used = scratch_.used();  // what fill takes is free again behind it, as in runs without it
    fill(to);
    scratch_.rewind(used);
    if (kept_) ++kept_->filled_;
    return to;
  }
  /// Runs a check of those inputs as once() does.
  template <class Check> void once(const Check& check) {
    once<bool>(1, [&](bool* passed) {
      check();
      *passed = true;
    });
  }
  /// Begins another run, which finds what `kept` has of former ones; null: a run that keeps nothing.
  void reuse(Kept* kept) {
    scratch_.rewind(0);
    if ((kept_ = kept)) kept->blocks_.rewind(0);
  }

 private:
  detail::Blocks scratch_;
  Kept* kept_ = nullptr;
};

/// What `shapes` sees and fills: check every rule here, then describe each output.
struct ShapeContext {
  const char* op;
  std::span<const View> in;  ///< data not to be read; absent optional inputs are not defined()
  const Attrs& attrs;
  struct Output {
    Shape shape;
    DType dtype;
  };
  std::array<Output, kMaxOutputs> out{};
  int outputs = 0;
  void add(const Shape& shape, DType dtype) { out[static_cast<size_t>(outputs++)] = {shape, dtype}; }
  Shape shape(int i) const { return Shape(std::span<const int64_t>(in[i].sizes, static_cast<size_t>(in[i].ndim))); }
  DType dtype(int i) const { return in[i].dtype; }
  bool has(int i) const { return i < static_cast<int>(in.size()) && in[i].defined(); }
};

/// What `run` sees. Outputs are contiguous, uninitialized and do not overlap the inputs; inputs have any strides.
struct RunContext {
  const char* op;
  std::span<const View> in;
  std::span<const View> out;
  const Attrs& attrs;
  Workspace& workspace;
  bool has(int i) const { return i < static_cast<int>(in.size()) && in[i].defined(); }
};

class BackwardContext;
class Outputs;

/// Bit masks: which inputs and outputs backward reads.
struct Saves {
  uint32_t inputs = 0, outputs = 0;
};
inline constexpr uint32_t kAllInputs = ~0u;

struct OpDef {
  const char* name;  ///< unique; the field's term
  const AttrType* attributes = nullptr;
  void (*shapes)(ShapeContext&) = nullptr;
  /// For views: sets sizes, strides and data of `out` inside input 0's array and returns true; false: run must copy.
  bool (*alias)(const View& in, const Attrs&, View& out) = nullptr;
  void (*run)(RunContext&) = nullptr;
  bool runs_on_cuda = false;  ///< run takes CUDA arrays too (in a CUDA build); else apply() refuses them
  Saves saves{};
  void (*backward)(BackwardContext&) = nullptr;
  /// Why there is no backward. One of the two must be set. Floating outputs then throw GradError in backward();
  /// integer and bool outputs never require grad.
  const char* not_differentiable = nullptr;
  /// For ops whose public function does more than apply() in training mode (draws random numbers, updates running
  /// statistics): does that anew with these attributes and inputs. A traced network calls it when it trains.
  Outputs (*replay)(const Attrs& attrs, std::span<const Tensor> inputs) = nullptr;
  uint32_t aux_outputs = 0;  ///< outputs kept for backward or information, never with a gradient
  int64_t (*macs)(std::span<const View> in, std::span<const View> out, const Attrs&) = nullptr;  ///< multiply-adds
};

/// The outputs of apply(); converts to Tensor where there is one.
class Outputs {
 public:
  Tensor& operator[](int i) { return items_[static_cast<size_t>(i)]; }
  const Tensor& operator[](int i) const { return items_[static_cast<size_t>(i)]; }
  int size() const { return size_; }
  void push_back(Tensor t) { items_[static_cast<size_t>(size_++)] = std::move(t); }
  operator Tensor() && { return std::move(items_[0]); }
  operator Tensor() const& { return items_[0]; }

 private:
  std::array<Tensor, kMaxOutputs> items_;
  int size_ = 0;
};

/// The one door: checks devices and shapes, allocates outputs, runs, records for autograd and for an OpRecorder.
/// Undefined tensors stand for absent optional inputs. Throws what `shapes` throws, and DeviceError for mixed devices
/// or one that the op does not run on.
Outputs apply(const OpDef& op, const Attrs& attrs, std::span<const Tensor> inputs);
inline Outputs apply(const OpDef& op, const Attrs& attrs, std::initializer_list<Tensor> inputs) {
  return apply(op, attrs, std::span<const Tensor>(inputs.begin(), inputs.size()));
}

/// Sees every apply() on this thread, under no_grad too: tracing, counting of multiply-adds.
struct OpRecorder {
  virtual ~OpRecorder() = default;
  virtual void record(const OpDef& op, const Attrs& attrs, std::span<const Tensor> inputs, const Outputs& outputs) = 0;
  /// Elements of `t` are read outside of ops (`how`: item, data, to_vector, copy_), or changed in place (fill_, copy_).
  virtual void read(const Tensor& t, const char* how) { (void)t, (void)how; }
  virtual void write(const Tensor& t, const char* how) { (void)t, (void)how; }
  /// `value` is what a Parameter that is not plainly dense was asked for. The ops that made it are not recorded.
  virtual void weight(const ParameterState* parameter, const Tensor& value) { (void)parameter, (void)value; }
};
/// Installs a recorder for a scope; the former one returns after it.
class RecorderScope {
 public:
  explicit RecorderScope(OpRecorder* r);
  ~RecorderScope();
  RecorderScope(const RecorderScope&) = delete;

 private:
  OpRecorder* former_;
};

// Checks that ops share. Each names the op, the input and the rule.
void check_inputs(const ShapeContext& c, int least, int most);  ///< count of inputs; required ones defined
void check_floating(const ShapeContext& c, int i, const char* what);
void check_same_dtype(const ShapeContext& c, int i, int j);
void check_ndim(const ShapeContext& c, int i, int ndim, const char* what);

}  // namespace hone
