#include "hone/core/weight_ops.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>

#include "hone/core/autograd.h"
#include "hone/core/basic_ops.h"
#include "hone/core/convert.h"
#include "hone/core/parallel.h"

namespace hone {
namespace {

constexpr int64_t kGrain = int64_t{1} << 14;
constexpr size_t kCodes = 256;

/// The elements of v in order, in its own dtype.
template <class T> const T* in_order(const View& v, Workspace& workspace) {
  if (v.is_contiguous()) return v.as<T>();
  View copy = v;
  int64_t stride = 1;
  for (int d = v.ndim - 1; d >= 0; --d) copy.strides[d] = stride, stride *= v.sizes[d];
  copy.data = workspace.get<T>(v.numel());
  detail::copy_strided(v, copy);
  return copy.as<T>();
}
double number(const View& v, int64_t i) {
  return visit_floating(v.dtype, [&]<class T>() { return static_cast<double>(v.as<T>()[i]); });
}

/// sums[l] = Σ over i of what add(i, sums) adds, by pieces of fixed size: the same bits at any thread count.
template <class Add> void sum_by_code(int64_t n, int64_t count, double* sums, Workspace& workspace, const Add& add) {
  std::fill_n(sums, count, 0.0);
  const int64_t grain = std::max(kGrain, 64 * count), pieces = (n + grain - 1) / grain;
  double* parts = workspace.get<double>(pieces * count);
  parallel_for(n, grain, [&](int64_t begin, int64_t end) {
    double* part = parts + begin / grain * count;
    std::fill_n(part, count, 0.0);
    for (int64_t i = begin; i < end; ++i) add(i, part);
  });
  for (int64_t p = 0; p < pieces; ++p)
    for (int64_t k = 0; k < count; ++k) sums[k] += parts[p * count + k];
}

// ---- codebook ----

struct CodebookGradAttrs {
  int64_t count = 0;
  void fields(FieldVisitor& v) { v("count", count); }
};

void check_u8(const ShapeContext& c, int i, const char* what) {
  HONE_CHECK(c.dtype(i) == DType::u8, DTypeError, c.op, ": ", what, " must be u8, not ", c.dtype(i));
}
void codebook_shapes(ShapeContext& c) {
  check_inputs(c, 2, 2);
  check_floating(c, 0, "centroids");
  check_ndim(c, 0, 1, "centroids");
  check_u8(c, 1, "codes");
  c.add(c.shape(1), c.dtype(0));
}
void codebook_run(RunContext& c) {
  visit_floating(c.out[0].dtype, [&]<class T>() {
    std::array<T, kCodes> table;
    table.fill(T(std::numeric_limits<float>::quiet_NaN()));
    const View& centroids = c.in[0];
    for (int64_t k = 0; k < std::min<int64_t>(centroids.sizes[0], kCodes); ++k)
      table[static_cast<size_t>(k)] = centroids.as<T>()[k * centroids.strides[0]];
    const uint8_t* codes = in_order<uint8_t>(c.in[1], c.workspace);
    T* out = c.out[0].as<T>();
    parallel_for(c.out[0].numel(), kGrain, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) out[i] = table[codes[i]];
    });
  });
}
Tensor codebook_grad(const Tensor& g, const Tensor& codes, int64_t count) {
  return apply(kCodebookGrad, CodebookGradAttrs{count}, {g, codes});
}

void codebook_grad_shapes(ShapeContext& c) {
  check_inputs(c, 2, 2);
  check_floating(c, 0, "gradient");
  check_u8(c, 1, "codes");
  HONE_CHECK(c.shape(0) == c.shape(1), ShapeError, c.op, ": gradient ", c.shape(0), " must have the codes' shape ",
             c.shape(1));
  const int64_t count = c.attrs.as<CodebookGradAttrs>().count;
  HONE_CHECK(count >= 0, ValueError, c.op, ": count must be at least 0, got ", count);
  c.add({count}, c.dtype(0));
}
void codebook_grad_run(RunContext& c) {
  visit_floating(c.out[0].dtype, [&]<class T>() {
    const T* g = in_order<T>(c.in[0], c.workspace);
    const uint8_t* codes = in_order<uint8_t>(c.in[1], c.workspace);
    std::array<double, kCodes> sums;
    sum_by_code(c.in[0].numel(), kCodes, sums.data(), c.workspace,
                [&](int64_t i, double* part) { part[codes[i]] += static_cast<double>(g[i]); });
    const int64_t count = c.out[0].numel();
    for (int64_t k = 0; k < count; ++k)
      c.out[0].as<T>()[k] = k < static_cast<int64_t>(kCodes) ? detail::convert<T>(sums[static_cast<size_t>(k)]) : T(0);
  });
}

