// Tensors from nothing: constants, ranges, random numbers, values.

#include <algorithm>
#include <cmath>
#include <cstring>
#include <numbers>

#include "hone/core/basic_ops.h"
#include "hone/core/convert.h"
#include "hone/core/parallel.h"
#include "hone/core/random.h"
#include "hone/core/tensor_impl.h"

namespace hone {

namespace {
constexpr int64_t kGrain = 1 << 14;

// Fills a new CPU tensor with value(i) for element i, then moves it.
template <class F> Tensor generate(const Shape& shape, TensorOptions o, F value) {
  Tensor t = empty(shape, o.dtype);
  const int64_t n = t.numel();
  visit_dtype(o.dtype, [&]<class T>() {
    T* p = static_cast<T*>(t.raw_data());
    parallel_for(n, kGrain, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) p[i] = detail::convert<T>(value(i));
    });
  });
  return to(t, o.device);
}

void check_floating_option(const char* what, DType d) {
  HONE_CHECK(is_floating(d), DTypeError, what, ": takes a floating dtype, not ", d);
}

// Box–Muller: normals 2k and 2k+1 from the uniforms of words 2k and 2k+1; the first lies in (0, 1].
double normal(const Philox& stream, uint64_t i) {
  const auto w = stream(i >> 1);
  const double u = 1.0 - uniform_f64(w[0], w[1]), v = uniform_f64(w[2], w[3]);
  const double radius = std::sqrt(-2.0 * std::log(u)), angle = 2.0 * std::numbers::pi * v;
  return radius * ((i & 1) ? std::sin(angle) : std::cos(angle));
}
}  // namespace

Tensor empty(const Shape& shape, TensorOptions o) {
  const int64_t n = shape.numel();
  HONE_CHECK(n <= INT64_MAX / 16, ShapeError, "empty: shape ", shape, " has too many elements");
  StoragePtr s(new Storage(static_cast<size_t>(n * size_of(o.dtype)), o.device));
  return make_view(s, shape, contiguous_strides(shape), 0, o.dtype);
}
Tensor full(const Shape& shape, double value, TensorOptions o) {
  detail::check_scalar("full", value, o.dtype);
  Tensor t = empty(shape, o);
  t.fill_(value);
  return t;
}
Tensor zeros(const Shape& shape, TensorOptions o) { return full(shape, 0, o); }
Tensor ones(const Shape& shape, TensorOptions o) { return full(shape, 1, o); }
Tensor empty_like(const Tensor& x) { return empty(x.shape(), {x.dtype(), x.device()}); }
Tensor zeros_like(const Tensor& x) { return full_like(x, 0); }
Tensor ones_like(const Tensor& x) { return full_like(x, 1); }
Tensor full_like(const Tensor& x, double value) { return full(x.shape(), value, {x.dtype(), x.device()}); }
Tensor scalar(double value, TensorOptions o) { return full({}, value, o); }

