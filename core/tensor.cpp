#include "hone/core/tensor.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "hone/core/autograd.h"
#include "hone/core/basic_ops.h"
#include "hone/core/convert.h"
#include "hone/core/modes.h"
#include "hone/core/node.h"
#include "hone/cuda/api.h"

namespace hone {

namespace {
TensorImpl& deref(const Handle<TensorImpl>& h) {
  if (!h) [[unlikely]]
    throw ValueError("undefined tensor: it holds no array");
  return *h;
}
// Rules for every in-place change: what the graph has recorded must not move under it, and no element may be written
// for several indices (by several threads).
void check_in_place(const Tensor& t, const char* what) {
  HONE_CHECK(!(t.requires_grad() && grad_enabled()), GradError, what,
             ": in-place change of a tensor that requires grad (or of a view of one); do it under NoGrad");
  const Shape &sizes = t.shape(), &strides = t.strides();
  if (t.numel() == 0) return;
  for (int d = 0; d < sizes.ndim(); ++d)
    HONE_CHECK(sizes[d] == 1 || strides[d] != 0, ValueError, what, ": dim ", d, " of this view of shape ", sizes,
               " is expanded: its ", sizes[d], " elements are one; write to a contiguous() copy");
}
}  // namespace

void intrusive_retain(TensorImpl* t) { t->references.fetch_add(1, std::memory_order_relaxed); }
int64_t intrusive_count(const TensorImpl* t) { return t->references.load(std::memory_order_acquire); }
void intrusive_release(TensorImpl* t) {
  if (t->references.fetch_sub(1, std::memory_order_acq_rel) == 1) delete t;
}

Tensor make_view(const StoragePtr& storage, const Shape& sizes, const Shape& strides, int64_t offset, DType dtype) {
  Handle<TensorImpl> t(new TensorImpl);
  t->storage = storage;
  t->sizes = sizes;
  t->strides = strides;
  t->offset = offset;
  t->dtype = dtype;
  t->inference = inference_mode();
  return Tensor(std::move(t));
}

Edge edge_of(const Tensor& t) {
  if (!t.defined() || !t.impl()->requires_grad) return {};
  if (t.impl()->node) return {t.impl()->node, t.impl()->node_index, {}};
  return {{}, 0, t.handle()};
}

int64_t Tensor::numel() const {
  int64_t n = 1;
  for (int64_t s : shape()) n *= s;
  return n;
}
const Shape& Tensor::shape() const { return deref(impl_).sizes; }
const Shape& Tensor::strides() const { return deref(impl_).strides; }
int64_t Tensor::offset() const { return deref(impl_).offset; }
int64_t Tensor::size(int64_t dim) const {
  const int64_t n = ndim();
  HONE_CHECK(dim >= -n && dim < n, ShapeError, "size: dim ", dim, " out of range for shape ", shape());
  return shape()[dim < 0 ? dim + n : dim];
}
DType Tensor::dtype() const { return deref(impl_).dtype; }
Device Tensor::device() const { return deref(impl_).storage->device; }
bool Tensor::is_contiguous() const { return view().is_contiguous(); }
const StoragePtr& Tensor::storage() const { return deref(impl_).storage; }

void* Tensor::raw_data() const {
  const TensorImpl& t = deref(impl_);
  auto* base = static_cast<std::byte*>(t.storage->data);
  return base ? base + t.offset * size_of(t.dtype) : nullptr;
}
void* Tensor::checked_data(DType want) const {
  if (modes().recorder) [[unlikely]]
    modes().recorder->read(*this, "data");
  HONE_CHECK(dtype() == want, DTypeError, "data<", want, ">: the tensor's dtype is ", dtype());
  HONE_CHECK(device().type == DeviceType::cpu, DeviceError, "data: the tensor is on ", device(), ", not on cpu");
  return raw_data();
}
View Tensor::view() const {
  View v;
  if (!impl_) return v;
  v.data = raw_data();
  v.dtype = impl_->dtype;
  v.device = impl_->storage->device.type;
  v.ndim = impl_->sizes.ndim();
  std::copy(impl_->sizes.begin(), impl_->sizes.end(), v.sizes);
  std::copy(impl_->strides.begin(), impl_->strides.end(), v.strides);
  return v;
}
void Tensor::only_element(void* value, DType as) const {
  HONE_CHECK(numel() == 1, ShapeError, "item: the tensor of shape ", shape(), " does not hold exactly one element");
  if (modes().recorder) [[unlikely]]
    modes().recorder->read(*this, "item");
  NoGrad guard;
  const Tensor t = to(*this, cpu);
  visit_dtype(as, [&]<class To>() {
    visit_dtype(t.dtype(), [&]<class From>() {
      *static_cast<To*>(value) = detail::convert<To>(*static_cast<const From*>(t.raw_data()));
    });
  });
}
template <class T> std::vector<T> Tensor::to_vector() const {
  if (modes().recorder) [[unlikely]]
    modes().recorder->read(*this, "to_vector");
  NoGrad guard;
  const Tensor t = to(dtype() == dtype_of<T> ? contiguous(*this) : cast(*this, dtype_of<T>), cpu);
  const T* p = static_cast<T*>(t.raw_data());
  return std::vector<T>(p, p + numel());
}
template std::vector<double> Tensor::to_vector() const;
template std::vector<float> Tensor::to_vector() const;
template std::vector<BFloat16> Tensor::to_vector() const;
template std::vector<int64_t> Tensor::to_vector() const;
template std::vector<int32_t> Tensor::to_vector() const;
template std::vector<int8_t> Tensor::to_vector() const;
template std::vector<uint8_t> Tensor::to_vector() const;
template std::vector<bool> Tensor::to_vector() const;

uint64_t Tensor::version() const { return storage()->version.load(std::memory_order_acquire); }
void Tensor::bump_version() const { storage()->version.fetch_add(1, std::memory_order_acq_rel); }

Tensor& Tensor::fill_(double value) {
  check_in_place(*this, "fill_");
  if (modes().recorder) [[unlikely]]
    modes().recorder->write(*this, "fill_");
  NoGrad guard;
  detail::check_scalar("fill_", value, dtype());
  const View to = view();
  if constexpr (kHasCuda) {
    if (to.device == DeviceType::cuda) {
      if (to.numel() > 0) cuda::fill(to, value);
      bump_version();
      return *this;
    }
  }
  // One value, of stride 0 in every dim; in the tensor's dtype, so that copies convert it once.
  View from = to;
  std::fill_n(from.strides, View::kDims, 0);
  visit_dtype(dtype(), [&]<class T>() {
    T one = detail::convert<T>(value);
    from.data = &one;
    detail::copy_strided(from, to);
  });
  bump_version();
  return *this;
}

Tensor& Tensor::copy_(const Tensor& source) {
  check_in_place(*this, "copy_");
  HONE_CHECK(!(source.requires_grad() && grad_enabled()), GradError,
             "copy_: the source requires grad, and no gradient would reach it through an in-place copy; copy its "
             "detach(), or do it under NoGrad");
  HONE_CHECK(shape() == source.shape(), ShapeError, "copy_: shape ", source.shape(), " does not fit into ", shape());
  if (modes().recorder) [[unlikely]]
    modes().recorder->read(source, "copy_"), modes().recorder->write(*this, "copy_");
  NoGrad guard;
  if (device() == cpu && source.device() == cpu) {
    // Overlapping ranges of one storage go through a copy.
    const Tensor from = shares_storage_with(source) && !is_same(source) ? clone(source) : source;
    detail::copy_strided(from.view(), view());
  } else {
    HONE_CHECK(is_contiguous(), DeviceError, "copy_: a copy between devices needs a contiguous target");
    const Tensor from = contiguous(dtype() == source.dtype() ? source : cast(source, dtype()));
    detail::copy_between_devices(from, *this);
  }
  bump_version();
  return *this;
}

bool Tensor::requires_grad() const { return impl_ && impl_->requires_grad; }
Tensor& Tensor::requires_grad_(bool on) {
  TensorImpl& t = deref(impl_);
  HONE_CHECK(!on || is_floating(t.dtype), DTypeError, "requires_grad_: only floating tensors have gradients, not ",
             t.dtype);
  HONE_CHECK(!t.node, GradError, "requires_grad_: the tensor was made by ", t.node->op->name,
             "; only leaves can be set");
  HONE_CHECK(!(on && t.inference), GradError, "requires_grad_: the tensor was made in inference mode");
  t.requires_grad = on;
  return *this;
}
bool Tensor::is_leaf() const { return !deref(impl_).node; }
Tensor Tensor::grad() const {
  const TensorImpl& t = deref(impl_);
  return t.retained ? t.retained->grad : t.grad;
}
void Tensor::set_grad(Tensor g) const {
  TensorImpl& t = deref(impl_);
  if (g.defined()) {
    HONE_CHECK(g.shape() == shape(), ShapeError, "set_grad: gradient of shape ", g.shape(), " for a tensor of shape ",
               shape());
    HONE_CHECK(g.dtype() == dtype(), DTypeError, "set_grad: gradient of dtype ", g.dtype(), " for a tensor of dtype ",
               dtype());
  }
  (t.retained ? t.retained->grad : t.grad) = std::move(g);
}
void Tensor::retain_grad() const {
  TensorImpl& t = deref(impl_);
  HONE_CHECK(t.requires_grad, GradError, "retain_grad: the tensor does not require grad");
  if (!t.node || t.retained) return;
  t.retained = Handle<GradCell>(new GradCell);
  t.node->retained.emplace_back(t.node_index, t.retained);
}
Tensor Tensor::detach() const {
  const TensorImpl& t = deref(impl_);
  Tensor d = make_view(t.storage, t.sizes, t.strides, t.offset, t.dtype);
  d.impl_->inference = t.inference;
  return d;
}
const char* Tensor::grad_op() const { return deref(impl_).node ? impl_->node->op->name : nullptr; }

HookHandle Tensor::register_hook(GradHook hook) const {
  TensorImpl& t = deref(impl_);
  HONE_CHECK(t.requires_grad, GradError, "register_hook: the tensor does not require grad");
  auto& list = t.node ? t.node->hooks : t.hooks;
  if (!list) list = std::allocate_shared<HookList>(detail::PoolAllocator<HookList>());
  const uint32_t id = list->next_id++;
  list->hooks.push_back({t.node ? t.node_index : 0, id, std::move(hook)});
  return HookHandle([weak = std::weak_ptr<HookList>(list), id] {
    if (const auto alive = weak.lock())
      std::erase_if(alive->hooks, [id](const HookList::Hook& h) { return h.id == id; });
  });
}

bool equal(const Tensor& a, const Tensor& b) {
  if (a.shape() != b.shape() || a.dtype() != b.dtype()) return false;
  return visit_dtype(a.dtype(), [&]<class T>() {
    const auto x = a.to_vector<T>(), y = b.to_vector<T>();
    for (size_t i = 0; i < x.size(); ++i) {
      if (!(x[i] == y[i]) && !(x[i] != x[i] && y[i] != y[i])) return false;
    }
    return true;
  });
}
bool allclose(const Tensor& a, const Tensor& b, double rtol, double atol) {
  if (a.shape() != b.shape() || a.dtype() != b.dtype()) return false;
  const auto x = a.to_vector<double>(), y = b.to_vector<double>();
  for (size_t i = 0; i < x.size(); ++i) {
    if (x[i] == y[i]) continue;
    // An infinity is close to itself alone, whatever the tolerance makes of it.
    if (std::isinf(x[i]) || std::isinf(y[i]) || !(std::abs(x[i] - y[i]) <= atol + rtol * std::abs(y[i]))) return false;
  }
  return true;
}

}  // namespace hone
