#include "hone/optim/lbfgs.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>

#include "hone/core/autograd.h"
#include "hone/core/basic_ops.h"
#include "hone/core/error.h"
#include "hone/core/op.h"
#include "hone/optim/parameter_list.h"
#include "hone/optim/state_reader.h"

namespace hone::optim {
namespace {

using Vector = std::vector<double>;

constexpr int64_t kGrain = 1 << 14;
constexpr double kSufficientDecrease = 1e-4, kCurvature = 0.9;
constexpr int kSearchEvaluations = 25;
const std::string kOwn = "lbfgs.";  // what the base does not know of a state
bool has_curvature(double ys) { return ys > 1e-10; }

double dot(const Vector& a, const Vector& b) {
  const int64_t n = static_cast<int64_t>(a.size());
  Vector parts(static_cast<size_t>((n + kGrain - 1) / kGrain));
  parallel_for(n, kGrain, [&](int64_t begin, int64_t end) {
    double sum = 0;
    for (int64_t i = begin; i < end; ++i) sum += a[static_cast<size_t>(i)] * b[static_cast<size_t>(i)];
    parts[static_cast<size_t>(begin / kGrain)] = sum;
  });
  double sum = 0;
  for (double p : parts) sum += p;
  return sum;
}
// y ← y + c x
void add(Vector& y, double c, const Vector& x) {
  parallel_for(static_cast<int64_t>(y.size()), kGrain, [&](int64_t begin, int64_t end) {
    for (size_t i = static_cast<size_t>(begin); i < static_cast<size_t>(end); ++i) y[i] += c * x[i];
  });
}
double largest(const Vector& v) {
  double most = 0;
  for (double x : v) most = std::max(most, std::abs(x));
  return most;
}
double sum_abs(const Vector& v) {
  double sum = 0;
  for (double x : v) sum += std::abs(x);
  return sum;
}

// A place on the line w + t d: loss, gradient, and slope g·d there.
struct Trial {
  double t = 0, loss = 0, slope = 0;
  Vector gradient;
};

// Where the cubic through two trials (values and slopes) is lowest, within [low, high]; the middle if there is no such
// place (Nocedal and Wright, 3.59).
double lowest_of_cubic(const Trial& a, const Trial& b, double low, double high) {
  const Trial &left = a.t <= b.t ? a : b, &right = a.t <= b.t ? b : a;
  const double d1 = left.slope + right.slope - 3 * (left.loss - right.loss) / (left.t - right.t);
  const double square = d1 * d1 - left.slope * right.slope;
  if (square >= 0) {
    const double d2 = std::sqrt(square);
    const double t = right.t - (right.t - left.t) * ((right.slope + d2 - d1) / (right.slope - left.slope + 2 * d2));
    if (!std::isnan(t)) return std::min(std::max(t, low), high);
  }
  return (low + high) / 2;
}

}  // namespace

void LBFGSOptions::fields(FieldVisitor& v) {
  v("lr", lr);
  v("max_iterations", max_iterations);
  v("max_evaluations", max_evaluations);
  v("tolerance_gradient", tolerance_gradient);
  v("tolerance_change", tolerance_change);
  v("history", history);
  v("strong_wolfe", strong_wolfe);
  v("weight_decay", weight_decay);
  v("maximize", maximize);
}

void LBFGS::check(const LBFGSOptions& o) {
  detail::check_at_least_zero(kName, "lr", o.lr);
  detail::check_at_least_zero(kName, "tolerance_gradient", o.tolerance_gradient);
  detail::check_at_least_zero(kName, "tolerance_change", o.tolerance_change);
  detail::check_at_least_zero(kName, "weight_decay", o.weight_decay);
  HONE_CHECK(o.max_iterations >= 1, ValueError, "LBFGS: max_iterations must be at least 1, got ", o.max_iterations);
  HONE_CHECK(o.max_evaluations >= 0, ValueError, "LBFGS: max_evaluations must be at least 0, got ", o.max_evaluations);
  HONE_CHECK(o.history >= 1, ValueError, "LBFGS: history must be at least 1, got ", o.history);
}

LBFGS::LBFGS(const std::vector<ParameterRef>& parameters, LBFGSOptions options)
    : GroupedOptimizer(parameters, options) {}

void LBFGS::step() { throw ValueError("LBFGS.step: needs a closure that computes the loss and its gradients anew"); }

int64_t LBFGS::state_bytes() const {
  const size_t numbers = direction_.size() * (2 + 2 * s_.size()) + inverse_ys_.size();
  return static_cast<int64_t>(numbers * sizeof(double));
}

Vector LBFGS::values() const {
  Vector w;
  for (const Entry& e : entries())
    for (double v : e.parameter.raw().to_vector<double>()) w.push_back(v);
  return w;
}

void LBFGS::set_values(const Vector& w) {
  const double* from = w.data();
  for (Entry& e : entries()) {
    Tensor raw = e.parameter.raw().detach();
    detail::change_elements(raw, [&]<class T>(T* to) {
      std::transform(from, from + raw.numel(), to, [](double v) { return static_cast<T>(v); });
    });
    from += raw.numel();
  }
}

// Loss and gradient, as they are minimized, at the parameters' present values.
LBFGS::Point LBFGS::evaluate(const Closure& closure) {
  const LBFGSOptions& o = options();
  Point p;
  {
    const EnableGrad enable;
    const Tensor loss = closure();
    HONE_CHECK(loss.defined() && loss.numel() == 1, ValueError,
               "LBFGS.step: the closure must return its loss, one number");
    p.loss = loss.item();
  }
  ++evaluations_;
  for (size_t i = 0; i < entries().size(); ++i) {
    const Entry& e = entries()[i];
    const Tensor &raw = e.parameter.raw(), g = e.parameter.grad();
    HONE_CHECK(e.parameter.generation() == e.generation, GradError, "LBFGS.step: parameter ", i,
               " changed its shape (now ", raw.shape(), ") after the optimizer was made; its state is stale");
    if (g.defined()) {
      for (double v : g.to_vector<double>()) p.gradient.push_back(v);
    } else {
      p.gradient.insert(p.gradient.end(), static_cast<size_t>(raw.numel()), 0.0);
    }
  }
  if (o.maximize) {
    p.loss = -p.loss;
    for (double& v : p.gradient) v = -v;
  }
  if (o.weight_decay > 0) {
    const Vector w = values();
    p.loss += o.weight_decay / 2 * dot(w, w);
    add(p.gradient, o.weight_decay, w);
  }
  return p;
}

LBFGS::Point LBFGS::evaluate_at(const Closure& closure, const Vector& w, double t) {
  Vector at = w;
  add(at, t, direction_);
  set_values(at);
  Point p = evaluate(closure);
  // What cannot be compared is worse than anything: the search steps back from it.
  if (std::isnan(p.loss)) p.loss = std::numeric_limits<double>::infinity();
  return p;
}

// Keeps the pair if it has curvature, in the place of the oldest where there are `history` of them.
void LBFGS::add_pair(Vector s, Vector y) {
  const double ys = dot(y, s);
  if (!has_curvature(ys)) return;
  if (static_cast<int64_t>(s_.size()) == options().history) {
    s_.erase(s_.begin());
    y_.erase(y_.begin());
    inverse_ys_.erase(inverse_ys_.begin());
  }
  scale_ = ys / dot(y, y);
  s_.push_back(std::move(s));
  y_.push_back(std::move(y));
  inverse_ys_.push_back(1 / ys);
}

// d = −H g by the two loops of Nocedal and Wright, algorithm 7.4.
void LBFGS::update_direction(const Vector& gradient) {
  Vector y = gradient, s = direction_;
  add(y, -1, former_gradient_);
  for (double& v : s) v *= length_;
  add_pair(std::move(s), std::move(y));
  direction_ = gradient;
  for (double& v : direction_) v = -v;
  Vector alpha(s_.size());
  for (size_t i = s_.size(); i-- > 0;) {
    alpha[i] = dot(s_[i], direction_) * inverse_ys_[i];
    add(direction_, -alpha[i], y_[i]);
  }
  for (double& v : direction_) v *= scale_;
  for (size_t i = 0; i < s_.size(); ++i) add(direction_, alpha[i] - dot(y_[i], direction_) * inverse_ys_[i], s_[i]);
}

// A step length that meets the strong Wolfe conditions, first tried at t; the point there.
LBFGS::Point LBFGS::search(const Closure& closure, const Vector& w, const Point& start, double slope, double& t) {
  const auto trial_at = [&](double at) {
    Point p = evaluate_at(closure, w, at);
    Trial trial{at, p.loss, dot(p.gradient, direction_), std::move(p.gradient)};
    return trial;
  };
  const auto too_high = [&](const Trial& p) { return p.loss > start.loss + kSufficientDecrease * p.t * slope; };
  const auto flat = [&](const Trial& p) { return std::abs(p.slope) <= -kCurvature * slope; };
  const Trial origin{0, start.loss, slope, start.gradient};

  // Lengthen until an interval holds a good step, or the step is one.
  Trial former = origin, now = trial_at(t);
  int count = 0;
  bool done = false;
  for (; count < kSearchEvaluations; ++count) {
    if (too_high(now) || (count > 1 && now.loss >= former.loss)) break;
    if ((done = flat(now)) || now.slope >= 0) break;
    const double next = lowest_of_cubic(former, now, now.t + 0.01 * (now.t - former.t), now.t * 10);
    former = std::exchange(now, trial_at(next));
  }
  std::array<Trial, 2> bracket;
  if (done)
    bracket = {now, now};
  else
    bracket = {count == kSearchEvaluations ? origin : std::move(former), std::move(now)};

  // Shrink the interval around it.
  const double reach = largest(direction_);
  bool little_progress = false;
  size_t low = bracket[0].loss <= bracket[1].loss ? 0 : 1;
  for (; !done && count < kSearchEvaluations; ++count) {
    if (std::abs(bracket[1].t - bracket[0].t) * reach < options().tolerance_change) break;
    const double left = std::min(bracket[0].t, bracket[1].t), right = std::max(bracket[0].t, bracket[1].t);
    double next = lowest_of_cubic(bracket[0], bracket[1], left, right);
    const double margin = 0.1 * (right - left);
    if (std::min(right - next, next - left) < margin) {
      if (little_progress || next >= right || next <= left) {
        next = std::abs(next - right) < std::abs(next - left) ? right - margin : left + margin;
        little_progress = false;
      } else {
        little_progress = true;
      }
    } else {
      little_progress = false;
    }
    Trial trial = trial_at(next);
    if (too_high(trial) || trial.loss >= bracket[low].loss) {
      bracket[1 - low] = std::move(trial);
      low = bracket[0].loss <= bracket[1].loss ? 0 : 1;
    } else {
      done = flat(trial);
      if (!done && trial.slope * (bracket[1 - low].t - bracket[low].t) >= 0) bracket[1 - low] = bracket[low];
      bracket[low] = std::move(trial);
    }
  }
  t = bracket[low].t;
  return {bracket[low].loss, std::move(bracket[low].gradient)};
}

double LBFGS::step(const Closure& closure) {
  NoGrad no_grad;
  const Vector before = values();
  try {
    return minimize(closure);
  } catch (...) {
    set_values(before);  // not those of a trial
    throw;
  }
}

double LBFGS::minimize(const Closure& closure) {
  const LBFGSOptions& o = options();
  const int64_t first = evaluations_, most = o.max_evaluations > 0 ? o.max_evaluations : o.max_iterations * 5 / 4;
  Point p = evaluate(closure);
  const double loss = p.loss;
  const double sign = o.maximize ? -1 : 1;
  if (!std::isfinite(loss) || !std::isfinite(sum_abs(p.gradient))) {
    HONE_CHECK(non_finite() != NonFinite::error, NumericError, "LBFGS.step: the loss (", sign * loss,
               ") or its gradient is not finite; nothing was changed (set_non_finite chooses to leave such steps out)");
    count_non_finite();
    return sign * loss;
  }
  if (largest(p.gradient) <= o.tolerance_gradient) return sign * loss;
  for (int64_t i = 1; i <= o.max_iterations; ++i) {
    if (++iterations_ == 1) {
      direction_ = p.gradient;
      for (double& v : direction_) v = -v;
    } else {
      update_direction(p.gradient);
    }
    former_gradient_ = p.gradient;
    const double former_loss = p.loss, slope = dot(p.gradient, direction_);
    length_ = iterations_ == 1 ? std::min(1.0, 1 / sum_abs(p.gradient)) * o.lr : o.lr;
    if (slope > -o.tolerance_change) break;
    Vector w = values();
    bool evaluated = true;
    if (o.strong_wolfe) {
      p = search(closure, w, p, slope, length_);
      add(w, length_, direction_);
      set_values(w);
    } else {
      add(w, length_, direction_);
      set_values(w);
      evaluated = i < o.max_iterations;  // of the last point nobody asks for the loss
      if (evaluated) p = evaluate(closure);
    }
    const bool moved = std::abs(length_) * largest(direction_) > o.tolerance_change;
    if (evaluations_ - first >= most || !evaluated || largest(p.gradient) <= o.tolerance_gradient || !moved ||
        std::abs(p.loss - former_loss) < o.tolerance_change)
      break;
  }
  return sign * loss;
}

// What follows from the pairs (inverse_ys_, scale_) is not saved.
TensorFile LBFGS::state_dict() const {
  TensorFile file = GroupedOptimizer::state_dict();
  const auto put = [&](const std::string& name, const Tensor& t) { file.tensors.emplace_back(kOwn + name, t); };
  put("iterations", detail::scalar_tensor(iterations_));
  put("evaluations", detail::scalar_tensor(evaluations_));
  put("length", detail::scalar_tensor(length_));
  put("direction", tensor(direction_));
  put("former_gradient", tensor(former_gradient_));
  put("pairs", detail::scalar_tensor(static_cast<int64_t>(s_.size())));
  for (size_t i = 0; i < s_.size(); ++i) {
    put(str("s.", i), tensor(s_[i]));
    put(str("y.", i), tensor(y_[i]));
  }
  return file;
}

void LBFGS::load_state_dict(const TensorFile& file) {
  TensorFile own, rest{{}, file.metadata};
  for (const auto& [name, t] : file.tensors) (name.starts_with(kOwn) ? own : rest).tensors.emplace_back(name, t);
  detail::StateReader reader(own, "LBFGS.load_state_dict");
  const auto vector_at = [&](const std::string& name, int64_t n) {
    return reader.take(kOwn + name, {n}, f64).to_vector<double>();
  };
  int64_t size = 0;
  for (const Entry& e : entries()) size += e.parameter.raw().numel();
  detail::StateReader(file, "LBFGS.load_state_dict").expect_kind("optimizer", name());
  const int64_t iterations = reader.count(kOwn + "iterations"), evaluations = reader.count(kOwn + "evaluations");
  const double length = reader.number<double>(kOwn + "length");
  HONE_CHECK(std::isfinite(length), FormatError, "LBFGS.load_state_dict: length must be finite, got ", length);
  const int64_t moved = iterations > 0 ? size : 0;
  Vector direction = vector_at("direction", moved), former = vector_at("former_gradient", moved);
  std::vector<std::pair<Vector, Vector>> pairs;
  for (int64_t i = 0, n = reader.count(kOwn + "pairs"); i < n; ++i) {
    Vector s = vector_at(str("s.", i), size), y = vector_at(str("y.", i), size);
    HONE_CHECK(has_curvature(dot(y, s)), FormatError, "LBFGS.load_state_dict: pair ", i, " has no curvature");
    pairs.emplace_back(std::move(s), std::move(y));
  }
  reader.finish();
  GroupedOptimizer::load_state_dict(rest);
  iterations_ = iterations;
  evaluations_ = evaluations;
  length_ = length;
  direction_ = std::move(direction);
  former_gradient_ = std::move(former);
  set_pairs(std::move(pairs));
}

void LBFGS::set_pairs(std::vector<std::pair<Vector, Vector>> pairs) {
  s_.clear();
  y_.clear();
  inverse_ys_.clear();
  scale_ = 1;
  for (auto& [s, y] : pairs) add_pair(std::move(s), std::move(y));
}

void LBFGS::apply(const Shrink& shrink) {
  int64_t offset = 0;
  const Entry* entry = nullptr;
  for (const Entry& e : entries()) {
    if (e.parameter == shrink.parameter) {
      entry = &e;
      break;
    }
    offset += e.shape.numel();
  }
  if (!entry) return;
  const Shape before = entry->shape;
  const auto kept = [&](const Vector& v) {
    const auto from = v.begin() + offset, to = from + before.numel();
    Vector out(v.begin(), from);
    for (double x : detail::sliced(tensor(Vector(from, to), before), shrink).to_vector<double>()) out.push_back(x);
    out.insert(out.end(), to, v.end());
    return out;
  };
  if (iterations_ == 0) return GroupedOptimizer::apply(shrink);
  Vector direction = kept(direction_), former = kept(former_gradient_);
  std::vector<std::pair<Vector, Vector>> pairs;
  for (size_t i = 0; i < s_.size(); ++i) pairs.emplace_back(kept(s_[i]), kept(y_[i]));
  GroupedOptimizer::apply(shrink);
  direction_ = std::move(direction);
  former_gradient_ = std::move(former);
  set_pairs(std::move(pairs));
}

}  // namespace hone::optim
