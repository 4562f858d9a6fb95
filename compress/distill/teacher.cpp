#include "hone/compress/distill/teacher.h"

#include "hone/core/autograd.h"
#include "hone/core/basic_ops.h"

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
    : student_(student), ema_(student.parameters(), options), average_(student) {}

void SelfTeacher::update() {
  ema_.update();
  const NoGrad no_grad;
  const auto parameters = network().parameters();
  for (size_t i = 0; i < parameters.size(); ++i) {
    Tensor raw = parameters[i].raw();
    raw.copy_(ema_.average(static_cast<int64_t>(i)));
  }
  const auto from = student_.named_buffers(), to = network().named_buffers();
  for (size_t i = 0; i < to.size(); ++i) to[i].buffer->tensor().copy_(from[i].buffer->tensor());
}

}  // namespace hone::compress
