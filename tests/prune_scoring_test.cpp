// Scoring by data: what it leaves as it was, and what is refused.

#include <cmath>

#include "support.h"

namespace hone::test {
namespace {

using compress::Pruner;

/// Its batch norm trains while it is scored.
struct Normed : nn::Module {
  nn::Conv2d conv{{.in = 2, .out = 6, .kernel = 3}};
  nn::BatchNorm2d bn{{.features = 6}};
  nn::Linear fc{{.in = 6 * 4, .out = 3}};
  HONE_MODULE(Normed, conv, bn, fc)
  Tensor forward(const Tensor& x) { return fc(flatten(relu(bn(conv(x))), 1)); }
};
struct Scored {
  Normed net{(manual_seed(41), Normed())};
  Tensor x = randn({4, 2, 4, 4}) + 3.0, y = randint(0, 3, {4});
  double factor = 1;  // of the loss
  int batches = 0;
  compress::Losses losses = [this](const compress::Visit& visit) {
    ++batches;
    visit(cross_entropy(net(x), y) * factor, 4);
  };
  compress::PruneOptions options{.criterion = compress::taylor(), .density = 0.5, .losses = losses};
  TensorFile state = net.state_dict();

  void expect_buffers_as_they_were(const char* what) {
    for (const auto& [name, b] : net.named_buffers()) EXPECT_TRUE(equal(b->tensor(), state.at(name))) << what << name;
    EXPECT_GT(batches, 0) << what;
    batches = 0;
  }
};

TEST(Scoring, LeavesRunningStatistics) {
  for (const double factor : {1.0, std::nan("")}) {
    Scored s;
    s.factor = factor;
    const bool fails = std::isnan(factor);
    const auto check = [&](const char* what, auto act) {
      if (fails)
        EXPECT_THROW(act(), NumericError) << what;
      else
        act();
      s.expect_buffers_as_they_were(what);
      EXPECT_TRUE(s.net.training());
    };
    compress::PruneOptions o = s.options;
    check("prune", [&] { compress::prune(s.net, o); });
    const auto satisfactory = [] { return true; };
    o.density = 0.3;
    check("prune_while", [&] { compress::prune_while(s.net, o, {.retrain = [] {}, .satisfactory = satisfactory}); });
    o.density = 0.2;
    check("Pruner", [&] { Pruner(s.net, o); });
    o.schedule = compress::CubicRamp{.begin = 1, .end = 1};
    Pruner pruner(s.net, o);
    Normed moved = std::move(s.net);  // a Pruner follows
    s.net = std::move(moved);
    check("step", [&] { pruner.step(); });
    EXPECT_EQ(pruner.t(), fails ? 0 : 1);
    o.schedule = compress::RigL{.every = 1, .end = 9};
    o.criterion = compress::magnitude();
    Pruner rigl(s.net, o);
    check("RigL", [&] { rigl.step(); });
  }
}

TEST(Scoring, OfASensitivityLeavesTheModule) {
  for (const double factor : {1.0, std::nan("")}) {
    Scored s;
    s.factor = factor;
    const auto act = [&] {
      compress::sensitivity(s.net, [] { return 0.5; },
                            {.densities = {0.5}, .criterion = compress::taylor(), .losses = s.losses});
    };
    if (std::isnan(factor))
      EXPECT_THROW(act(), NumericError);
    else
      act();
    s.expect_buffers_as_they_were("sensitivity");
    const TensorFile now = s.net.state_dict();
    ASSERT_EQ(now.tensors.size(), s.state.tensors.size()) << "no mask is left";
    for (const auto& [name, t] : now.tensors) EXPECT_TRUE(equal(t, s.state.at(name))) << name;
  }
}

TEST(Scoring, GradientsThatAreNotFiniteAreNotObserved) {
  Scored s;
  Pruner pruner(
      s.net,
      {.criterion = compress::movement(), .density = 0.5, .schedule = compress::CubicRamp{.begin = 2, .end = 2}});
  const auto gradients = [&](double factor) {
    s.net.zero_grad();
    (cross_entropy(s.net(s.x), s.y) * factor).backward();
  };
  gradients(1);
  pruner.observe(4);
  const TensorFile before = pruner.state_dict();
  for (const double factor : {std::nan(""), HUGE_VAL}) {
    gradients(factor);
    expect_error<NumericError>([&] { pruner.observe(4); }, {"Pruner.observe", "'conv.weight'", "not finite"});
    for (const auto& [name, t] : pruner.state_dict().tensors) EXPECT_TRUE(equal(t, before.at(name))) << name;
  }
  gradients(1);
  pruner.observe(4);
  pruner.step();
  EXPECT_TRUE(pruner.step()) << "it goes on";
}

}  // namespace
}  // namespace hone::test
