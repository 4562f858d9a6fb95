#pragma once
// Networks to pack, and what must come back.

#include <cstring>

#include "support.h"

namespace hone::test {

using compress::Coder;
using compress::Packed;
using compress::PackOptions;
using graph::Network;
using Bytes = std::vector<uint8_t>;

/// Every kind of value and attribute, both modes, masks.
struct Sample : nn::Module {
  nn::Conv2d conv{{.in = 1, .out = 4, .kernel = 3, .padding = 1}};
  nn::BatchNorm2d bn{{.features = 4}};
  nn::Dropout drop{{.p = 0.25}};
  nn::Linear fc1{{.in = 64, .out = 100}}, fc2{{.in = 100, .out = 3}};
  HONE_MODULE(Sample, conv, bn, drop, fc1, fc2)
  Tensor forward(const Tensor& x) {
    Tensor h = max_pool2d(clamp(bn(conv(x)), -1.0, 2.5), 2);
    h = drop(cast(cast(h, f64), f32));
    return fc2(relu(fc1(reshape(h, {x.size(0), -1})))) + full({x.size(0), 3}, 0.125);
  }
};

inline Network sample_network(uint64_t seed) {
  const NoGrad no_grad;
  manual_seed(seed);
  Sample net;
  net.fc1.weight.ref().set_mask(lt(rand({100, 64}), 0.05));
  net.fc2.weight.ref().set_mask(lt(rand({3, 100}), 0.5), MaskGradient::dense);
  Tensor(net.fc2.weight.raw()).copy_(round(net.fc2.weight.raw().detach() * 40.0) / 40.0);  // few values
  net.conv.weight.ref().set_mask(zeros({4, 1, 3, 3}, DType::boolean));
  Tensor(net.bn.weight.raw()).requires_grad_(false);
  Tensor(net.bn.running_mean.tensor()).copy_(randn({4}));
  return graph::trace(net, randn({1, 1, 8, 8}));
}

/// Weights of LeNet: `density` of them, of `values` values, for each layer its own.
inline Network lenet(double density, int64_t values, uint64_t seed = 1) {
  const NoGrad no_grad;
  manual_seed(seed);
  nn::LeNet net;
  for (const auto& [name, p] : net.named_parameters()) {
    if (p.raw().ndim() < 2) continue;
    const Tensor scaled =
        p.raw().detach() / max(abs(p.raw().detach())).item() * (static_cast<double>(values) / 2 - 0.51);
    Tensor(p.raw()).copy_((floor(scaled) + 0.5) / 64.0);
    p.set_mask(lt(rand(p.raw().shape()), density));
  }
  return graph::trace(net, zeros({1, 3, 32, 32}));
}

/// Of every parameter: name, dtype, the bits of value(), the mask and how it trains.
inline void expect_same_parameters(Network& a, Network& b) {
  const auto p = a.named_parameters(), q = b.named_parameters();
  ASSERT_EQ(p.size(), q.size());
  for (size_t i = 0; i < p.size(); ++i) {
    const ParameterRef &x = p[i].parameter, &y = q[i].parameter;
    EXPECT_EQ(p[i].name, q[i].name);
    ASSERT_EQ(x.raw().dtype(), y.raw().dtype()) << p[i].name;
    ASSERT_EQ(x.raw().shape(), y.raw().shape()) << p[i].name;
    EXPECT_EQ(x.type(), y.type());
    EXPECT_EQ(x.mask_gradient(), y.mask_gradient());
    EXPECT_EQ(x.raw().requires_grad(), y.raw().requires_grad()) << p[i].name;
    if (x.mask().defined()) {
      EXPECT_TRUE(equal(x.mask(), y.mask())) << p[i].name;
      EXPECT_TRUE(equal(x.value(), y.value())) << p[i].name;
    } else {
      const Tensor u = contiguous(x.raw().detach()), v = contiguous(y.raw().detach());
      const auto bytes = static_cast<size_t>(u.numel() * size_of(u.dtype()));
      EXPECT_TRUE(bytes == 0 || std::memcmp(u.raw_data(), v.raw_data(), bytes) == 0) << p[i].name;
    }
  }
}

/// y = w ⊙ x, w of any dtype and values.
inline Network product(const Tensor& w, const Tensor& mask = {}, const std::string& name = "w") {
  Network net;
  graph::Dims dims{{0, 1}};
  for (const int64_t n : w.shape()) dims.push_back({n, 0});
  const graph::ValueId x = net.add_input("x", w.dtype(), dims);
  Parameter p(clone(w));
  if (mask.defined()) p.ref().set_mask(mask);
  const graph::ValueId v = net.add_parameter(name, std::move(p));
  net.set_outputs({net.add_node(
      {.name = "y", .op = &kMul, .inputs = {x, v}, .outputs = {}, .attributes = {Attrs(kMul.attributes), {}}})});
  return net;
}

}  // namespace hone::test
