// Views. Attributes keep what the caller wrote (−1, negative ends), so that one traced node serves any batch size.

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
struct DimAttrs {
  int64_t dim = 0;
  void fields(FieldVisitor& v) { v("dim", dim); }
};
struct FlattenAttrs {
  int64_t start = 0, end = -1;
  void fields(FieldVisitor& v) {
    v("start", start);
    v("end", end);
  }
};
struct SelectAttrs {
  int64_t dim = 0, index = 0;
  void fields(FieldVisitor& v) {
    v("dim", dim);
    v("index", index);
  }
};
struct SliceAttrs {
  int64_t dim = 0, start = 0, end = kEnd, step = 1;
  void fields(FieldVisitor& v) {
    v("dim", dim);
    v("start", start);
    v("end", end);
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

Shape sizes_of(const View& v) { return Shape(std::span<const int64_t>(v.sizes, static_cast<size_t>(v.ndim))); }
void set_dims(View& v, const Shape& sizes, const Shape& strides) {
  v.ndim = sizes.ndim();
  std::copy(sizes.begin(), sizes.end(), v.sizes);
  std::copy(strides.begin(), strides.end(), v.strides);
}
void move_data(View& v, int64_t elements) {
  if (v.data) v.data = static_cast<std::byte*>(v.data) + elements * size_of(v.dtype);
}
// Where a view is not wanted: its elements, copied.
template <bool (*alias)(const View&, const Attrs&, View&)> void copy_run(RunContext& c) {
  View part;
  HONE_ASSERT(alias(c.in[0], c.attrs, part));
  detail::copy_strided(part, c.out[0]);
}

// ---- reshape and what can be said as one
// The sizes that `want`, with at most one −1, stands for.
Shape resolve(const char* op, const Shape& from, const Shape& want) {
  Shape to = want;
  const int64_t n = from.numel();
  int unknown = -1;
  int64_t known = 1;
  bool fits = true;
  for (int i = 0; i < to.ndim(); ++i) {
    if (to[i] == -1 && unknown < 0)
      unknown = i;
    else
      fits = fits && to[i] >= 0 && !__builtin_mul_overflow(known, to[i], &known);
  }
  fits = fits && (unknown < 0 ? known == n : known > 0 && n % known == 0);
  HONE_CHECK(fits, ShapeError, op, ": shape ", from, " with ", n, " elements does not fit ", want,
             ", which needs as many (one size may be -1)");
  if (unknown >= 0) to[unknown] = n / known;
  return to;
}
// Strides under which `in` reads as `to`, a shape of as many elements; false if there are none.
// Dims of `in` are taken from the last on in runs that one stride walks through; dims of `to` must tile each run.
bool view_strides(const View& in, const Shape& to, Shape& strides) {
  strides = contiguous_strides(to);
  if (in.is_contiguous()) return true;
  int t = to.ndim() - 1;
  for (int d = in.ndim - 1; d >= 0;) {
    if (in.sizes[d] == 1) {
      --d;
      continue;
    }
    int64_t run = in.sizes[d];
    const int64_t stride = in.strides[d];
    for (--d; d >= 0 && (in.sizes[d] == 1 || in.strides[d] == stride * run); --d) run *= in.sizes[d];
    int64_t filled = 1;
    while (t >= 0 && filled < run) {
      strides[t] = stride * filled;
      filled *= to[t--];
    }
    if (filled != run) return false;
  }
  return true;  // what is left of `to` has size 1: any stride will do
}
bool view_as(const View& in, const Shape& to, View& out) {
  Shape strides;
  if (!view_strides(in, to, strides)) return false;
  out = in;
  set_dims(out, to, strides);
  return true;
}
void reshape_run(RunContext& c) {
  View out = c.out[0];  // row-major order is the same under either shape
  set_dims(out, sizes_of(c.in[0]), contiguous_strides(sizes_of(c.in[0])));
  detail::copy_strided(c.in[0], out);
}
void reshape_backward(BackwardContext& c) { c.set(0, reshape(c.grad(), c.input_shape(0))); }
// An op that `target` turns into a reshape.
template <Shape (*target)(const char*, const Shape&, const Attrs&)> void target_shapes(ShapeContext& c) {
  check_inputs(c, 1, 1);
  c.add(target(c.op, c.shape(0), c.attrs), c.dtype(0));
}
template <Shape (*target)(const char*, const Shape&, const Attrs&)>
bool target_alias(const View& in, const Attrs& attrs, View& out) {
  return view_as(in, target("reshape", sizes_of(in), attrs), out);
}
Shape reshape_target(const char* op, const Shape& from, const Attrs& attrs) {
  return resolve(op, from, attrs.as<ShapeAttrs>().shape);
}
Shape flatten_target(const char* op, const Shape& from, const Attrs& attrs) {
  if (from.ndim() == 0) return {1};
  const auto& a = attrs.as<FlattenAttrs>();
  const int64_t start = wrap_dim(op, a.start, from.ndim()), end = wrap_dim(op, a.end, from.ndim());
  HONE_CHECK(start <= end, ShapeError, op, ": start dim ", a.start, " lies behind end dim ", a.end, " of shape ", from);
  Shape to;
  int64_t merged = 1;
  for (int64_t d = 0; d < from.ndim(); ++d) {
    if (d < start || d > end)
      to.push_back(from[d]);
    else
      merged *= from[d];
    if (d == end) to.push_back(merged);
  }
  return to;
}
// No dims named: all of size 1.
Shape squeeze_target(const char* op, const Shape& from, const Attrs& attrs) {
  const Shape& dims = attrs.as<DimsAttrs>().dims;
  const uint32_t mask = dim_mask(op, dims, from.ndim());
  Shape to;
  for (int d = 0; d < from.ndim(); ++d) {
    if (from[d] != 1 || !(mask >> d & 1)) to.push_back(from[d]);
  }
  return to;
}
Shape unsqueeze_target(const char* op, const Shape& from, const Attrs& attrs) {
  Shape to = from;
  to.insert(static_cast<int>(wrap_dim(op, attrs.as<DimAttrs>().dim, from.ndim() + 1)), 1);
  return to;
}

// ---- permute
void permute_shapes(ShapeContext& c) {
  check_inputs(c, 1, 1);
  const Shape& dims = c.attrs.as<DimsAttrs>().dims;
  const Shape from = c.shape(0);
  uint32_t seen = 0;
  Shape to;
  for (int64_t d : dims) {
    const int64_t w = wrap_dim(c.op, d, from.ndim());
    if (from.ndim() == 0) break;
    seen |= 1u << w;
    to.push_back(from[w]);
  }
  HONE_CHECK(dims.ndim() == from.ndim() && seen == (1u << from.ndim()) - 1, ShapeError, c.op, ": ", dims,
             " does not name each dim of shape ", from, " once");
  c.add(to, c.dtype(0));
}
bool permute_alias(const View& in, const Attrs& attrs, View& out) {
  const Shape& dims = attrs.as<DimsAttrs>().dims;
  out = in;
  for (int i = 0; i < dims.ndim(); ++i) {
    const int64_t d = dims[i] < 0 ? dims[i] + in.ndim : dims[i];
    out.sizes[i] = in.sizes[d];
    out.strides[i] = in.strides[d];
  }
  return true;
}
void permute_backward(BackwardContext& c) {
  const Shape& dims = c.attrs<DimsAttrs>().dims;
  Shape inverse = dims;
  for (int i = 0; i < dims.ndim(); ++i) inverse[dims[i] < 0 ? dims[i] + dims.ndim() : dims[i]] = i;
  c.set(0, permute(c.grad(), inverse));
}

// ---- slice, select
struct Range {
  int64_t start, count;
};
Range resolve(const SliceAttrs& a, int64_t size) {
  const int64_t start = std::clamp<int64_t>(a.start < 0 ? a.start + size : a.start, 0, size);
  const int64_t end = std::clamp<int64_t>(a.end < 0 ? a.end + size : a.end, start, size);
  return {start, (end - start) / a.step + ((end - start) % a.step != 0)};
}
int64_t sliced_dim(const ShapeContext& c, int64_t dim) {
  HONE_CHECK(c.in[0].ndim > 0, ShapeError, c.op, ": a 0-d tensor has no dim to take from");
  return wrap_dim(c.op, dim, c.in[0].ndim);
}
void slice_shapes(ShapeContext& c) {
  check_inputs(c, 1, 1);
  const auto& a = c.attrs.as<SliceAttrs>();
  const int64_t dim = sliced_dim(c, a.dim);
  HONE_CHECK(a.step >= 1, ValueError, c.op, ": step ", a.step, " must be at least 1");
  Shape shape = c.shape(0);
  shape[dim] = resolve(a, shape[dim]).count;
  c.add(shape, c.dtype(0));
}
void take(const View& in, const SliceAttrs& a, View& out) {
  const int64_t dim = a.dim < 0 ? a.dim + in.ndim : a.dim;
  const Range r = resolve(a, in.sizes[dim]);
  out = in;
  if (r.count > 0) move_data(out, r.start * in.strides[dim]);
  out.sizes[dim] = r.count;
  if (r.count > 1) out.strides[dim] *= a.step;  // a long step over one element may not fit
}
bool slice_alias(const View& in, const Attrs& attrs, View& out) {
  take(in, attrs.as<SliceAttrs>(), out);
  return true;
}
void slice_backward(BackwardContext& c) {
  const auto& a = c.attrs<SliceAttrs>();
  const Shape& shape = c.input_shape(0);
  c.set(0, apply(kSliceGrad, SliceGradAttrs{a, shape[a.dim < 0 ? a.dim + shape.ndim() : a.dim]}, {c.grad()}));
}
void slice_grad_shapes(ShapeContext& c) {
  check_inputs(c, 1, 1);
  const auto& a = c.attrs.as<SliceGradAttrs>();
  const int64_t dim = sliced_dim(c, a.slice.dim);
  Shape shape = c.shape(0);
  HONE_CHECK(a.slice.step >= 1 && a.size >= 0 && resolve(a.slice, a.size).count == shape[dim], ShapeError, c.op,
             ": shape ", shape, " is not the slice of a dim of size ", a.size);
  shape[dim] = a.size;
  c.add(shape, c.dtype(0));
}
// Zeros, with the gradient in the slice's places.
void slice_grad_run(RunContext& c) {
  const View& out = c.out[0];
  std::fill_n(out.as<std::byte>(), out.numel() * size_of(out.dtype), std::byte{0});
  View part;
  take(out, c.attrs.as<SliceGradAttrs>().slice, part);
  detail::copy_strided(c.in[0], part);
}
void slice_grad_backward(BackwardContext& c) { c.set(0, apply(kSlice, c.attrs<SliceGradAttrs>().slice, {c.grad()})); }

void select_shapes(ShapeContext& c) {
  check_inputs(c, 1, 1);
  const auto& a = c.attrs.as<SelectAttrs>();
  const int64_t dim = sliced_dim(c, a.dim);
  Shape shape = c.shape(0);
  const int64_t n = shape[dim];
  HONE_CHECK(a.index >= -n && a.index < n, ValueError, c.op, ": index ", a.index, " is outside [", -n, ", ", n,
             ") of dim ", a.dim, " of shape ", shape);
  shape.erase(static_cast<int>(dim));
  c.add(shape, c.dtype(0));
}
bool select_alias(const View& in, const Attrs& attrs, View& out) {
  const auto& a = attrs.as<SelectAttrs>();
  const int64_t dim = a.dim < 0 ? a.dim + in.ndim : a.dim;
  out = in;
  move_data(out, (a.index < 0 ? a.index + in.sizes[dim] : a.index) * in.strides[dim]);
  std::copy(in.sizes + dim + 1, in.sizes + in.ndim, out.sizes + dim);
  std::copy(in.strides + dim + 1, in.strides + in.ndim, out.strides + dim);
  --out.ndim;
  return true;
}
void select_backward(BackwardContext& c) {
  const auto& a = c.attrs<SelectAttrs>();
  const Shape& shape = c.input_shape(0);
  const int64_t dim = a.dim < 0 ? a.dim + shape.ndim() : a.dim, n = shape[dim];
  const int64_t i = a.index < 0 ? a.index + n : a.index;
  c.set(0, apply(kSliceGrad, SliceGradAttrs{{dim, i, i + 1, 1}, n}, {unsqueeze(c.grad(), dim)}));
}

// ---- expand
Shape expand_target(const char* op, const Shape& from, const Attrs& attrs) {
  const Shape& want = attrs.as<ShapeAttrs>().shape;
  Shape to = want;
  const int lead = to.ndim() - from.ndim();
  bool fits = lead >= 0;
  for (int i = 0; fits && i < to.ndim(); ++i) {
    if (to[i] == -1 && i >= lead) to[i] = from[i - lead];
    fits = to[i] >= 0 && (i < lead || from[i - lead] == to[i] || from[i - lead] == 1);
  }
  HONE_CHECK(fits, ShapeError, op, ": shape ", from, " does not broadcast to ", want,
             ": trailing dims must be equal or 1");
  to.numel();  // refuses counts beyond int64_t
  return to;
}
bool expand_alias(const View& in, const Attrs& attrs, View& out) {
  const Shape to = expand_target("expand", sizes_of(in), attrs);
  const int lead = to.ndim() - in.ndim;
  Shape strides = Shape::filled(to.ndim(), 0);
  for (int i = 0; i < in.ndim; ++i) strides[i + lead] = in.sizes[i] == to[i + lead] ? in.strides[i] : 0;
  out = in;
  set_dims(out, to, strides);
  return true;
}
void expand_backward(BackwardContext& c) { c.set(0, detail::sum_to(c.grad(), c.input_shape(0))); }

// ---- flip
void flip_shapes(ShapeContext& c) {
  check_inputs(c, 1, 1);
  dim_mask(c.op, c.attrs.as<DimsAttrs>().dims, c.in[0].ndim);
  c.add(c.shape(0), c.dtype(0));
}
void flip_run(RunContext& c) {
  View in = c.in[0];
  if (in.numel() == 0) return;
  const uint32_t mask = dim_mask(c.op, c.attrs.as<DimsAttrs>().dims, in.ndim);
  for (int d = 0; d < in.ndim; ++d) {
    if (!(mask >> d & 1)) continue;
    move_data(in, (in.sizes[d] - 1) * in.strides[d]);
    in.strides[d] = -in.strides[d];  // negative strides stay within this copy
  }
  detail::copy_strided(in, c.out[0]);
}
void flip_backward(BackwardContext& c) { c.set(0, flip(c.grad(), c.attrs<DimsAttrs>().dims)); }
}  // namespace

const OpDef kReshape = {.name = "reshape",
                        .attributes = attributes<ShapeAttrs>(),
                        .shapes = target_shapes<reshape_target>,
                        .alias = target_alias<reshape_target>,
                        .run = reshape_run,
                        .runs_on_cuda = true,
                        .backward = reshape_backward};
const OpDef kFlatten = {.name = "flatten",
                        .attributes = attributes<FlattenAttrs>(),
                        .shapes = target_shapes<flatten_target>,
                        .alias = target_alias<flatten_target>,
                        .run = reshape_run,
                        .runs_on_cuda = true,
                        .backward = reshape_backward};
const OpDef kSqueeze = {.name = "squeeze",
                        .attributes = attributes<DimsAttrs>(),
                        .shapes = target_shapes<squeeze_target>,
                        .alias = target_alias<squeeze_target>,
                        .run = reshape_run,
                        .runs_on_cuda = true,
                        .backward = reshape_backward};
const OpDef kUnsqueeze = {.name = "unsqueeze",
                          .attributes = attributes<DimAttrs>(),
                          .shapes = target_shapes<unsqueeze_target>,
                          .alias = target_alias<unsqueeze_target>,
                          .run = reshape_run,
                          .runs_on_cuda = true,
                          .backward = reshape_backward};
const OpDef kPermute = {.name = "permute",
                        .attributes = attributes<DimsAttrs>(),
                        .shapes = permute_shapes,
                        .alias = permute_alias,
                        .run = copy_run<permute_alias>,
                        .runs_on_cuda = true,
                        .backward = permute_backward};
const OpDef kSlice = {.name = "slice",
                      .attributes = attributes<SliceAttrs>(),
                      .shapes = slice_shapes,
                      .alias = slice_alias,
                      .run = copy_run<slice_alias>,
                      .runs_on_cuda = true,
                      .backward = slice_backward};
const OpDef kSliceGrad = {.name = "slice_grad",
                          .attributes = attributes<SliceGradAttrs>(),
                          .shapes = slice_grad_shapes,
                          .run = slice_grad_run,
                          .backward = slice_grad_backward};
const OpDef kSelect = {.name = "select",
                       .attributes = attributes<SelectAttrs>(),
                       .shapes = select_shapes,
                       .alias = select_alias,
                       .run = copy_run<select_alias>,
                       .runs_on_cuda = true,
                       .backward = select_backward};
const OpDef kExpand = {.name = "expand",
                       .attributes = attributes<ShapeAttrs>(),
                       .shapes = target_shapes<expand_target>,
                       .alias = expand_alias,
                       .run = copy_run<expand_alias>,
                       .runs_on_cuda = true,
                       .backward = expand_backward};
const OpDef kFlip = {.name = "flip",
                     .attributes = attributes<DimsAttrs>(),
                     .shapes = flip_shapes,
                     .run = flip_run,
                     .backward = flip_backward};

Tensor reshape(const Tensor& x, const Shape& shape) { return apply(kReshape, ShapeAttrs{shape}, {x}); }
Tensor flatten(const Tensor& x, int64_t start, int64_t end) { return apply(kFlatten, FlattenAttrs{start, end}, {x}); }
Tensor permute(const Tensor& x, const Shape& dims) { return apply(kPermute, DimsAttrs{dims}, {x}); }
Tensor transpose(const Tensor& x, int64_t dim0, int64_t dim1) {
  const int64_t n = x.ndim(), a = wrap_dim("transpose", dim0, n), b = wrap_dim("transpose", dim1, n);
  Shape dims;
  for (int64_t d = 0; d < n; ++d) dims.push_back(d);
  if (n > 0) std::swap(dims[a], dims[b]);
  return permute(x, dims);
}
Tensor slice(const Tensor& x, int64_t dim, int64_t start, int64_t end, int64_t step) {
  return apply(kSlice, SliceAttrs{dim, start, end, step}, {x});
}
Tensor select(const Tensor& x, int64_t dim, int64_t index) { return apply(kSelect, SelectAttrs{dim, index}, {x}); }
Tensor squeeze(const Tensor& x) { return apply(kSqueeze, DimsAttrs{}, {x}); }
Tensor squeeze(const Tensor& x, int64_t dim) {
  const int64_t d = wrap_dim("squeeze", dim, x.ndim());
  return x.ndim() == 0 ? squeeze(x) : Tensor(apply(kSqueeze, DimsAttrs{{d}}, {x}));
}
Tensor unsqueeze(const Tensor& x, int64_t dim) { return apply(kUnsqueeze, DimAttrs{dim}, {x}); }
Tensor expand(const Tensor& x, const Shape& shape) { return apply(kExpand, ShapeAttrs{shape}, {x}); }
Tensor flip(const Tensor& x, const Shape& dims) { return apply(kFlip, DimsAttrs{dims}, {x}); }

}  // namespace hone
