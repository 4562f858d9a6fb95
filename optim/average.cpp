#include "hone/optim/average.h"

#include <algorithm>
#include <utility>

#include "hone/core/autograd.h"
#include "hone/core/basic_ops.h"
#include "hone/core/error.h"
#include "hone/core/parallel.h"
#include "hone/optim/optimizer.h"
#include "hone/optim/parameter_list.h"

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
  HONE_CHECK(!parameters_.empty(), ValueError, name, ": the list of parameters is empty");
  for (size_t i = 0; i < parameters_.size(); ++i) {
    HONE_CHECK(parameters_[i].defined(), ValueError, name, ": parameter ", i, " is undefined");
    HONE_CHECK(parameters_[i].raw().device() == cpu, DeviceError, name, ": parameter ", i, " is on ",
               parameters_[i].raw().device(), "; weights are averaged on the cpu");
    generations_.push_back(parameters_[i].generation());
  }
}

void WeightAverage::check_shapes(const char* what) const {
  for (size_t i = 0; i < parameters_.size(); ++i)
    HONE_CHECK(parameters_[i].generation() == generations_[i], GradError, name_, what, ": parameter ", i,
               " changed its shape (now ", parameters_[i].raw().shape(), ") or dtype; make a new average");
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
  file.tensors.emplace_back("updates", tensor(std::vector<int64_t>{updates_}, Shape{}));
  for (size_t i = 0; i < averages_.size(); ++i)
    if (averages_[i].defined()) file.tensors.emplace_back(str("parameter.", i), clone(averages_[i]));
  return file;
}

void WeightAverage::load_state_dict(const TensorFile& file) {
  const auto kind = file.metadata.find("average");
  HONE_CHECK(kind != file.metadata.end() && kind->second == name_, FormatError, name_,
             ".load_state_dict: the state is of '",
             kind == file.metadata.end() ? std::string("something else") : kind->second, "'");
  const Tensor& count = file.at("updates");
  HONE_CHECK(count.dtype() == i64 && count.ndim() == 0 && count.item<int64_t>() >= 0, FormatError, name_,
             ".load_state_dict: 'updates' must be one whole number, at least 0");
  const int64_t updates = count.item<int64_t>();
  const size_t expected = updates > 0 ? parameters_.size() : 0;
  HONE_CHECK(file.tensors.size() == expected + 1, FormatError, name_, ".load_state_dict: the state has ",
             file.tensors.size() - 1, " averages, expected ", expected);
  std::vector<Tensor> next(parameters_.size());
  for (size_t i = 0; i < expected; ++i) {
    const std::string entry = str("parameter.", i);
    const Tensor &t = file.at(entry), &w = parameters_[i].raw();
    const DType dtype = w.dtype() == bf16 ? f32 : w.dtype();
    HONE_CHECK(t.shape() == w.shape() && t.dtype() == dtype, FormatError, name_, ".load_state_dict: entry '", entry,
               "' is ", t.dtype(), " ", t.shape(), ", expected ", dtype, " ", w.shape());
    next[i] = clone(t);
  }
  averages_ = std::move(next);
  updates_ = updates;
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
