// Masked Parameters: values, gradients, copies, files, shrinks, and training behind a mask.

#include "support.h"

namespace hone::test {
namespace {

Tensor alternating(const Shape& shape) {
  std::vector<bool> m(static_cast<size_t>(shape.numel()));
  for (size_t i = 0; i < m.size(); ++i) m[i] = i % 3 != 0;
  Tensor t = empty(shape, DType::boolean);
  for (size_t i = 0; i < m.size(); ++i) t.data<bool>()[i] = m[i];
  return t;
}

TEST(MaskedParameter, ValueIsZeroWhereTheMaskIsFalse) {
  manual_seed(1);
  Parameter p(randn({3, 4}));
  const std::vector<double> raw = p.raw().to_vector<double>();
  const uint64_t generation = p.ref().generation();
  p.ref().set_mask(alternating({3, 4}));
  EXPECT_EQ(p.ref().type(), WeightType::masked);
  EXPECT_EQ(p.ref().generation(), generation);
  EXPECT_EQ(p.raw().to_vector<double>(), raw);
  const std::vector<double> value = p.value().to_vector<double>();
  for (size_t i = 0; i < raw.size(); ++i) EXPECT_EQ(value[i], i % 3 != 0 ? raw[i] : 0.0) << i;
}

TEST(MaskedParameter, GradientIsMaskedOrDenseAsAsked) {
  Parameter p(full({4}, 2.0));
  const Tensor keep = tensor({true, false, true, false});
  const Tensor c = tensor(std::vector<float>{1, 2, 3, 4});
  p.ref().set_mask(keep);
  sum(p.value() * c).backward();
  EXPECT_EQ(p.grad().to_vector<double>(), (std::vector<double>{1, 0, 3, 0}));
  p.ref().zero_grad();
  p.ref().set_mask(keep, MaskGradient::dense);
  sum(p.value() * c).backward();
  EXPECT_EQ(p.grad().to_vector<double>(), (std::vector<double>{1, 2, 3, 4}));
}

TEST(MaskedParameter, MaskIsACopy) {
  Parameter p(ones({2}));
  Tensor mask = tensor({true, false});
  p.ref().set_mask(mask);
  mask.fill_(1);
  EXPECT_EQ(p.value().to_vector<double>(), (std::vector<double>{1, 0}));
}

TEST(MaskedParameter, CopiesKeepTheMaskUnderANewIdentity) {
  Parameter p(full({3}, 5.0));
  p.ref().set_mask(tensor({true, false, true}), MaskGradient::dense);
  Parameter copy = p;
  EXPECT_NE(copy.ref(), p.ref());
  EXPECT_EQ(copy.ref().mask_gradient(), MaskGradient::dense);
  EXPECT_EQ(copy.value().to_vector<double>(), (std::vector<double>{5, 0, 5}));
  p.ref().set_mask(tensor({false, false, false}));
  EXPECT_EQ(copy.value().to_vector<double>(), (std::vector<double>{5, 0, 5}));
  p.ref().bake_mask();
  EXPECT_EQ(p.ref().type(), WeightType::dense);
  EXPECT_FALSE(p.ref().mask().defined());
  EXPECT_EQ(p.raw().to_vector<double>(), (std::vector<double>{0, 0, 0}));
}

TEST(MaskedParameter, RefusesWhatIsNoMask) {
  Parameter p(ones({2, 2}));
  expect_error<DTypeError>([&] { p.ref().set_mask(ones({2, 2})); }, {"bool", "f32"});
  expect_error<ShapeError>([&] { p.ref().set_mask(zeros({4}, DType::boolean)); }, {"[4]", "[2, 2]"});
  expect_error<ValueError>([&] { p.ref().set_mask({}); }, "undefined");
  EXPECT_EQ(p.ref().type(), WeightType::dense);
  p.ref().set_mask(ones({2, 2}, DType::boolean));
  expect_error<ShapeError>([&] { p.ref().replace(ones({3})); }, "shrink");
  EXPECT_EQ(p.shape(), (Shape{2, 2}));
}

TEST(MaskedParameter, ShrinksWithItsMaskGradientAndOptimizerState) {
  Parameter p(tensor(std::vector<float>{0, 1, 2, 3, 4, 5}, {2, 3}));
  p.ref().set_mask(tensor({true, true, false, false, true, true}, {2, 3}));
  optim::Adam adam({p.ref()}, {.lr = 0});
  sum(square(p.value())).backward();
  adam.step();
  const uint64_t generation = p.ref().generation();
  const Shrink shrink = p.ref().shrink(1, {0, 2});
  EXPECT_EQ(p.ref().generation(), generation + 1);
  EXPECT_EQ(p.raw().to_vector<double>(), (std::vector<double>{0, 2, 3, 5}));
  EXPECT_EQ(p.ref().mask().to_vector<bool>(), (std::vector<bool>{true, false, false, true}));
  EXPECT_EQ(p.grad().to_vector<double>(), (std::vector<double>{0, 0, 0, 10}));
  EXPECT_TRUE(p.raw().requires_grad());
  expect_error<GradError>([&] { adam.step(); }, "parameter 0");
  adam.apply(shrink);
  EXPECT_EQ(adam.state(p.ref(), 0).shape(), (Shape{2, 2}));
  adam.step();
  expect_error<ValueError>([&] { p.ref().shrink(0, {}); }, "at least one");
  expect_error<ValueError>([&] { p.ref().shrink(0, {1, 0}); }, "0");
  expect_error<ValueError>([&] { p.ref().shrink(0, {2}); }, "2");
  expect_error<ShapeError>([&] { p.ref().shrink(2, {0}); }, "dim 2");
}

TEST(MaskedParameter, WhatIsMaskedStaysZeroUnderEveryUpdate) {
  manual_seed(3);
  for (const int kind : {0, 1, 2, 3}) {
    Parameter p(randn({20}));
    const Tensor mask = alternating({20});
    p.ref().set_mask(mask);
    std::unique_ptr<optim::Optimizer> o;
    if (kind == 0)
      o = std::make_unique<optim::SGD>(std::vector{p.ref()}, optim::SGDOptions{.lr = 0.1, .momentum = 0.9});
    if (kind == 1)
      o = std::make_unique<optim::Adam>(std::vector{p.ref()}, optim::AdamOptions{.lr = 0.1, .weight_decay = 0.1});
    if (kind == 2) o = std::make_unique<optim::Lion>(std::vector{p.ref()}, optim::LionOptions{.lr = 0.1});
    if (kind == 3) o = std::make_unique<optim::LBFGS>(std::vector{p.ref()});
    for (int i = 0; i < 5; ++i)
      o->step([&] {
        o->zero_grad();
        Tensor loss = sum(square(p.value() - 1.0));
        loss.backward();
        return loss;
      });
    const std::vector<double> v = p.value().to_vector<double>();
    for (size_t i = 0; i < v.size(); ++i) EXPECT_EQ(v[i] == 0, i % 3 == 0) << o->name() << " element " << i;
  }
}

TEST(MaskedModule, StateDictHoldsMasksAndLoadingBringsThem) {
  manual_seed(5);
  nn::Linear a{{.in = 3, .out = 2}}, b{{.in = 3, .out = 2}};
  a.weight.ref().set_mask(alternating({2, 3}));
  const TensorFile file = a.state_dict();
  ASSERT_EQ(file.tensors.size(), 3u);
  EXPECT_EQ(file.tensors[1].first, "weight.mask");
  b.load_state_dict(file);
  EXPECT_EQ(b.weight.ref().type(), WeightType::masked);
  EXPECT_TRUE(equal(b.weight.value(), a.weight.value()));
  EXPECT_TRUE(equal(b.weight.raw(), a.weight.raw()));

  // A masked module takes no file without its mask, and a damaged mask changes nothing.
  nn::Linear dense{{.in = 3, .out = 2}};
  expect_error<FormatError>([&] { a.load_state_dict(dense.state_dict()); }, "missing: weight.mask");
  TensorFile damaged = file;
  damaged.tensors[1].second = zeros({2, 3}, DType::u8);
  expect_error<DTypeError>([&] { dense.load_state_dict(damaged); }, {"weight.mask", "u8"});
  damaged.tensors[1].second = zeros({3, 2}, DType::boolean);
  expect_error<ShapeError>([&] { dense.load_state_dict(damaged); }, {"weight.mask", "[3, 2]"});
  EXPECT_EQ(dense.weight.ref().type(), WeightType::dense);
  damaged.tensors.emplace_back("nothing.mask", zeros({1}, DType::boolean));
  expect_error<FormatError>([&] { dense.load_state_dict(damaged); }, "unexpected: nothing.mask");
}

TEST(MaskedModule, CheckpointResumesToTheSameBytes) {
  const TempDir dir;
  const Tensor x = rand({8, 3}), y = rand({8, 2});
  struct Run {
    nn::Linear net{{.in = 3, .out = 2}};
    optim::Adam adam{net.parameters(), {.lr = 0.1}};
    train::Checkpoint checkpoint;
    Run() { checkpoint.add("m", net).add("o", adam); }
    void steps(int n, const Tensor& x, const Tensor& y) {
      for (int i = 0; i < n; ++i) {
        adam.zero_grad();
        mse_loss(net(x), y).backward();
        adam.step();
      }
    }
  };
  Run whole, first, second;
  second.net.load_state_dict(first.net.state_dict());
  whole.net.load_state_dict(first.net.state_dict());
  whole.net.weight.ref().set_mask(alternating({2, 3}));
  first.net.weight.ref().set_mask(alternating({2, 3}));
  whole.steps(6, x, y);
  first.steps(3, x, y);
  first.checkpoint.save(dir / "c");
  second.checkpoint.load(dir / "c");  // a dense module: the mask comes with the file
  second.steps(3, x, y);
  EXPECT_TRUE(equal(second.net.weight.raw(), whole.net.weight.raw()));
  EXPECT_TRUE(equal(second.net.weight.ref().mask(), whole.net.weight.ref().mask()));
  EXPECT_TRUE(equal(second.net(x), whole.net(x)));
}

TEST(ModeScope, RestoresEachModulesOwnMode) {
  nn::LeNet net;
  net.fc1.train(false);
  {
    const nn::ModeScope scope(net, false);
    EXPECT_FALSE(net.training());
    EXPECT_FALSE(net.conv1.training());
  }
  EXPECT_TRUE(net.training());
  EXPECT_TRUE(net.conv1.training());
  EXPECT_FALSE(net.fc1.training());
}

}  // namespace
}  // namespace hone::test
