#include "hone/compress/quantize/observer.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "hone/core/error.h"

namespace hone::compress::quantize {
namespace {

constexpr int kClippings = 128;

bool counts_bins(Observe m) { return m != Observe::min_max && m != Observe::moving_average; }

}  // namespace

Observer::Observer(ObserverOptions options) : options_(options) {
  HONE_CHECK(options.momentum > 0 && options.momentum <= 1, ValueError, "Observer: momentum ", options.momentum,
             " must be in (0, 1]");
  HONE_CHECK(options.percentile > 50 && options.percentile <= 100, ValueError, "Observer: percentile ",
             options.percentile, " must be in (50, 100]");
  Affine::of(Interval{}, options.spec);  // throws for a bad one
}

void Observer::see(const Tensor& x) {
  HONE_CHECK(is_floating(x.dtype()), DTypeError, "Observer: x must be floating, not ", x.dtype());
  if (x.numel() == 0) return;
  const std::vector<double> v = x.to_vector<double>();
  Interval r{v[0], v[0]};
  for (const double e : v) {
    HONE_CHECK(std::isfinite(e), NumericError, "Observer: an element is ", e);
    r.low = std::min(r.low, e), r.high = std::max(r.high, e);
  }
  if (seen_ == 0) {
    ends_ = average_ = r;
  } else {
    ends_ = {std::min(ends_.low, r.low), std::max(ends_.high, r.high)};
    average_.low += options_.momentum * (r.low - average_.low);
    average_.high += options_.momentum * (r.high - average_.high);
  }
  seen_ += static_cast<int64_t>(v.size());
  if (counts_bins(options_.method)) count(v, std::max(-r.low, r.high));
}

void Observer::count(const std::vector<double>& v, double most) {
  if (most == 0 && reach_ == 0) {
    zeros_ += static_cast<int64_t>(v.size());
    return;
  }
  if (reach_ == 0) {
    int exponent = 0;
    std::frexp(most, &exponent);
    reach_ = std::ldexp(1.0, std::clamp(exponent, -1000, 1023));  // above most, or the largest power of two
    counts_.assign(kBins, 0);
    counts_[kBins / 2] = zeros_;
  }
  while (most > reach_ && std::isfinite(2 * reach_)) {
    reach_ *= 2;
    std::vector<int64_t> merged(kBins, 0);
    for (int64_t b = 0; b < kBins; ++b)
      merged[static_cast<size_t>(kBins / 4 + b / 2)] += counts_[static_cast<size_t>(b)];
    counts_ = std::move(merged);
  }
  for (const double e : v) {
    const double bin = std::floor(e / bin_width()) + static_cast<double>(kBins / 2);
    ++counts_[static_cast<size_t>(std::clamp(bin, 0.0, static_cast<double>(kBins - 1)))];
  }
}

Interval Observer::range() const {
  HONE_CHECK(seen_ > 0, ValueError, "Observer: nothing was seen");
  if (options_.method == Observe::min_max) return ends_;
  if (options_.method == Observe::moving_average) return average_;
  if (reach_ == 0) return {};  // zeros alone
  if (options_.method == Observe::percentile)
    return {quantile(1 - options_.percentile / 100), quantile(options_.percentile / 100)};
  return options_.method == Observe::mse ? least([this](Interval r) { return squared_error(r); })
                                         : least([this](Interval r) { return divergence(r); });
}

// Where that share of the elements lies below; linear within a bin.
double Observer::quantile(double share) const {
  const double rank = share * static_cast<double>(seen_);
  double below = 0;
  for (int64_t b = 0; b < kBins; ++b) {
    const auto n = static_cast<double>(counts_[static_cast<size_t>(b)]);
    if (n > 0 && below + n >= rank)
      return std::clamp(center(b) + ((rank - below) / n - 0.5) * bin_width(), ends_.low, ends_.high);
    below += n;
  }
  return ends_.high;
}

template <class Loss> Interval Observer::least(const Loss& loss) const {
  Interval best = ends_;
  double lowest = std::numeric_limits<double>::infinity();
  for (int i = kClippings; i >= 1; --i) {  // of equal ones the widest
    const double part = static_cast<double>(i) / kClippings;
    const Interval r{part * std::min(ends_.low, 0.0), part * std::max(ends_.high, 0.0)};
    if (const double l = loss(r); l < lowest) lowest = l, best = r;
  }
  return best;
}

double Observer::squared_error(Interval r) const {
  const Affine a = Affine::of(r, options_.spec);
  const auto low = static_cast<double>(options_.spec.low() - a.zero_point[0]),
             high = static_cast<double>(options_.spec.high() - a.zero_point[0]);
  double sum = 0;
  for (int64_t b = 0; b < kBins; ++b) {
    const int64_t n = counts_[static_cast<size_t>(b)];
    if (n == 0) continue;
    // The bin that begins with 0 holds the zeros of a ReLU, whose error is none.
    const double x = b == kBins / 2 ? 0 : std::clamp(center(b), ends_.low, ends_.high);
    const double e = a.scale[0] * std::clamp(std::nearbyint(x / a.scale[0]), low, high) - x;
    sum += static_cast<double>(n) * e * e;
  }
  return sum;
}

// P: the counts inside the range, what lies outside added to its ends. Q: the counts inside, those of one code spread
// evenly over the bins of it that are not empty. Both are shares of all: what a range clips away, Q lacks. As a share
// of what is inside, the one bin that a range leaves of data away from 0 would be all of P and of Q, without
// divergence. The bin of 0 is left out of both: ReLU makes it say nothing.
double Observer::divergence(Interval r) const {
  const Affine a = Affine::of(r, options_.spec);
  const auto bin_of = [this](double x) {
    return static_cast<int64_t>(
        std::clamp(std::floor((x + reach_) / bin_width()), 0.0, static_cast<double>(kBins - 1)));
  };
  const int64_t first = bin_of(r.low), last = bin_of(r.high), zero = kBins / 2;
  const int64_t levels = options_.spec.high() - options_.spec.low() + 1;
  std::vector<double> sums(static_cast<size_t>(levels)), used(sums.size());
  const auto code = [&](int64_t b) {
    const double q =
        std::nearbyint(center(b) / a.scale[0]) + static_cast<double>(a.zero_point[0] - options_.spec.low());
    return static_cast<size_t>(std::clamp(q, 0.0, static_cast<double>(levels - 1)));
  };
  double inside = 0, outside_low = 0, outside_high = 0;
  for (int64_t b = 0; b < kBins; ++b) {
    const auto n = static_cast<double>(counts_[static_cast<size_t>(b)]);
    if (n == 0 || b == zero) continue;
    if (b < first) outside_low += n;
    if (b > last) outside_high += n;
    if (b < first || b > last) continue;
    inside += n;
    sums[code(b)] += n;
    used[code(b)] += 1;
  }
  const double all = inside + outside_low + outside_high;
  if (inside == 0) return std::numeric_limits<double>::infinity();
  double divergence = 0;
  for (int64_t b = first; b <= last; ++b) {
    if (b == zero) continue;
    const auto n = static_cast<double>(counts_[static_cast<size_t>(b)]);
    const double p = (n + (b == first ? outside_low : 0) + (b == last ? outside_high : 0)) / all;
    if (p == 0) continue;
    // An end that holds nothing of its own has no q: the smallest share stands for it.
    const double q = n == 0 ? 1e-9 : sums[code(b)] / used[code(b)] / all;
    divergence += p * std::log(p / q);
  }
  return divergence;
}

}  // namespace hone::compress::quantize
