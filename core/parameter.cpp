#include "hone/core/parameter.h"

#include "hone/core/autograd.h"
#include "hone/core/basic_ops.h"
#include "hone/core/tensor_impl.h"

namespace hone {

const char* name(WeightType t) {
  constexpr const char* names[] = {"dense", "masked", "fake_quantized", "codebook"};
  return names[static_cast<int>(t)];
}

namespace {

Tensor deep_copy(const Tensor& t) {
  if (!t.defined()) return {};
  NoGrad no_grad;
  return clone(t.detach());
}

// Nobody else holds the tensor or its storage, and the storage holds nothing else.
bool alone(const Tensor& t) {
  return t.is_leaf() && t.handle().unique() && t.storage().unique() && t.is_contiguous() && t.offset() == 0 &&
         t.storage()->bytes == static_cast<size_t>(t.numel() * size_of(t.dtype()));
}

// A raw value must own its storage: optimizers write it in place.
Tensor as_leaf(Tensor raw, bool requires_grad) {
  HONE_CHECK(raw.defined(), ValueError, "Parameter: the raw value is an undefined tensor");
  HONE_CHECK(is_floating(raw.dtype()), DTypeError, "Parameter: dtype must be floating, is ", raw.dtype());
  if (!alone(raw)) raw = deep_copy(raw);
  raw.set_grad({});
  raw.requires_grad_(requires_grad);
  return raw;
}

/// The indices `kept` of dimension `dim`, as a new tensor: below ops, so slice by slice.
Tensor take(const Tensor& t, int64_t dim, const std::vector<int64_t>& kept) {
  Shape shape = t.shape();
  shape[dim] = static_cast<int64_t>(kept.size());
  Tensor taken = empty(shape, {t.dtype(), t.device()});
  const auto slice = [dim](const Tensor& of, int64_t i) {
    Shape one = of.shape();
    one[dim] = 1;
    return make_view(of.storage(), one, of.strides(), of.offset() + i * of.strides()[dim], of.dtype());
  };
  for (size_t i = 0; i < kept.size(); ++i) slice(taken, static_cast<int64_t>(i)).copy_(slice(t, kept[i]));
  return taken;
}

}  // namespace

Tensor ParameterRef::value() const {
  if (!s_) return {};
  if (s_->type == WeightType::masked) return masked(s_->raw, s_->mask, s_->mask_gradient);
  HONE_CHECK(s_->type == WeightType::dense, ValueError, "Parameter: value() of weight type ", name(s_->type),
             " is not known");
  return s_->raw;
}

void ParameterRef::replace(Tensor raw) const {
  HONE_CHECK(defined(), ValueError, "Parameter: replace() of an absent parameter");
  const Tensor former = s_->raw;
  Tensor next = as_leaf(std::move(raw), former.requires_grad());
  HONE_CHECK(!s_->mask.defined() || next.shape() == former.shape(), ShapeError, "Parameter: replace() by shape ",
             next.shape(), " of a masked parameter of shape ", former.shape(), "; shrink() slices value and mask");
  if (s_->mask.defined()) s_->mask = to(s_->mask, next.device());
  if (next.shape() != former.shape() || next.dtype() != former.dtype() || next.device() != former.device()) {
    ++s_->generation;
  }
  s_->raw = std::move(next);
}

void ParameterRef::set_mask(const Tensor& mask, MaskGradient gradient) const {
  HONE_CHECK(defined(), ValueError, "Parameter: set_mask() of an absent parameter");
  HONE_CHECK(s_->type == WeightType::dense || s_->type == WeightType::masked, ValueError,
             "Parameter: a mask on weight type ", name(s_->type), "; only dense and masked ones take it");
  HONE_CHECK(mask.defined(), ValueError, "Parameter: the mask is an undefined tensor");
  HONE_CHECK(mask.dtype() == DType::boolean, DTypeError, "Parameter: a mask must be bool, not ", mask.dtype());
  HONE_CHECK(mask.shape() == s_->raw.shape(), ShapeError, "Parameter: mask ", mask.shape(),
             " must have the shape of the raw value, ", s_->raw.shape());
  s_->mask = to(deep_copy(mask), s_->raw.device());
  s_->mask_gradient = gradient;
  s_->type = WeightType::masked;
}

void ParameterRef::bake_mask() const {
  HONE_CHECK(defined(), ValueError, "Parameter: bake_mask() of an absent parameter");
  if (s_->type != WeightType::masked) return;
  NoGrad no_grad;
  s_->raw.copy_(value());
  s_->mask = {};
  s_->type = WeightType::dense;
}

Shrink ParameterRef::shrink(int64_t dim, const std::vector<int64_t>& kept) const {
  HONE_CHECK(defined(), ValueError, "Parameter: shrink() of an absent parameter");
  const Shape& before = s_->raw.shape();
  HONE_CHECK(dim >= 0 && dim < before.ndim(), ShapeError, "Parameter: shrink() of dim ", dim, " of shape ", before);
  HONE_CHECK(!kept.empty(), ValueError, "Parameter: shrink() of dim ", dim, " of shape ", before,
             " must keep at least one index");
  for (size_t i = 0; i < kept.size(); ++i)
    HONE_CHECK(kept[i] >= 0 && kept[i] < before[dim] && (i == 0 || kept[i] > kept[i - 1]), ValueError,
               "Parameter: shrink() of dim ", dim, " of shape ", before, ": kept index ", kept[i],
               " is out of range or not above the one before it");
  NoGrad no_grad;
  const Tensor grad = s_->raw.grad();
  if (s_->mask.defined()) s_->mask = take(s_->mask, dim, kept);
  const bool requires_grad = s_->raw.requires_grad();
  s_->raw = as_leaf(take(s_->raw.detach(), dim, kept), requires_grad);
  if (grad.defined()) s_->raw.set_grad(take(grad.detach(), dim, kept));
  ++s_->generation;
  return {*this, dim, kept};
}

Parameter::Parameter(Tensor raw) {
  auto state = std::make_shared<ParameterState>();
  state->raw = as_leaf(std::move(raw), true);
  ref_ = ParameterRef(std::move(state));
}

Parameter Parameter::copy_of(const ParameterRef& p) {
  Parameter copy;
  if (!p.defined()) return copy;
  auto state = std::make_shared<ParameterState>();
  state->raw = deep_copy(p.raw());
  state->raw.requires_grad_(p.raw().requires_grad());
  state->type = p.type();
  state->mask = deep_copy(p.mask());
  state->mask_gradient = p.mask_gradient();
  copy.ref_ = ParameterRef(std::move(state));
  return copy;
}

Parameter::Parameter(const Parameter& o) : Parameter(copy_of(o.ref_)) {}

Parameter& Parameter::operator=(const Parameter& o) {
  if (this != &o) *this = Parameter(o);
  return *this;
}

Buffer::Buffer(const Buffer& o) : tensor_(deep_copy(o.tensor_)) {}

Buffer& Buffer::operator=(const Buffer& o) {
  if (this != &o) tensor_ = deep_copy(o.tensor_);
  return *this;
}

}  // namespace hone
