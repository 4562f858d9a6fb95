#include "hone/compress/distill/teacher.h"

#include "hone/core/autograd.h"
#include "hone/core/basic_ops.h"
#include "hone/core/error.h"

namespace hone::compress {

Teacher::Teacher(const nn::Module& network) : network_(network.clone()) {
  network_->eval();
  network_->requires_grad_(false);
}

Tensor Teacher::logits(const Tensor& inputs) const {
  const NoGrad no_grad;
  return network_(inputs);
}

SelfTeacher::SelfTeacher(nn::Module& student, optim::EMAOptions options)
    : student_(student),
      parameters_(student.named_parameters()),
      ema_(student.parameters(), options),
      average_(student) {
  for (const auto& [name, p] : parameters_) generations_.push_back(p.generation());
}

void SelfTeacher::update() {
  for (size_t i = 0; i < parameters_.size(); ++i) {
    const auto& [name, p] = parameters_[i];
    HONE_CHECK(p.generation() == generations_[i], GradError, "SelfTeacher.update: parameter '", name,
               "' changed its shape (now ", p.raw().shape(), ") or dtype; make a new SelfTeacher");
  }
  const auto from = student_.named_buffers(), to = network().named_buffers();
  for (size_t i = 0; i < to.size(); ++i)
    HONE_CHECK(from[i].buffer->tensor().shape() == to[i].buffer->tensor().shape(), ShapeError,
               "SelfTeacher.update: buffer '", from[i].name, "' changed its shape from ",
               to[i].buffer->tensor().shape(), " to ", from[i].buffer->tensor().shape(), "; make a new SelfTeacher");
  ema_.update();
  const NoGrad no_grad;
  const auto averages = network().parameters();
  for (size_t i = 0; i < averages.size(); ++i) {
    const ParameterRef &p = parameters_[i].parameter, &average = averages[i];
    if (p.type() != WeightType::dense || average.type() != WeightType::dense) average.assign(p);
    Tensor raw = average.raw();
    raw.copy_(ema_.average(static_cast<int64_t>(i)));
  }
  for (size_t i = 0; i < to.size(); ++i) to[i].buffer->tensor().copy_(from[i].buffer->tensor());
}

}  // namespace hone::compress