Tensor arange(double start, double end, double step, TensorOptions o) {
  HONE_CHECK(step != 0 && std::isfinite(start) && std::isfinite(end) && std::isfinite(step), ValueError,
             "arange: step ", step, " must not be 0 and start ", start, " and end ", end, " must be finite");
  HONE_CHECK((end - start) * step >= 0, ValueError, "arange: step ", step, " leads away from ", start, " to ", end);
  const double count = std::ceil((end - start) / step);
  HONE_CHECK(count < 1e15, ValueError, "arange: ", count, " elements are too many");
  const auto n = static_cast<int64_t>(count);
  if (!is_floating(o.dtype) && n > 0) {
    detail::check_scalar("arange", start, o.dtype);
    detail::check_scalar("arange", step, i64);
    detail::check_scalar("arange", start + static_cast<double>(n - 1) * step, o.dtype);
    const auto first = static_cast<int64_t>(start), by = static_cast<int64_t>(step);
    return generate({n}, o, [=](int64_t i) { return first + i * by; });
  }
  return generate({n}, o, [=](int64_t i) { return start + static_cast<double>(i) * step; });
}
Tensor linspace(double start, double end, int64_t count, TensorOptions o) {
  HONE_CHECK(count >= 0, ValueError, "linspace: count ", count, " must not be negative");
  check_floating_option("linspace", o.dtype);
  const double step = count > 1 ? (end - start) / static_cast<double>(count - 1) : 0;
  // From both ends towards the middle, so that the last value is exactly `end`.
  return generate({count}, o, [=](int64_t i) {
    return i < count / 2 || count == 1 ? start + step * static_cast<double>(i)
                                       : end - step * static_cast<double>(count - 1 - i);
  });
}
Tensor eye(int64_t rows, int64_t cols, TensorOptions o) {
  if (cols < 0) cols = rows;
  return generate({rows, cols}, o, [=](int64_t i) { return i / cols == i % cols ? 1.0 : 0.0; });
}
Tensor rand(const Shape& shape, TensorOptions o) {
  check_floating_option("rand", o.dtype);
  const Philox stream = next_stream();
  if (o.dtype == DType::f64) {
    return generate(shape, o, [=](int64_t i) {
      const auto w = stream(static_cast<uint64_t>(i) >> 1);
      return (i & 1) ? uniform_f64(w[2], w[3]) : uniform_f64(w[0], w[1]);
    });
  }
  if (o.dtype == DType::bf16) {  // 8 bits, so that rounding cannot reach 1
    return generate(
        shape, o, [=](int64_t i) { return static_cast<float>(stream.word(static_cast<uint64_t>(i)) >> 24) * 0x1p-8f; });
  }
  return generate(shape, o, [=](int64_t i) { return uniform_f32(stream.word(static_cast<uint64_t>(i))); });
}
Tensor randn(const Shape& shape, TensorOptions o) {
  check_floating_option("randn", o.dtype);
  const Philox stream = next_stream();
  return generate(shape, o, [=](int64_t i) { return normal(stream, static_cast<uint64_t>(i)); });
}
Tensor randint(int64_t low, int64_t high, const Shape& shape, TensorOptions o) {
  HONE_CHECK(low < high, ValueError, "randint: low ", low, " must be below high ", high);
  const detail::IntegerRange r = detail::exact_integers(o.dtype);
  HONE_CHECK(low >= r.low && high - 1 <= r.high, ValueError, "randint: the values ", low, " to ", high - 1,
             " are not all held by ", o.dtype);
  const Philox stream = next_stream();
  const uint64_t range = static_cast<uint64_t>(high) - static_cast<uint64_t>(low);
  return generate(shape, o, [=](int64_t i) {
    const auto w = stream(static_cast<uint64_t>(i) >> 1);
    const uint64_t word = (i & 1) ? uint64_t{w[2]} << 32 | w[3] : uint64_t{w[0]} << 32 | w[1];
    return static_cast<int64_t>(static_cast<uint64_t>(low) + below(word, range));
  });
}
Tensor randperm(int64_t n) {
  HONE_CHECK(n >= 0, ValueError, "randperm: n ", n, " must not be negative");
  Tensor t = arange(0, static_cast<double>(n));
  int64_t* p = t.data<int64_t>();
  const Philox stream = next_stream();
  for (int64_t i = n - 1; i > 0; --i) {
    const auto w = stream(static_cast<uint64_t>(i));
    std::swap(p[i], p[below(uint64_t{w[0]} << 32 | w[1], static_cast<uint64_t>(i) + 1)]);
  }
  return t;
}

template <class T> Tensor tensor(std::span<const T> values, const Shape& shape) {
  HONE_CHECK(shape.numel() == static_cast<int64_t>(values.size()), ShapeError, "tensor: shape ", shape,
             " does not hold ", values.size(), " values");
  Tensor t = empty(shape, dtype_of<T>);
  if (!values.empty()) std::memcpy(t.raw_data(), values.data(), values.size_bytes());
  return t;
}
template Tensor tensor(std::span<const double>, const Shape&);
template Tensor tensor(std::span<const float>, const Shape&);
template Tensor tensor(std::span<const BFloat16>, const Shape&);
template Tensor tensor(std::span<const int64_t>, const Shape&);
template Tensor tensor(std::span<const int32_t>, const Shape&);
template Tensor tensor(std::span<const int8_t>, const Shape&);
template Tensor tensor(std::span<const uint8_t>, const Shape&);
template Tensor tensor(std::span<const bool>, const Shape&);
Tensor tensor(std::initializer_list<int> values) { return tensor(std::vector<int64_t>(values.begin(), values.end())); }
Tensor tensor(std::initializer_list<int> values, const Shape& shape) {
  return tensor(std::vector<int64_t>(values.begin(), values.end()), shape);
}

}  // namespace hone
