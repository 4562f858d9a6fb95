#include "hone/optim/average.h"

#include <algorithm>
#include <utility>

#include "hone/core/autograd.h"
#include "hone/core/basic_ops.h"
#include "hone/core/error.h"
#include "hone/core/parallel.h"
#include "hone/optim/optimizer.h"
#include "hone/optim/parameter_list.h"
#include "hone/optim/state_reader.h"

namespace hone::optim {
namespace {

constexpr int64_t kGrain = 1 << 14;

template <class T, class A> void blend(const T* w, A* average, int64_t n, double weight) {
  const A part = static_cast<A>(weight);
  parallel_for(n, kGrain, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) average[i] += part * (static_cast<A>(w[i]) - average[i]);
  });
}

}  // namespace

WeightAverage::WeightAverage(const char* name, std::vector<ParameterRef> parameters)
    : name_(name), parameters_(std::move(parameters)), averages_(parameters_.size()) {
  detail::check_cpu_list(name, parameters_);
  for (const ParameterRef& p : parameters_) generations_.push_back(p.generation());
}

void WeightAverage::check_shapes(const char* what) const {
  for (size_t i = 0; i < parameters_.size(); ++i)
    HONE_CHECK(parameters_[i].generation() == generations_[i], GradError, name_, what, ": parameter ", i,
               " changed its shape (now ", parameters_[i].raw().shape(),
               ") or dtype; apply() the shrink or make a new average");
}

void WeightAverage::update() {
  HONE_CHECK(held_.empty(), ValueError, name_, ".update: the parameters hold the averages just now (see use())");
  check_shapes(".update");
  const NoGrad no_grad;
  const double part = weight(updates_ + 1);
  for (size_t i = 0; i < parameters_.size(); ++i) {
    const Tensor w = parameters_[i].raw().detach();
    Tensor& a = averages_[i];
    if (updates_ == 0) {
      a = w.dtype() == bf16 ? cast(w, f32) : clone(w);
      continue;
    }
    detail::visit_elements(w,
                           [&]<class T>(const T* from) { blend(from, a.data<detail::Compute<T>>(), w.numel(), part); });
  }
  ++updates_;
}

Tensor WeightAverage::average(int64_t i) const {
  HONE_CHECK(i >= 0 && i < static_cast<int64_t>(averages_.size()), ValueError, name_, ".average: parameter ", i, " of ",
             averages_.size());
  return averages_[static_cast<size_t>(i)];
}

void WeightAverage::copy_to_parameters() {
  HONE_CHECK(updates_ > 0, ValueError, name_, ": nothing was averaged yet; call update() first");
  check_shapes("");
  const NoGrad no_grad;
  for (size_t i = 0; i < parameters_.size(); ++i) {
    Tensor raw = parameters_[i].raw().detach();
    raw.copy_(cast(averages_[i], raw.dtype()));
  }
}

WeightAverage::Guard::Guard(WeightAverage& a) : average_(a) {
  HONE_CHECK(a.held_.empty(), ValueError, a.name_, ".use: the parameters hold the averages already");
  const NoGrad no_grad;
  std::vector<Tensor> held;
  for (const ParameterRef& p : a.parameters_) held.push_back(clone(p.raw().detach()));
  a.copy_to_parameters();
  a.held_ = std::move(held);
}
WeightAverage::Guard::~Guard() {
  const NoGrad no_grad;
  for (size_t i = 0; i < average_.held_.size(); ++i) {
    Tensor raw = average_.parameters_[i].raw().detach();
    raw.copy_(average_.held_[i]);
  }
  average_.held_.clear();
}

TensorFile WeightAverage::state_dict() const {
  TensorFile file;
  file.metadata["average"] = name_;
  file.tensors.emplace_back("updates", detail::scalar_tensor(updates_));
  for (size_t i = 0; i < averages_.size(); ++i)
    if (averages_[i].defined()) file.tensors.emplace_back(str("parameter.", i), clone(averages_[i]));
  return file;
}

void WeightAverage::load_state_dict(const TensorFile& file) {
  detail::StateReader reader(file, str(name_, ".load_state_dict"));
  reader.expect_kind("average", name_);
  const int64_t updates = reader.count("updates");
  std::vector<Tensor> next(parameters_.size());
  for (size_t i = 0; i < next.size() && updates > 0; ++i) {
    const Tensor& w = parameters_[i].raw();
    next[i] = clone(reader.take(str("parameter.", i), w.shape(), w.dtype() == bf16 ? f32 : w.dtype()));
  }
  reader.finish();
  averages_ = std::move(next);
  updates_ = updates;
}

void WeightAverage::apply(const Shrink& shrink) {
  const auto at = std::find(parameters_.begin(), parameters_.end(), shrink.parameter);
  if (at == parameters_.end()) return;
  HONE_CHECK(held_.empty(), ValueError, name_, ".apply: the parameters hold the averages just now (see use())");
  const size_t i = static_cast<size_t>(at - parameters_.begin());
  if (averages_[i].defined()) averages_[i] = detail::sliced(averages_[i], shrink);
  // Where several dimensions shrink, there is a call for each: the last one brings the shape that the parameter has.
  if (!averages_[i].defined() || averages_[i].shape() == at->raw().shape()) generations_[i] = at->generation();
}

EMA::EMA(const std::vector<ParameterRef>& parameters, EMAOptions options)
    : WeightAverage("EMA", parameters), options_(options) {
  detail::check_unit_interval("EMA", "decay", options.decay);
}

double EMA::weight(int64_t n) const {
  const double early = static_cast<double>(n) / static_cast<double>(n + 9);
  return 1 - (options_.warmup ? std::min(options_.decay, early) : options_.decay);
}

}  // namespace hone::optim
