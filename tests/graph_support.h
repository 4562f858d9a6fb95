#pragma once
// Networks for the tests of executors and passes.

#include <random>

#include "support.h"

namespace hone::test {

/// Dropout, batch norm, a residual add, a concat, a value with several readers, a constant, a reshape by the batch.
struct Branches : nn::Module {
  nn::Conv2d conv1{{.in = 2, .out = 4, .kernel = 3, .padding = 1}};
  nn::Conv2d conv2{{.in = 4, .out = 4, .kernel = 3, .padding = 1, .bias = false}};
  nn::BatchNorm2d bn1{{.features = 4}}, bn2{{.features = 4}};
  nn::Dropout drop{{.p = 0.4}};
  nn::Linear fc1{{.in = 8 * 9, .out = 7}}, fc2{{.in = 7, .out = 5}};
  nn::BatchNorm1d bn3{{.features = 7}};
  HONE_MODULE(Branches, conv1, bn1, conv2, bn2, drop, fc1, bn3, fc2)
  Tensor forward(const Tensor& x) {
    Tensor h = relu(bn1(conv1(x)));
    Tensor g = relu(bn2(conv2(h)) + h * 0.5);
    g = max_pool2d(concat({g, dropout2d(h, 0.3, training())}, 1), 2);
    g = reshape(g, {x.size(0), -1});
    return fc2(tanh(bn3(fc1(drop(g))))) * full({x.size(0), 1}, 2.0);
  }
};
inline Tensor branches_input(int64_t n) { return randn({n, 2, 6, 6}); }

/// Statistics and affine parameters of every batch norm away from their beginnings.
inline void disturb_norms(nn::Module& m) {
  NoGrad no_grad;
  for (const auto& [name, b] : m.named_buffers()) {
    const bool variance = name.find("var") != std::string::npos;
    b->tensor().copy_(variance ? rand(b->tensor().shape()) + 0.5 : randn(b->tensor().shape()));
  }
  for (const auto& [name, p] : m.named_parameters()) {
    if (p.raw().ndim() == 1) p.replace(rand(p.raw().shape()) + 0.5);
  }
}

/// `ops` random ops on arrays of shape [B, 4, 6], views among them, with any reader any number of times: a function of
/// `seed`.
struct RandomOps : nn::Module {
  uint64_t seed;
  int ops;
  Parameter p{randn({4, 6})};
  HONE_MODULE(RandomOps, p)
  RandomOps(uint64_t s, int n) : seed(s), ops(n) {}
  Tensor forward(const Tensor& x) {
    std::mt19937_64 rng(seed);
    std::vector<Tensor> values{x, p.value() * 0.5 + x, full(x.shape(), 0.25)};
    const auto any = [&] { return values[static_cast<size_t>(rng() % values.size())]; };
    for (int i = 0; i < ops; ++i) {
      const Tensor a = any();
      switch (rng() % 9) {
        case 0: values.push_back(relu(a)); break;
        case 1: values.push_back(tanh(a)); break;
        case 2: values.push_back(a + any()); break;
        case 3: values.push_back(a * any()); break;
        case 4: values.push_back(transpose(tanh(transpose(a)))); break;
        case 5: values.push_back(concat({slice(a, -1, 3), slice(any(), -1, 0, 3)}, -1)); break;
        case 6: values.push_back(softmax(a, 1)); break;
        case 7: values.push_back(reshape(flatten(flip(a, {-1}), 1), {x.size(0), 4, 6})); break;
        default: values.push_back(expand(unsqueeze(select(a, 1, 2), 1), {x.size(0), 4, 6}));
      }
    }
    return values.back() + any();
  }
};

/// RandomOps traced, with some of its values as outputs: results, views, inputs, parameters.
inline graph::Network random_network(uint64_t seed, int ops) {
  manual_seed(seed);
  RandomOps module(seed, ops);
  graph::Network net = graph::trace(module, randn({1, 4, 6}));
  std::mt19937_64 rng(seed + 1);
  std::vector<graph::ValueId> outputs = net.outputs();
  for (int i = 0; i < 4; ++i) outputs.push_back(static_cast<graph::ValueId>(rng() % net.values().size()));
  net.set_outputs(outputs);
  net.eval();
  return net;
}

inline std::vector<std::string> ops_of(const graph::Network& net) {
  std::vector<std::string> ops;
  for (const graph::Node& n : net.nodes()) ops.push_back(n.op->name);
  return ops;
}
inline graph::Network reloaded(const graph::Network& net) {
  return graph::from_tensor_file(graph::to_tensor_file(net));
}

inline Tensor eval(nn::Module& module, const Tensor& x) {
  NoGrad no_grad;
  const nn::ModeScope mode(module, false);
  return module.call(x);
}
/// The network, what its file gives and an executor of it: near `want`, or its very bits.
inline void expect_computes(graph::Network& net, const Tensor& x, const Tensor& want, bool bits,
                            const std::string& what) {
  graph::Network back = reloaded(net);
  graph::Executor executor(net, {.batch = x.size(0)});
  const Tensor got = eval(net, x);
  EXPECT_TRUE(equal(eval(back, x), got)) << what << ": reloaded";
  EXPECT_TRUE(equal(executor.run(x), got)) << what << ": executor";
  if (bits)
    EXPECT_TRUE(equal(got, want)) << what;
  else
    expect_close(got, want, {1e-5, 1e-5 * max(abs(want)).item()}, what);
}

}  // namespace hone::test
