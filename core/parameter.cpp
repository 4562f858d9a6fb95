#include "hone/core/parameter.h"

#include <algorithm>

#include "hone/core/autograd.h"
#include "hone/core/basic_ops.h"
#include "hone/core/modes.h"
#include "hone/core/tensor_impl.h"
#include "hone/core/weight_ops.h"

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

bool alike(const Tensor& a, const Tensor& b) {
  return a.shape() == b.shape() && a.dtype() == b.dtype() && a.device() == b.device();
}

ParameterState copy_of_state(const ParameterState& s) {
  ParameterState copy;
  copy.raw = deep_copy(s.raw);
  copy.raw.requires_grad_(s.raw.requires_grad());
  copy.type = s.type;
  copy.mask = deep_copy(s.mask);
  copy.mask_gradient = s.mask_gradient;
  copy.codes = deep_copy(s.codes);
  if (s.scale) copy.scale = std::make_shared<ParameterState>(copy_of_state(*s.scale));
  copy.points = deep_copy(s.points);
  copy.levels = deep_copy(s.levels);
  return copy;
}

}  // namespace

Tensor ParameterRef::value() const {
  if (!s_) return {};
  if (s_->type == WeightType::dense) return s_->raw;
  OpRecorder* const recorder = modes().recorder;
  const RecorderScope unseen(nullptr);
  Tensor value = s_->raw;
  if (s_->type == WeightType::codebook) value = codebook(value, s_->codes);
  if (s_->type == WeightType::fake_quantized)
    value = fake_quantize(
        value, s_->scale->raw, s_->points, s_->levels,
        {ScaleGradient::normalized, true, s_->mask_gradient == MaskGradient::dense ? s_->mask : Tensor()});
  if (s_->mask.defined()) value = masked(value, s_->mask, s_->mask_gradient);
  if (recorder) recorder->weight(s_.get(), value);
  return value;
}

void ParameterRef::replace(Tensor raw) const {
  HONE_CHECK(defined(), ValueError, "Parameter: replace() of an absent parameter");
  const Tensor former = s_->raw;
  Tensor next = as_leaf(std::move(raw), former.requires_grad());
  HONE_CHECK(s_->type == WeightType::dense || next.shape() == former.shape(), ShapeError,
             "Parameter: replace() by shape ", next.shape(), " of a ", name(s_->type), " parameter of shape ",
             former.shape(), "; shrink() slices all that belongs to it");
  for (Tensor* t : {&s_->mask, &s_->codes, &s_->points, &s_->levels})
    if (t->defined()) *t = to(*t, next.device());
  if (s_->scale) scale().replace(to(s_->scale->raw.detach(), next.device()));
  if (!alike(next, former)) ++s_->generation;
  s_->raw = std::move(next);
}

void ParameterRef::assign(const ParameterRef& from) const {
  HONE_CHECK(defined() && from.defined(), ValueError, "Parameter: assign() of or to an absent parameter");
  if (*this == from) return;
  ParameterState next = copy_of_state(*from.s_);
  next.raw.requires_grad_(s_->raw.requires_grad());
  next.generation = s_->generation + (alike(next.raw, s_->raw) ? 0 : 1);
  if (next.scale && s_->scale) {
    scale().assign(ParameterRef(next.scale));
    next.scale = s_->scale;
  }
  *s_ = std::move(next);
}

void ParameterRef::bake() const {
  HONE_CHECK(defined(), ValueError, "Parameter: bake() of an absent parameter");
  if (s_->type == WeightType::dense) return;
  const NoGrad no_grad;
  assign(Parameter(value().detach()));
}

void ParameterRef::set_mask(const Tensor& mask, MaskGradient gradient) const {
  HONE_CHECK(defined(), ValueError, "Parameter: set_mask() of an absent parameter");
  HONE_CHECK(mask.defined(), ValueError, "Parameter: the mask is an undefined tensor");
  HONE_CHECK(mask.dtype() == DType::boolean, DTypeError, "Parameter: a mask must be bool, not ", mask.dtype());
  HONE_CHECK(mask.shape() == shape(), ShapeError, "Parameter: mask ", mask.shape(),
             " must have the shape of the value, ", shape());
  s_->mask = to(deep_copy(mask), s_->raw.device());
  s_->mask_gradient = s_->type == WeightType::codebook ? MaskGradient::masked : gradient;
  if (s_->type == WeightType::dense) s_->type = WeightType::masked;
}

void ParameterRef::bake_mask() const {
  HONE_CHECK(defined(), ValueError, "Parameter: bake_mask() of an absent parameter");
  if (!s_->mask.defined()) return;
  HONE_CHECK(s_->type != WeightType::codebook, ValueError,
             "Parameter: bake_mask() of a codebook, whose centroids may have no 0; bake() makes it dense");
  NoGrad no_grad;
  s_->raw.copy_(masked(s_->raw, s_->mask));
  s_->mask = {};
  if (s_->type == WeightType::masked) s_->type = WeightType::dense;
}

