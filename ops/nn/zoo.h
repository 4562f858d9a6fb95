#pragma once
// Networks of the literature.

#include <optional>

#include "hone/ops/nn/activation.h"
#include "hone/ops/nn/conv.h"
#include "hone/ops/nn/linear.h"
#include "hone/ops/nn/module.h"
#include "hone/ops/nn/norm.h"

namespace hone::nn {

struct LeNetOptions {
  double width = 1;  ///< multiplies every hidden width, rounded to the nearest, at least 1
  int64_t in = 3, classes = 10;
};

/// 5×5 convolutions 3→6 and 6→16, each with ReLU and 2×2 max pooling; linear 400→120→84→10 with ReLU between.
/// Images [N, 3, 32, 32]; 62,006 parameters and 651,720 multiply-adds an image.
/// ValueError unless width, in and classes are positive.
struct LeNet : Module {
  Conv2d conv1, conv2;
  Linear fc1, fc2, fc3;
  HONE_MODULE(LeNet, conv1, conv2, fc1, fc2, fc3)
  explicit LeNet(LeNetOptions o = {});
  Tensor forward(const Tensor& x);
};

/// Caffe's LeNet for [N, 1, 28, 28]: 5×5 convolutions to 20 and 50, each with 2×2 max pooling and no activation; linear
/// 800→500, ReLU, 500→10. 431,080 parameters: the LeNet-5 of the pruning literature.
struct LeNet5Caffe : Module {
  Conv2d conv1{{.in = 1, .out = 20, .kernel = 5}}, conv2{{.in = 20, .out = 50, .kernel = 5}};
  Linear fc1{{.in = 800, .out = 500}}, fc2{{.in = 500, .out = 10}};
  HONE_MODULE(LeNet5Caffe, conv1, conv2, fc1, fc2)
  Tensor forward(const Tensor& x);
};

/// Linear 784→300→100→10 with ReLU between, for [N, …] of 784 elements a sample; 266,610 parameters.
struct LeNet300_100 : Module {
  Linear fc1{{.in = 784, .out = 300}}, fc2{{.in = 300, .out = 100}}, fc3{{.in = 100, .out = 10}};
  HONE_MODULE(LeNet300_100, fc1, fc2, fc3)
  Tensor forward(const Tensor& x);
};

struct BasicBlockOptions {
  int64_t in = 0, out = 0, stride = 1;
};

/// relu(bn2(conv2(relu(bn1(conv1 x)))) + shortcut(x)): 3×3 convolutions; the shortcut is x itself, or a 1×1 convolution
/// with batch norm where shape changes (He et al.'s option B).
struct BasicBlock : Module {
  Conv2d conv1, conv2;
  BatchNorm2d bn1, bn2;
  std::optional<Conv2d> shortcut;
  std::optional<BatchNorm2d> shortcut_bn;
  HONE_MODULE(BasicBlock, conv1, bn1, conv2, bn2, shortcut, shortcut_bn)
  explicit BasicBlock(BasicBlockOptions o);
  Tensor forward(const Tensor& x);
};

struct ResNetOptions {
  int64_t depth = 20;  ///< 6n + 2: 8, 20, 32, 44, 56, 110
  int64_t classes = 10, in = 3, width = 16;
};

/// The ResNet for 32×32 images: 3×3 convolution to `width`, three stages of n blocks at width, 2·width and 4·width (the
/// second and third begin with stride 2), global average pooling, linear. Shortcuts that change shape are projections
/// (option B); convolutions have no bias and begin as kaiming_normal_ by fan_out. He et al., "Deep residual learning
/// for image recognition", 2015. Parameters at width 16: 78,042 at depth 8, 272,474 at depth 20. ValueError for other
/// depths.
struct ResNet : Module {
  Conv2d conv1;
  BatchNorm2d bn1;
  std::vector<BasicBlock> stage1, stage2, stage3;
  Linear fc;
  HONE_MODULE(ResNet, conv1, bn1, stage1, stage2, stage3, fc)
  explicit ResNet(ResNetOptions o = {});
  Tensor forward(const Tensor& x);
};

}  // namespace hone::nn
