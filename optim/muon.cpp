#include "hone/optim/muon.h"

#include <algorithm>
#include <cmath>

#include "hone/core/basic_ops.h"
#include "hone/core/error.h"
#include "hone/core/op.h"
#include "hone/ops/arithmetic.h"
#include "hone/ops/blas.h"
#include "hone/optim/update_rules.h"

namespace hone::optim {
namespace {

// The iteration on x [rows, columns], in place.
template <class T> void orthogonalize(const Tensor& x, const MuonOptions& o) {
  const int64_t rows = x.shape()[0], columns = x.shape()[1], k = std::min(rows, columns);
  const bool tall = rows > columns;  // A = Xᵀ X, on the other side, is the smaller one
  Tensor gram = empty({k, k}, x.dtype()), polynomial = empty({k, k}, x.dtype()), next = empty(x.shape(), x.dtype());
  T *at = x.data<T>(), *to = next.data<T>(), *a = gram.data<T>(), *q = polynomial.data<T>();
  for (int64_t i = 0; i < o.iterations; ++i) {
    blas::parallel_gemm(tall, !tall, k, k, tall ? rows : columns, T(1), at, columns, at, columns, T(0), a, k);
    std::copy_n(a, k * k, q);
    blas::parallel_gemm(false, false, k, k, k, static_cast<T>(o.c), a, k, a, k, static_cast<T>(o.b), q, k);
    std::copy_n(at, rows * columns, to);
    if (tall)
      blas::parallel_gemm(false, false, rows, k, k, T(1), at, columns, q, k, static_cast<T>(o.a), to, columns);
    else
      blas::parallel_gemm(false, false, k, columns, k, T(1), q, k, at, columns, static_cast<T>(o.a), to, columns);
    std::swap(at, to);
  }
  if (at != x.data<T>()) std::copy_n(at, rows * columns, x.data<T>());
}

double adjusted(const MuonOptions& o, const Shape& shape) {
  const double rows = static_cast<double>(shape[0]), columns = static_cast<double>(shape[1]);
  switch (o.adjust) {
    case MuonAdjust::match_rms_adamw: return o.lr * 0.2 * std::sqrt(std::max(rows, columns));
    case MuonAdjust::spectral_unclamped: return o.lr * std::sqrt(rows / columns);
    default: return o.lr * std::sqrt(std::max(1.0, rows / columns));
  }
}

}  // namespace

void MuonOptions::fields(FieldVisitor& v) {
  v("lr", lr);
  v("weight_decay", weight_decay);
  v("decoupled_decay", decoupled_decay);
  v("momentum", momentum);
  v("nesterov", nesterov);
  v("a", a);
  v("b", b);
  v("c", c);
  v("eps", eps);
  v("iterations", iterations);
  int64_t number = static_cast<int64_t>(adjust);
  v("adjust", number);
  adjust = static_cast<MuonAdjust>(number);
  v("maximize", maximize);
}

void Muon::check(const MuonOptions& o) {
  detail::check_at_least_zero(kName, "lr", o.lr);
  detail::check_at_least_zero(kName, "weight_decay", o.weight_decay);
  detail::check_unit_interval(kName, "momentum", o.momentum);
  detail::check_finite(kName, "a", o.a);
  detail::check_finite(kName, "b", o.b);
  detail::check_finite(kName, "c", o.c);
  detail::check_above_zero(kName, "eps", o.eps);
  HONE_CHECK(o.iterations >= 1 && o.iterations <= 99, ValueError, "Muon: iterations must be from 1 to 99, got ",
             o.iterations);
  HONE_CHECK(o.adjust >= MuonAdjust::original && o.adjust <= MuonAdjust::spectral_unclamped, ValueError,
             "Muon: adjust must be original (0), match_rms_adamw (1) or spectral_unclamped (2), got ",
             static_cast<int64_t>(o.adjust));
}

Muon::Muon(const std::vector<ParameterRef>& parameters, MuonOptions options) : Muon({{parameters, options}}) {}
Muon::Muon(const std::vector<ParameterGroup<MuonOptions>>& groups) : GroupedOptimizer(groups) {
  for (const Entry& e : entries())
    HONE_CHECK(e.shape.ndim() == 2, ValueError, "Muon: parameter ", &e - entries().data(), " has shape ", e.shape,
               "; Muon updates matrices alone (2 dimensions), give the others to another optimizer");
}

detail::UpdateKernels Muon::kernels(int) const { return detail::update_rules().muon_momentum; }

void Muon::coefficients(Entry& e, double* c) const {
  const MuonOptions& o = of(e);
  detail::common_coefficients(o, o.decoupled_decay, c);
  c[3] = o.momentum;
  c[4] = 1 - o.momentum;
  c[5] = o.nesterov ? 1 - o.momentum : 0;
  c[6] = o.nesterov ? o.momentum : 1;
}

void Muon::update(std::span<Item> items) {
  const detail::UpdateRules& rules = detail::update_rules();
  PoolVector<Tensor> values, grads, directions;  // of bf16 in f32, until the end
  for (size_t i = 0; i < items.size(); ++i) {
    Segment& s = segments()[i];
    const bool half = items[i].value.dtype() == bf16;
    values.push_back(half ? cast(items[i].value, f32) : items[i].value);
    grads.push_back(half ? cast(items[i].grad, f32) : items[i].grad);
    directions.push_back(empty(values[i].shape(), values[i].dtype()));
    s.p = values[i].raw_data();
    s.g = grads[i].raw_data();
    s.size = s.state_size;
    s.state[1] = directions[i].raw_data();
  }
  run_segments();  // momentum and decay
  for (size_t i = 0; i < items.size(); ++i) segments()[i].g = directions[i].raw_data();
  sum_segments(rules.squares);
  for (size_t i = 0; i < items.size(); ++i) {
    Segment& s = segments()[i];
    const MuonOptions& o = of(*s.entry);
    if (s.n == 0) continue;
    directions[i].copy_(directions[i] * (1 / std::max(std::sqrt(s.sums[1]), o.eps)));
    if (directions[i].dtype() == f64)
      orthogonalize<double>(directions[i], o);
    else
      orthogonalize<float>(directions[i], o);
    s.kernels = rules.sgd;
    s.c[0] = s.c[2] = 1;
    s.c[1] = 0;
    s.c[3] = adjusted(o, directions[i].shape());
  }
  run_segments();
  for (size_t i = 0; i < items.size(); ++i)
    if (items[i].value.dtype() == bf16) items[i].value.copy_(cast(values[i], bf16));
}

}  // namespace hone::optim