void ParameterRef::set_codebook(const Tensor& codes, const Tensor& centroids) const {
  HONE_CHECK(defined() && codes.defined() && centroids.defined(), ValueError,
             "Parameter: set_codebook() needs a parameter, codes and centroids");
  HONE_CHECK(s_->type != WeightType::fake_quantized, ValueError,
             "Parameter: set_codebook() of a fake-quantized parameter; bake() it first");
  HONE_CHECK(codes.dtype() == DType::u8, DTypeError, "Parameter: codes must be u8, not ", codes.dtype());
  HONE_CHECK(codes.shape() == shape(), ShapeError, "Parameter: codes ", codes.shape(),
             " must have the shape of the value, ", shape());
  HONE_CHECK(centroids.dtype() == s_->raw.dtype(), DTypeError, "Parameter: centroids must be ", s_->raw.dtype(),
             " as the raw value, not ", centroids.dtype());
  HONE_CHECK(centroids.ndim() == 1 && centroids.numel() >= 1 && centroids.numel() <= 256, ShapeError,
             "Parameter: centroids must be a list of 1 to 256, not ", centroids.shape());
  const Tensor own = to(deep_copy(codes), cpu);
  const auto* code = own.data<uint8_t>();
  const auto* most = std::max_element(code, code + own.numel());
  HONE_CHECK(own.numel() == 0 || *most < centroids.numel(), ValueError, "Parameter: a code is ", int{*most},
             ", but only ", centroids.numel(), " centroids were given");
  ParameterState next = *s_;
  next.raw = as_leaf(deep_copy(centroids), s_->raw.requires_grad());
  next.codes = to(own, next.raw.device());
  next.type = WeightType::codebook;
  next.mask_gradient = MaskGradient::masked;
  ++next.generation;
  *s_ = std::move(next);
}

void ParameterRef::set_grid(const WeightGrid& grid) const {
  HONE_CHECK(defined() && grid.scale.defined() && grid.points.defined(), ValueError,
             "Parameter: set_grid() needs a parameter, a scale and points");
  HONE_CHECK(s_->type != WeightType::codebook, ValueError, "Parameter: set_grid() of a codebook; bake() it first");
  {
    const NoGrad no_grad;
    const RecorderScope unseen(nullptr);
    fake_quantize(s_->raw, grid.scale, grid.points, grid.levels);  // its checks
  }
  Parameter scale(deep_copy(grid.scale));
  Tensor(scale.raw()).requires_grad_(grid.learned);
  if (s_->scale && alike(s_->scale->raw, scale.raw())) {
    this->scale().assign(scale);
    Tensor(s_->scale->raw).requires_grad_(grid.learned);
  } else {
    s_->scale = scale.ref().s_;
  }
  s_->points = deep_copy(grid.points);
  s_->levels = deep_copy(grid.levels);
  s_->type = WeightType::fake_quantized;
}

WeightGrid ParameterRef::grid() const {
  HONE_CHECK(defined() && s_->scale, ValueError, "Parameter: grid() of a parameter that is not fake-quantized");
  return {s_->scale->raw.detach(), s_->points, s_->levels, s_->scale->raw.requires_grad()};
}

Shrink ParameterRef::shrink(int64_t dim, const std::vector<int64_t>& kept) const {
  HONE_CHECK(defined(), ValueError, "Parameter: shrink() of an absent parameter");
  const Shape before = shape();
  HONE_CHECK(dim >= 0 && dim < before.ndim(), ShapeError, "Parameter: shrink() of dim ", dim, " of shape ", before);
  HONE_CHECK(!kept.empty(), ValueError, "Parameter: shrink() of dim ", dim, " of shape ", before,
             " must keep at least one index");
  for (size_t i = 0; i < kept.size(); ++i)
    HONE_CHECK(kept[i] >= 0 && kept[i] < before[dim] && (i == 0 || kept[i] > kept[i - 1]), ValueError,
               "Parameter: shrink() of dim ", dim, " of shape ", before, ": kept index ", kept[i],
               " is out of range or not above the one before it");
  NoGrad no_grad;
  for (Tensor* t : {&s_->mask, &s_->codes, &s_->levels})
    if (t->defined()) *t = take(*t, dim, kept);
  if (s_->scale && !s_->levels.defined() && dim == 0 && s_->scale->raw.numel() > 1) {
    scale().shrink(0, kept);
    s_->points = take(s_->points, 0, kept);
  }
  if (s_->type == WeightType::codebook) return {};
  const Tensor grad = s_->raw.grad();
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
  auto state = std::make_shared<ParameterState>(copy_of_state(*p.id()));
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
