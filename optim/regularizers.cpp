#include "hone/optim/regularizers.h"

#include <cmath>

#include "hone/core/autograd.h"
#include "hone/core/error.h"
#include "hone/ops/arithmetic.h"
#include "hone/ops/entropy.h"
#include "hone/ops/matmul.h"
#include "hone/ops/reduce.h"
#include "hone/ops/shape_ops.h"
#include "hone/ops/unary.h"
#include "hone/optim/optimizer.h"
#include "hone/optim/parameter_list.h"

namespace hone::optim {
namespace {

using Parameters = std::vector<ParameterRef>;

// Calls each(index) for the parameters that count.
template <class Each>
void for_counted(const char* what, const Parameters& parameters, bool weights_only, const Each& each) {
  bool any = false;
  for (size_t i = 0; i < parameters.size(); ++i) {
    if (weights_only && parameters[i].raw().ndim() < 2) continue;
    any = true;
    each(i);
  }
  HONE_CHECK(any, ValueError, what, ": only weights count, and no parameter has two dims or more");
}

template <class Term>
Tensor total(const char* what, const Parameters& parameters, bool weights_only, const Term& term) {
  detail::check_list(what, parameters);
  Tensor sum;
  for_counted(what, parameters, weights_only, [&](size_t i) {
    const Tensor t = term(parameters[i].value(), i);
    HONE_CHECK(!sum.defined() || sum.dtype() == t.dtype(), DTypeError, what, ": parameter ", i, " is ", t.dtype(),
               ", those before it ", sum.dtype(), "; one sum needs one dtype");
    sum = sum.defined() ? sum + t : t;
  });
  return sum;
}

void check_dim(const char* what, int64_t dim) {
  HONE_CHECK(dim >= 0, ValueError, what, ": dim must be at least 0, got ", dim);
}
void check_has_dim(const char* what, size_t i, const Shape& shape, int64_t dim) {
  HONE_CHECK(dim < shape.ndim(), ShapeError, what, ": parameter ", i, " of shape ", shape, " has no dim ", dim);
}

// Scales each slice of the weights by factor(its norm, its size) where that is not 1.
template <class Factor> void scale_groups(const char* what, const Parameters& parameters, int64_t dim, Factor factor) {
  const NoGrad no_grad;
  for_counted(what, parameters, true, [&](size_t i) { check_has_dim(what, i, parameters[i].raw().shape(), dim); });
  for_counted(what, parameters, true, [&](size_t i) {
    const Tensor w = parameters[i].raw().detach();
    const detail::Slices groups = detail::Slices::of(w.shape(), dim);
    detail::change_elements(w, [&]<class T>(T* x) {
      detail::for_slices(groups, x, [&](T* group, int64_t) {
        const double f = factor(detail::slice_norm(groups, group), static_cast<double>(groups.elements()));
        if (f != 1) detail::scale_slice(groups, group, f);
      });
    });
  });
}

Tensor mean_entropy(const char* what, const Tensor& logits, double beta, double sign) {
  detail::check_at_least_zero(what, "beta", beta);
  HONE_CHECK(logits.defined(), ValueError, what, ": the logits are an undefined tensor");
  HONE_CHECK(logits.ndim() >= 1 && logits.numel() > 0, ShapeError, what,
             ": logits must be [..., C] and not empty, but have shape ", logits.shape());
  return mean(entropy(logits)) * (sign * beta);
}

}  // namespace

Tensor l1(const Parameters& parameters, double lambda, PenaltyOptions options) {
  detail::check_at_least_zero("l1", "lambda", lambda);
  return total("l1", parameters, options.weights_only, [](const Tensor& w, size_t) { return sum(abs(w)); }) * lambda;
}

Tensor l2(const Parameters& parameters, double lambda, PenaltyOptions options) {
  detail::check_at_least_zero("l2", "lambda", lambda);
  return total("l2", parameters, options.weights_only, [](const Tensor& w, size_t) { return sum(square(w)); }) *
         (lambda / 2);
}

Tensor elastic_net(const Parameters& parameters, ElasticNetOptions options) {
  detail::check_at_least_zero("elastic_net", "l1", options.l1);
  detail::check_at_least_zero("elastic_net", "l2", options.l2);
  return total("elastic_net", parameters, options.weights_only,
               [&](const Tensor& w, size_t) { return sum(abs(w)) * options.l1 + sum(square(w)) * (options.l2 / 2); });
}

Tensor group_lasso(const Parameters& parameters, double lambda, GroupOptions options) {
  detail::check_at_least_zero("group_lasso", "lambda", lambda);
  check_dim("group_lasso", options.dim);
  return total("group_lasso", parameters, true,
               [&](const Tensor& w, size_t i) {
                 check_has_dim("group_lasso", i, w.shape(), options.dim);
                 Shape others;
                 for (int64_t d = 0; d < w.ndim(); ++d)
                   if (d != options.dim) others.push_back(d);
                 const Tensor squares = sum(square(w), others);
                 // The root's derivative at 0 is infinite: groups of zeros take another way.
                 const Tensor absent = eq(squares.detach(), 0);
                 const Tensor norms = masked_fill(sqrt(masked_fill(squares, absent, 1)), absent, 0);
                 const int64_t groups = w.size(options.dim);
                 const double size = groups > 0 ? static_cast<double>(w.numel() / groups) : 0;
                 return sum(norms) * std::sqrt(size);
               }) *
         lambda;
}

Tensor orthogonality(const Parameters& parameters, double lambda) {
  detail::check_at_least_zero("orthogonality", "lambda", lambda);
  return total("orthogonality", parameters, true,
               [](const Tensor& w, size_t) {
                 const int64_t rows = w.size(0);
                 const Tensor m = reshape(w, {rows, rows > 0 ? w.numel() / rows : 0});
                 return sum(square(matmul(m, transpose(m)) - eye(rows, rows, {w.dtype(), w.device()})));
               }) *
         lambda;
}

void prox_l1(const Parameters& parameters, double threshold, PenaltyOptions options) {
  detail::check_cpu_list("prox_l1", parameters);
  detail::check_at_least_zero("prox_l1", "threshold", threshold);
  for_counted("prox_l1", parameters, options.weights_only, [&](size_t i) {
    const Tensor w = parameters[i].raw().detach();
    detail::change_elements(w, [&]<class T>(T* x) {
      using A = detail::Compute<T>;
      const A t = static_cast<A>(threshold);
      parallel_for(w.numel(), 1 << 14, [&](int64_t begin, int64_t end) {
        for (int64_t k = begin; k < end; ++k) {
          const A v = static_cast<A>(x[k]);
          x[k] = static_cast<T>(v > t ? v - t : v < -t ? v + t : v == v ? A(0) : v);  // NaN stays
        }
      });
    });
  });
}

void prox_group_lasso(const Parameters& parameters, double threshold, GroupOptions options) {
  detail::check_cpu_list("prox_group_lasso", parameters);
  detail::check_at_least_zero("prox_group_lasso", "threshold", threshold);
  check_dim("prox_group_lasso", options.dim);
  scale_groups("prox_group_lasso", parameters, options.dim, [=](double norm, double size) {
    const double shrink = threshold * std::sqrt(size);
    return shrink == 0 || norm == 0 ? 1 : shrink >= norm ? 0 : 1 - shrink / norm;
  });
}

void max_norm(const Parameters& parameters, MaxNormOptions options) {
  detail::check_cpu_list("max_norm", parameters);
  detail::check_above_zero("max_norm", "max", options.max);
  check_dim("max_norm", options.dim);
  scale_groups("max_norm", parameters, options.dim,
               [=](double norm, double) { return norm > options.max ? options.max / norm : 1; });
}

Tensor confidence_penalty(const Tensor& logits, double beta) {
  return mean_entropy("confidence_penalty", logits, beta, -1);
}

Tensor entropy_minimization(const Tensor& logits, double beta) {
  return mean_entropy("entropy_minimization", logits, beta, 1);
}

}  // namespace hone::optim
