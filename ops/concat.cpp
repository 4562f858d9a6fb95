// Joining, cutting and padding.

#include <algorithm>

#include "hone/core/autograd.h"
#include "hone/core/basic_ops.h"
#include "hone/ops/shape_ops.h"

namespace hone {

namespace {
struct ConcatAttrs {
  int64_t dim = 0;
  void fields(FieldVisitor& v) { v("dim", dim); }
};
struct PadAttrs {
  Shape before, after;  // of the trailing dims
  double value = 0;
  void fields(FieldVisitor& v) {
    v("before", before);
    v("after", after);
    v("value", value);
  }
};

// The part of `out` that starts at `start` along `dim` and has the sizes of `like`.
View part_of(const View& out, int64_t dim, int64_t start, const View& like) {
  View part = out;
  part.sizes[dim] = like.sizes[dim];
  if (part.data) part.data = static_cast<std::byte*>(out.data) + start * out.strides[dim] * size_of(out.dtype);
  return part;
}

void concat_shapes(ShapeContext& c) {
  HONE_CHECK(!c.in.empty(), ValueError, c.op, ": takes at least one tensor");
  const auto count = static_cast<int>(c.in.size());
  check_inputs(c, count, count);
  Shape shape = c.shape(0);
  HONE_CHECK(shape.ndim() > 0, ShapeError, c.op, ": 0-d tensors have no dim to join along; use stack");
  const int64_t dim = wrap_dim(c.op, c.attrs.as<ConcatAttrs>().dim, shape.ndim());
  for (int i = 1; i < count; ++i) {
    check_same_dtype(c, 0, i);
    const Shape other = c.shape(i);
    Shape expected = c.shape(0);
    if (other.ndim() == expected.ndim()) expected[dim] = other[dim];
    HONE_CHECK(other == expected, ShapeError, c.op, ": input ", i, " of shape ", other, " does not fit the first, ",
               c.shape(0), ": only dim ", dim, " may differ");
    shape[dim] += other[dim];
  }
  c.add(shape, c.dtype(0));
}
void concat_run(RunContext& c) {
  const View& out = c.out[0];
  const int64_t dim = wrap_dim(c.op, c.attrs.as<ConcatAttrs>().dim, out.ndim);
  int64_t start = 0;
  for (const View& x : c.in) {
    detail::copy_strided(x, part_of(out, dim, start, x));
    start += x.sizes[dim];
  }
}
void concat_backward(BackwardContext& c) {
  const Tensor g = c.grad();
  const int64_t dim = wrap_dim(c.op(), c.attrs<ConcatAttrs>().dim, g.ndim());
  int64_t start = 0;
  for (int i = 0; i < c.inputs(); ++i) {
    const int64_t end = start + c.input_shape(i)[dim];
    if (c.needs(i)) c.set(i, slice(g, dim, start, end));
    start = end;
  }
}

void pad_shapes(ShapeContext& c) {
  check_inputs(c, 1, 1);
  const auto& a = c.attrs.as<PadAttrs>();
  Shape shape = c.shape(0);
  HONE_CHECK(a.before.ndim() == a.after.ndim() && a.before.ndim() <= shape.ndim(), ShapeError, c.op, ": padding of ",
             a.before.ndim(), " dims for shape ", shape);
  for (int i = 0; i < a.before.ndim(); ++i) {
    HONE_CHECK(a.before[i] >= 0 && a.after[i] >= 0, ValueError, c.op, ": padding {", a.before[i], ", ", a.after[i],
               "} must not be negative; use slice to crop");
    int64_t& size = shape[shape.ndim() - a.before.ndim() + i];
    HONE_CHECK(!__builtin_add_overflow(size, a.before[i], &size) && !__builtin_add_overflow(size, a.after[i], &size),
               ShapeError, c.op, ": padding {", a.before[i], ", ", a.after[i], "} overflows the size");
  }
  detail::check_scalar(c.op, a.value, c.dtype(0));
  c.add(shape, c.dtype(0));
}
void pad_run(RunContext& c) {
  const auto& a = c.attrs.as<PadAttrs>();
  const View& out = c.out[0];
  View fill = out;  // one value, broadcast
  fill.dtype = DType::f64;
  double value = a.value;
  fill.data = &value;
  std::fill_n(fill.strides, View::kDims, 0);
  detail::copy_strided(fill, out);
  View part = out;
  for (int d = 0; d < out.ndim; ++d) {
    const int i = d - (out.ndim - a.before.ndim());
    part = part_of(part, d, i < 0 ? 0 : a.before[i], c.in[0]);
  }
  detail::copy_strided(c.in[0], part);
}
void pad_backward(BackwardContext& c) {
  const auto& a = c.attrs<PadAttrs>();
  const Shape& shape = c.input_shape(0);
  Tensor g = c.grad();
  for (int i = 0; i < a.before.ndim(); ++i) {
    const int d = shape.ndim() - a.before.ndim() + i;
    if (g.size(d) != shape[d]) g = slice(g, d, a.before[i], a.before[i] + shape[d]);
  }
  c.set(0, g);
}
}  // namespace

const OpDef kConcat = {.name = "concat",
                       .attributes = attributes<ConcatAttrs>(),
                       .shapes = concat_shapes,
                       .run = concat_run,
                       .backward = concat_backward};
const OpDef kPad = {.name = "pad",
                    .attributes = attributes<PadAttrs>(),
                    .shapes = pad_shapes,
                    .run = pad_run,
                    .backward = pad_backward};

Tensor concat(std::span<const Tensor> tensors, int64_t dim) { return apply(kConcat, ConcatAttrs{dim}, tensors); }
Tensor stack(std::span<const Tensor> tensors, int64_t dim) {
  HONE_CHECK(!tensors.empty(), ValueError, "stack: takes at least one tensor");
  PoolVector<Tensor> rows;
  rows.reserve(tensors.size());
  for (const Tensor& t : tensors) {
    HONE_CHECK(t.shape() == tensors[0].shape(), ShapeError, "stack: shapes ", tensors[0].shape(), " and ", t.shape(),
               " differ");
    rows.push_back(unsqueeze(t, wrap_dim("stack", dim, t.ndim() + 1)));
  }
  return concat(rows, wrap_dim("stack", dim, tensors[0].ndim() + 1));
}
std::vector<Tensor> split(const Tensor& x, int64_t size, int64_t dim) {
  HONE_CHECK(size >= 1, ValueError, "split: size ", size, " must be at least 1");
  HONE_CHECK(x.ndim() > 0, ShapeError, "split: a 0-d tensor has no dim to split");
  const int64_t d = wrap_dim("split", dim, x.ndim()), n = x.size(d);
  std::vector<Tensor> pieces;
  for (int64_t start = 0;; start += size) {
    const int64_t left = n - start;
    pieces.push_back(slice(x, d, start, start + std::min(size, left)));
    if (left <= size) return pieces;
  }
}
std::vector<Tensor> split(const Tensor& x, const std::vector<int64_t>& sizes, int64_t dim) {
  HONE_CHECK(x.ndim() > 0, ShapeError, "split: a 0-d tensor has no dim to split");
  const int64_t d = wrap_dim("split", dim, x.ndim());
  int64_t left = x.size(d);
  for (int64_t size : sizes) {
    HONE_CHECK(size >= 0 && size <= left, ShapeError, "split: sizes do not add up to ", x.size(d), ", the size of dim ",
               d, " of shape ", x.shape());
    left -= size;
  }
  HONE_CHECK(left == 0, ShapeError, "split: sizes leave ", left, " of ", x.size(d), " elements of dim ", d,
             " of shape ", x.shape());
  std::vector<Tensor> pieces;
  int64_t start = 0;
  for (int64_t size : sizes) {
    pieces.push_back(slice(x, d, start, start + size));
    start += size;
  }
  return pieces;
}
std::vector<Tensor> chunk(const Tensor& x, int64_t count, int64_t dim) {
  HONE_CHECK(count >= 1, ValueError, "chunk: count ", count, " must be at least 1");
  HONE_CHECK(x.ndim() > 0, ShapeError, "chunk: a 0-d tensor has no dim to split");
  const int64_t n = x.size(dim);
  return split(x, std::max<int64_t>(n / count + (n % count != 0), 1), dim);
}

Tensor pad(const Tensor& x, std::span<const Padding> padding, double value) {
  PadAttrs a;
  a.value = value;
  for (const Padding& p : padding) {
    a.before.push_back(p.before);
    a.after.push_back(p.after);
  }
  return apply(kPad, a, {x});
}

}  // namespace hone
