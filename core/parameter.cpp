#include "hone/core/parameter.h"

#include "hone/core/autograd.h"
#include "hone/core/basic_ops.h"

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

}  // namespace

Tensor ParameterRef::value() const {
  if (!s_) return {};
  HONE_CHECK(s_->type == WeightType::dense, ValueError, "Parameter: value() of weight type ", name(s_->type),
             " is not known");
  return s_->raw;
}

void ParameterRef::replace(Tensor raw) const {
  HONE_CHECK(defined(), ValueError, "Parameter: replace() of an absent parameter");
  const Tensor former = s_->raw;
  Tensor next = as_leaf(std::move(raw), former.requires_grad());
  if (next.shape() != former.shape() || next.dtype() != former.dtype() || next.device() != former.device()) {
    ++s_->generation;
  }
  s_->raw = std::move(next);
}

Parameter::Parameter(Tensor raw) {
  auto state = std::make_shared<ParameterState>();
  state->raw = as_leaf(std::move(raw), true);
  ref_ = ParameterRef(std::move(state));
}

Parameter::Parameter(const Parameter& o) {
  if (!o.defined()) return;
  auto state = std::make_shared<ParameterState>();
  state->raw = deep_copy(o.raw());
  state->raw.requires_grad_(o.raw().requires_grad());
  state->type = o.ref_.type();
  ref_ = ParameterRef(std::move(state));
}

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
