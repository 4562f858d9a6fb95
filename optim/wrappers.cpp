#include "hone/optim/wrappers.h"

#include <cmath>

#include "hone/core/autograd.h"
#include "hone/core/basic_ops.h"
#include "hone/core/error.h"
#include "hone/ops/arithmetic.h"
#include "hone/ops/reduce.h"
#include "hone/ops/unary.h"

namespace hone::optim {
namespace {

double evaluate(const Closure& closure, const char* name) {
  const EnableGrad enable;
  const Tensor loss = closure();
  HONE_CHECK(loss.defined() && loss.numel() == 1, ValueError, name,
             ".step: the closure must return its loss, one number");
  return loss.item();
}

}  // namespace

GradientAccumulation::GradientAccumulation(Optimizer& optimizer, AccumulationOptions options)
    : optimizer_(optimizer), options_(options) {
  HONE_CHECK(options.steps >= 1, ValueError, "GradientAccumulation: steps must be at least 1, got ", options.steps);
}

bool GradientAccumulation::step() { return ++pending_ >= options_.steps && flush(); }

bool GradientAccumulation::flush() {
  if (pending_ == 0) return false;
  const NoGrad no_grad;
  if (pending_ > 1) {
    for (int64_t i = 0; i < optimizer_.size(); ++i) {
      Tensor g = optimizer_.parameter(i).grad();
      if (g.defined()) g.copy_(g / static_cast<double>(pending_));
    }
  }
  pending_ = 0;
  optimizer_.step();
  optimizer_.zero_grad();
  return true;
}

Lookahead::Lookahead(Optimizer& optimizer, LookaheadOptions options) : optimizer_(optimizer), options_(options) {
  HONE_CHECK(options.steps >= 1, ValueError, "Lookahead: steps must be at least 1, got ", options.steps);
  HONE_CHECK(options.alpha > 0 && options.alpha <= 1, ValueError, "Lookahead: alpha must be in (0, 1], got ",
             options.alpha);
  const NoGrad no_grad;
  for (int64_t i = 0; i < optimizer.size(); ++i) slow_.push_back(clone(optimizer.parameter(i).raw().detach()));
}

void Lookahead::step() {
  optimizer_.step();
  if (++count_ % options_.steps != 0) return;
  const NoGrad no_grad;
  for (size_t i = 0; i < slow_.size(); ++i) {
    Tensor w = optimizer_.parameter(static_cast<int64_t>(i)).raw().detach();
    HONE_CHECK(w.shape() == slow_[i].shape(), GradError, "Lookahead.step: parameter ", i, " changed its shape from ",
               slow_[i].shape(), " to ", w.shape());
    slow_[i].copy_(slow_[i] + (w - slow_[i]) * options_.alpha);
    w.copy_(slow_[i]);
  }
}

TensorFile Lookahead::state_dict() const {
  TensorFile file;
  file.tensors.emplace_back("count", tensor(std::vector<int64_t>{count_}, Shape{}));
  for (size_t i = 0; i < slow_.size(); ++i) file.tensors.emplace_back(str("slow.", i), clone(slow_[i]));
  return file;
}

void Lookahead::load_state_dict(const TensorFile& file) {
  const Tensor& count = file.at("count");
  HONE_CHECK(count.dtype() == i64 && count.ndim() == 0 && count.item<int64_t>() >= 0, FormatError,
             "Lookahead.load_state_dict: 'count' must be one whole number, at least 0");
  HONE_CHECK(file.tensors.size() == slow_.size() + 1, FormatError, "Lookahead.load_state_dict: the state has ",
             file.tensors.size() - 1, " slow weights, expected ", slow_.size());
  std::vector<Tensor> next;
  for (size_t i = 0; i < slow_.size(); ++i) {
    const Tensor& t = file.at(str("slow.", i));
    HONE_CHECK(t.shape() == slow_[i].shape() && t.dtype() == slow_[i].dtype(), FormatError,
               "Lookahead.load_state_dict: entry 'slow.", i, "' is ", t.dtype(), " ", t.shape(), ", expected ",
               slow_[i].dtype(), " ", slow_[i].shape());
    next.push_back(clone(t));
  }
  slow_ = std::move(next);
  count_ = count.item<int64_t>();
}

SAM::SAM(Optimizer& optimizer, SAMOptions options) : optimizer_(optimizer), options_(options) {
  detail::check_at_least_zero("SAM", "rho", options.rho);
}

double SAM::step(const Closure& closure) {
  const double loss = evaluate(closure, "SAM");
  const NoGrad no_grad;
  double squares = 0;
  std::vector<Tensor> directions(static_cast<size_t>(optimizer_.size()));
  for (size_t i = 0; i < directions.size(); ++i) {
    const ParameterRef& p = optimizer_.parameter(static_cast<int64_t>(i));
    const Tensor g = p.grad();
    if (!g.defined()) continue;
    const Tensor scaled = options_.adaptive ? abs(p.raw().detach()) * g : g.detach();
    squares += sum(square(cast(scaled, f64))).item();
    directions[i] = options_.adaptive ? abs(p.raw().detach()) * scaled : scaled;
  }
  HONE_CHECK(std::isfinite(squares), NumericError, "SAM.step: the gradient is not finite; nothing was changed");
  std::vector<Tensor> before(directions.size());
  const auto restore = [&] {
    for (size_t i = 0; i < before.size(); ++i) {
      if (!before[i].defined()) continue;
      Tensor w = optimizer_.parameter(static_cast<int64_t>(i)).raw().detach();
      w.copy_(before[i]);
    }
  };
  const double scale = squares > 0 ? options_.rho / std::sqrt(squares) : 0;
  for (size_t i = 0; i < directions.size(); ++i) {
    if (!directions[i].defined()) continue;
    Tensor w = optimizer_.parameter(static_cast<int64_t>(i)).raw().detach();
    before[i] = clone(w);
    w.copy_(w + directions[i] * scale);
  }
  try {
    evaluate(closure, "SAM");
  } catch (...) {
    restore();
    throw;
  }
  restore();
  optimizer_.step();
  return loss;
}

}  // namespace hone::optim
