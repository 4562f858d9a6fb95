#include "hone/ops/shape_ops.h"

#include <algorithm>

#include "hone/core/autograd.h"
#include "hone/core/basic_ops.h"
#include "hone/ops/elementwise.h"

namespace hone {

namespace {
struct ShapeAttrs {
  Shape shape;
  void fields(FieldVisitor& v) { v("shape", shape); }
};
struct DimsAttrs {
  Shape dims;
  void fields(FieldVisitor& v) { v("dims", dims); }
};
struct SliceAttrs {
  int64_t dim = 0, start = 0, length = 0, step = 1;  // start and length already clamped
  void fields(FieldVisitor& v) {
    v("dim", dim);
    v("start", start);
    v("length", length);
    v("step", step);
  }
};
struct SliceGradAttrs {
  SliceAttrs slice;
  int64_t size = 0;  // of the dim before slicing
  void fields(FieldVisitor& v) {
    slice.fields(v);
    v("size", size);
  }
};

void set_dims(View& v, const Shape& sizes, const Shape& strides) {
  v.ndim = sizes.ndim();
  std::copy(sizes.begin(), sizes.end(), v.sizes);
  std::copy(strides.begin(), strides.end(), v.strides);
}
void copy_run(RunContext& c) { detail::copy_strided(c.in[0], c.out[0]); }
// For ops whose alias never refuses.
void view_run(RunContext& c) { throw Error(str("internal error: ", c.op, " is always a view")); }

// ---- reshape
void reshape_shapes(ShapeContext& c) {
  check_inputs(c, 1, 1);
  c.add(c.attrs.as<ShapeAttrs>().shape, c.dtype(0));
}
// Walks both shapes from the end, block by block of equal element counts; a block of x must be one run of one stride.
bool reshape_alias(const View& in, const Attrs& attrs, View& out) {
  const Shape& to = attrs.as<ShapeAttrs>().shape;
  Shape strides = contiguous_strides(to);
  out = in;
  if (in.numel() == 0 || in.is_contiguous()) {
    set_dims(out, to, strides);
    return true;
  }
  int t = to.ndim() - 1;
  int64_t block = 1, filled = 1;  // elements of the current run of x, and of those given to dims of the result
  int64_t stride = 1;
  bool open = false;
  for (int d = in.ndim - 1; d >= 0; --d) {
    if (in.sizes[d] == 1) continue;
    if (open && in.strides[d] == stride * block) {
      block *= in.sizes[d];
    } else {
      if (open) {
        while (t >= 0 && (filled < block || to[t] == 1)) {
          strides[t] = stride * filled;
          filled *= to[t--];
        }
        if (filled != block) return false;
      }
      open = true;
      stride = in.strides[d];
      block = in.sizes[d];
      filled = 1;
    }
  }
  while (t >= 0) {
    strides[t] = stride * filled;
    filled *= to[t--];
  }
  if (filled != block) return false;
  set_dims(out, to, strides);
  return true;
}

// ---- permute
void permute_shapes(ShapeContext& c) {
  check_inputs(c, 1, 1);
  const Shape& dims = c.attrs.as<DimsAttrs>().dims;
  Shape shape;
  for (int64_t d : dims) shape.push_back(c.in[0].sizes[d]);
  c.add(shape, c.dtype(0));
}
bool permute_alias(const View& in, const Attrs& attrs, View& out) {
  const Shape& dims = attrs.as<DimsAttrs>().dims;
  out = in;
  for (int i = 0; i < dims.ndim(); ++i) {
    out.sizes[i] = in.sizes[dims[i]];
    out.strides[i] = in.strides[dims[i]];
  }
  return true;
}
void permute_backward(BackwardContext& c) {
  const Shape& dims = c.attrs<DimsAttrs>().dims;
  Shape inverse = dims;
  for (int i = 0; i < dims.ndim(); ++i) inverse[dims[i]] = i;
  c.set(0, permute(c.grad(), inverse));
}

// ---- slice
void slice_shapes(ShapeContext& c) {
  check_inputs(c, 1, 1);
  const auto& a = c.attrs.as<SliceAttrs>();
  Shape shape = c.shape(0);
  HONE_CHECK(a.dim >= 0 && a.dim < shape.ndim() && a.step >= 1 && a.start >= 0 && a.length >= 0 &&
                 (a.length == 0 || a.start + (a.length - 1) * a.step < shape[a.dim]),
             ShapeError, c.op, ": start ", a.start, ", length ", a.length, ", step ", a.step, " does not fit dim ", a.dim,
             " of shape ", shape);
  shape[a.dim] = a.length;
  c.add(shape, c.dtype(0));
}
bool slice_alias(const View& in, const Attrs& attrs, View& out) {
  const auto& a = attrs.as<SliceAttrs>();
  out = in;
  if (in.data) out.data = static_cast<std::byte*>(in.data) + a.start * in.strides[a.dim] * size_of(in.dtype);
  out.sizes[a.dim] = a.length;
  out.strides[a.dim] = in.strides[a.dim] * a.step;
  return true;
}
void slice_grad_shapes(ShapeContext& c) {
  check_inputs(c, 1, 1);
  const auto& a = c.attrs.as<SliceGradAttrs>();
  Shape shape = c.shape(0);
  shape[a.slice.dim] = a.size;
  c.add(shape, c.dtype(0));
}
// Zeros of the unsliced shape with the gradient in the slice's places.
void slice_grad_run(RunContext& c) {
  const auto& a = c.attrs.as<SliceGradAttrs>();
  const View& out = c.out[0];
  if (out.data) std::fill_n(out.as<std::byte>(), out.numel() * size_of(out.dtype), std::byte{0});
  View part;
  slice_alias(out, Attrs(a.slice), part);
  detail::copy_strided(c.in[0], part);
}

// ---- squeeze, unsqueeze, expand
void squeeze_shapes(ShapeContext& c) {
  check_inputs(c, 1, 1);
  Shape shape;
  const Shape& dims = c.attrs.as<DimsAttrs>().dims;
  for (int d = 0; d < c.in[0].ndim; ++d) {
    if (std::find(dims.begin(), dims.end(), d) == dims.end()) shape.push_back(c.in[0].sizes[d]);
  }
  c.add(shape, c.dtype(0));
}
bool squeeze_alias(const View& in, const Attrs& attrs, View& out) {
  const Shape& dims = attrs.as<DimsAttrs>().dims;
  Shape sizes, strides;
  for (int d = 0; d < in.ndim; ++d) {
    if (std::find(dims.begin(), dims.end(), d) != dims.end()) continue;
    sizes.push_back(in.sizes[d]);
    strides.push_back(in.strides[d]);
  }
  out = in;
  set_dims(out, sizes, strides);
  return true;
}
void expand_shapes(ShapeContext& c) {
  check_inputs(c, 1, 1);
  const Shape& to = c.attrs.as<ShapeAttrs>().shape;
  const Shape from = c.shape(0);
  bool fits = to.ndim() >= from.ndim();
  for (int i = 0; fits && i < from.ndim(); ++i) {
    const int64_t n = from[i], m = to[i + to.ndim() - from.ndim()];
    fits = n == m || n == 1;
  }
  HONE_CHECK(fits, ShapeError, c.op, ": shape ", from, " does not broadcast to ", to);
  to.numel();  // checked
  c.add(to, c.dtype(0));
}
bool expand_alias(const View& in, const Attrs& attrs, View& out) {
  const Shape& to = attrs.as<ShapeAttrs>().shape;
  Shape strides = Shape::filled(to.ndim(), 0);
  for (int i = 0; i < in.ndim; ++i) {
    if (in.sizes[i] != 1) strides[i + to.ndim() - in.ndim] = in.strides[i];
  }
  out = in;
  set_dims(out, to, strides);
  return true;
}
void reshape_back(BackwardContext& c) { c.set(0, reshape(c.grad(), c.input_shape(0))); }

// ---- flip
void flip_run(RunContext& c) {
  View in = c.in[0];  // negative strides: private to this copy
  if (in.numel() == 0) return;
  for (int64_t d : c.attrs.as<DimsAttrs>().dims) {
    in.data = static_cast<std::byte*>(in.data) + (in.sizes[d] - 1) * in.strides[d] * size_of(in.dtype);
    in.strides[d] = -in.strides[d];
  }
  detail::copy_strided(in, c.out[0]);
}
void same_shapes(ShapeContext& c) {
  check_inputs(c, 1, 1);
  c.add(c.shape(0), c.dtype(0));
}
}  // namespace

const OpDef kReshape = {.name = "reshape",
                        .attributes = attributes<ShapeAttrs>(),
                        .shapes = reshape_shapes,
                        .alias = reshape_alias,
                        .run = copy_run,
                        .backward = reshape_back};
const OpDef kPermute = {.name = "permute",
                        .attributes = attributes<DimsAttrs>(),
                        .shapes = permute_shapes,
                        .alias = permute_alias,
                        .run = view_run,
                        .backward = permute_backward};
const OpDef kSlice = {.name = "slice",
                      .attributes = attributes<SliceAttrs>(),
                      .shapes = slice_shapes,
                      .alias = slice_alias,
                      .run = view_run,
                      .backward = [](BackwardContext& c) {
                        const auto& a = c.attrs<SliceAttrs>();
                        c.set(0, apply(kSliceGrad, SliceGradAttrs{a, c.input_shape(0)[a.dim]}, {c.grad()}));
                      }};
const OpDef kSliceGrad = {.name = "slice_grad",
                          .attributes = attributes<SliceGradAttrs>(),
                          .shapes = slice_grad_shapes,
                          .run = slice_grad_run,
                          .backward = [](BackwardContext& c) {
                            c.set(0, apply(kSlice, c.attrs<SliceGradAttrs>().slice, {c.grad()}));
                          }};
const OpDef kSqueeze = {.name = "squeeze",
                        .attributes = attributes<DimsAttrs>(),
                        .shapes = squeeze_shapes,
                        .alias = squeeze_alias,
                        .run = view_run,
                        .backward = reshape_back};
const OpDef kExpand = {.name = "expand",
                       .attributes = attributes<ShapeAttrs>(),
                       .shapes = expand_shapes,
                       .alias = expand_alias,
                       .run = view_run,
                       .backward = [](BackwardContext& c) { c.set(0, detail::sum_to(c.grad(), c.input_shape(0))); }};
const OpDef kFlip = {.name = "flip",
                     .attributes = attributes<DimsAttrs>(),
                     .shapes = same_shapes,
                     .run = flip_run,
                     .backward = [](BackwardContext& c) { c.set(0, flip(c.grad(), c.attrs<DimsAttrs>().dims)); }};

Tensor reshape(const Tensor& x, const Shape& shape) {
  Shape to = shape;
  int unknown = -1;
  int64_t known = 1;
  for (int i = 0; i < to.ndim(); ++i) {
    if (to[i] == -1 && unknown < 0) {
      unknown = i;
      continue;
    }
    HONE_CHECK(to[i] >= 0, ShapeError, "reshape: shape ", shape, " may hold one -1 and no other negative size");
    HONE_CHECK(!__builtin_mul_overflow(known, to[i], &known), ShapeError, "reshape: shape ", shape, " has too many elements");
  }
  const int64_t n = x.numel();
  if (unknown >= 0) {
    HONE_CHECK(known > 0 && n % known == 0, ShapeError, "reshape: shape ", x.shape(), " with ", n, " elements does not fit ", shape);
    to[unknown] = n / known;
  } else {
    HONE_CHECK(known == n, ShapeError, "reshape: shape ", x.shape(), " with ", n, " elements does not fit ", shape);
  }
  return apply(kReshape, ShapeAttrs{to}, {x});
}
Tensor flatten(const Tensor& x, int64_t start, int64_t end) {
  if (x.ndim() == 0) return reshape(x, {1});
  const int64_t from = wrap_dim("flatten", start, x.ndim()), to = wrap_dim("flatten", end, x.ndim());
  HONE_CHECK(from <= to, ShapeError, "flatten: start dim ", start, " lies behind end dim ", end, " of shape ", x.shape());
  Shape shape;
  int64_t merged = 1;
  for (int64_t d = 0; d < x.ndim(); ++d) {
    if (d >= from && d <= to) merged *= x.shape()[d];
    else shape.push_back(x.shape()[d]);
    if (d == to) shape.push_back(merged);
  }
  return reshape(x, shape);
}
Tensor permute(const Tensor& x, const Shape& dims) {
  Shape order;
  for (int64_t d : dims) order.push_back(wrap_dim("permute", d, x.ndim()));
  Shape sorted = order;
  std::sort(sorted.begin(), sorted.end());
  bool each_once = sorted.ndim() == x.ndim();
  for (int i = 0; each_once && i < sorted.ndim(); ++i) each_once = sorted[i] == i;
  HONE_CHECK(each_once, ShapeError, "permute: ", dims, " does not name each dim of shape ", x.shape(), " once");
  return apply(kPermute, DimsAttrs{order}, {x});
}
Tensor transpose(const Tensor& x, int64_t dim0, int64_t dim1) {
  const int64_t a = wrap_dim("transpose", dim0, x.ndim()), b = wrap_dim("transpose", dim1, x.ndim());
  Shape order;
  for (int64_t d = 0; d < x.ndim(); ++d) order.push_back(d);
  if (x.ndim() > 0) std::swap(order[a], order[b]);
  return permute(x, order);
}
Tensor slice(const Tensor& x, int64_t dim, int64_t start, int64_t end, int64_t step) {
  HONE_CHECK(x.ndim() > 0, ShapeError, "slice: a 0-d tensor has no dim to slice");
  HONE_CHECK(step >= 1, ValueError, "slice: step ", step, " must be at least 1");
  const int64_t d = wrap_dim("slice", dim, x.ndim()), n = x.shape()[d];
  const int64_t first = std::clamp<int64_t>(start < 0 ? start + n : start, 0, n);
  const int64_t last = std::clamp<int64_t>(end < 0 ? end + n : end, first, n);
  const int64_t span = last - first;
  return apply(kSlice, SliceAttrs{d, first, span / step + (span % step != 0), step}, {x});
}
Tensor select(const Tensor& x, int64_t dim, int64_t index) {
  HONE_CHECK(x.ndim() > 0, ShapeError, "select: a 0-d tensor has no dim to select from");
  const int64_t d = wrap_dim("select", dim, x.ndim()), n = x.shape()[d];
  HONE_CHECK(index >= -n && index < n, ValueError, "select: index ", index, " is outside [", -n, ", ", n - 1, "] of dim ", dim,
             " of shape ", x.shape());
  const int64_t i = index < 0 ? index + n : index;
  return squeeze(slice(x, d, i, i + 1), d);
}
Tensor squeeze(const Tensor& x) {
  Shape dims;
  for (int64_t d = 0; d < x.ndim(); ++d) {
    if (x.shape()[d] == 1) dims.push_back(d);
  }
  return apply(kSqueeze, DimsAttrs{dims}, {x});
}
Tensor squeeze(const Tensor& x, int64_t dim) {
  const int64_t d = wrap_dim("squeeze", dim, x.ndim());
  Shape dims;
  if (x.ndim() > 0 && x.shape()[d] == 1) dims.push_back(d);
  return apply(kSqueeze, DimsAttrs{dims}, {x});
}
Tensor unsqueeze(const Tensor& x, int64_t dim) {
  Shape shape = x.shape();
  shape.insert(static_cast<int>(wrap_dim("unsqueeze", dim, x.ndim() + 1)), 1);
  return reshape(x, shape);
}
Tensor expand(const Tensor& x, const Shape& shape) {
  Shape to = shape;
  for (int i = 0; i < to.ndim(); ++i) {
    const int64_t d = i - (to.ndim() - x.ndim());
    if (to[i] == -1 && d >= 0) to[i] = x.shape()[d];
  }
  return apply(kExpand, ShapeAttrs{to}, {x});
}
Tensor flip(const Tensor& x, const Shape& dims) {
  Shape wrapped;
  for (int64_t d : dims) wrapped.push_back(wrap_dim("flip", d, x.ndim()));
  if (!dims.empty()) dim_mask("flip", dims, x.ndim());  // repeats are refused
  return apply(kFlip, DimsAttrs{wrapped}, {x});
}

}  // namespace hone
