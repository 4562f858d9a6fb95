// max, min, argmax, argmin.

#include <cmath>

#include "hone/core/autograd.h"
#include "hone/ops/indexing.h"
#include "hone/ops/reduce.h"
#include "hone/ops/reduce_kernel.h"
#include "hone/ops/shape_ops.h"

namespace hone {

namespace {
struct ExtremumAttrs {
  Shape dims;  // empty: all, with row-major positions as indices; else one dim
  bool keepdim = false;
  void fields(FieldVisitor& v) {
    v("dims", dims);
    v("keepdim", keepdim);
  }
};

// True if x takes the place of a: larger (smaller), or the first NaN.
template <bool kLargest, class T> bool beats(T x, T a) {
  if constexpr (is_floating(dtype_of<T>)) {
    if (x != x) return a == a;
  }
  return kLargest ? x > a : x < a;
}
template <bool kLargest, class T> struct Extremum {
  struct Acc {
    T value;
    int64_t index;
  };
  Acc identity() const { return {T(), -1}; }
  void add(Acc& a, T x, int64_t, int64_t t) const {
    if (a.index < 0 || beats<kLargest>(x, a.value)) a = {x, t};
  }
  void merge(Acc& a, const Acc& b) const {
    if (b.index < 0) return;
    // Equal, or both NaN: the lower index.
    if (a.index < 0 || beats<kLargest>(b.value, a.value) || (b.index < a.index && !beats<kLargest>(a.value, b.value)))
      a = b;
  }
};

template <bool kValues> void extremum_shapes(ShapeContext& c) {
  check_inputs(c, 1, 1);
  const auto& a = c.attrs.as<ExtremumAttrs>();
  const Shape x = c.shape(0);
  const uint32_t mask = dim_mask(c.op, a.dims, x.ndim());
  HONE_CHECK(a.dims.ndim() <= 1, ShapeError, c.op, ": takes one dim or all, not ", a.dims);
  for (int d = 0; d < x.ndim(); ++d) {
    HONE_CHECK(!(mask >> d & 1) || x[d] > 0, ShapeError, c.op, ": dim ", d, " of shape ", x,
               " is empty and has no such element");
  }
  const Shape out = detail::reduced_shape(x, mask, a.keepdim);
  if (kValues) c.add(out, c.dtype(0));
  c.add(out, DType::i64);
}
template <bool kLargest, bool kValues> void extremum_run(RunContext& c) {
  const uint32_t mask = dim_mask(c.op, c.attrs.as<ExtremumAttrs>().dims, c.in[0].ndim);
  const detail::ReducePlan plan = detail::plan_reduction(c.in[0], mask);
  int64_t* indices = c.out[kValues ? 1 : 0].as<int64_t>();
  visit_dtype(c.in[0].dtype, [&]<class T>() {
    using Policy = Extremum<kLargest, T>;
    T* values = kValues ? c.out[0].as<T>() : nullptr;
    detail::reduce(plan, c.in[0].as<T>(), Policy{}, c.workspace, [=](int64_t o, const typename Policy::Acc& a) {
      if constexpr (kValues) values[o] = a.value;
      indices[o] = a.index;
    });
  });
}
void extremum_backward(BackwardContext& c) {
  const auto& a = c.attrs<ExtremumAttrs>();
  const Shape& shape = c.input_shape(0);
  Tensor g = c.grad(), index = c.output(1);
  if (a.dims.empty() || shape.ndim() == 0) {
    c.set(0, reshape(detail::scatter_to(reshape(index, {1}), reshape(g, {1}), 0, {shape.numel()}), shape));
    return;
  }
  const int64_t dim = wrap_dim(c.op(), a.dims[0], shape.ndim());
  if (!a.keepdim) {
    g = unsqueeze(g, dim);
    index = unsqueeze(index, dim);
  }
  c.set(0, detail::scatter_to(index, g, dim, shape));
}

constexpr const char* kIsIndex = "its result is an index";
ValuesAndIndices both(const OpDef& op, const Tensor& x, const ExtremumAttrs& a) {
  Outputs out = apply(op, a, {x});
  return {out[0], out[1]};
}
}  // namespace

const OpDef kMax = {.name = "max",
                    .attributes = attributes<ExtremumAttrs>(),
                    .shapes = extremum_shapes<true>,
                    .run = extremum_run<true, true>,
                    .saves = {.outputs = 0b10},
                    .backward = extremum_backward,
                    .aux_outputs = 0b10};
const OpDef kMin = {.name = "min",
                    .attributes = attributes<ExtremumAttrs>(),
                    .shapes = extremum_shapes<true>,
                    .run = extremum_run<false, true>,
                    .saves = {.outputs = 0b10},
                    .backward = extremum_backward,
                    .aux_outputs = 0b10};
const OpDef kArgmax = {.name = "argmax",
                       .attributes = attributes<ExtremumAttrs>(),
                       .shapes = extremum_shapes<false>,
                       .run = extremum_run<true, false>,
                       .not_differentiable = kIsIndex};
const OpDef kArgmin = {.name = "argmin",
                       .attributes = attributes<ExtremumAttrs>(),
                       .shapes = extremum_shapes<false>,
                       .run = extremum_run<false, false>,
                       .not_differentiable = kIsIndex};

Tensor max(const Tensor& x) { return apply(kMax, ExtremumAttrs{}, {x}); }
Tensor min(const Tensor& x) { return apply(kMin, ExtremumAttrs{}, {x}); }
Tensor max(const Tensor& x, int64_t dim, bool keepdim) { return apply(kMax, ExtremumAttrs{{dim}, keepdim}, {x}); }
Tensor min(const Tensor& x, int64_t dim, bool keepdim) { return apply(kMin, ExtremumAttrs{{dim}, keepdim}, {x}); }
ValuesAndIndices max_with_indices(const Tensor& x, int64_t dim, bool keepdim) {
  return both(kMax, x, {{dim}, keepdim});
}
ValuesAndIndices min_with_indices(const Tensor& x, int64_t dim, bool keepdim) {
  return both(kMin, x, {{dim}, keepdim});
}
Tensor argmax(const Tensor& x) { return apply(kArgmax, ExtremumAttrs{}, {x}); }
Tensor argmin(const Tensor& x) { return apply(kArgmin, ExtremumAttrs{}, {x}); }
Tensor argmax(const Tensor& x, int64_t dim, bool keepdim) { return apply(kArgmax, ExtremumAttrs{{dim}, keepdim}, {x}); }
Tensor argmin(const Tensor& x, int64_t dim, bool keepdim) { return apply(kArgmin, ExtremumAttrs{{dim}, keepdim}, {x}); }

}  // namespace hone