// ---- fake quantization ----

struct FakeQuantizeAttrs {
  int64_t scale_gradient = 0;  // a ScaleGradient
  bool clip_gradient = true;
  void fields(FieldVisitor& v) {
    v("scale_gradient", scale_gradient);
    v("clip_gradient", clip_gradient);
  }
  bool has(ScaleGradient g) const { return scale_gradient == static_cast<int64_t>(g); }
};

struct Level {
  double scale = std::numeric_limits<double>::quiet_NaN(), shift = 0, low = 0, high = 0;
  bool truncate = false, negative = false;
  bool keeps() const { return scale == 0; }
  double position(double x) const { return (x - shift) / scale; }
  /// The code of a position. Bounds are integers, so limiting before rounding is the same.
  double code(double q) const {
    q = q < low ? low : q > high ? high : q;
    constexpr double kRound = 0x1.8p52;  // added and taken away: rounds to the nearest integer, halves to even
    return truncate ? std::trunc(q) : (q + kRound) - kRound;
  }
};

/// Inputs `scale`, `points` and `levels` of the two ops, from input `first` on.
void check_grid(const ShapeContext& c, int x, int first) {
  const int scale = first, points = first + 1, levels = first + 2;
  check_floating(c, scale, "scale");
  check_ndim(c, scale, 1, "scale");
  const int64_t count = c.shape(scale)[0];
  HONE_CHECK(c.dtype(points) == DType::f64, DTypeError, c.op, ": points must be f64, not ", c.dtype(points));
  HONE_CHECK(c.shape(points) == (Shape{count, kGridColumns}), ShapeError, c.op, ": points ", c.shape(points),
             " must be [", count, ", ", kGridColumns, "]: a row for each scale");
  const Shape shape = c.shape(x);
  if (c.has(levels)) {
    check_u8(c, levels, "levels");
    HONE_CHECK(c.shape(levels) == shape, ShapeError, c.op, ": levels ", c.shape(levels), " must have x's shape ",
               shape);
    HONE_CHECK(count <= static_cast<int64_t>(kCodes), ShapeError, c.op, ": ", count, " levels; at most 256 have ids");
  } else {
    HONE_CHECK(count == 1 || (shape.ndim() > 0 && count == shape[0]), ShapeError, c.op, ": ", count,
               " scales for x of shape ", shape, "; without levels there must be one, or one for each index of dim 0");
  }
}
void fake_quantize_shapes(ShapeContext& c) {
  check_inputs(c, 3, 5);
  check_floating(c, 0, "x");
  check_grid(c, 0, 1);
  if (c.has(4)) {
    HONE_CHECK(c.dtype(4) == DType::boolean, DTypeError, c.op, ": kept must be bool, not ", c.dtype(4));
    HONE_CHECK(c.shape(4) == c.shape(0), ShapeError, c.op, ": kept ", c.shape(4), " must have x's shape ", c.shape(0));
  }
  c.add(c.shape(0), c.dtype(0));
}
void fake_quantize_grad_shapes(ShapeContext& c) {
  check_inputs(c, 4, 5);
  check_same_dtype(c, 0, 1);
  HONE_CHECK(c.shape(0) == c.shape(1), ShapeError, c.op, ": gradient ", c.shape(0), " must have x's shape ",
             c.shape(1));
  check_grid(c, 1, 2);
  c.add(c.shape(1), c.dtype(1));
  c.add(c.shape(2), c.dtype(2));
}

