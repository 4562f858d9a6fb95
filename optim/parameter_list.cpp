#include "hone/optim/parameter_list.h"

#include <cmath>

#include "hone/core/autograd.h"
#include "hone/core/basic_ops.h"
#include "hone/core/error.h"
#include "hone/core/op.h"
#include "hone/ops/indexing.h"

namespace hone::optim::detail {

void check_list(const char* what, std::span<const ParameterRef> parameters) {
  HONE_CHECK(!parameters.empty(), ValueError, what, ": the list of parameters is empty");
  struct Place {
    const ParameterState* id;
    size_t index;
    bool operator<(const Place& o) const { return id != o.id ? std::less<>()(id, o.id) : index < o.index; }
  };
  Workspace workspace;
  Place* places = workspace.get<Place>(static_cast<int64_t>(parameters.size()));
  for (size_t i = 0; i < parameters.size(); ++i) {
    HONE_CHECK(parameters[i].defined(), ValueError, what, ": parameter ", i, " is undefined");
    places[i] = {parameters[i].id(), i};
  }
  std::sort(places, places + parameters.size());
  for (size_t i = 1; i < parameters.size(); ++i)
    HONE_CHECK(places[i].id != places[i - 1].id, ValueError, what, ": parameter ", places[i].index, " of shape ",
               parameters[places[i].index].raw().shape(), " is listed twice, first as number ", places[i - 1].index);
}

void check_cpu_list(const char* what, std::span<const ParameterRef> parameters) {
  check_list(what, parameters);
  for (size_t i = 0; i < parameters.size(); ++i)
    HONE_CHECK(parameters[i].raw().device().type == DeviceType::cpu, DeviceError, what, ": parameter ", i, " is on ",
               parameters[i].raw().device(), "; this function works on the cpu");
}

Tensor writable_gradient(const ParameterRef& p) {
  const Tensor g = p.grad();
  if (!g.defined()) return {};
  if (g.is_contiguous()) return g.detach();
  const Tensor copy = clone(g.detach());
  p.raw().set_grad(copy);
  return copy;
}

Tensor finite(const Tensor& g) {
  Tensor out = clone(g);
  change_elements(out, [&]<class T>(T* x) {
    double largest = 0;
    for (int64_t i = 0; i < out.numel(); ++i)
      if (const double v = std::abs(static_cast<double>(x[i])); std::isfinite(v)) largest = std::max(largest, v);
    for (int64_t i = 0; i < out.numel(); ++i) {
      const double v = static_cast<double>(x[i]);
      if (!std::isfinite(v)) x[i] = static_cast<T>(std::isnan(v) ? 0 : std::copysign(largest, v));
    }
  });
  return out;
}

Tensor sliced(const Tensor& t, const Shrink& shrink) {
  const NoGrad no_grad;
  return index_select(t, shrink.dim, tensor(shrink.kept));
}

Slices Slices::of(const Shape& shape, int64_t dim) {
  Slices s;
  if (shape.ndim() < 2) {
    s.inner = shape.numel();
    return s;
  }
  s.count = shape[dim];
  for (int64_t d = 0; d < dim; ++d) s.outer *= shape[d];
  for (int64_t d = dim + 1; d < shape.ndim(); ++d) s.inner *= shape[d];
  s.stride = s.count * s.inner;
  return s;
}

template <class T> double slice_norm(const Slices& s, const T* x) {
  double squares = 0, largest = 0;
  for (int64_t o = 0; o < s.outer; ++o) squares += sum_terms(x + o * s.stride, s.inner, [](double v) { return v * v; });
  if (squares >= 1e-290 && squares <= 1e290) return std::sqrt(squares);
  // Squares have left the range of f64, or hold NaN or infinity: once more, scaled by the largest.
  for (int64_t o = 0; o < s.outer; ++o)
    for (int64_t i = 0; i < s.inner; ++i) {
      const double v = std::abs(static_cast<double>(x[o * s.stride + i]));
      if (!std::isfinite(v)) return v;
      largest = std::max(largest, v);
    }
  if (largest == 0) return 0;
  squares = 0;
  for (int64_t o = 0; o < s.outer; ++o)
    squares += sum_terms(x + o * s.stride, s.inner, [&](double v) { return v / largest * (v / largest); });
  return largest * std::sqrt(squares);
}
template double slice_norm(const Slices&, const double*);
template double slice_norm(const Slices&, const float*);
template double slice_norm(const Slices&, const BFloat16*);

}  // namespace hone::optim::detail
