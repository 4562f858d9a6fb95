// Channels zeroed by ratio at pools and residual blocks: what is tied goes as a whole, and no place loses more than its
// share.

#include "support.h"

namespace hone::test {
namespace {

using graph::Network;

/// Plants the scores of what `fc` reads, flattened: the loss is the mean of all outputs of one image, so the gradient
/// of each element of channel c is by_channel[c].
void weigh(nn::Linear& fc, const std::vector<double>& by_channel) {
  const int64_t row = fc.in(), each = row / static_cast<int64_t>(by_channel.size());
  std::vector<float> w;
  for (int64_t o = 0; o < fc.out(); ++o)
    for (int64_t i = 0; i < row; ++i) w.push_back(static_cast<float>(by_channel[static_cast<size_t>(i / each)]));
  fc.weight.raw().detach().copy_(tensor(w, {fc.out(), row}));
}
compress::Pass mean_of(const Tensor& image, double factor = 1) {
  return [=](const auto& visit) { visit(image, [=](const Tensor& y) { return mean(y) * factor; }); };
}
Tensor flat(const Tensor& x) { return flatten(x, 1); }

int64_t rows(const Network& net, const char* weight) { return net.parameter(net.find(weight)).shape()[0]; }

/// The rows of a bias that stay, of biases 0, 1, 2 …
void number(nn::Conv2d& conv) { conv.bias.raw().detach().copy_(arange(0, static_cast<double>(conv.out()), 1, f32)); }
std::vector<double> left(const Network& net, const char* bias) {
  return net.parameter(net.find(bias)).raw().to_vector<double>();
}

struct Grouped : nn::Module {
  nn::Conv2d conv{{.in = 8, .out = 16, .kernel = 3, .padding = 1, .groups = 4}};
  nn::Linear fc{{.in = 64, .out = 3}};
  HONE_MODULE(Grouped, conv, fc)
  Tensor forward(const Tensor& x) { return fc(flat(max_pool2d(conv(x), 2))); }
};

TEST(ZeroChannels, OfAGroupedConvolutionGoOneOfEachGroup) {
  manual_seed(21);
  Grouped module;
  number(module.conv);
  // Channels c, c + 4, c + 8 and c + 12 go together. The lowest channels are of classes 0 to 2, the lowest class is 3.
  weigh(module.fc, {1, 2, 3, 10, 50, 50, 50, 10, 50, 50, 50, 10, 50, 50, 50, 10});
  const Tensor image = randn({1, 8, 4, 4});
  Network net = graph::trace(module, image);
  const auto report = compress::zero_channels(net, {.ratio = 0.25, .data = mean_of(image)});
  ASSERT_EQ(report.zeroed.size(), 1u);
  EXPECT_EQ(report.zeroed[0].layer, "max_pool2d");
  EXPECT_EQ(report.zeroed[0].channels, (std::vector<int64_t>{3, 7, 11, 15}));
  EXPECT_EQ(left(net, "conv.bias"), (std::vector<double>{0, 1, 2, 4, 5, 6, 8, 9, 10, 12, 13, 14}));
  // A share that is no whole class: as many classes as fit.
  Network less = graph::trace(module, image);
  EXPECT_EQ(compress::zero_channels(less, {.ratio = 0.44, .data = mean_of(image)}).zeroed[0].channels.size(), 4u);
  EXPECT_EQ(rows(less, "conv.weight"), 12);
}

TEST(ZeroChannels, OfADepthwiseConvolutionGoWithTheirGroup) {
  manual_seed(22);
  struct Depthwise : nn::Module {
    nn::Conv2d conv{{.in = 3, .out = 4, .kernel = 1}}, depthwise{{.in = 4, .out = 8, .kernel = 1, .groups = 4}};
    nn::Linear fc{{.in = 32, .out = 3}};
    HONE_MODULE(Depthwise, conv, depthwise, fc)
    Tensor forward(const Tensor& x) { return fc(flat(avg_pool2d(depthwise(conv(x)), 2))); }
  } module;
  number(module.depthwise);
  weigh(module.fc, {1, 9, 2, 9, 4, 4.5, 8, 8});  // pairs: 5, 5.5, 4.25, 8
  const Tensor image = randn({1, 3, 4, 4});
  Network net = graph::trace(module, image);
  const auto report = compress::zero_channels(net, {.ratio = 0.25, .data = mean_of(image)});
  EXPECT_EQ(report.zeroed[0].channels, (std::vector<int64_t>{4, 5}));
  EXPECT_EQ(left(net, "depthwise.bias"), (std::vector<double>{0, 1, 2, 3, 6, 7}));
  EXPECT_EQ(rows(net, "conv.weight"), 3);
}

TEST(ZeroChannels, OfTwoPoolsOfOneTensorAreTheSame) {
  manual_seed(23);
  struct Shared : nn::Module {
    nn::Conv2d conv{{.in = 2, .out = 8, .kernel = 1}};
    nn::Linear fc1{{.in = 32, .out = 3}}, fc2{{.in = 32, .out = 3}};
    HONE_MODULE(Shared, conv, fc1, fc2)
    Tensor forward(const Tensor& x) {
      const Tensor h = conv(x);
      return fc1(flat(max_pool2d(h, 2))) + fc2(flat(avg_pool2d(h, 2)));
    }
  } module;
  number(module.conv);
  weigh(module.fc1, {1, 2, 3, 4, 5, 6, 7, 8});
  weigh(module.fc2, {8, 8, 8, 8, 1, 1, 1, 0.5});  // sums: 9, 10, 11, 12, 6, 7, 8, 8.5
  const Tensor image = randn({1, 2, 4, 4});
  Network net = graph::trace(module, image);
  const auto report = compress::zero_channels(net, {.ratio = 0.5, .data = mean_of(image)});
  ASSERT_EQ(report.zeroed.size(), 2u);
  for (const auto& place : report.zeroed) EXPECT_EQ(place.channels, (std::vector<int64_t>{4, 5, 6, 7})) << place.layer;
  EXPECT_EQ(left(net, "conv.bias"), (std::vector<double>{0, 1, 2, 3}));
}

/// A pool before a residual add: both have the channels of conv1.
struct Residual : nn::Module {
  nn::Conv2d conv1{{.in = 2, .out = 8, .kernel = 1}}, conv2{{.in = 8, .out = 8, .kernel = 1}};
  nn::Linear fc1{{.in = 32, .out = 3}}, fc2{{.in = 128, .out = 3}};
  HONE_MODULE(Residual, conv1, conv2, fc1, fc2)
  Tensor forward(const Tensor& x) {
    const Tensor h = conv1(x);
    return fc1(flat(max_pool2d(h, 2))) + fc2(flat(h + conv2(h)));
  }
};

TEST(ZeroChannels, OfAPoolAndTheResidualAddThatTiesItAreTheSame) {
  manual_seed(24);
  Residual module;
  number(module.conv1);
  weigh(module.fc1, {1, 2, 9, 9, 3, 9, 9, 9});
  weigh(module.fc2, {9, 9, 1.5, 2, 3, 9, 9, 9});  // sums: 10, 11, 10.5, 11, 6, 18 …
  const Tensor image = randn({1, 2, 4, 4});
  Network net = graph::trace(module, image);
  const std::vector<std::string> places = {"max_pool2d", compress::residual_blocks(net).at(0)};
  const auto report = compress::zero_channels(net, {.ratio = 0.25, .places = places, .data = mean_of(image)});
  ASSERT_EQ(report.zeroed.size(), 2u);
  for (size_t i = 0; i < 2; ++i) {
    EXPECT_EQ(report.zeroed[i].layer, places[i]);
    EXPECT_EQ(report.zeroed[i].channels, (std::vector<int64_t>{0, 4})) << places[i];
  }
  EXPECT_EQ(left(net, "conv1.bias"), (std::vector<double>{1, 2, 3, 5, 6, 7}));
  EXPECT_EQ(rows(net, "conv2.weight"), 6);
}

TEST(ZeroChannels, BlockedOnesStayAndOthersGoWhileThereAreEnough) {
  manual_seed(25);
  struct Half : nn::Module {
    nn::Conv2d conv{{.in = 4, .out = 4, .kernel = 1}};
    nn::Linear fc{{.in = 32, .out = 3}};
    HONE_MODULE(Half, conv, fc)
    Tensor forward(const Tensor& x) { return fc(flat(max_pool2d(concat({x, conv(x)}, 1), 2))); }
  } module;
  weigh(module.fc, {1, 1, 1, 1, 5, 4, 7, 6});
  const Tensor image = randn({1, 4, 4, 4});
  Network net = graph::trace(module, image);
  expect_error<GraphError>([&] { compress::zero_channels(net, {.ratio = 0.75, .data = mean_of(image)}); },
                           {"6 channels of 'max_pool2d'", "input of the network"});
  expect_error<ValueError>([&] { compress::zero_channels(net, {.ratio = 0.95, .data = mean_of(image)}); },
                           {"all 8 channels of 'max_pool2d'"});
  EXPECT_EQ(rows(net, "conv.weight"), 4);
  EXPECT_EQ(compress::zero_channels(net, {.ratio = 0.25, .data = mean_of(image)}).zeroed[0].channels,
            (std::vector<int64_t>{4, 5}));
}

TEST(ZeroChannels, ScoresThatAreNoNumbersAreRefused) {
  manual_seed(26);
  Grouped module;
  weigh(module.fc, std::vector<double>(16, 1));
  const Tensor image = randn({1, 8, 4, 4});
  Network net = graph::trace(module, image);
  for (const double factor : {std::nan(""), std::numeric_limits<double>::infinity()}) {
    const compress::Pass data = mean_of(image, factor);
    expect_error<NumericError>([&] { compress::place_scores(net, {"max_pool2d"}, data); },
                               {"place_scores", "channel 0 of 'max_pool2d'", "is " + str(factor)});
    expect_error<NumericError>([&] { compress::zero_channels(net, {.ratio = 0.25, .data = data}); },
                               {"zero_channels", "'max_pool2d'"});
  }
  EXPECT_EQ(rows(net, "conv.weight"), 16);
}

TEST(ZeroChannels, ThatGrowWithTheBatchAreRefused) {
  manual_seed(27);
  struct Turned : nn::Module {
    nn::Conv2d conv{{.in = 2, .out = 4, .kernel = 1}};
    nn::Linear fc{{.in = 16, .out = 3}};
    HONE_MODULE(Turned, conv, fc)
    Tensor forward(const Tensor& x) {
      return fc(flat(permute(max_pool2d(permute(conv(x), {1, 0, 2, 3}), 2), {1, 0, 2, 3})));
    }
  } module;
  const Tensor images = randn({3, 2, 4, 4});
  Network net = graph::trace(module, images);
  expect_error<GraphError>([&] { compress::place_scores(net, {"max_pool2d"}, mean_of(images)); },
                           {"place_scores", "'max_pool2d'", "grow with the batch"});
}

TEST(ZeroChannels, WhatWouldLeaveNothingOfAnotherValueStays) {
  manual_seed(28);
  struct Halves : nn::Module {
    nn::Conv2d conv{{.in = 2, .out = 4, .kernel = 1}};
    nn::Linear fc{{.in = 16, .out = 3}};
    HONE_MODULE(Halves, conv, fc)
    Tensor forward(const Tensor& x) {
      const Tensor p = max_pool2d(conv(x), 2);
      return fc(flat(concat({slice(p, 1, 2, 4), slice(p, 1, 0, 2)}, 1)));
    }
  } module;
  number(module.conv);
  weigh(module.fc, {3, 4, 1, 2});  // of channels 2, 3, 0, 1: the lowest two are all of a half
  const Tensor image = randn({1, 2, 4, 4});
  Network net = graph::trace(module, image);
  const auto report = compress::zero_channels(net, {.ratio = 0.5, .data = mean_of(image)});
  EXPECT_EQ(report.zeroed[0].channels, (std::vector<int64_t>{0, 2}));
  EXPECT_EQ(left(net, "conv.bias"), (std::vector<double>{1, 3}));
  // Of each half one stays, whatever the share.
  Network more = graph::trace(module, image);
  EXPECT_EQ(compress::zero_channels(more, {.ratio = 0.75, .data = mean_of(image)}).zeroed[0].channels,
            (std::vector<int64_t>{0, 2}));
}

}  // namespace
}  // namespace hone::test
