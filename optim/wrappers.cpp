#include "hone/optim/wrappers.h"

#include <cmath>

#include "hone/core/autograd.h"
#include "hone/core/basic_ops.h"
#include "hone/core/error.h"
#include "hone/ops/arithmetic.h"
#include "hone/ops/reduce.h"
#include "hone/ops/unary.h"
#include "hone/optim/parameter_list.h"
#include "hone/optim/state_reader.h"

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
    for (int64_t i = 0; i < optimizer_.size(); ++i)
      if (Tensor g = detail::writable_gradient(optimizer_.parameter(i)); g.defined())
        g.copy_(g / static_cast<double>(pending_));
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
  for (size_t i = 0; i < slow_.size(); ++i) {
    const Shape& now = optimizer_.parameter(static_cast<int64_t>(i)).raw().shape();
    HONE_CHECK(now == slow_[i].shape(), GradError, "Lookahead.step: parameter ", i, " changed its shape from ",
               slow_[i].shape(), " to ", now);
  }
  optimizer_.step();
  if (++count_ % options_.steps != 0) return;
  const NoGrad no_grad;
  for (size_t i = 0; i < slow_.size(); ++i) {
    Tensor w = optimizer_.parameter(static_cast<int64_t>(i)).raw().detach();
    slow_[i].copy_(slow_[i] + (w - slow_[i]) * options_.alpha);
    w.copy_(slow_[i]);
  }
}

void Lookahead::apply(const Shrink& shrink) {
  for (size_t i = 0; i < slow_.size(); ++i)
    if (optimizer_.parameter(static_cast<int64_t>(i)) == shrink.parameter) slow_[i] = detail::sliced(slow_[i], shrink);
}

TensorFile Lookahead::state_dict() const {
  TensorFile file;
  file.tensors.emplace_back("count", detail::scalar_tensor(count_));
  for (size_t i = 0; i < slow_.size(); ++i) file.tensors.emplace_back(str("slow.", i), clone(slow_[i]));
  return file;
}

void Lookahead::load_state_dict(const TensorFile& file) {
  detail::StateReader reader(file, "Lookahead.load_state_dict");
  const int64_t count = reader.count("count");
  std::vector<Tensor> next;
  for (size_t i = 0; i < slow_.size(); ++i)
    next.push_back(clone(reader.take(str("slow.", i), slow_[i].shape(), slow_[i].dtype())));
  reader.finish();
  slow_ = std::move(next);
  count_ = count;
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
  if (!std::isfinite(squares)) {
    optimizer_.step();
    return loss;
  }
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
