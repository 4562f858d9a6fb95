#include "hone/compress/quantize/ada_round.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "hone/core/autograd.h"
#include "hone/core/basic_ops.h"
#include "hone/core/error.h"
#include "hone/core/parallel.h"
#include "hone/ops/arithmetic.h"
#include "hone/ops/conv.h"
#include "hone/ops/matmul.h"
#include "hone/ops/reduce.h"
#include "hone/ops/shape_ops.h"
#include "hone/ops/unary.h"
#include "hone/optim/adam.h"

namespace hone::compress::quantize {
namespace {

constexpr const char* kWhat = "ada_round";
constexpr int64_t kMostTaps = 1 << 13;
constexpr double kHair = 1e-6;                  // of its place, that a weight on the grid is off by its rounding to f32
constexpr double kStretch = 1.2, kBelow = 0.1;  // ζ − γ and −γ of the rectified sigmoid

void check(const Tensor& w, const Affine& a, const Tensor& moment, const AdaRoundOptions& o) {
  HONE_CHECK(w.defined() && moment.defined(), ValueError, kWhat, ": the weight or moment is an undefined tensor");
  HONE_CHECK(is_floating(w.dtype()) && is_floating(moment.dtype()), DTypeError, kWhat,
             ": weight and moment must be floating, not ", w.dtype(), " and ", moment.dtype());
  HONE_CHECK(w.ndim() >= 2 && w.numel() > 0, ShapeError, kWhat, ": weight ", w.shape(),
             " must have at least two dims and an element");
  const int64_t taps = w.numel() / w.size(0);
  HONE_CHECK(moment.ndim() == 3 && moment.size(1) == taps && moment.size(2) == taps && moment.size(0) > 0 &&
                 w.size(0) % moment.size(0) == 0,
             ShapeError, kWhat, ": moment ", moment.shape(), " of weight ", w.shape(), " must be [groups, ", taps, ", ",
             taps, "]");
  HONE_CHECK(a.spec.symmetric && a.spec.granularity != Granularity::group, ValueError, kWhat,
             ": codes must be symmetric, with a scale a tensor or channel");
  HONE_CHECK(
      o.iterations >= 0 && o.lr > 0 && o.lambda >= 0 && o.from > 0 && o.to > 0 && o.warm_up >= 0 && o.warm_up < 1,
      ValueError, kWhat, ": ", o.iterations, " iterations, lr ", o.lr, ", lambda ", o.lambda, ", beta from ", o.from,
      " to ", o.to, ", warm_up ", o.warm_up, " are out of range");
  for (const double m : moment.to_vector<double>())
    HONE_CHECK(std::isfinite(m), NumericError, kWhat, ": an element of the moment is ", m);
}

/// d_o M d_oᵀ of each row [groups, outs, 1].
Tensor errors(const Tensor& d, const Tensor& moment) { return sum(matmul(d, moment) * d, {2}, true); }

/// One output's weights: positions on the grid, their floors, and which of them go up.
struct Row {
  const double *position, *floor, *moment;
  int64_t taps;
  std::vector<bool> up = {};

