// Strided copies with dtype conversion: the kernel under clone, contiguous, cast, copy_ and fill_.

#include <algorithm>
#include <cmath>
#include <cstring>

#include "hone/core/basic_ops.h"
#include "hone/core/convert.h"
#include "hone/core/parallel.h"
#include "hone/cuda/api.h"

namespace hone::detail {

namespace {
constexpr int64_t kGrain = 1 << 15;

// Sizes and both strides, with neighbouring dims merged where both sides allow it.
struct Loop {
  int ndim = 0;
  int64_t sizes[View::kDims], from[View::kDims], to[View::kDims];
};
Loop merge(const View& from, const View& to) {
  Loop l;
  for (int d = 0; d < to.ndim; ++d) {
    const int64_t n = to.sizes[d], a = from.strides[d], b = to.strides[d];
    if (n == 1) continue;
    if (l.ndim > 0 && l.from[l.ndim - 1] == a * n && l.to[l.ndim - 1] == b * n) {
      l.sizes[l.ndim - 1] *= n;
      l.from[l.ndim - 1] = a;
      l.to[l.ndim - 1] = b;
    } else {
      l.sizes[l.ndim] = n;
      l.from[l.ndim] = a;
      l.to[l.ndim++] = b;
    }
  }
  if (l.ndim == 0) {
    l.sizes[0] = 1;
    l.from[0] = l.to[0] = 1;
    l.ndim = 1;
  }
  return l;
}

template <class From, class To> void copy_row(const From* from, int64_t a, To* to, int64_t b, int64_t n) {
  if constexpr (std::is_same_v<From, To>) {
    if (a == 1 && b == 1) {
      std::memcpy(to, from, static_cast<size_t>(n) * sizeof(To));
      return;
    }
  }
  if (a == 0) {
    const To v = convert<To>(*from);
    if (b == 1)
      std::fill_n(to, n, v);
    else
      for (int64_t i = 0; i < n; ++i) to[i * b] = v;
  } else if (a == 1 && b == 1) {
    for (int64_t i = 0; i < n; ++i) to[i] = convert<To>(from[i]);
  } else {
    for (int64_t i = 0; i < n; ++i) to[i * b] = convert<To>(from[i * a]);
  }
}

template <class From, class To> void copy_typed(const View& from, const View& to) {
  const Loop l = merge(from, to);
  const int last = l.ndim - 1;
  const int64_t inner = l.sizes[last];
  int64_t rows = 1;
  for (int d = 0; d < last; ++d) rows *= l.sizes[d];
  const auto* src = static_cast<const From*>(from.data);
  auto* dst = static_cast<To*>(to.data);
  // Long rows are cut too, so that one contiguous block is still shared among threads.
  const int64_t pieces = (inner + kGrain - 1) / kGrain, piece = (inner + pieces - 1) / pieces;
  parallel_for(rows * pieces, std::max<int64_t>(1, kGrain / std::max<int64_t>(1, piece)),
               [&](int64_t begin, int64_t end) {
                 for (int64_t i = begin; i < end; ++i) {
                   int64_t row = i / pieces;
                   const int64_t start = (i % pieces) * piece, n = std::min(piece, inner - start);
                   if (n <= 0) continue;
                   int64_t a = start * l.from[last], b = start * l.to[last];
                   for (int d = last - 1; d >= 0; --d) {
                     a += row % l.sizes[d] * l.from[d];
                     b += row % l.sizes[d] * l.to[d];
                     row /= l.sizes[d];
                   }
                   copy_row(src + a, l.from[last], dst + b, l.to[last], n);
                 }
               });
}
}  // namespace

void copy_strided(const View& from, const View& to) {
  if (to.numel() == 0) return;
  if constexpr (kHasCuda) {
    if (to.device == DeviceType::cuda) return cuda::copy_strided(from, to);  // refuses strided targets
  }
  visit_dtype(from.dtype,
              [&]<class From>() { visit_dtype(to.dtype, [&]<class To>() { copy_typed<From, To>(from, to); }); });
}

void check_scalar(const char* op, double value, DType d) {
  if (is_floating(d)) return;
  HONE_CHECK(value == std::floor(value) && !std::isinf(value), DTypeError, op, ": the scalar ", value,
             " is not integral, the tensor is ", d);
  const IntegerRange r = exact_integers(d);
  // The end, not the last: 2^63 − 1 is no double.
  HONE_CHECK(static_cast<double>(r.low) <= value && value < static_cast<double>(r.high) + 1, ValueError, op,
             ": the scalar ", value, " is out of range for ", d);
}
IntegerRange exact_integers(DType d) {
  switch (d) {
    case DType::f64: return {-(int64_t{1} << 53), int64_t{1} << 53};
    case DType::f32: return {-(1 << 24), 1 << 24};
    case DType::bf16: return {-(1 << 8), 1 << 8};
    case DType::i64: return {INT64_MIN, INT64_MAX};
    case DType::i32: return {INT32_MIN, INT32_MAX};
    case DType::i8: return {INT8_MIN, INT8_MAX};
    case DType::u8: return {0, UINT8_MAX};
    default: return {0, 1};
  }
}

void accumulate_into(const View& from, const View& into) {
  const int64_t n = into.numel();
  visit_dtype(into.dtype, [&]<class T>() {
    const T* a = from.as<T>();
    T* b = into.as<T>();
    parallel_for(n, kGrain, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) b[i] = static_cast<T>(b[i] + a[i]);
    });
  });
}

void copy_between_devices([[maybe_unused]] const Tensor& from, [[maybe_unused]] const Tensor& to) {
  if constexpr (kHasCuda) {
    cuda::copy(to.raw_data(), to.device().type, from.raw_data(), from.device().type,
               static_cast<size_t>(from.numel() * size_of(from.dtype())));
  } else {
    check_usable(from.device());
    check_usable(to.device());
  }
}

}  // namespace hone::detail