/// The grid as the kernels read it. `level` has room for every id of a byte; those beyond the scales give NaN.
struct Grid {
  Grid(RunContext& c, int x, int first) : n(c.in[static_cast<size_t>(x)].numel()) {
    const View &scale = c.in[static_cast<size_t>(first)], &points = c.in[static_cast<size_t>(first) + 1];
    count = scale.sizes[0];
    room = std::max<int64_t>(count, kCodes);
    level = c.workspace.get<Level>(room);
    std::fill_n(level, room, Level());
    for (int64_t l = 0; l < count; ++l) {
      const auto point = [&](int64_t column) {
        return points.as<double>()[l * points.strides[0] + column * points.strides[1]];
      };
      const double s = number(scale, l * scale.strides[0]);
      level[l] = {std::abs(s), point(0), point(1), point(2), point(3) != 0, s < 0};
      const auto integral = [](double v) { return std::abs(v) <= 0x1p31 && v == std::trunc(v); };
      HONE_CHECK(std::isfinite(s), ValueError, c.op, ": level ", l, " has scale ", s, "; it must be finite");
      HONE_CHECK(std::isfinite(level[l].shift) && integral(level[l].low) && integral(level[l].high) &&
                     level[l].low <= level[l].high,
                 ValueError, c.op, ": level ", l, " has shift ", level[l].shift, " and codes from ", level[l].low,
                 " to ", level[l].high, "; the shift must be finite, codes integers in order within 2^31");
    }
    if (c.has(first + 2)) ids = in_order<uint8_t>(c.in[static_cast<size_t>(first) + 2], c.workspace);
    per_row = ids || count == 0 ? n : n / count;
  }
  /// f(begin, end, level) over runs of elements of one level; with ids these are single elements.
  template <class F> void for_each(const F& f) const {
    if (ids) {
      parallel_for(n, kGrain, [&](int64_t begin, int64_t end) {
        for (int64_t i = begin; i < end; ++i) f(i, i + 1, ids[i]);
      });
    } else if (count == 1) {
      parallel_for(n, kGrain, [&](int64_t begin, int64_t end) { f(begin, end, 0); });
    } else {
      parallel_for(count, std::max<int64_t>(1, kGrain / std::max<int64_t>(per_row, 1)), [&](int64_t b, int64_t e) {
        for (int64_t l = b; l < e; ++l) f(l * per_row, (l + 1) * per_row, l);
      });
    }
  }
  int64_t n, count = 0, room = 0, per_row = 0;
  Level* level = nullptr;
  const uint8_t* ids = nullptr;
};

void fake_quantize_run(RunContext& c) {
  const Grid grid(c, 0, 1);
  detail::copy_strided(c.in[0], c.out[0]);
  visit_floating(c.out[0].dtype, [&]<class T>() {
    T* y = c.out[0].as<T>();
    grid.for_each([&](int64_t begin, int64_t end, int64_t l) {
      const Level level = grid.level[l];
      if (level.keeps()) return;
      for (int64_t i = begin; i < end; ++i)
        y[i] = detail::convert<T>(level.scale * level.code(level.position(static_cast<double>(y[i]))) + level.shift);
    });
  });
}

/// ∂ŷ/∂Δ at x.
double scale_slope(const Level& l, double x) {
  if (l.keeps()) return 0;
  const double q = l.position(x), code = l.code(q);
  return (l.negative ? -1 : 1) * (q >= l.low && q <= l.high ? code - q : code);
}

