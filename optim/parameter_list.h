#pragma once
// What the functions over a list of parameters share. Private to optim.

#include <algorithm>
#include <span>

#include "hone/core/parallel.h"
#include "hone/core/parameter.h"

namespace hone::optim::detail {

/// ValueError naming `what` for an empty list, an undefined parameter or one that is listed twice.
void check_list(const char* what, std::span<const ParameterRef> parameters);
/// The same, and DeviceError unless all lie on the cpu: for those that write in place.
void check_cpu_list(const char* what, std::span<const ParameterRef> parameters);

/// p's gradient, contiguous, for changes in place; undefined where there is none. One that lies strided or broadcast is
/// replaced by a copy first.
Tensor writable_gradient(const ParameterRef& p);

/// A copy of g with 0 for NaN and ± the largest finite magnitude in g for ±infinity: NonFinite::clip.
Tensor finite(const Tensor& g);
/// t with the indices that `shrink` keeps.
Tensor sliced(const Tensor& t, const Shrink& shrink);

/// f(T* data) with the elements of a floating tensor.
template <class F> decltype(auto) visit_elements(const Tensor& t, const F& f) {
  switch (t.dtype()) {
    case DType::f64: return f(t.data<double>());
    case DType::f32: return f(t.data<float>());
    default: return f(t.data<BFloat16>());
  }
}
/// The same for a change of them, which is counted.
template <class F> void change_elements(const Tensor& t, const F& f) {
  visit_elements(t, f);
  t.bump_version();
}

/// The type that elements of type T are computed in.
template <class T> struct ComputeType { using type = float; };
template <> struct ComputeType<double> { using type = double; };
template <class T> using Compute = typename ComputeType<T>::type;

/// Σ over n elements of term(double element), in eight sums whose order depends on n alone.
template <class T, class Term> double sum_terms(const T* x, int64_t n, const Term& term) {
  double lanes[8] = {};
  int64_t i = 0;
  for (; i + 8 <= n; i += 8)
    for (int64_t k = 0; k < 8; ++k) lanes[k] += term(static_cast<double>(x[i + k]));
  for (; i < n; ++i) lanes[i % 8] += term(static_cast<double>(x[i]));
  double sum = 0;
  for (double v : lanes) sum += v;
  return sum;
}

/// Slices of a contiguous tensor along one dim: slice s holds `outer` runs of `inner` elements, the first at s·inner,
/// `stride` apart.
struct Slices {
  int64_t count = 1, outer = 1, inner = 1, stride = 0;
  int64_t elements() const { return outer * inner; }
  /// Along `dim` of a tensor; with fewer than two dims, the whole tensor is the one slice.
  static Slices of(const Shape& shape, int64_t dim);
};
/// Calls body(first element of the slice) for each, in parallel.
template <class T, class Body> void for_slices(const Slices& s, T* data, const Body& body) {
  const int64_t grain = std::max<int64_t>((1 << 14) / std::max<int64_t>(s.elements(), 1), 1);
  parallel_for(s.count, grain, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) body(data + i * s.inner, i);
  });
}
/// √Σ x² of a slice.
template <class T> double slice_norm(const Slices& s, const T* x);
template <class T> void scale_slice(const Slices& s, T* x, double factor) {
  for (int64_t o = 0; o < s.outer; ++o)
    for (int64_t i = 0; i < s.inner; ++i) {
      T& v = x[o * s.stride + i];
      v = static_cast<T>(static_cast<Compute<T>>(v) * static_cast<Compute<T>>(factor));
    }
}

}  // namespace hone::optim::detail
