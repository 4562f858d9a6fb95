#pragma once
// Random networks of every coupling, and what a network computes with its pruned channels held at 0.

#include <functional>
#include <random>
#include <utility>
#include <vector>

#include "support.h"

namespace hone::test {

/// A program of convolutions (dense, grouped, depthwise), batch norms, residual adds, concats, pools and linear layers,
/// drawn from `seed`. Images [N, 3, 8, 8], five outputs.
struct RandomNet : nn::Module {
  std::vector<nn::Conv2d> convs;
  std::vector<nn::BatchNorm2d> norms;
  std::vector<nn::Linear> layers;
  using Step = std::function<Tensor(RandomNet&, const Tensor&)>;
  std::vector<Step> steps;
  HONE_MODULE(RandomNet, convs, norms, layers)

  explicit RandomNet(uint64_t seed) : random_(seed) {
    conv(2 + 2 * draw(3), 1);
    for (int i = 0, n = 2 + draw(4); i < n; ++i) block();
    if (size_ > 1 && draw(2)) pool();
    head();
  }
  Tensor forward(const Tensor& x) {
    Tensor h = x;
    for (const Step& s : steps) h = s(*this, h);
    return h;
  }

 private:
  int draw(int n) { return static_cast<int>(random_() % static_cast<uint64_t>(n)); }
  size_t new_conv(int64_t in, int64_t out, int64_t kernel, int64_t groups) {
    convs.push_back(nn::Conv2d(
        {.in = in, .out = out, .kernel = kernel, .padding = kernel / 2, .groups = groups, .bias = draw(2) == 0}));
    return convs.size() - 1;
  }
  size_t new_norm(int64_t features) {
    norms.push_back(nn::BatchNorm2d({.features = features}));
    Tensor mean = norms.back().running_mean.tensor(), var = norms.back().running_var.tensor();
    mean.copy_(randn(mean.shape()));
    var.copy_(rand(var.shape()) + 0.5);
    Tensor weight = norms.back().weight.raw().detach(), bias = norms.back().bias.raw().detach();
    weight.copy_(randn(weight.shape()));
    bias.copy_(randn(bias.shape()));
    return norms.size() - 1;
  }
  void conv(int64_t out, int64_t groups) {
    const size_t c = new_conv(channels_, out, draw(2) ? 3 : 1, groups);
    steps.push_back([c](RandomNet& m, const Tensor& x) { return m.convs[c](x); });
    channels_ = out;
    if (draw(2)) {
      const size_t b = new_norm(out);
      steps.push_back([b](RandomNet& m, const Tensor& x) { return m.norms[b](x); });
    }
    activation();
  }
  void activation() {
    switch (draw(4)) {
      case 0: return steps.push_back([](RandomNet&, const Tensor& x) { return relu(x); });
      case 1: return steps.push_back([](RandomNet&, const Tensor& x) { return tanh(x); });
      case 2: return steps.push_back([](RandomNet&, const Tensor& x) { return x * 0.5; });
      default: return;
    }
  }
  void pool() {
    const bool average = draw(2) == 0;
    steps.push_back([average](RandomNet&, const Tensor& x) { return average ? avg_pool2d(x, 2) : max_pool2d(x, 2); });
    size_ /= 2;
  }
  void block() {
    switch (draw(7)) {
      case 0: return conv(2 + 2 * draw(4), 1);
      case 1: return conv(channels_, channels_);                                  // depthwise
      case 2: return conv(channels_ * 2, channels_);                              // depthwise, two outputs a channel
      case 3: return channels_ % 2 == 0 ? conv(4 + 4 * draw(2), 2) : conv(6, 1);  // grouped
      case 4: {  // residual: a branch of two convolutions
        const int64_t inner = 3 + draw(3);
        const size_t a = new_conv(channels_, inner, 3, 1), b = new_conv(inner, channels_, 1, 1),
                     n = new_norm(channels_);
        return steps.push_back(
            [=](RandomNet& m, const Tensor& x) { return relu(m.norms[n](m.convs[b](m.convs[a](x))) + x); });
      }
      case 5: {  // concat with a branch
        const int64_t more = 2 + draw(3);
        const size_t a = new_conv(channels_, more, 3, 1);
        const bool first = draw(2) == 0;
        steps.push_back([=](RandomNet& m, const Tensor& x) {
          const Tensor y = relu(m.convs[a](x));
          return first ? concat({y, x}, 1) : concat({x, y}, 1);
        });
        channels_ += more;
        return;
      }
      default:
        if (size_ > 2) pool();
    }
  }
  void linear(int64_t in, int64_t out) {
    layers.push_back(nn::Linear({.in = in, .out = out}));
    const size_t l = layers.size() - 1;
    steps.push_back([l](RandomNet& m, const Tensor& x) { return m.layers[l](x); });
  }
  void head() {
    int64_t features = channels_ * size_ * size_;
    if (draw(3) == 0) {
      steps.push_back([](RandomNet&, const Tensor& x) { return flatten(adaptive_avg_pool2d(x, 1), 1); });
      features = channels_;
    } else if (draw(2)) {
      steps.push_back([](RandomNet&, const Tensor& x) { return reshape(x, {x.size(0), -1}); });
    } else {
      steps.push_back([](RandomNet&, const Tensor& x) { return flatten(x, 1); });
    }
    linear(features, 6);
    steps.push_back([](RandomNet&, const Tensor& x) { return relu(x); });
    linear(6, 5);
  }

  std::mt19937_64 random_;
  int64_t channels_ = 3, size_ = 8;
};

/// The network with each element of these channels multiplied by 0 wherever a value has them: what pruning must equal.
inline graph::Network held_at_zero(const graph::Network& network, const std::vector<compress::Channel>& channels) {
  graph::Network net = network;
  std::map<std::pair<graph::ValueId, int64_t>, std::vector<int64_t>> places;
  for (const compress::Channel& c : channels)
    for (const compress::ChannelSlice& s : c.slices) {
      auto& list = places[{s.value, s.dim}];
      list.insert(list.end(), s.indices.begin(), s.indices.end());
    }
  for (const auto& [at, indices] : places) {
    const auto [v, dim] = at;
    const graph::Value value = net.value(v);
    if (!is_floating(value.dtype)) continue;  // places of a max pool
    Shape shape = Shape::filled(static_cast<int>(value.shape.size()), 1);
    shape[dim] = value.shape[static_cast<size_t>(dim)].fixed;
    Tensor mask = ones(shape, value.dtype);
    for (const int64_t i : indices) Tensor(select(mask, dim, i)).fill_(0);
    if (value.kind == graph::ValueKind::parameter) {
      Tensor raw = net.parameter(v).raw().detach();
      NoGrad no_grad;
      raw.copy_(raw * mask);
    } else if (value.kind == graph::ValueKind::result) {
      const size_t maker = static_cast<size_t>(net.value(v).index);
      if (net.nodes()[maker].op == &kBatchNorm && net.nodes()[maker].outputs[0] != v) continue;  // its statistics
      const graph::ValueId m = net.add_constant("mask", mask);
      const graph::ValueId masked = net.add_node(
          {.name = "held", .op = &kMul, .inputs = {v, m}, .outputs = {}, .attributes = {Attrs(kMul.attributes), {}}},
          maker + 1);
      net.replace_uses(v, masked);
      net.node(maker + 1).inputs[0] = v;
    }
  }
  net.refresh();
  return net;
}

}  // namespace hone::test