  bool movable(int64_t k) const { return position[k] > floor[k]; }
  /// Turns the weight over that lessens the error most, until none does. Returns the error.
  double settle() {
    std::vector<double> d(static_cast<size_t>(taps)), slope(d.size());  // slope = M d
    for (int64_t k = 0; k < taps; ++k) {
      if (!movable(k)) up[static_cast<size_t>(k)] = false;
      d[static_cast<size_t>(k)] = floor[k] + (up[static_cast<size_t>(k)] ? 1 : 0) - position[k];
    }
    const auto add = [&](int64_t k, double step) {
      for (int64_t i = 0; i < taps; ++i) slope[static_cast<size_t>(i)] += step * moment[k * taps + i];
    };
    for (int64_t k = 0; k < taps; ++k) add(k, d[static_cast<size_t>(k)]);
    double error = std::inner_product(d.begin(), d.end(), slope.begin(), 0.0);
    for (int64_t turns = 0; turns < 4 * taps; ++turns) {
      int64_t best = -1;
      double gain = 1e-12 * error;
      for (int64_t k = 0; k < taps; ++k) {
        if (!movable(k)) continue;
        const double step = up[static_cast<size_t>(k)] ? -1 : 1;
        const double less = -2 * step * slope[static_cast<size_t>(k)] - moment[k * taps + k];
        if (less > gain) gain = less, best = k;
      }
      if (best < 0) break;
      const double step = up[static_cast<size_t>(best)] ? -1 : 1;
      up[static_cast<size_t>(best)] = step > 0;
      add(best, step);
      error -= gain;
    }
    return error;
  }
};

}  // namespace

Tensor ada_round(const Tensor& weight, const Affine& a, const Tensor& moment, AdaRoundOptions o) {
  check(weight, a, moment, o);
  const RecorderScope unseen(nullptr);
  const int64_t groups = moment.size(0), outs = weight.size(0) / groups, taps = weight.numel() / weight.size(0);
  const Shape shape{groups, outs, taps};
  // Positions on the grid, their floors, and what may move.
  const std::vector<int64_t> nearest_codes = a.codes(weight).to_vector<int64_t>();  // throws for NaN
  const auto low = static_cast<double>(a.spec.low()), high = static_cast<double>(a.spec.high());
  std::vector<double> p = weight.to_vector<double>(), start(p.size());
  std::vector<double> base(p.size()), moves(p.size()), nearest(nearest_codes.begin(), nearest_codes.end());
  for (size_t i = 0; i < p.size(); ++i) {
    p[i] = std::clamp(p[i] / a.scale[static_cast<size_t>(a.part(weight.shape(), static_cast<int64_t>(i)))], low, high);
    if (const double code = std::nearbyint(p[i]); std::abs(p[i] - code) <= kHair * std::abs(code)) p[i] = code;
    base[i] = std::floor(p[i]);
    moves[i] = p[i] > base[i] ? 1 : 0;
    const double s = (p[i] - base[i] + kBelow) / kStretch;  // h = p − ⌊p⌋ to begin with
    start[i] = std::log(s / (1 - s));
  }
  const auto plain = [&](const std::vector<double>& v) { return tensor(v, shape); };
  const Tensor position = plain(p), floors = plain(base);
  const Tensor m = cast(moment, f64), e = errors(plain(nearest) - position, m);
  // In f32 from here on; a row without an error has nothing to gain.
  std::vector<double> weights = e.to_vector<double>();
  for (double& x : weights) x = x > 0 ? static_cast<double>(taps) / x : 0;
  const Tensor share = cast(tensor(weights, e.shape()), f32), m32 = cast(m, f32);
  const Tensor movable = cast(plain(moves), f32), offset = cast(floors - position, f32);
  Parameter v(cast(plain(start), f32));
  optim::Adam adam({v}, {.lr = o.lr});
  const auto soft = [&] { return clamp(sigmoid(v.value()) * kStretch - kBelow, 0, 1); };
  const auto warm = static_cast<int64_t>(o.warm_up * static_cast<double>(o.iterations));
  for (int64_t i = 0; i < o.iterations; ++i) {
    const EnableGrad recording;
    const Tensor h = soft();
    Tensor loss = sum(errors(offset + h * movable, m32) * share);
    if (i >= warm) {
      const double t =
          static_cast<double>(i - warm) / static_cast<double>(std::max<int64_t>(o.iterations - warm - 1, 1));
      const double beta = o.from + (o.to - o.from) * t;
      loss = loss + sum((1.0 - pow(abs(h * 2.0 - 1.0), beta)) * movable) * o.lambda;
    }
    adam.zero_grad();
    loss.backward();
    adam.step();
  }
  const NoGrad no_grad;
  const std::vector<double> h = soft().to_vector<double>(), all = contiguous(m).to_vector<double>();
  parallel_for(groups * outs, 1, [&](int64_t begin, int64_t end) {
    for (int64_t row = begin; row < end; ++row) {
      const auto from = static_cast<size_t>(row * taps), to = from + static_cast<size_t>(taps);
      const double* const matrix = &all[static_cast<size_t>(row / outs * taps * taps)];
      Row adaptive{&p[from], &base[from], matrix, taps}, plainly = adaptive;
      for (size_t i = from; i < to; ++i) adaptive.up.push_back(h[i] >= 0.5), plainly.up.push_back(nearest[i] > base[i]);
      Row& best = adaptive.settle() < plainly.settle() ? adaptive : plainly;
      for (size_t i = from; i < to; ++i) base[i] += best.up[i - from] ? 1 : 0;
    }
  });
  return cast(tensor(base, weight.shape()), i8);
}

namespace detail {

InputMoment::InputMoment(const graph::Node& node, const Shape& weight)
    : op_(node.op), weight_(weight), taps_(weight.numel() / std::max<int64_t>(weight[0], 1)) {
  HONE_CHECK(taps_ <= kMostTaps, ValueError, kWhat, ": '", node.name, "' has ", taps_, " taps; at most ", kMostTaps,
             " have a moment here");
  if (op_ == &kConv2d) {
    ConvAttrs conv = node.attributes.as<ConvAttrs>();
    groups_ = conv.groups;
    conv.groups = 1;
    attrs_ = conv;
  }
  sum_ = zeros({groups_, taps_, taps_}, f64);
}

void InputMoment::see(const Tensor& x) {
  if (x.numel() == 0) return;
  for (int64_t g = 0; g < groups_; ++g) {
    Tensor rows;
    if (op_ == &kConv2d) {  // by weights that each pick one tap
      const int64_t each = weight_[1];
      const Tensor picks = reshape(eye(taps_), {taps_, each, weight_[2], weight_[3]});
      const Tensor patches = apply(kConv2d, attrs_, {slice(x, 1, g * each, (g + 1) * each), picks, Tensor()});
      rows = reshape(permute(patches, {0, 2, 3, 1}), {-1, taps_});
    } else {
      rows = reshape(x, {-1, taps_});
    }
    if (g == 0) rows_ += rows.size(0);
    rows = cast(rows, f64);
    Tensor part = select(sum_, 0, g);
    part.copy_(part + matmul(transpose(rows), rows));
  }
}
Tensor InputMoment::value() const { return sum_ * (1.0 / static_cast<double>(std::max<int64_t>(rows_, 1))); }

}  // namespace detail
}  // namespace hone::compress::quantize