void fake_quantize_grad_run(RunContext& c) {
  const Grid grid(c, 1, 2);
  const auto a = c.attrs.as<FakeQuantizeAttrs>();
  const bool of_scale = !a.has(ScaleGradient::none);
  double* sums = c.workspace.get<double>(grid.room);
  std::fill_n(sums, grid.room, 0.0);
  visit_floating(c.out[0].dtype, [&]<class T>() {
    const T *g = in_order<T>(c.in[0], c.workspace), *x = in_order<T>(c.in[1], c.workspace);
    T* dx = c.out[0].as<T>();
    grid.for_each([&](int64_t begin, int64_t end, int64_t l) {
      const Level level = grid.level[l];
      for (int64_t i = begin; i < end; ++i) {
        const double q = level.position(static_cast<double>(x[i]));
        dx[i] = !a.clip_gradient || level.keeps() || (q >= level.low && q <= level.high) ? g[i] : T(0);
      }
    });
    if (!of_scale) return;
    const auto slope = [&](int64_t i, int64_t l) {
      return static_cast<double>(g[i]) * scale_slope(grid.level[l], static_cast<double>(x[i]));
    };
    if (grid.ids)
      sum_by_code(grid.n, kCodes, sums, c.workspace,
                  [&](int64_t i, double* part) { part[grid.ids[i]] += slope(i, grid.ids[i]); });
    else if (grid.count == 1)
      sum_by_code(grid.n, 1, sums, c.workspace, [&](int64_t i, double* part) { part[0] += slope(i, 0); });
    else
      grid.for_each([&](int64_t begin, int64_t end, int64_t l) {
        for (int64_t i = begin; i < end; ++i) sums[l] += slope(i, l);
      });
  });
  if (a.has(ScaleGradient::normalized)) {
    double* elements = c.workspace.get<double>(grid.room);
    if (grid.ids)
      sum_by_code(grid.n, kCodes, elements, c.workspace, [&](int64_t i, double* part) { ++part[grid.ids[i]]; });
    else
      std::fill_n(elements, grid.count, static_cast<double>(grid.per_row));
    for (int64_t l = 0; l < grid.count; ++l) {
      const double most = grid.level[l].high > 0 ? grid.level[l].high : -grid.level[l].low;
      if (elements[l] > 0 && most > 0) sums[l] /= std::sqrt(elements[l] * most);
    }
  }
  visit_floating(c.out[1].dtype, [&]<class T>() {
    std::transform(sums, sums + grid.count, c.out[1].as<T>(), detail::convert<T, double>);
  });
}

}  // namespace

const OpDef kCodebook = {
    .name = "codebook",
    .shapes = codebook_shapes,
    .run = codebook_run,
    .saves = {.inputs = 0b10},
    .backward = [](BackwardContext& c) { c.set(0, codebook_grad(c.grad(), c.input(1), c.input_shape(0)[0])); }};
const OpDef kCodebookGrad = {.name = "codebook_grad",
                             .attributes = attributes<CodebookGradAttrs>(),
                             .shapes = codebook_grad_shapes,
                             .run = codebook_grad_run,
                             .saves = {.inputs = 0b10},
                             .backward = [](BackwardContext& c) { c.set(0, codebook(c.grad(), c.input(1))); }};
const OpDef kFakeQuantize = {
    .name = "fake_quantize",
    .attributes = attributes<FakeQuantizeAttrs>(),
    .shapes = fake_quantize_shapes,
    .run = fake_quantize_run,
    .saves = {.inputs = kAllInputs},
    .backward = [](BackwardContext& c) {
      FakeQuantizeAttrs a = c.attrs<FakeQuantizeAttrs>();
      if (!c.needs(1)) a.scale_gradient = static_cast<int64_t>(ScaleGradient::none);
      const auto grads = [&](const Tensor& g) {
        return apply(kFakeQuantizeGrad, a, {g, c.input(0), c.input(1), c.input(2), c.has(3) ? c.input(3) : Tensor()});
      };
      const bool of_scale = !a.has(ScaleGradient::none), apart = of_scale && c.has(4);
      if (apart) c.set(1, grads(masked(c.grad(), c.input(4)))[1]);
      if (apart) a.scale_gradient = static_cast<int64_t>(ScaleGradient::none);
      if (apart && !c.needs(0)) return;
      const Outputs all = grads(c.grad());
      if (c.needs(0)) c.set(0, all[0]);
      if (of_scale && !apart) c.set(1, all[1]);
    }};
const OpDef kFakeQuantizeGrad = {
    .name = "fake_quantize_grad",
    .attributes = attributes<FakeQuantizeAttrs>(),
    .shapes = fake_quantize_grad_shapes,
    .run = fake_quantize_grad_run,
    .not_differentiable = "straight-through gradients are an estimate without a derivative"};

Tensor codebook(const Tensor& centroids, const Tensor& codes) { return apply(kCodebook, {}, {centroids, codes}); }

Tensor fake_quantize(const Tensor& x, const Tensor& scale, const Tensor& points, const Tensor& levels,
                     FakeQuantizeOptions o) {
  const FakeQuantizeAttrs attrs{static_cast<int64_t>(o.scale_gradient), o.clip_gradient};
  return apply(kFakeQuantize, attrs, {x, scale, points, levels, o.kept});
}

}  // namespace hone
