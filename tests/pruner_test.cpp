// Pruning by schedules: densities over time, splicing, RigL, rewinding, resume to the same bytes.

#include <cmath>

#include "support.h"

namespace hone::test {
namespace {

using compress::Pruner;

struct Training {
  nn::Linear net{(manual_seed(31), nn::LinearOptions{.in = 20, .out = 10})};
  optim::Adam adam{net.parameters(), {.lr = 0.05}};
  Tensor x, y;
  Training() { x = randn({16, 20}), y = randn({16, 10}); }
  void step(Pruner* pruner = nullptr, bool observe = false) {
    adam.zero_grad();
    mse_loss(net(x), y).backward();
    if (observe) pruner->observe(16);
    adam.step();
    if (pruner) pruner->step();
  }
  int64_t kept() const { return sum(net.weight.ref().mask()).item<int64_t>(); }
};

TEST(Schedules, DensitiesAreTheirFormulas) {
  using compress::density_at;
  EXPECT_EQ(density_at(compress::OneShot{}, 0, 0.3), 0.3);
  EXPECT_FALSE(density_at(compress::OneShot{}, 1, 0.3));
  const compress::Iterative rounds{.rounds = 4, .every = 10};
  for (int64_t k = 0; k < 4; ++k)
    EXPECT_DOUBLE_EQ(*density_at(rounds, 10 * k, 0.1), std::pow(0.1, (static_cast<double>(k) + 1) / 4));
  EXPECT_FALSE(density_at(rounds, 5, 0.1));
  EXPECT_FALSE(density_at(rounds, 40, 0.1));
  const compress::CubicRamp ramp{.begin = 10, .end = 35, .every = 10};
  EXPECT_FALSE(density_at(ramp, 0, 0.2));
  EXPECT_DOUBLE_EQ(*density_at(ramp, 10, 0.2), 1);
  EXPECT_DOUBLE_EQ(*density_at(ramp, 20, 0.2), 0.2 + 0.8 * std::pow(1 - 10.0 / 25, 3));
  EXPECT_FALSE(density_at(ramp, 25, 0.2));
  EXPECT_DOUBLE_EQ(*density_at(ramp, 35, 0.2), 0.2) << "the end is reached exactly";
  EXPECT_FALSE(density_at(ramp, 40, 0.2));
}

TEST(PrunerTest, FollowsItsScheduleAndWhatIsPrunedStaysZero) {
  Training run;
  Pruner pruner(run.net, {.density = 0.1, .schedule = compress::CubicRamp{.begin = 2, .end = 20, .every = 3}});
  EXPECT_EQ(run.net.weight.ref().type(), WeightType::masked) << "masked from the beginning";
  int64_t before = 200;
  for (int64_t t = 1; t <= 25; ++t) {
    run.step(&pruner);
    const auto d = compress::density_at(compress::CubicRamp{.begin = 2, .end = 20, .every = 3}, t, 0.1);
    if (d) { EXPECT_EQ(run.kept(), std::llround(*d * 200)) << t; }
    EXPECT_LE(run.kept(), before);
    before = run.kept();
    const auto mask = run.net.weight.ref().mask().to_vector<bool>();
    const auto value = run.net.weight.value().to_vector<double>();
    for (size_t i = 0; i < value.size(); ++i) ASSERT_TRUE(mask[i] || value[i] == 0);
  }
  EXPECT_EQ(run.kept(), 20);
}

TEST(PrunerTest, DensitiesOfLayersTakeARampFromOneWithoutScores) {
  Training run;
  Pruner pruner(
      run.net,
      {.criterion = compress::taylor(), .densities = {{"weight", 0.1}}, .schedule = compress::CubicRamp{.end = 4}});
  EXPECT_EQ(run.kept(), 200);
  for (int t = 0; t < 4; ++t) run.step(&pruner, true);
  EXPECT_EQ(run.kept(), 20);
  // An N:M pattern has one density, and prunes when the schedule begins.
  Training pattern;
  const compress::PruneOptions options{.criterion = compress::taylor(), .pattern = compress::n_m(2, 4)};
  compress::PruneOptions later = options;
  expect_error<ValueError>([&] { Pruner(pattern.net, options); }, {"taylor", ".losses", "observe"});
  EXPECT_EQ(pattern.net.weight.ref().type(), WeightType::dense);
  later.schedule = compress::CubicRamp{.begin = 1, .end = 1};
  Pruner begins_later(pattern.net, later);
  EXPECT_EQ(pattern.kept(), 200);
  pattern.step(&begins_later, true);
  EXPECT_EQ(pattern.kept(), 100);
}

TEST(PrunerTest, ACodebooksMaskIsLeftAlone) {
  const compress::CubicRamp ramp{.begin = 2, .end = 2};
  const auto refused = [](const char* what, compress::PruneOptions o, bool observe) {
    Training run;
    o.density = 0.5;
    Pruner pruner(run.net, o);
    run.step(&pruner, observe);
    compress::quantize::share_weights(run.net, {.clusters = 4});
    const Tensor mask = clone(run.net.weight.ref().mask());
    run.net.zero_grad();
    mse_loss(run.net(run.x), run.y).backward();
    expect_error<ValueError>([&] { observe ? pruner.observe(16) : static_cast<void>(pruner.step()); },
                             {"'weight'", "codebook"});
    EXPECT_EQ(pruner.t(), 1) << what;
    EXPECT_TRUE(equal(run.net.weight.ref().mask(), mask)) << what;
  };
  refused("magnitude", {.schedule = ramp}, false);
  refused("observe", {.criterion = compress::taylor(), .schedule = compress::CubicRamp{.begin = 3, .end = 3}}, true);
  refused("RigL", {.schedule = compress::RigL{.every = 2, .end = 4}}, false);
  // Where the schedule decides nothing, steps go on.
  Training run;
  Pruner pruner(run.net, {.density = 0.5});
  compress::quantize::share_weights(run.net, {.clusters = 4});
  EXPECT_FALSE(pruner.step());
}

TEST(PrunerTest, SurgerySplicesBackWhatGrows) {
  Training run;
  Pruner pruner(run.net,
                {.density = 0.3, .schedule = compress::Surgery{.end = 1, .every = 1, .last = 60, .margin = 0.05}});
  run.step(&pruner);
  const auto first = run.net.weight.ref().mask().to_vector<bool>();
  int came_back = 0;
  auto former = first;
  for (int t = 0; t < 50; ++t) {
    run.step(&pruner);
    const auto now = run.net.weight.ref().mask().to_vector<bool>();
    for (size_t i = 0; i < now.size(); ++i) came_back += now[i] && !former[i];
    former = now;
    EXPECT_EQ(run.kept(), 60);
  }
  EXPECT_GT(came_back, 0);
}

TEST(PrunerTest, RigLKeepsTheCountAndGrowsWhereTheGradientIsLarge) {
  Training run;
  Pruner pruner(run.net, {.criterion = compress::random(),
                          .density = 0.2,
                          .schedule = compress::RigL{.every = 4, .end = 40, .fraction = 0.5}});
  for (int64_t t = 1; t <= 50; ++t) {
    const auto before = run.net.weight.ref().mask().to_vector<bool>();
    const bool due = t % 4 == 0 && t <= 40;
    if (due) { EXPECT_EQ(run.net.weight.ref().mask_gradient(), MaskGradient::dense) << t; }
    run.step(&pruner);
    EXPECT_EQ(run.kept(), 40) << t;
    const auto now = run.net.weight.ref().mask().to_vector<bool>();
    if (!due) {
      EXPECT_EQ(now, before) << t;
      continue;
    }
    const auto swaps = static_cast<int64_t>(0.25 * (1 + std::cos(M_PI * static_cast<double>(t) / 40)) * 40);
    const auto g = run.net.weight.grad().to_vector<double>();
    const auto v = run.net.weight.value().to_vector<double>();
    int64_t changed = 0;
    double least_grown = 1e300;
    for (size_t i = 0; i < now.size(); ++i) {
      if (now[i] && !before[i]) {
        ++changed;
        EXPECT_EQ(v[i], 0) << "what grows begins at 0";
        least_grown = std::min(least_grown, std::abs(g[i]));
      }
    }
    EXPECT_LE(changed, swaps);
    if (t == 4) { EXPECT_GT(changed, 0); }
    // No weight that stayed out has a larger gradient than one that came in.
    for (size_t i = 0; i < now.size() && changed > 0; ++i)
      EXPECT_TRUE(now[i] || before[i] || std::abs(g[i]) <= least_grown) << i;
  }
}

TEST(PrunerTest, RigLRefusesWhatIsNotFinite) {
  for (const bool gradient : {false, true}) {
    Training run;
    Pruner pruner(run.net, {.density = 0.2, .schedule = compress::RigL{.every = 1, .end = 4}});
    run.net.zero_grad();
    mse_loss(run.net(run.x), run.y).backward();
    const Tensor mask = clone(run.net.weight.ref().mask());
    (gradient ? run.net.weight.grad() : run.net.weight.raw().detach()).data<float>()[7] = std::nanf("");
    expect_error<NumericError>([&] { pruner.step(); },
                               {"RigL", gradient ? "gradient" : "weights", "'weight'", "finite"});
    EXPECT_EQ(pruner.t(), 0);
    EXPECT_TRUE(equal(run.net.weight.ref().mask(), mask));
  }
}

TEST(PrunerTest, MovementAddsUpOverTraining) {
  Training run;
  Pruner pruner(
      run.net,
      {.criterion = compress::movement(), .density = 0.5, .schedule = compress::CubicRamp{.begin = 5, .end = 5}});
  std::vector<double> total(200, 0);
  for (int t = 0; t < 5; ++t) {
    run.adam.zero_grad();
    mse_loss(run.net(run.x), run.y).backward();
    const auto w = run.net.weight.raw().to_vector<double>(), g = run.net.weight.grad().to_vector<double>();
    for (size_t i = 0; i < 200; ++i) total[i] -= w[i] * g[i];
    pruner.observe(16);
    run.adam.step();
    pruner.step();
  }
  std::vector<double> sorted = total;
  std::sort(sorted.begin(), sorted.end(), std::greater<>());
  const auto mask = run.net.weight.ref().mask().to_vector<bool>();
  for (size_t i = 0; i < 200; ++i) EXPECT_EQ(mask[i], total[i] >= sorted[99]) << i;
}

TEST(PrunerTest, ResumesToTheSameBytesAtAnyStep) {
  const TempDir dir;
  const compress::PruneOptions options{.criterion = compress::movement(),
                                       .density = 0.1,
                                       .schedule = compress::Surgery{.begin = 2, .end = 14, .every = 3, .last = 20}};
  Training whole;
  Pruner pruner(whole.net, options);
  for (int t = 0; t < 22; ++t) whole.step(&pruner, true);
  for (const int stop : {1, 5, 13, 17}) {
    Training first;
    Pruner a(first.net, options);
    for (int t = 0; t < stop; ++t) first.step(&a, true);
    train::Checkpoint save;
    save.add("m", first.net).add("o", first.adam).add("p", a);
    save.save(dir / "c");
    Training second;
    Pruner b(second.net, options);
    train::Checkpoint load;
    load.add("m", second.net).add("o", second.adam).add("p", b);
    load.load(dir / "c");
    EXPECT_EQ(b.t(), stop);
    for (int t = stop; t < 22; ++t) second.step(&b, true);
    EXPECT_TRUE(equal(second.net.weight.raw(), whole.net.weight.raw())) << stop;
    EXPECT_TRUE(equal(second.net.weight.ref().mask(), whole.net.weight.ref().mask())) << stop;
  }
  Training other;
  Pruner ramp(other.net, {.density = 0.1, .schedule = compress::CubicRamp{.end = 4}});
  expect_error<FormatError>([&] { ramp.load_state_dict(pruner.state_dict()); }, {"Surgery", "CubicRamp"});
  TensorFile damaged = pruner.state_dict();
  damaged.tensors.pop_back();
  Pruner same(other.net, options);
  EXPECT_THROW(same.load_state_dict(damaged), FormatError);
  EXPECT_EQ(same.t(), 0);
}

TEST(PrunerTest, AStateOfOtherSettingsIsRefused) {
  using compress::Reduce;
  const compress::PruneOptions options{.criterion = compress::taylor(Reduce::mean_of_square),
                                       .density = 0.1,
                                       .densities = {{"weight", 0.2}},
                                       .schedule = compress::CubicRamp{.begin = 1, .end = 20}};
  Training run;
  Pruner pruner(run.net, options);
  run.step(&pruner, true);
  const TensorFile state = pruner.state_dict();
  const auto refused = [&](compress::PruneOptions o, std::initializer_list<std::string> parts) {
    Training other;
    Pruner p(other.net, o);
    expect_error<FormatError>([&] { p.load_state_dict(state); }, parts);
    EXPECT_EQ(p.t(), 0);
    EXPECT_EQ(p.state_dict().tensors.size(), 2u) << "nothing observed";
  };
  const auto with = [&](auto change) {
    compress::PruneOptions o = options;
    change(o);
    return o;
  };
  refused(with([](auto& o) { o.criterion = compress::taylor(); }), {"criterion", "mean_of_square", "mean_of_abs"});
  refused(with([](auto& o) { o.criterion = compress::gradient({Reduce::mean_of_square}); }), {"taylor", "gradient"});
  refused(with([](auto& o) { o.criterion.lasting = true; }), {"criterion", "lasting"});
  refused(with([](auto& o) { o.schedule = compress::CubicRamp{.begin = 1, .end = 7}; }), {"end 20", "end 7"});
  refused(with([](auto& o) { o.schedule = compress::CubicRamp{.begin = 1, .end = 20, .every = 3}; }), {"every 3"});
  refused(with([](auto& o) { o.schedule = compress::CubicRamp{.begin = 1, .end = 20, .from = 0.9}; }), {"from 0.9"});
  refused(with([](auto& o) { o.density = 0.3; }), {"0.1", "0.3"});
  refused(with([](auto& o) { o.densities["weight"] = 0.3; }), {"0.2", "0.3"});
  refused(with([](auto& o) { o.scope = compress::PruneScope::per_layer; }), {"scope", "global", "per_layer"});
  refused(with([](auto& o) { o.pattern = compress::block(4, 5); }), {"pattern", "unstructured", "block(4, 5)"});
  refused(with([](auto& o) { o.biases = true; }), {"parameters", "'weight'", "weight, bias"});
  refused(with([](auto& o) { o.biases = true, o.except = {"weight"}, o.densities = {{"bias", 0.2}}; }), {"bias"});
  Training same;
  Pruner p(same.net, options);
  p.load_state_dict(state);
  EXPECT_EQ(p.t(), 1);
  // Each schedule's own fields.
  const compress::PruneSchedule schedules[][2] = {
      {compress::Iterative{.rounds = 5}, compress::Iterative{.rounds = 4}},
      {compress::Iterative{.every = 2}, compress::Iterative{.every = 3}},
      {compress::Surgery{.end = 3, .last = 6}, compress::Surgery{.end = 3, .last = 7}},
      {compress::Surgery{.end = 3, .margin = 0.1}, compress::Surgery{.end = 3, .margin = 0.2}},
      {compress::RigL{.every = 2, .end = 9}, compress::RigL{.every = 2, .end = 8}},
      {compress::RigL{.end = 9, .fraction = 0.3}, compress::RigL{.end = 9, .fraction = 0.4}},
  };
  for (const auto& [a, b] : schedules) {
    Pruner first(run.net, {.density = 0.1, .schedule = a}), second(run.net, {.density = 0.1, .schedule = b});
    expect_error<FormatError>([&] { second.load_state_dict(first.state_dict()); }, {name(a)});
    first.load_state_dict(first.state_dict());
  }
}

TEST(PrunerTest, RefusesImpossibleSchedules) {
  Training run;
  const auto refused = [&](compress::PruneOptions o, std::initializer_list<std::string> parts) {
    expect_error<ValueError>([&] { Pruner(run.net, o); }, parts);
    EXPECT_EQ(run.net.weight.ref().type(), WeightType::dense);
  };
  refused({.density = 0.1, .schedule = compress::CubicRamp{.begin = 5, .end = 3}}, {"CubicRamp", "end"});
  refused({.density = 0.1, .schedule = compress::CubicRamp{.end = 3, .every = 0}}, {"every"});
  refused({.density = 0.1, .schedule = compress::CubicRamp{.every = 10}}, {"end must be at least 1"});
  refused({.density = 0.5, .schedule = compress::CubicRamp{.end = 3, .from = 0.2}}, {"from"});
  refused({.density = 0.1, .schedule = compress::Iterative{.rounds = 0}}, {"rounds"});
  refused({.density = 0.0, .schedule = compress::Iterative{.rounds = 2}}, {"Iterative", "density 0", "first"});
  refused({.density = 0.5, .densities = {{"weight", 0.0}}, .schedule = compress::Iterative{}}, {"density 0"});
  refused({.density = 0.1, .schedule = compress::Surgery{.end = 9, .last = 4}}, {"last"});
  refused({.density = 0.1, .schedule = compress::Surgery{.end = 9, .margin = 1}}, {"margin"});
  refused({.density = 0.1, .schedule = compress::RigL{.every = 5, .end = 0}}, {"end"});
  refused({.density = 0.1, .pattern = compress::block(2, 2), .schedule = compress::RigL{.every = 5, .end = 9}},
          {"pattern"});
  refused({.density = 2}, {"density"});
  {
    Training whole, pattern;  // in one round all may go; a pattern has no density
    EXPECT_EQ(Pruner(whole.net, {.density = 0.0, .schedule = compress::Iterative{.rounds = 1}}).report().kept(), 0);
    Pruner(pattern.net, {.pattern = compress::n_m(2, 4), .schedule = compress::Iterative{}});
    EXPECT_EQ(pattern.kept(), 100);
  }
  Pruner pruner(run.net, {.density = 0.5, .schedule = compress::CubicRamp{.begin = 1, .end = 1}});
  expect_error<ValueError>([&] { pruner.observe(); }, {"magnitude", "gradients"});
  Pruner of_output(run.net, {.criterion = compress::gradient({.of = compress::GradientOf::output}),
                             .density = 0.5,
                             .schedule = compress::CubicRamp{.begin = 1, .end = 1}});
  mse_loss(run.net(run.x), run.y).backward();
  expect_error<ValueError>([&] { of_output.observe(); }, {"gradient", "output", ".losses"});
  expect_error<ValueError>([&] { of_output.step(); }, {"gradient", ".losses"});
}

TEST(PrunerTest, FollowsAShrink) {
  Training run;
  Pruner pruner(
      run.net,
      {.criterion = compress::movement(), .density = 0.5, .schedule = compress::CubicRamp{.begin = 3, .end = 3}});
  run.step(&pruner, true);
  const Shrink weight = run.net.weight.ref().shrink(0, {0, 3, 4}), bias = run.net.bias.ref().shrink(0, {0, 3, 4});
  run.adam.apply(weight), run.adam.apply(bias);
  pruner.apply(weight);
  run.y = contiguous(slice(run.y, 1, 0, 3));
  run.step(&pruner, true), run.step(&pruner, true);
  EXPECT_EQ(run.kept(), 30);
}

TEST(PrunerTest, AForgottenShrinkChangesNothing) {
  Training run;
  Pruner pruner(run.net, {.criterion = compress::movement(),
                          .density = 0.5,
                          .biases = true,
                          .schedule = compress::CubicRamp{.begin = 3, .end = 3}});
  run.step(&pruner, true);
  const Shrink weight = run.net.weight.ref().shrink(0, {0, 3, 4}), bias = run.net.bias.ref().shrink(0, {0, 3, 4});
  pruner.apply(weight);
  run.y = contiguous(slice(run.y, 1, 0, 3));
  run.net.zero_grad();
  mse_loss(run.net(run.x), run.y).backward();
  const TensorFile before = pruner.state_dict();
  expect_error<ShapeError>([&] { pruner.observe(16); }, {"movement", "'bias'", "[10]", "[3]"});
  const TensorFile after = pruner.state_dict();
  ASSERT_EQ(after.tensors.size(), before.tensors.size());
  for (size_t i = 0; i < after.tensors.size(); ++i)
    EXPECT_TRUE(equal(after.tensors[i].second, before.tensors[i].second)) << after.tensors[i].first;
  pruner.apply(bias);
  pruner.observe(16);
}

TEST(Lottery, EarlyValuesUnderTheLateMask) {
  Training run;
  const compress::Snapshot early(run.net);
  const auto first = run.net.weight.raw().to_vector<double>();
  for (int t = 0; t < 20; ++t) run.step();
  compress::prune(run.net, {.density = 0.2});
  const Tensor mask = clone(run.net.weight.ref().mask());
  early.rewind(run.net);
  EXPECT_EQ(run.net.weight.raw().to_vector<double>(), first);
  EXPECT_TRUE(equal(run.net.weight.ref().mask(), mask));
  early.restore(run.net);
  EXPECT_EQ(run.net.weight.ref().type(), WeightType::dense);
  EXPECT_EQ(run.net.weight.raw().to_vector<double>(), first);
  nn::Linear other{{.in = 3, .out = 2}};
  EXPECT_THROW(early.rewind(other), ShapeError);
}

TEST(SnapshotTest, RestoresTheMasksRule) {
  const auto masked_net = [](MaskGradient rule) {
    nn::Linear net{{.in = 4, .out = 3}};
    net.weight.ref().set_mask(gt(rand({3, 4}), 0.5), rule);
    return net;
  };
  for (const MaskGradient rule : {MaskGradient::dense, MaskGradient::masked}) {
    const MaskGradient other = rule == MaskGradient::dense ? MaskGradient::masked : MaskGradient::dense;
    nn::Linear net = masked_net(rule);
    const Tensor mask = clone(net.weight.ref().mask()), value = clone(net.weight.value().detach());
    const compress::Snapshot before(net);
    const TempDir dir;
    save_safetensors(dir / "s", before.state_dict());
    compress::Snapshot loaded(net);
    loaded.load_state_dict(load_safetensors(dir / "s"));
    for (const compress::Snapshot* snapshot : {&before, const_cast<const compress::Snapshot*>(&loaded)}) {
      net.weight.ref().set_mask(zeros({3, 4}, DType::boolean), other);
      snapshot->restore(net);
      EXPECT_EQ(net.weight.ref().mask_gradient(), rule);
      EXPECT_TRUE(equal(net.weight.ref().mask(), mask));
      EXPECT_TRUE(equal(net.weight.value(), value));
    }
    net.weight.ref().bake_mask();
    before.restore(net);
    EXPECT_EQ(net.weight.ref().mask_gradient(), rule) << "a mask that had gone is there again";
    EXPECT_TRUE(equal(net.weight.ref().mask(), mask));
  }
  // What was dense has no rule of a mask that it got in between.
  nn::Linear net{{.in = 4, .out = 3}};
  const Tensor raw = clone(net.weight.raw().detach());
  const compress::Snapshot dense(net);
  net.weight.ref().set_mask(zeros({3, 4}, DType::boolean), MaskGradient::dense);
  dense.restore(net);
  EXPECT_EQ(net.weight.ref().type(), WeightType::dense);
  EXPECT_TRUE(equal(net.weight.raw(), raw));
  compress::prune(net, {.density = 0.5});
  EXPECT_EQ(net.weight.ref().mask_gradient(), MaskGradient::masked);
}

TEST(SnapshotTest, RefusesBeforeAnythingChanges) {
  nn::Linear net{{.in = 4, .out = 3}};
  compress::quantize::share_weights(net, {.clusters = 4});
  const compress::Snapshot shared(net);
  net.weight.ref().set_mask(zeros({3, 4}, DType::boolean));
  expect_error<FormatError>([&] { shared.restore(net); }, {"Snapshot.restore", "'weight'", "codebook"});
  EXPECT_TRUE(net.weight.ref().mask().defined());
  // A file whose mask is of another shape.
  nn::Linear dense{{.in = 4, .out = 3}};
  dense.bias.ref().set_mask(ones({3}, DType::boolean));
  compress::Snapshot damaged(dense);
  TensorFile file = damaged.state_dict();
  for (auto& [name, t] : file.tensors)
    if (name == "bias.mask") t = ones({4}, DType::boolean);
  damaged.load_state_dict(file);
  dense.weight.ref().set_mask(zeros({3, 4}, DType::boolean));
  expect_error<ShapeError>([&] { damaged.restore(dense); }, {"bias.mask"});
  EXPECT_EQ(dense.weight.ref().type(), WeightType::masked);
}

TEST(PruneWhile, AnErrorUndoesTheRound) {
  for (const bool in_retrain : {true, false}) {
    Training run;
    int round = 0;
    Tensor first_raw, first_mask;
    const auto fail = [&](bool here) {
      run.step();
      if (here && round == 2) throw IoError("no");
    };
    EXPECT_THROW(compress::prune_while(run.net, {.density = 0.1},
                                       {.factor = 0.5,
                                        .retrain =
                                            [&] {
                                              if (++round == 2) first_raw = clone(run.net.weight.raw().detach());
                                              fail(in_retrain);
                                            },
                                        .satisfactory =
                                            [&] {
                                              fail(!in_retrain);
                                              first_mask = clone(run.net.weight.ref().mask());
                                              return true;
                                            }}),
                 IoError);
    EXPECT_EQ(round, 2);
    EXPECT_EQ(run.kept(), 100) << "what the first round kept";
    EXPECT_TRUE(equal(run.net.weight.raw(), first_raw));
    EXPECT_TRUE(equal(run.net.weight.ref().mask(), first_mask));
  }
}

TEST(PruneWhile, StopsAtTheLastSatisfactoryRound) {
  Training run;
  std::vector<double> seen;
  const auto report =
      compress::prune_while(run.net, {.density = 0.1},
                            {.factor = 0.5,
                             .retrain = [&] { run.step(); },
                             .satisfactory =
                                 [&] {
                                   seen.push_back(compress::prune_report(run.net).layers[0].kept / 200.0);
                                   return seen.back() >= 0.25;
                                 }});
  EXPECT_EQ(seen, (std::vector<double>{0.5, 0.25, 0.125}));
  EXPECT_EQ(report.kept(), 50) << "the round that was not satisfactory is undone";
  expect_error<ValueError>([&] { compress::prune_while(run.net, {.density = 0.1}, {}); }, {"retrain"});
  const compress::IterateOptions backwards{.rounds = -1, .retrain = [] {}, .satisfactory = [] { return true; }};
  expect_error<ValueError>([&] { compress::prune_while(run.net, {.density = 0.1}, backwards); },
                           {"rounds", "at least 1", "-1"});
}

TEST(Pruned, MasksSurviveEveryWrapperAroundTraining) {
  // What is masked stays exactly 0 in value() whatever updates the raw values.
  const auto check = [](const std::string& what, Training& run) {
    const auto mask = run.net.weight.ref().mask().to_vector<bool>();
    const auto value = run.net.weight.value().to_vector<double>();
    for (size_t i = 0; i < value.size(); ++i) ASSERT_TRUE(mask[i] || value[i] == 0) << what;
    EXPECT_EQ(run.kept(), 40) << what;
  };
  {
    Training run;
    compress::prune(run.net, {.density = 0.2});
    optim::EMA ema(run.net.parameters(), {.decay = 0.5});
    for (int t = 0; t < 3; ++t) run.step(), ema.update();
    ema.copy_to_parameters();
    check("EMA", run);
  }
  {
    Training run;
    compress::prune(run.net, {.density = 0.2});
    optim::SGD sgd(run.net.parameters(), {.lr = 0.1, .momentum = 0.9, .weight_decay = 0.1});
    optim::SAM sam(sgd);
    optim::Lookahead lookahead(sgd);
    for (int t = 0; t < 7; ++t) {
      sam.step([&] {
        sgd.zero_grad();
        Tensor loss = mse_loss(run.net(run.x), run.y);
        loss.backward();
        return loss;
      });
    }
    check("SAM", run);
  }
}

}  // namespace
}  // namespace hone::test
