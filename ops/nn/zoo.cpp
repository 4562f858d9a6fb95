#include "hone/ops/nn/zoo.h"

#include <algorithm>
#include <cmath>

#include "hone/ops/arithmetic.h"
#include "hone/ops/nn/init.h"
#include "hone/ops/pool.h"
#include "hone/ops/shape_ops.h"

namespace hone::nn {

namespace {

int64_t scaled(int64_t channels, double width) {
  return std::max<int64_t>(1, std::llround(static_cast<double>(channels) * width));
}

const LeNetOptions& checked(const LeNetOptions& o) {
  HONE_CHECK(o.width > 0 && o.width <= 1024, ValueError, "LeNet: width must be in (0, 1024], is ", o.width);
  return o;
}

}  // namespace

LeNet::LeNet(LeNetOptions o)
    : conv1({.in = o.in, .out = scaled(6, checked(o).width), .kernel = 5}),
      conv2({.in = conv1.out(), .out = scaled(16, o.width), .kernel = 5}),
      fc1({.in = conv2.out() * 25, .out = scaled(120, o.width)}),
      fc2({.in = fc1.out(), .out = scaled(84, o.width)}),
      fc3({.in = fc2.out(), .out = o.classes}) {}

Tensor LeNet::forward(const Tensor& x) {
  Tensor h = max_pool2d(relu(conv1(x)), 2);
  h = flatten(max_pool2d(relu(conv2(h)), 2), 1);
  return fc3(relu(fc2(relu(fc1(h)))));
}

Tensor LeNet5Caffe::forward(const Tensor& x) {
  const Tensor h = max_pool2d(conv1(x), 2);
  return fc2(relu(fc1(flatten(max_pool2d(conv2(h), 2), 1))));
}

Tensor LeNet300_100::forward(const Tensor& x) { return fc3(relu(fc2(relu(fc1(flatten(x, 1)))))); }

BasicBlock::BasicBlock(BasicBlockOptions o)
    : conv1({.in = o.in, .out = o.out, .kernel = 3, .stride = o.stride, .padding = 1, .bias = false}),
      conv2({.in = o.out, .out = o.out, .kernel = 3, .padding = 1, .bias = false}),
      bn1({.features = o.out}),
      bn2({.features = o.out}) {
  if (o.in == o.out && o.stride == 1) return;
  shortcut.emplace(Conv2dOptions{.in = o.in, .out = o.out, .kernel = 1, .stride = o.stride, .bias = false});
  shortcut_bn.emplace(BatchNormOptions{.features = o.out});
}

Tensor BasicBlock::forward(const Tensor& x) {
  const Tensor h = bn2(conv2(relu(bn1(conv1(x)))));
  return relu(h + (shortcut ? (*shortcut_bn)((*shortcut)(x)) : x));
}

ResNet::ResNet(ResNetOptions o)
    : conv1({.in = o.in, .out = o.width, .kernel = 3, .padding = 1, .bias = false}),
      bn1({.features = o.width}),
      fc({.in = 4 * o.width, .out = o.classes}) {
  HONE_CHECK(o.depth >= 8 && o.depth % 6 == 2, ValueError, "ResNet: depth must be 6n + 2 with n >= 1, is ", o.depth);
  const int64_t blocks = (o.depth - 2) / 6;
  for (int64_t i = 0; i < blocks; ++i) {
    const bool first = i == 0;
    stage1.emplace_back(BasicBlockOptions{o.width, o.width, 1});
    stage2.emplace_back(BasicBlockOptions{first ? o.width : 2 * o.width, 2 * o.width, first ? 2 : 1});
    stage3.emplace_back(BasicBlockOptions{first ? 2 * o.width : 4 * o.width, 4 * o.width, first ? 2 : 1});
  }
  for (const auto& [name, m] : named_modules()) {
    if (auto* conv = dynamic_cast<Conv2d*>(m)) init::kaiming_normal_(conv->weight, {.fan = init::Fan::out});
  }
}

Tensor ResNet::forward(const Tensor& x) {
  Tensor h = relu(bn1(conv1(x)));
  for (auto* stage : {&stage1, &stage2, &stage3})
    for (BasicBlock& block : *stage) h = block(h);
  return fc(flatten(adaptive_avg_pool2d(h, 1), 1));
}

}  // namespace hone::nn
