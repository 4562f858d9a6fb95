#pragma once
// Tensor: a handle to a strided array on a device, and its place in the autograd graph. Copies share the array.
//
//   Tensor x = randn({4, 3}).requires_grad_();
//   Tensor y = sum(tanh(x));            // ops are free functions, in hone/ops/
//   y.backward();
//   print(x.grad());

#include <cstdint>
#include <functional>
#include <initializer_list>
#include <iosfwd>
#include <span>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include "hone/core/device.h"
#include "hone/core/dtype.h"
#include "hone/core/error.h"
#include "hone/core/shape.h"
#include "hone/core/storage.h"
#include "hone/core/view.h"

namespace hone {

struct Node;        // autograd.h
struct TensorImpl;  // tensor_impl.h
class Tensor;
void intrusive_retain(TensorImpl* t);
void intrusive_release(TensorImpl* t);
int64_t intrusive_count(const TensorImpl* t);
void intrusive_retain(Node* n);
void intrusive_release(Node* n);
int64_t intrusive_count(const Node* n);

using GradHook = std::function<Tensor(const Tensor& grad)>;

/// Removes the hook it was returned for; outliving or dropping it changes nothing.
class HookHandle {
 public:
  HookHandle() = default;
  explicit HookHandle(std::function<void()> remove) : remove_(std::move(remove)) {}
  void remove() {
    if (remove_) std::exchange(remove_, nullptr)();
  }

 private:
  std::function<void()> remove_;
};

struct BackwardOptions {
  bool retain_graph = false;  ///< keep what the graph saved, so that it can be walked again
  /// Record the backward pass itself, for higher derivatives (implies retain_graph). The gradient left in a leaf then
  /// has a graph that holds the leaf: neither is freed until that gradient is dropped (set_grad({}), zero_grad()).
  /// grad() leaves none behind.
  bool create_graph = false;
};

class Tensor {
 public:
  Tensor() = default;  ///< undefined: no array
  explicit Tensor(Handle<TensorImpl> impl) : impl_(std::move(impl)) {}

  bool defined() const { return static_cast<bool>(impl_); }
  int64_t ndim() const { return shape().ndim(); }
  int64_t numel() const;
  const Shape& shape() const;       ///< sizes
  const Shape& strides() const;     ///< in elements
  int64_t offset() const;           ///< of the first element in the storage, in elements
  int64_t size(int64_t dim) const;  ///< dim in [-ndim, ndim); ShapeError
  DType dtype() const;
  Device device() const;
  bool is_contiguous() const;
  const StoragePtr& storage() const;
  bool shares_storage_with(const Tensor& o) const { return storage() == o.storage(); }
  bool is_same(const Tensor& o) const { return impl_ == o.impl_; }

  /// The first element's address; DTypeError if T is not the dtype. Elements lie at strides(). CPU only (DeviceError).
  /// A write through it is not seen by autograd's version check: call bump_version() after one.
  template <class T> T* data() const { return static_cast<T*>(checked_data(dtype_of<T>)); }
  void* raw_data() const;
  View view() const;
  /// The only element, converted to T as cast() does; ShapeError if there is not exactly one.
  template <class T = double> T item() const {
    using As = std::conditional_t<is_element_type<T>, T, std::conditional_t<std::is_integral_v<T>, int64_t, double>>;
    As value;
    only_element(&value, dtype_of<As>);
    return static_cast<T>(value);
  }
  /// All elements in row-major order, converted to T.
  template <class T> std::vector<T> to_vector() const;

  uint64_t version() const;
  void bump_version() const;

  // In place: throw GradError on a tensor that requires grad (or is a view of one) unless grad recording is off, and
  // ValueError on an expanded view (several of its elements are one).
  Tensor& fill_(double value);  ///< DTypeError, ValueError: a value that an integer dtype does not hold
  Tensor& zero_() { return fill_(0); }
  /// Same shape (ShapeError); converts dtype, moves between devices. GradError for a source that requires grad while
  /// recording is on: its gradient would end here.
  Tensor& copy_(const Tensor& source);

