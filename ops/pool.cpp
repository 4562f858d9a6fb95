#include "hone/ops/pool.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "hone/core/autograd.h"
#include "hone/core/error.h"
#include "hone/core/parallel.h"
#include "hone/ops/contiguous_view.h"
#include "hone/ops/lane_sum.h"
#include "hone/ops/simd/pool_kernels.h"

namespace hone {
namespace {

constexpr int64_t kChunk = 32768;  // elements of one piece of parallel work

void check_input(const ShapeContext& c) {
  check_floating(c, 0, "x");
  check_ndim(c, 0, 4, "x");
}

// Output height and width for planes of h × w.
Shape pooled(const char* op, const PoolAttrs& a, int64_t h, int64_t w) {
  if (a.adaptive) {
    HONE_CHECK(a.size_h >= 1 && a.size_w >= 1, ValueError, op, ": size [", a.size_h, ", ", a.size_w,
               "] must be at least 1");
    HONE_CHECK(h >= 1 && w >= 1, ShapeError, op, ": planes of ", h, "x", w, " are empty");
    return {a.size_h, a.size_w};
  }
  constexpr int64_t kLimit = int64_t{1} << 31;
  for (const int64_t v : {a.kernel_h, a.kernel_w, a.stride_h, a.stride_w, a.dilation_h, a.dilation_w})
    HONE_CHECK(v >= 1 && v < kLimit, ValueError, op,
               ": kernel, stride and dilation must be at least 1 and below 2^31, not ", v);
  const int64_t extent_h = (a.kernel_h - 1) * a.dilation_h + 1, extent_w = (a.kernel_w - 1) * a.dilation_w + 1;
  HONE_CHECK(a.pad_h >= 0 && a.pad_w >= 0 && a.pad_h <= extent_h / 2 && a.pad_w <= extent_w / 2, ValueError, op,
             ": padding [", a.pad_h, ", ", a.pad_w, "] must be between 0 and half of the kernel's ", extent_h, "x",
             extent_w);
  HONE_CHECK(extent_h <= h + 2 * a.pad_h && extent_w <= w + 2 * a.pad_w, ShapeError, op, ": kernel of ", extent_h, "x",
             extent_w, " is larger than the padded input of ", h + 2 * a.pad_h, "x", w + 2 * a.pad_w);
  return {(h + 2 * a.pad_h - extent_h) / a.stride_h + 1, (w + 2 * a.pad_w - extent_w) / a.stride_w + 1};
}

// The input elements of output i along one dim: begin, begin + step, … below end; `count` divides a mean.
struct Window {
  int64_t begin, end, step, count;
};
struct Windows {
  bool adaptive, include_pad;
  int64_t size, outs, kernel, stride, pad, dilation;
  Window operator()(int64_t i) const {
    if (adaptive) {
      const int64_t begin = i * size / outs, end = ((i + 1) * size + outs - 1) / outs;
      return {begin, end, 1, end - begin};
    }
    int64_t begin = i * stride - pad;
    const int64_t padded = std::min(begin + kernel, size + pad) - begin;
    const int64_t end = std::min(begin + (kernel - 1) * dilation + 1, size);
    if (begin < 0) begin += (-begin + dilation - 1) / dilation * dilation;
    return {begin, std::max(begin, end), dilation, include_pad ? padded : std::max<int64_t>(end - begin, 0)};
  }
};
Windows rows_of(const PoolAttrs& a, int64_t size, int64_t outs) {
  return {a.adaptive, a.count_include_pad, size, outs, a.kernel_h, a.stride_h, a.pad_h, a.dilation_h};
}
Windows columns_of(const PoolAttrs& a, int64_t size, int64_t outs) {
  return {a.adaptive, a.count_include_pad, size, outs, a.kernel_w, a.stride_w, a.pad_w, a.dilation_w};
}

int64_t planes_of(const View& v) { return v.sizes[0] * v.sizes[1]; }
int64_t grain(int64_t plane) { return std::max<int64_t>(1, kChunk / std::max<int64_t>(plane, 1)); }

bool is_tiling(const PoolAttrs& a) {
  return !a.adaptive && a.kernel_h == 2 && a.kernel_w == 2 && a.stride_h == 2 && a.stride_w == 2 && a.pad_h == 0 &&
         a.pad_w == 0 && a.dilation_h == 1 && a.dilation_w == 1;
}

// ---- maximum

void max_shapes(ShapeContext& c) {
  check_inputs(c, 1, 1);
  check_input(c);
  const Shape x = c.shape(0), out = pooled(c.op, c.attrs.as<PoolAttrs>(), x[2], x[3]);
  HONE_CHECK((Shape{x[2], x[3]}).numel() <= std::numeric_limits<int32_t>::max(), ShapeError, c.op, ": planes of ", x[2],
             "x", x[3], " have more than 2^31 - 1 elements");
  c.add({x[0], x[1], out[0], out[1]}, c.dtype(0));
  c.add({x[0], x[1], out[0], out[1]}, i32);
}
template <class T>
void max_planes(const Windows& rows, const Windows& columns, int64_t planes, const T* x, T* y, int32_t* index) {
  for (int64_t p = 0; p < planes; ++p, x += rows.size * columns.size) {
    for (int64_t i = 0; i < rows.outs; ++i) {
      const Window r = rows(i);
      for (int64_t j = 0; j < columns.outs; ++j) {
        const Window q = columns(j);
        T best = -std::numeric_limits<T>::infinity();
        int64_t place = -1;
        for (int64_t a = r.begin; a < r.end; a += r.step)
          for (int64_t b = q.begin; b < q.end; b += q.step) {
            const T v = x[a * columns.size + b];
            if (v > best || std::isnan(v) || place < 0) best = v, place = a * columns.size + b;
          }
        *y++ = best;
        *index++ = static_cast<int32_t>(place);
      }
    }
  }
}
void max_run(RunContext& c) {
  detail::with_compute_type(c.in[0].dtype, [&]<class T>() {
    const auto& a = c.attrs.as<PoolAttrs>();
    const int64_t h = c.in[0].sizes[2], w = c.in[0].sizes[3], oh = c.out[0].sizes[2], ow = c.out[0].sizes[3];
    const int64_t planes = planes_of(c.in[0]);
    const T* x = detail::contiguous_input<T>(c.in[0], c.workspace);
    T* y = detail::begin_output<T>(c.out[0], c.workspace);
    int32_t* index = c.out[1].as<int32_t>();
    const Windows rows = rows_of(a, h, oh), columns = columns_of(a, w, ow);
    parallel_for(planes, grain(h * w), [&](int64_t begin, int64_t end) {
      const int64_t in = begin * h * w, out = begin * oh * ow;
      if constexpr (std::is_same_v<T, float>) {
        if (is_tiling(a))
          return simd::max_pool_2x2(x + in, x + planes * h * w, end - begin, h, w, y + out, index + out);
      }
      max_planes(rows, columns, end - begin, x + in, y + out, index + out);
    });
    detail::finish_output(y, c.out[0]);
  });
}
void max_backward(BackwardContext& c) {
  PoolAttrs a = c.attrs<PoolAttrs>();
  a.size_h = c.input_shape(0)[2], a.size_w = c.input_shape(0)[3];
  a.tiles = is_tiling(a) && a.size_h % 2 == 0 && a.size_w % 2 == 0;
  c.set(0, apply(kMaxPool2dGrad, a, {c.grad(), c.output(1)}));
}

void check_indices(const ShapeContext& c) {
  check_ndim(c, 1, 4, "indices");
  HONE_CHECK(c.dtype(1) == i32, DTypeError, c.op, ": indices must be i32, not ", c.dtype(1));
}
void max_grad_shapes(ShapeContext& c) {
  check_inputs(c, 2, 2);
  check_input(c);
  check_indices(c);
  const auto& a = c.attrs.as<PoolAttrs>();
  const Shape g = c.shape(0);
  HONE_CHECK(g == c.shape(1), ShapeError, c.op, ": gradient ", g, " and indices ", c.shape(1), " differ in shape");
  HONE_CHECK(a.size_h >= 0 && a.size_w >= 0, ShapeError, c.op, ": size [", a.size_h, ", ", a.size_w, "] is negative");
  HONE_CHECK(!a.tiles || (a.size_h == 2 * g[2] && a.size_w == 2 * g[3]), ShapeError, c.op, ": gradient ", g,
             " does not tile [", a.size_h, ", ", a.size_w, "] by 2x2");
  c.add({g[0], g[1], a.size_h, a.size_w}, c.dtype(0));
}
void check_place(const char* op, int32_t place, int64_t plane) {
  HONE_CHECK(place >= -1 && place < plane, ValueError, op, ": index ", place, " is outside planes of ", plane,
             " elements");
}
void max_grad_run(RunContext& c) {
  detail::with_compute_type(c.in[0].dtype, [&]<class T>() {
    const auto& a = c.attrs.as<PoolAttrs>();
    const int64_t in = a.size_h * a.size_w, oh = c.in[0].sizes[2], ow = c.in[0].sizes[3], out = oh * ow;
    const int64_t planes = planes_of(c.in[0]);
    const T* g = detail::contiguous_input<T>(c.in[0], c.workspace);
    const int32_t* index = detail::contiguous_input<int32_t>(c.in[1], c.workspace);
    T* dx = detail::begin_output<T>(c.out[0], c.workspace);
    parallel_for(planes, grain(in), [&](int64_t begin, int64_t end) {
      if constexpr (std::is_same_v<T, float>) {
        if (a.tiles)
          return simd::max_pool_2x2_grad(g + begin * out, index + begin * out, (planes - begin) * out, end - begin, oh,
                                         ow, dx + begin * in);
      }
      std::fill_n(dx + begin * in, (end - begin) * in, T(0));
      for (int64_t i = begin * out; i < end * out; ++i) {
        check_place(c.op, index[i], in);
        if (index[i] >= 0) dx[i / out * in + index[i]] += g[i];
      }
    });
    detail::finish_output(dx, c.out[0]);
  });
}
void max_grad_backward(BackwardContext& c) {
  if (c.needs(0)) c.set(0, apply(kMaxPool2dGather, c.attrs<PoolAttrs>(), {c.grad(), c.input(1)}));
}

void gather_shapes(ShapeContext& c) {
  check_inputs(c, 2, 2);
  check_input(c);
  check_indices(c);
  const Shape x = c.shape(0), index = c.shape(1);
  HONE_CHECK(x[0] == index[0] && x[1] == index[1], ShapeError, c.op, ": x ", x, " and indices ", index,
             " differ in their first two dims");
  c.add(index, c.dtype(0));
}
void gather_run(RunContext& c) {
  detail::with_compute_type(c.in[0].dtype, [&]<class T>() {
    const int64_t in = c.in[0].sizes[2] * c.in[0].sizes[3], out = c.out[0].sizes[2] * c.out[0].sizes[3];
    const T* x = detail::contiguous_input<T>(c.in[0], c.workspace);
    const int32_t* index = detail::contiguous_input<int32_t>(c.in[1], c.workspace);
    T* y = detail::begin_output<T>(c.out[0], c.workspace);
    parallel_for(planes_of(c.in[0]), grain(in), [&](int64_t begin, int64_t end) {
      for (int64_t i = begin * out; i < end * out; ++i) {
        check_place(c.op, index[i], in);
        y[i] = index[i] >= 0 ? x[i / out * in + index[i]] : T(0);
      }
    });
    detail::finish_output(y, c.out[0]);
  });
}
void gather_backward(BackwardContext& c) {
  if (!c.needs(0)) return;
  PoolAttrs a = c.attrs<PoolAttrs>();
  a.size_h = c.input_shape(0)[2], a.size_w = c.input_shape(0)[3];
  c.set(0, apply(kMaxPool2dGrad, a, {c.grad(), c.input(1)}));
}

// ---- mean

void avg_shapes(ShapeContext& c) {
  check_inputs(c, 1, 1);
  check_input(c);
  const Shape x = c.shape(0), out = pooled(c.op, c.attrs.as<PoolAttrs>(), x[2], x[3]);
  c.add({x[0], x[1], out[0], out[1]}, c.dtype(0));
}
// body(window, output position, 1 / count): every window of a plane.
template <class Body> void each_window(const Windows& rows, const Windows& columns, Body&& body) {
  for (int64_t i = 0; i < rows.outs; ++i) {
    const Window r = rows(i);
    for (int64_t j = 0; j < columns.outs; ++j) {
      const Window q = columns(j);
      const int64_t count = r.count * q.count;
      body(r, q, i * columns.outs + j, count > 0 ? 1 / static_cast<double>(count) : 0.0);
    }
  }
}
void avg_run(RunContext& c) {
  detail::with_compute_type(c.in[0].dtype, [&]<class T>() {
    const auto& a = c.attrs.as<PoolAttrs>();
    const int64_t h = c.in[0].sizes[2], w = c.in[0].sizes[3], oh = c.out[0].sizes[2], ow = c.out[0].sizes[3];
    const T* x = detail::contiguous_input<T>(c.in[0], c.workspace);
    T* y = detail::begin_output<T>(c.out[0], c.workspace);
    const Windows rows = rows_of(a, h, oh), columns = columns_of(a, w, ow);
    parallel_for(planes_of(c.in[0]), grain(h * w), [&](int64_t begin, int64_t end) {
      for (int64_t p = begin; p < end; ++p) {
        const T* plane = x + p * h * w;
        T* out = y + p * oh * ow;
        each_window(rows, columns, [&](const Window& r, const Window& q, int64_t at, double scale) {
          double sum = 0;  // f32 would stop growing at 2^24 ones
          for (int64_t i = r.begin; i < r.end; ++i) {
            const T* row = plane + i * w + q.begin;
            sum += detail::lane_sum(q.end - q.begin, [&](int64_t j) { return static_cast<double>(row[j]); });
          }
          out[at] = static_cast<T>(sum * scale);
        });
      }
    });
    detail::finish_output(y, c.out[0]);
  });
}
void avg_backward(BackwardContext& c) {
  PoolAttrs a = c.attrs<PoolAttrs>();
  a.size_h = c.input_shape(0)[2], a.size_w = c.input_shape(0)[3];
  c.set(0, apply(kAvgPool2dGrad, a, {c.grad()}));
}
void avg_grad_shapes(ShapeContext& c) {
  check_inputs(c, 1, 1);
  check_input(c);
  const auto& a = c.attrs.as<PoolAttrs>();
  const Shape g = c.shape(0);
  HONE_CHECK(a.size_h >= 1 && a.size_w >= 1, ShapeError, c.op, ": size [", a.size_h, ", ", a.size_w,
             "] must be at least 1");
  if (!a.adaptive) {
    const Shape out = pooled(c.op, a, a.size_h, a.size_w);
    HONE_CHECK(g[2] == out[0] && g[3] == out[1], ShapeError, c.op, ": gradient ", g, " must end in ", out);
  }
  c.add({g[0], g[1], a.size_h, a.size_w}, c.dtype(0));
}
void avg_grad_run(RunContext& c) {
  detail::with_compute_type(c.in[0].dtype, [&]<class T>() {
    const auto& a = c.attrs.as<PoolAttrs>();
    const int64_t h = a.size_h, w = a.size_w, oh = c.in[0].sizes[2], ow = c.in[0].sizes[3];
    const T* g = detail::contiguous_input<T>(c.in[0], c.workspace);
    T* dx = detail::begin_output<T>(c.out[0], c.workspace);
    const Windows rows = rows_of(a, h, oh), columns = columns_of(a, w, ow);
    parallel_for(planes_of(c.in[0]), grain(h * w), [&](int64_t begin, int64_t end) {
      std::fill_n(dx + begin * h * w, (end - begin) * h * w, T(0));
      for (int64_t p = begin; p < end; ++p) {
        T* plane = dx + p * h * w;
        const T* from = g + p * oh * ow;
        each_window(rows, columns, [&](const Window& r, const Window& q, int64_t at, double scale) {
          const T v = static_cast<T>(static_cast<double>(from[at]) * scale);
          for (int64_t i = r.begin; i < r.end; ++i)
            for (int64_t j = q.begin; j < q.end; ++j) plane[i * w + j] += v;
        });
      }
    });
    detail::finish_output(dx, c.out[0]);
  });
}
void avg_grad_backward(BackwardContext& c) {
  PoolAttrs a = c.attrs<PoolAttrs>();
  a.size_h = c.input_shape(0)[2], a.size_w = c.input_shape(0)[3];  // adaptive pooling's output
  c.set(0, apply(a.adaptive ? kAdaptiveAvgPool2d : kAvgPool2d, a, {c.grad()}));
}

int64_t at(const char* op, const char* what, const Shape& s, int i) {
  HONE_CHECK(s.ndim() == 1 || s.ndim() == 2, ShapeError, op, ": ", what, " ", s, " must have one or two values");
  return s[s.ndim() == 1 ? 0 : i];
}
PoolAttrs to_attrs(const char* op, const Shape& kernel, const Shape& stride, const Shape& padding,
                   const Shape& dilation) {
  const Shape& step = stride.empty() ? kernel : stride;
  PoolAttrs a;
  a.kernel_h = at(op, "kernel", kernel, 0), a.kernel_w = at(op, "kernel", kernel, 1);
  a.stride_h = at(op, "stride", step, 0), a.stride_w = at(op, "stride", step, 1);
  a.pad_h = at(op, "padding", padding, 0), a.pad_w = at(op, "padding", padding, 1);
  a.dilation_h = at(op, "dilation", dilation, 0), a.dilation_w = at(op, "dilation", dilation, 1);
  return a;
}
PoolAttrs adaptive_attrs(const char* op, const Shape& size) {
  PoolAttrs a;
  a.adaptive = true;
  a.size_h = at(op, "size", size, 0), a.size_w = at(op, "size", size, 1);
  return a;
}

}  // namespace

const OpDef kMaxPool2d = {.name = "max_pool2d",
                          .attributes = attributes<PoolAttrs>(),
                          .shapes = max_shapes,
                          .run = max_run,
                          .saves = {.outputs = 0b10},
                          .backward = max_backward,
                          .aux_outputs = 0b10};
const OpDef kAdaptiveMaxPool2d = {.name = "adaptive_max_pool2d",
                                  .attributes = attributes<PoolAttrs>(),
                                  .shapes = max_shapes,
                                  .run = max_run,
                                  .saves = {.outputs = 0b10},
                                  .backward = max_backward,
                                  .aux_outputs = 0b10};
const OpDef kMaxPool2dGrad = {.name = "max_pool2d_grad",
                              .attributes = attributes<PoolAttrs>(),
                              .shapes = max_grad_shapes,
                              .run = max_grad_run,
                              .saves = {.inputs = 0b10},
                              .backward = max_grad_backward};
const OpDef kMaxPool2dGather = {.name = "max_pool2d_gather",
                                .attributes = attributes<PoolAttrs>(),
                                .shapes = gather_shapes,
                                .run = gather_run,
                                .saves = {.inputs = 0b10},
                                .backward = gather_backward};
const OpDef kAvgPool2d = {.name = "avg_pool2d",
                          .attributes = attributes<PoolAttrs>(),
                          .shapes = avg_shapes,
                          .run = avg_run,
                          .backward = avg_backward};
const OpDef kAdaptiveAvgPool2d = {.name = "adaptive_avg_pool2d",
                                  .attributes = attributes<PoolAttrs>(),
                                  .shapes = avg_shapes,
                                  .run = avg_run,
                                  .backward = avg_backward};
const OpDef kAvgPool2dGrad = {.name = "avg_pool2d_grad",
                              .attributes = attributes<PoolAttrs>(),
                              .shapes = avg_grad_shapes,
                              .run = avg_grad_run,
                              .backward = avg_grad_backward};

Outputs max_pool2d_with_indices(const Tensor& x, const Shape& kernel, const MaxPool2dOptions& o) {
  return apply(kMaxPool2d, to_attrs("max_pool2d", kernel, o.stride, o.padding, o.dilation), {x});
}
Tensor max_pool2d(const Tensor& x, const Shape& kernel, const MaxPool2dOptions& options) {
  return max_pool2d_with_indices(x, kernel, options);
}
Tensor max_pool2d(const Tensor& x, int64_t kernel, const MaxPool2dOptions& options) {
  return max_pool2d(x, Shape{kernel}, options);
}
Tensor avg_pool2d(const Tensor& x, const Shape& kernel, const AvgPool2dOptions& o) {
  PoolAttrs a = to_attrs("avg_pool2d", kernel, o.stride, o.padding, {1});
  a.count_include_pad = o.count_include_pad;
  return apply(kAvgPool2d, a, {x});
}
Tensor avg_pool2d(const Tensor& x, int64_t kernel, const AvgPool2dOptions& options) {
  return avg_pool2d(x, Shape{kernel}, options);
}
Tensor adaptive_avg_pool2d(const Tensor& x, const Shape& size) {
  return apply(kAdaptiveAvgPool2d, adaptive_attrs("adaptive_avg_pool2d", size), {x});
}
Tensor adaptive_avg_pool2d(const Tensor& x, int64_t size) { return adaptive_avg_pool2d(x, Shape{size}); }
Tensor adaptive_max_pool2d(const Tensor& x, const Shape& size) {
  return apply(kAdaptiveMaxPool2d, adaptive_attrs("adaptive_max_pool2d", size), {x});
}
Tensor adaptive_max_pool2d(const Tensor& x, int64_t size) { return adaptive_max_pool2d(x, Shape{size}); }

}  // namespace hone
