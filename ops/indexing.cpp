#include "hone/ops/indexing.h"

#include <algorithm>
#include <cstring>

#include "hone/core/autograd.h"
#include "hone/ops/arithmetic.h"
#include "hone/ops/contiguous_view.h"
#include "hone/ops/index_lanes.h"
#include "hone/ops/shape_ops.h"

namespace hone {

namespace {
using detail::contiguous_view;
using detail::for_lanes;
using detail::LaneOffsets;
using detail::Lanes;

struct DimAttrs {
  int64_t dim = 0;
  void fields(FieldVisitor& v) { v("dim", dim); }
};
struct IndexAddAttrs {
  int64_t dim = 0, size = 0;
  void fields(FieldVisitor& v) {
    v("dim", dim);
    v("size", size);
  }
};
struct ScatterAttrs {
  int64_t dim = 0;
  Shape sizes;
  void fields(FieldVisitor& v) {
    v("dim", dim);
    v("sizes", sizes);
  }
};
struct OneHotAttrs {
  int64_t classes = 0;
  DType dtype = DType::f32;
  void fields(FieldVisitor& v) {
    v("classes", classes);
    v("dtype", dtype);
  }
};

void check_index(const ShapeContext& c, int i) {
  HONE_CHECK(c.dtype(i) == DType::i64, DTypeError, c.op, ": the index must be i64, not ", c.dtype(i));
}
void check_numeric(const ShapeContext& c, int i) {
  HONE_CHECK(c.dtype(i) != DType::boolean, DTypeError, c.op, ": takes numbers, not bool");
}
// The index in one piece, every entry checked before anything is read or written through it.
const int64_t* checked_index(RunContext& c, int i, int64_t size) {
  const View v = contiguous_view(c.in[static_cast<size_t>(i)], DType::i64, c.workspace);
  const int64_t* index = v.as<int64_t>();
  const int64_t n = v.numel();
  bool fits = true;
  for (int64_t k = 0; k < n; ++k) fits &= static_cast<uint64_t>(index[k]) < static_cast<uint64_t>(size);
  if (!fits) {
    int64_t k = 0;
    while (index[k] >= 0 && index[k] < size) ++k;
    throw ValueError(str(c.op, ": index ", index[k], " at position ", k, " is outside [0, ", size, ")"));
  }
  return index;
}
int64_t dim_of(const RunContext& c, int64_t dim, const View& v) { return wrap_dim(c.op, dim, v.ndim); }

// Elements of one size move as bytes, whatever they mean.
template <class F> void visit_bytes(DType d, F&& f) {
  switch (size_of(d)) {
    case 8: return f.template operator()<uint64_t>();
    case 4: return f.template operator()<uint32_t>();
    case 2: return f.template operator()<uint16_t>();
    default: return f.template operator()<uint8_t>();
  }
}
// Calls f<T>(zeroed array that sums of c.out[0] are made in); bf16 sums in f32 and is rounded once.
template <class F> void with_sums(RunContext& c, F&& f) {
  const View& out = c.out[0];
  View sums = out;
  if (out.dtype == DType::bf16) {
    sums.dtype = DType::f32;
    sums.data = c.workspace.get<float>(out.numel());
  }
  std::fill_n(sums.as<std::byte>(), sums.numel() * size_of(sums.dtype), std::byte{0});
  switch (sums.dtype) {
    case DType::f64: f(sums.as<double>()); break;
    case DType::f32: f(sums.as<float>()); break;
    // Unsigned: overflow wraps, as it does in arithmetic.
    case DType::i64: f(sums.as<uint64_t>()); break;
    case DType::i32: f(sums.as<uint32_t>()); break;
    default: f(sums.as<uint8_t>());
  }
  if (sums.data != out.data) detail::copy_strided(sums, out);
}

// ---- index_select, index_add
void index_select_shapes(ShapeContext& c) {
  check_inputs(c, 2, 2);
  check_index(c, 1);
  check_ndim(c, 1, 1, "the index");
  Shape shape = c.shape(0);
  HONE_CHECK(shape.ndim() > 0, ShapeError, c.op, ": a 0-d tensor has no dim to select from");
  shape[wrap_dim(c.op, c.attrs.as<DimAttrs>().dim, shape.ndim())] = c.in[1].sizes[0];
  c.add(shape, c.dtype(0));
}
void index_select_run(RunContext& c) {
  const View& out = c.out[0];
  const int64_t dim = dim_of(c, c.attrs.as<DimAttrs>().dim, out);
  const int64_t* index = checked_index(c, 1, c.in[0].sizes[dim]);
  const View& x = c.in[0];
  const Lanes lanes(out, dim);
  if (out.numel() == 0) return;
  if (!x.is_contiguous()) {  // a copy of all x would cost more than the entries taken
    const LaneOffsets at(out, x, dim, c.workspace);
    visit_bytes(out.dtype, [&]<class T>() {
      const T* from = x.as<T>();
      T* to = out.as<T>();
      for_lanes(lanes, [&](int64_t o, int64_t j0, int64_t j1) {
        for (int64_t i = 0; i < lanes.n; ++i) {
          const int64_t row = (o * lanes.n + i) * lanes.inner;
          for (int64_t j = j0; j < j1; ++j) to[row + j] = from[at(o, index[i], j)];
        }
      });
    });
    return;
  }
  const int64_t bytes = lanes.inner * size_of(out.dtype), size = x.sizes[dim];
  const auto* from = x.as<const std::byte>();
  auto* to = out.as<std::byte>();
  parallel_for(lanes.outer * lanes.n, std::max<int64_t>(32768 / bytes, 1), [&](int64_t begin, int64_t end) {
    for (int64_t r = begin; r < end; ++r) {
      const int64_t row = r / lanes.n * size + index[r % lanes.n];
      std::memcpy(to + r * bytes, from + row * bytes, static_cast<size_t>(bytes));
    }
  });
}
void index_select_backward(BackwardContext& c) {
  if (!c.needs(0)) return;
  const int64_t dim = wrap_dim(c.op(), c.attrs<DimAttrs>().dim, c.input_shape(0).ndim());
  c.set(0, apply(kIndexAdd, IndexAddAttrs{dim, c.input_shape(0)[dim]}, {c.input(1), c.grad()}));
}

// Inputs: index, source.
void index_add_shapes(ShapeContext& c) {
  check_inputs(c, 2, 2);
  check_index(c, 0);
  check_ndim(c, 0, 1, "the index");
  check_numeric(c, 1);
  const auto& a = c.attrs.as<IndexAddAttrs>();
  Shape shape = c.shape(1);
  HONE_CHECK(shape.ndim() > 0, ShapeError, c.op, ": a 0-d source has no dim to add along");
  const int64_t dim = wrap_dim(c.op, a.dim, shape.ndim());
  HONE_CHECK(shape[dim] == c.in[0].sizes[0], ShapeError, c.op, ": dim ", dim, " of the source, of shape ", shape,
             ", must be as long as the index, of shape ", c.shape(0));
  shape[dim] = a.size;
  c.add(shape, c.dtype(1));
}
void index_add_run(RunContext& c) {
  const View& out = c.out[0];
  const int64_t dim = dim_of(c, c.attrs.as<IndexAddAttrs>().dim, out);
  const int64_t* index = checked_index(c, 0, out.sizes[dim]);
  with_sums(c, [&]<class T>(T* y) {
    const DType compute = out.dtype == DType::bf16 ? DType::f32 : out.dtype;
    const View source = contiguous_view(c.in[1], compute, c.workspace);
    const T* x = source.as<T>();
    const Lanes lanes(source, dim);
    const int64_t size = out.sizes[dim];
    for_lanes(lanes, [&](int64_t o, int64_t j0, int64_t j1) {
      for (int64_t i = 0; i < lanes.n; ++i) {
        T* to = y + (o * size + index[i]) * lanes.inner;
        const T* from = x + (o * lanes.n + i) * lanes.inner;
        for (int64_t j = j0; j < j1; ++j) to[j] = static_cast<T>(to[j] + from[j]);
      }
    });
  });
}
void index_add_backward(BackwardContext& c) {
  if (c.needs(1)) c.set(1, index_select(c.grad(), c.attrs<IndexAddAttrs>().dim, c.input(0)));
}

// ---- gather, scatter_add
void check_lanes_fit(const char* op, const Shape& index, const Shape& x, int64_t dim) {
  bool fits = index.ndim() == x.ndim();
  for (int d = 0; fits && d < x.ndim(); ++d) fits = d == dim || index[d] <= x[d];
  HONE_CHECK(fits, ShapeError, op, ": index of shape ", index, " does not fit shape ", x,
             ": as many dims, and none but dim ", dim, " larger");
}
void gather_shapes(ShapeContext& c) {
  check_inputs(c, 2, 2);
  check_index(c, 1);
  check_lanes_fit(c.op, c.shape(1), c.shape(0), wrap_dim(c.op, c.attrs.as<DimAttrs>().dim, c.in[0].ndim));
  c.add(c.shape(1), c.dtype(0));
}
void gather_run(RunContext& c) {
  const View &x = c.in[0], &out = c.out[0];
  if (out.numel() == 0) return;
  const int64_t dim = dim_of(c, c.attrs.as<DimAttrs>().dim, x);
  const int64_t* index = checked_index(c, 1, x.ndim == 0 ? 1 : x.sizes[dim]);
  const Lanes lanes(out, dim);
  const LaneOffsets at(out, x, dim, c.workspace);
  visit_bytes(out.dtype, [&]<class T>() {
    const T* from = x.as<T>();
    T* to = out.as<T>();
    for_lanes(lanes, [&](int64_t o, int64_t j0, int64_t j1) {
      for (int64_t i = 0; i < lanes.n; ++i) {
        const int64_t row = (o * lanes.n + i) * lanes.inner;
        for (int64_t j = j0; j < j1; ++j) to[row + j] = from[at(o, index[row + j], j)];
      }
    });
  });
}
void gather_backward(BackwardContext& c) {
  if (c.needs(0)) c.set(0, detail::scatter_to(c.input(1), c.grad(), c.attrs<DimAttrs>().dim, c.input_shape(0)));
}

// Inputs: index, source.
void scatter_add_shapes(ShapeContext& c) {
  check_inputs(c, 2, 2);
  check_index(c, 0);
  check_numeric(c, 1);
  const auto& a = c.attrs.as<ScatterAttrs>();
  HONE_CHECK(c.shape(0) == c.shape(1), ShapeError, c.op, ": index of shape ", c.shape(0), " and source of shape ",
             c.shape(1), " must have one shape");
  check_lanes_fit(c.op, c.shape(0), a.sizes, wrap_dim(c.op, a.dim, a.sizes.ndim()));
  c.add(a.sizes, c.dtype(1));
}
void scatter_add_run(RunContext& c) {
  const View& out = c.out[0];
  const int64_t dim = dim_of(c, c.attrs.as<ScatterAttrs>().dim, out);
  const int64_t* index = checked_index(c, 0, out.ndim == 0 ? 1 : out.sizes[dim]);
  with_sums(c, [&]<class T>(T* y) {
    const DType compute = out.dtype == DType::bf16 ? DType::f32 : out.dtype;
    const View source = contiguous_view(c.in[1], compute, c.workspace);
    if (source.numel() == 0) return;
    const T* x = source.as<T>();
    const Lanes lanes(source, dim);
    const LaneOffsets at(source, out, dim, c.workspace);
    for_lanes(lanes, [&](int64_t o, int64_t j0, int64_t j1) {
      for (int64_t i = 0; i < lanes.n; ++i) {
        const int64_t row = (o * lanes.n + i) * lanes.inner;
        for (int64_t j = j0; j < j1; ++j) {
          T& to = y[at(o, index[row + j], j)];
          to = static_cast<T>(to + x[row + j]);
        }
      }
    });
  });
}
void scatter_add_backward(BackwardContext& c) {
  if (c.needs(1)) c.set(1, gather(c.grad(), c.attrs<ScatterAttrs>().dim, c.input(0)));
}

// ---- one_hot
void one_hot_shapes(ShapeContext& c) {
  check_inputs(c, 1, 1);
  check_index(c, 0);
  const auto& a = c.attrs.as<OneHotAttrs>();
  HONE_CHECK(a.classes >= 1, ValueError, c.op, ": ", a.classes, " classes; at least 1 is needed");
  Shape shape = c.shape(0);
  shape.push_back(a.classes);
  c.add(shape, a.dtype);
}
void one_hot_run(RunContext& c) {
  const View& out = c.out[0];
  const int64_t classes = c.attrs.as<OneHotAttrs>().classes, n = c.in[0].numel();
  const int64_t* label = checked_index(c, 0, classes);
  std::fill_n(out.as<std::byte>(), out.numel() * size_of(out.dtype), std::byte{0});
  visit_dtype(out.dtype, [&]<class T>() {
    for (int64_t i = 0; i < n; ++i) out.as<T>()[i * classes + label[i]] = static_cast<T>(1);
  });
}
}  // namespace

const OpDef kIndexSelect = {.name = "index_select",
                            .attributes = attributes<DimAttrs>(),
                            .shapes = index_select_shapes,
                            .run = index_select_run,
                            .saves = {.inputs = 0b10},
                            .backward = index_select_backward};
const OpDef kIndexAdd = {.name = "index_add",
                         .attributes = attributes<IndexAddAttrs>(),
                         .shapes = index_add_shapes,
                         .run = index_add_run,
                         .saves = {.inputs = 0b01},
                         .backward = index_add_backward};
const OpDef kGather = {.name = "gather",
                       .attributes = attributes<DimAttrs>(),
                       .shapes = gather_shapes,
                       .run = gather_run,
                       .saves = {.inputs = 0b10},
                       .backward = gather_backward};
const OpDef kScatterAdd = {.name = "scatter_add",
                           .attributes = attributes<ScatterAttrs>(),
                           .shapes = scatter_add_shapes,
                           .run = scatter_add_run,
                           .saves = {.inputs = 0b01},
                           .backward = scatter_add_backward};
const OpDef kOneHot = {.name = "one_hot",
                       .attributes = attributes<OneHotAttrs>(),
                       .shapes = one_hot_shapes,
                       .run = one_hot_run,
                       .not_differentiable = "labels are integers"};

Tensor index_select(const Tensor& x, int64_t dim, const Tensor& index) {
  return apply(kIndexSelect, DimAttrs{dim}, {x, index});
}
Tensor index_add(const Tensor& x, int64_t dim, const Tensor& index, const Tensor& source) {
  const int64_t d = wrap_dim("index_add", dim, x.ndim());
  HONE_CHECK(x.ndim() > 0, ShapeError, "index_add: a 0-d tensor has no dim to add along");
  Shape expected = x.shape();
  if (source.ndim() == x.ndim()) expected[d] = source.shape()[d];
  HONE_CHECK(source.shape() == expected, ShapeError, "index_add: source of shape ", source.shape(),
             " does not fit shape ", x.shape(), ": only dim ", d, " may differ");
  return x + Tensor(apply(kIndexAdd, IndexAddAttrs{d, x.size(d)}, {index, source}));
}
Tensor gather(const Tensor& x, int64_t dim, const Tensor& index) { return apply(kGather, DimAttrs{dim}, {x, index}); }
Tensor scatter_add(const Tensor& x, int64_t dim, const Tensor& index, const Tensor& source) {
  return x + detail::scatter_to(index, source, dim, x.shape());
}
Tensor one_hot(const Tensor& labels, int64_t classes, DType dtype) {
  return apply(kOneHot, OneHotAttrs{classes, dtype}, {labels});
}

namespace detail {
Tensor scatter_to(const Tensor& index, const Tensor& source, int64_t dim, const Shape& sizes) {
  return apply(kScatterAdd, ScatterAttrs{dim, sizes}, {index, source});
}
}  // namespace detail

}  // namespace hone