  // Autograd.
  bool requires_grad() const;
  Tensor& requires_grad_(bool on = true);  ///< leaves of floating dtype only (GradError, DTypeError)
  bool is_leaf() const;
  Tensor grad() const;  ///< undefined before backward(); leaves, and tensors after retain_grad()
  void set_grad(Tensor g) const;
  void retain_grad() const;  ///< have backward() keep this non-leaf's gradient too
  Tensor detach() const;     ///< same storage, no graph
  /// d(this)/d(leaf) is added to each leaf's grad(). `seed` is the gradient of this tensor: 1 for a single element,
  /// else required (GradError). A graph is freed by its first walk unless retained.
  void backward(const Tensor& seed = {}, BackwardOptions options = {}) const;
  /// Called with this tensor's whole gradient during backward; a defined result replaces it.
  HookHandle register_hook(GradHook hook) const;
  const char* grad_op() const;  ///< name of the op that made it; nullptr for leaves

  TensorImpl* impl() const { return impl_.get(); }
  const Handle<TensorImpl>& handle() const { return impl_; }

 private:
  void* checked_data(DType want) const;
  void only_element(void* value, DType as) const;
  Handle<TensorImpl> impl_;
};

/// dtype and device of a new tensor.
struct TensorOptions {
  DType dtype = DType::f32;
  Device device = cpu;
  TensorOptions() = default;
  TensorOptions(DType d) : dtype(d) {}
  TensorOptions(Device d) : device(d) {}
  TensorOptions(DType d, Device v) : dtype(d), device(v) {}
};

Tensor empty(const Shape& shape, TensorOptions options = {});  ///< uninitialized
Tensor zeros(const Shape& shape, TensorOptions options = {});
Tensor ones(const Shape& shape, TensorOptions options = {});
Tensor full(const Shape& shape, double value, TensorOptions options = {});
Tensor empty_like(const Tensor& x);
Tensor zeros_like(const Tensor& x);
Tensor ones_like(const Tensor& x);
Tensor full_like(const Tensor& x, double value);
/// start, start + step, … below end (above, for a negative step). ValueError for step 0, a range of the wrong sign or
/// values beyond an integer dtype; DTypeError for a start or step that an integer dtype does not hold.
Tensor arange(double start, double end, double step = 1, TensorOptions options = DType::i64);
/// `count` values from start to end, both included.
Tensor linspace(double start, double end, int64_t count, TensorOptions options = {});
Tensor eye(int64_t rows, int64_t cols = -1, TensorOptions options = {});
Tensor rand(const Shape& shape, TensorOptions options = {});   ///< uniform in [0, 1)
Tensor randn(const Shape& shape, TensorOptions options = {});  ///< standard normal (Box–Muller on Philox)
/// Uniform in [low, high). ValueError if the range is empty or the dtype does not hold each of its integers.
Tensor randint(int64_t low, int64_t high, const Shape& shape, TensorOptions options = DType::i64);
Tensor randperm(int64_t n);  ///< a permutation of 0 … n−1, i64

/// From values, copied. `shape` must hold as many elements (ShapeError).
template <class T> Tensor tensor(std::span<const T> values, const Shape& shape);
template <class T> Tensor tensor(const std::vector<T>& values, const Shape& shape) {
  return tensor(std::span<const T>(values), shape);
}
template <class T> Tensor tensor(const std::vector<T>& values) {
  return tensor(std::span<const T>(values), Shape{static_cast<int64_t>(values.size())});
}
template <class T> Tensor tensor(std::initializer_list<T> values) {
  return tensor(std::span<const T>(values.begin(), values.size()), Shape{static_cast<int64_t>(values.size())});
}
template <class T> Tensor tensor(std::initializer_list<T> values, const Shape& shape) {
  return tensor(std::span<const T>(values.begin(), values.size()), shape);
}
/// Plain int literals give i64, the dtype of labels and indices.
Tensor tensor(std::initializer_list<int> values);
Tensor tensor(std::initializer_list<int> values, const Shape& shape);
Tensor scalar(double value, TensorOptions options = {});  ///< 0-d

/// Values with their nesting, four decimals as the magnitudes need, "…" in the middle of long dims, shape and dtype.
std::string to_string(const Tensor& x);
std::ostream& operator<<(std::ostream& out, const Tensor& x);
void print(const Tensor& x);

/// Same shape, dtype and every element equal (NaN equals NaN): for tests and loaders, not differentiable.
bool equal(const Tensor& a, const Tensor& b);
/// |a − b| ≤ atol + rtol·|b| everywhere, an infinity only where both have it; same shape and dtype.
bool allclose(const Tensor& a, const Tensor& b, double rtol = 1e-5, double atol = 1e-8);

}  // namespace hone
