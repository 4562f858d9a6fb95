#include "hone/core/data/mixup.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "hone/core/autograd.h"
#include "hone/core/basic_ops.h"
#include "hone/core/data/assemble.h"
#include "hone/core/parallel.h"

namespace hone::data {
namespace detail {

double portable_log(double x) {
  int exponent = 0;
  double m = std::frexp(x, &exponent);  // exact: x = m·2^exponent, m in [1/2, 1)
  if (m < 0.70710678118654752) {
    m *= 2;
    --exponent;
  }
  const double s = (m - 1) / (m + 1), s2 = s * s;  // log m = 2 artanh s, |s| < 0.172
  double series = 0;
  for (int k = 23; k >= 1; k -= 2) series = series * s2 + 1.0 / k;
  const double n = exponent;
  return n * 6.93147180369123816490e-01 + (2 * s * series + n * 1.90821492927058770002e-10);  // ln 2 in two parts
}

double portable_exp(double x) {
  if (x < -700) return 0;
  if (x > 700) return std::numeric_limits<double>::infinity();
  const double n = std::floor(x * 1.4426950408889634 + 0.5);
  const double r = x - n * 6.93147180369123816490e-01 - n * 1.90821492927058770002e-10;  // |r| < 0.35
  double series = 1;
  for (int k = 14; k >= 1; --k) series = 1 + series * r / k;
  return std::ldexp(series, static_cast<int>(n));
}

double sample_beta(double alpha, const Philox& random, uint64_t counter) {
  for (;; ++counter) {
    const auto w = random(counter);
    const double u = uniform_f64(w[0], w[1]) + 0x1p-54, v = uniform_f64(w[2], w[3]) + 0x1p-54;  // in (0, 1)
    if (alpha <= 1) {  // Jöhnk, 1964: X = u^(1/α), Y = v^(1/α), X/(X + Y) if X + Y ≤ 1; in logarithms
      const double log_x = portable_log(u) / alpha, log_y = portable_log(v) / alpha, most = std::max(log_x, log_y);
      const double x = portable_exp(log_x - most), y = portable_exp(log_y - most);
      if (most + portable_log(x + y) <= 0) return x / (x + y);
    } else {  // Cheng, "Generating beta variates with nonintegral shape parameters", 1978: algorithm BB for a = b = α
      const double beta = 1 / std::sqrt(alpha), gamma = alpha + 1 / beta;
      const double t = beta * (portable_log(u) - portable_log(1 - u)), x = alpha * portable_exp(t);
      const double z = portable_log(u) + portable_log(u) + portable_log(v), r = gamma * t - 1.3862943611198906;  // ln 4
      if (r + 2 * alpha * (portable_log(2 * alpha) - portable_log(alpha + x)) >= z) return x / (alpha + x);
    }
  }
}

}  // namespace detail

namespace {

constexpr uint64_t kLambdaCounter = uint64_t{1} << 60, kBoxCounter = uint64_t{1} << 61;  // the permutation's are below

struct Draw {
  Philox random;
  double lambda = 1;
  std::vector<int64_t> partner;
};

void check(const char* what, const Batch& b, const MixOptions& o, int64_t step) {
  HONE_CHECK(b.inputs.defined() && b.targets.defined(), ValueError, what, ": the batch is undefined");
  HONE_CHECK(o.classes >= 1, ValueError, what, ": classes must be at least 1, got ", o.classes);
  HONE_CHECK(o.alpha > 0 && o.alpha <= 1000, ValueError, what, ": alpha must be in (0, 1000], got ", o.alpha);
  HONE_CHECK(step >= 0, ValueError, what, ": step must be at least 0, got ", step);
  const DType d = b.inputs.dtype();
  HONE_CHECK(d == DType::f32 || d == DType::f64, DTypeError, what, ": inputs must be f32 or f64, not ", d);
  HONE_CHECK(b.inputs.ndim() >= 1, ShapeError, what, ": inputs must be [N, …], but are one number");
  HONE_CHECK(b.inputs.device() == cpu && b.targets.device() == cpu, DeviceError, what,
             ": batches are mixed on the cpu");
  const int64_t n = b.inputs.size(0);
  if (b.targets.dtype() == DType::i64) {
    HONE_CHECK(b.targets.shape() == Shape{n}, ShapeError, what, ": labels must be [", n, "], but have shape ",
               b.targets.shape());
    return;
  }
  HONE_CHECK(b.targets.dtype() == d, DTypeError, what, ": targets must be labels i64 or class probabilities ", d,
             " as the inputs, not ", b.targets.dtype());
  HONE_CHECK((b.targets.shape() == Shape{n, o.classes}), ShapeError, what, ": class probabilities must be [", n, ", ",
             o.classes, "], but have shape ", b.targets.shape());
}

Draw draw(const MixOptions& o, detail::Purpose purpose, int64_t step, int64_t n) {
  Draw d;
  d.random = {o.seed ? *o.seed : generator_state().seed, detail::stream_of(purpose, step)};
  d.partner.resize(static_cast<size_t>(n));
  detail::permutation(d.partner, d.random.seed, d.random.stream);
  d.lambda = detail::sample_beta(o.alpha, d.random, kLambdaCounter);
  return d;
}

// λ y_i + (1 − λ) y_π(i) as probabilities of T.
template <class T> Tensor mix_targets(const char* what, const Tensor& targets, int64_t classes, const Draw& d) {
  const int64_t n = targets.size(0);
  Tensor out = zeros({n, classes}, dtype_of<T>);
  T* to = out.data<T>();
  const T a = static_cast<T>(d.lambda), b = static_cast<T>(1 - d.lambda);
  const Tensor from = contiguous(targets.detach());
  if (targets.dtype() == DType::i64) {
    const int64_t* label = from.data<int64_t>();
    for (int64_t i = 0; i < n; ++i)
      HONE_CHECK(label[i] >= 0 && label[i] < classes, ValueError, what, ": label ", label[i], " at ", i,
                 " is outside [0, ", classes, ")");
    for (int64_t i = 0; i < n; ++i) {
      to[i * classes + label[i]] += a;
      to[i * classes + label[d.partner[static_cast<size_t>(i)]]] += b;
    }
  } else {
    const T* y = from.data<T>();
    for (int64_t i = 0; i < n; ++i)
      for (int64_t c = 0; c < classes; ++c)
        to[i * classes + c] = a * y[i * classes + c] + b * y[d.partner[static_cast<size_t>(i)] * classes + c];
  }
  return out;
}

template <class T> Batch mixup_as(const Batch& batch, const MixOptions& o, const Draw& d) {
  Tensor targets = mix_targets<T>("mixup", batch.targets, o.classes, d);
  const Tensor from = contiguous(batch.inputs.detach());
  Tensor out = empty(from.shape(), from.dtype());
  const int64_t n = from.size(0), row = n > 0 ? from.numel() / n : 0;
  const T a = static_cast<T>(d.lambda), b = static_cast<T>(1 - d.lambda);
  const T* x = from.data<T>();
  T* to = out.data<T>();
  parallel_for(n, std::max<int64_t>((1 << 14) / std::max<int64_t>(row, 1), 1), [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      const T* own = x + i * row;
      const T* other = x + d.partner[static_cast<size_t>(i)] * row;
      for (int64_t k = 0; k < row; ++k) to[i * row + k] = a * own[k] + b * other[k];
    }
  });
  return {out, targets};
}

template <class T> Batch cutmix_as(const Batch& batch, const MixOptions& o, Draw& d) {
  const Tensor from = contiguous(batch.inputs.detach());
  Tensor out = clone(from);
  const int64_t n = from.size(0), planes = from.size(1), h = from.size(2), w = from.size(3);
  const auto words = d.random(kBoxCounter);
  const auto middle = [&](uint32_t high, uint32_t low, int64_t size) {
    return static_cast<int64_t>(below(uint64_t{high} << 32 | low, static_cast<uint64_t>(size)));
  };
  const double side = std::sqrt(1 - d.lambda);
  const int64_t cut_h = static_cast<int64_t>(static_cast<double>(h) * side);
  const int64_t cut_w = static_cast<int64_t>(static_cast<double>(w) * side);
  const int64_t y = h > 0 ? middle(words[0], words[1], h) : 0, x = w > 0 ? middle(words[2], words[3], w) : 0;
  const int64_t top = std::clamp<int64_t>(y - cut_h / 2, 0, h), bottom = std::clamp<int64_t>(y + cut_h / 2, 0, h);
  const int64_t left = std::clamp<int64_t>(x - cut_w / 2, 0, w), right = std::clamp<int64_t>(x + cut_w / 2, 0, w);
  if (h * w > 0) d.lambda = 1 - static_cast<double>((bottom - top) * (right - left)) / static_cast<double>(h * w);
  Tensor targets = mix_targets<T>("cutmix", batch.targets, o.classes, d);
  const T* read = from.data<T>();
  T* to = out.data<T>();
  for (int64_t i = 0; i < n; ++i)
    for (int64_t c = 0; c < planes; ++c)
      for (int64_t r = top; r < bottom; ++r) {
        const T* other = read + ((d.partner[static_cast<size_t>(i)] * planes + c) * h + r) * w;
        std::copy(other + left, other + right, to + ((i * planes + c) * h + r) * w + left);
      }
  return {out, targets};
}

}  // namespace

Batch mixup(const Batch& batch, const MixOptions& options, int64_t step) {
  check("mixup", batch, options, step);
  const NoGrad no_grad;
  const Draw d = draw(options, detail::kMixup, step, batch.inputs.size(0));
  return batch.inputs.dtype() == DType::f64 ? mixup_as<double>(batch, options, d) : mixup_as<float>(batch, options, d);
}

Batch cutmix(const Batch& batch, const MixOptions& options, int64_t step) {
  check("cutmix", batch, options, step);
  HONE_CHECK(batch.inputs.ndim() == 4, ShapeError, "cutmix: inputs must be [N, C, H, W], but have shape ",
             batch.inputs.shape());
  const NoGrad no_grad;
  Draw d = draw(options, detail::kCutmix, step, batch.inputs.size(0));
  return batch.inputs.dtype() == DType::f64 ? cutmix_as<double>(batch, options, d)
                                            : cutmix_as<float>(batch, options, d);
}

}  // namespace hone::data
