#include "hone/ops/matmul.h"

#include <algorithm>

#include "hone/core/autograd.h"
#include "hone/core/basic_ops.h"
#include "hone/core/parallel.h"
#include "hone/ops/blas.h"
#include "hone/ops/contiguous_view.h"
#include "hone/ops/elementwise.h"
#include "hone/ops/reduce.h"
#include "hone/ops/shape_ops.h"

namespace hone {

namespace {
// A matrix as gemm takes it: transposed or not, with a leading dimension.
struct Matrix {
  bool transposed;
  int64_t leading;
};
// The last two dims of `v` as a gemm operand; false if neither stride is 1.
bool as_matrix(const View& v, Matrix& m) {
  const int64_t rows = v.size(-2), cols = v.size(-1), rs = v.strides[v.ndim - 2], cs = v.strides[v.ndim - 1];
  if ((cs == 1 || cols == 1) && (rs >= std::max<int64_t>(1, cols) || rows == 1)) {
    m = {false, std::max<int64_t>({1, cols, rows == 1 ? 1 : rs})};
    return true;
  }
  if ((rs == 1 || rows == 1) && (cs >= std::max<int64_t>(1, rows) || cols == 1)) {
    m = {true, std::max<int64_t>({1, rows, cols == 1 ? 1 : cs})};
    return true;
  }
  return false;
}

// A gemm operand for any view: itself, or a contiguous copy in `dtype`.
View prepared(const View& v, DType dtype, Workspace& workspace, Matrix& m) {
  if (v.dtype == dtype && as_matrix(v, m)) return v;
  const View copy = detail::contiguous_copy(v, dtype, workspace);
  as_matrix(copy, m);
  return copy;
}

template <class T>
void plain_integer(const Matrix& ma, const T* a, const Matrix& mb, const T* b, T* c, int64_t begin, int64_t end,
                   int64_t m, int64_t k) {
  for (int64_t i = begin; i < end; ++i) {  // rows of c
    for (int64_t j = 0; j < m; ++j) {
      uint64_t sum = 0;  // wraps as integers of every width do
      for (int64_t p = 0; p < k; ++p) {
        const T x = ma.transposed ? a[p * ma.leading + i] : a[i * ma.leading + p];
        const T y = mb.transposed ? b[j * mb.leading + p] : b[p * mb.leading + j];
        sum += static_cast<uint64_t>(static_cast<int64_t>(x)) * static_cast<uint64_t>(static_cast<int64_t>(y));
      }
      c[i * m + j] = static_cast<T>(static_cast<int64_t>(sum));
    }
  }
}

// Below this a product is one piece of work of the batch loop; above it the product itself is split.
constexpr int64_t kLargeProduct = 1 << 21;

// ---- matmul on operands of at least two dims
void matmul_shapes(ShapeContext& c) {
  check_inputs(c, 2, 2);
  check_same_dtype(c, 0, 1);
  HONE_CHECK(c.dtype(0) != DType::boolean, DTypeError, c.op, ": takes numbers, not bool");
  const Shape a = c.shape(0), b = c.shape(1);
  HONE_CHECK(a.ndim() >= 2 && b.ndim() >= 2 && a[a.ndim() - 1] == b[b.ndim() - 2], ShapeError, c.op, ": shapes ", a,
             " and ", b, " do not fit: the last dim of the first must equal the last but one of the second");
  Shape batch_a = a, batch_b = b;
  for (int i = 0; i < 2; ++i) {
    batch_a.erase(batch_a.ndim() - 1);
    batch_b.erase(batch_b.ndim() - 1);
  }
  Shape out = broadcast_shapes(c.op, batch_a, batch_b);
  out.push_back(a[a.ndim() - 2]);
  out.push_back(b[b.ndim() - 1]);
  c.add(out, c.dtype(0));
}

void matmul_run(RunContext& c) {
  const View& out = c.out[0];
  const int64_t n = out.size(-2), m = out.size(-1), k = c.in[0].size(-1);
  const int64_t batches = n * m == 0 ? 0 : out.numel() / (n * m);
  if (batches == 0) return;
  const DType compute = compute_dtype(out.dtype);
  Matrix ma{}, mb{};
  const View a = prepared(c.in[0], compute, c.workspace, ma), b = prepared(c.in[1], compute, c.workspace, mb);
  View result = out;
  if (out.dtype != compute) {
    result.dtype = compute;
    result.data = c.workspace.get<std::byte>(out.numel() * size_of(compute));
  }
  if (k == 0) {
    std::fill_n(out.as<std::byte>(), out.numel() * size_of(out.dtype), std::byte{0});
    return;
  }
  // A batch over one b is one tall product where a's rows follow each other.
  const bool one_b = std::all_of(b.sizes, b.sizes + b.ndim - 2, [](int64_t s) { return s == 1; });
  const auto offset = [&](const View& v, int64_t batch) {
    int64_t at = 0;
    for (int d = out.ndim - 3; d >= 0; --d) {
      const int64_t i = batch % out.sizes[d];
      batch /= out.sizes[d];
      const int own = d - (out.ndim - v.ndim);
      if (own >= 0 && v.sizes[own] != 1) at += i * v.strides[own];
    }
    return at;
  };
  const auto run = [&]<class T>() {
    if constexpr (std::is_floating_point_v<T>) {
      if (one_b && !ma.transposed && a.is_contiguous() && a.numel() == batches * n * k) {
        blas::parallel_gemm(false, mb.transposed, batches * n, m, k, T(1), a.as<T>(), k, b.as<T>(), mb.leading, T(0),
                            result.as<T>(), m);
        return;
      }
    }
    const auto one = [&](int64_t i, bool split) {
      const T* x = a.as<T>() + offset(a, i);
      const T* y = b.as<T>() + offset(b, i);
      T* z = result.as<T>() + i * n * m;
      if constexpr (std::is_floating_point_v<T>) {
        if (split) {
          blas::parallel_gemm(ma.transposed, mb.transposed, n, m, k, T(1), x, ma.leading, y, mb.leading, T(0), z, m);
        } else {
          blas::gemm(ma.transposed, mb.transposed, n, m, k, T(1), x, ma.leading, y, mb.leading, T(0), z, m);
        }
      } else {
        parallel_for(n, split ? std::max<int64_t>(1, (1 << 16) / (m * k)) : n,
                     [&](int64_t begin, int64_t end) { plain_integer(ma, x, mb, y, z, begin, end, m, k); });
      }
    };
    if (n * m * k >= kLargeProduct) {
      for (int64_t i = 0; i < batches; ++i) one(i, true);
    } else {
      parallel_for(batches, std::max<int64_t>(1, (1 << 16) / std::max<int64_t>(1, n * m * k)),
                   [&](int64_t begin, int64_t end) {
                     for (int64_t i = begin; i < end; ++i) one(i, false);
                   });
    }
  };
  switch (compute) {
    case DType::f64: run.template operator()<double>(); break;
    case DType::f32: run.template operator()<float>(); break;
    case DType::i64: run.template operator()<int64_t>(); break;
    case DType::i32: run.template operator()<int32_t>(); break;
    case DType::i8: run.template operator()<int8_t>(); break;
    default: run.template operator()<uint8_t>();
  }
  if (result.data != out.data) detail::copy_strided(result, out);
}

// [..., n] as [rows, n].
Tensor rows_of(const Tensor& x) {
  if (x.ndim() == 2) return x;
  int64_t rows = 1;
  for (int64_t d = 0; d + 1 < x.ndim(); ++d) rows *= x.shape()[d];
  return reshape(x, {rows, x.shape().back()});
}

void matmul_backward(BackwardContext& c) {
  const Shape &a = c.input_shape(0), &b = c.input_shape(1);
  if (c.needs(0)) c.set(0, detail::sum_to(matmul(c.grad(), transpose(c.input(1))), a));
  if (!c.needs(1)) return;
  // A batch over one b: one product sums over the batch too.
  if (b.ndim() == 2)
    c.set(1, matmul(transpose(rows_of(c.input(0))), rows_of(c.grad())));
  else
    c.set(1, detail::sum_to(matmul(transpose(c.input(0)), c.grad()), b));
}

int64_t matmul_macs(std::span<const View> in, std::span<const View> out, const Attrs&) {
  return out[0].numel() * in[0].size(-1);
}

// ---- linear
void linear_shapes(ShapeContext& c) {
  check_inputs(c, 2, 3);
  check_floating(c, 0, "x");
  check_same_dtype(c, 0, 1);
  check_ndim(c, 1, 2, "weight");
  const Shape x = c.shape(0), w = c.shape(1);
  HONE_CHECK(x.ndim() >= 1 && x.back() == w[1], ShapeError, c.op, ": weight ", w, " takes ", w[1], " features, x is ",
             x);
  if (c.has(2)) {
    check_same_dtype(c, 0, 2);
    HONE_CHECK(c.shape(2) == Shape{w[0]}, ShapeError, c.op, ": bias ", c.shape(2), " does not fit weight ", w,
               ": expected [", w[0], "]");
  }
  Shape out = x;
  out[out.ndim() - 1] = w[0];
  c.add(out, c.dtype(0));
}

void linear_run(RunContext& c) {
  const View& out = c.out[0];
  const int64_t k = c.in[1].sizes[1], m = c.in[1].sizes[0], rows = m == 0 ? 0 : out.numel() / m;
  if (rows == 0) return;
  const DType compute = compute_dtype(out.dtype);
  View x = c.in[0];
  Matrix mx{}, mw{};
  if (x.ndim != 2) {  // more dims fold into rows only where they follow each other
    if (!x.is_contiguous()) x = detail::contiguous_copy(x, compute, c.workspace);
    x.ndim = 2;
    x.sizes[0] = rows;
    x.sizes[1] = x.strides[0] = k;
    x.strides[1] = 1;
  }
  x = prepared(x, compute, c.workspace, mx);
  const View w = prepared(c.in[1], compute, c.workspace, mw);
  View result = out;
  result.dtype = compute;
  if (out.dtype != compute) result.data = c.workspace.get<std::byte>(out.numel() * size_of(compute));
  const auto run = [&]<class T>() {
    T* y = result.as<T>();
    const bool with_bias = c.has(2);
    if (with_bias) {  // every row starts as the bias; gemm adds to it
      View row = c.in[2], rows_view = result;
      rows_view.ndim = row.ndim = 2;
      rows_view.sizes[0] = row.sizes[0] = rows;
      row.strides[1] = c.in[2].strides[0];
      row.strides[0] = 0;
      rows_view.sizes[1] = row.sizes[1] = rows_view.strides[0] = m;
      rows_view.strides[1] = 1;
      detail::copy_strided(row, rows_view);
    } else if (k == 0) {
      std::fill_n(y, rows * m, T(0));
    }
    if (k > 0) {
      blas::parallel_gemm(mx.transposed, !mw.transposed, rows, m, k, T(1), x.as<T>(), mx.leading, w.as<T>(), mw.leading,
                          with_bias ? T(1) : T(0), y, m);
    }
  };
  if (compute == DType::f64)
    run.template operator()<double>();
  else
    run.template operator()<float>();
  if (result.data != out.data) detail::copy_strided(result, out);
}

void linear_backward(BackwardContext& c) {
  const Tensor g = c.grad();
  if (c.needs(0)) c.set(0, matmul(g, c.input(1)));
  if (c.needs(1)) c.set(1, matmul(transpose(rows_of(g)), rows_of(c.input(0))));
  if (c.has(2) && c.needs(2)) c.set(2, detail::sum_to(g, c.input_shape(2)));
}
int64_t linear_macs(std::span<const View> in, std::span<const View> out, const Attrs&) {
  return out[0].numel() * in[1].sizes[1];
}
}  // namespace

const OpDef kMatmul = {.name = "matmul",
                       .shapes = matmul_shapes,
                       .run = matmul_run,
                       .saves = {.inputs = 0b11},
                       .backward = matmul_backward,
                       .macs = matmul_macs};
const OpDef kLinear = {.name = "linear",
                       .shapes = linear_shapes,
                       .run = linear_run,
                       .saves = {.inputs = 0b11},
                       .backward = linear_backward,
                       .macs = linear_macs};

Tensor matmul(const Tensor& a, const Tensor& b) {
  HONE_CHECK(a.defined() && b.defined(), ValueError, "matmul: an operand is an undefined tensor");
  const bool row = a.ndim() == 1, column = b.ndim() == 1;
  if (a.ndim() >= 2 && b.ndim() >= 2) return apply(kMatmul, {}, {a, b});
  HONE_CHECK(a.ndim() >= 1 && b.ndim() >= 1, ShapeError, "matmul: shapes ", a.shape(), " and ", b.shape(),
             ": a 0-d tensor is no matrix; use *");
  HONE_CHECK(a.size(-1) == b.size(column ? -1 : -2), ShapeError, "matmul: shapes ", a.shape(), " and ", b.shape(),
             " do not fit: sizes ", a.size(-1), " and ", b.size(column ? -1 : -2), " of the dims to sum over differ");
  Tensor y = apply(kMatmul, {}, {row ? unsqueeze(a, 0) : a, column ? unsqueeze(b, 1) : b});
  if (column) y = squeeze(y, -1);
  if (row) y = squeeze(y, column ? -1 : -2);
  return y;
}

Tensor linear(const Tensor& x, const Tensor& weight, const Tensor& bias) {
  return apply(kLinear, {}, {x, weight, bias});
}

}  // namespace hone
