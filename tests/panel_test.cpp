// Fused ops and ops on panels: the bits of the ops they stand for, on every SIMD target, for random and awkward sizes.

#include <random>

#include "activations.h"
#include "hone/ops/packed/panel_run.h"
#include "layouts.h"
#include "simd_targets.h"
#include "support.h"

namespace hone::test {
namespace {

struct Case {
  Tensor x, weight, bias;
  FusedConv2dOptions options;
  std::string text() const {
    return str("x ", x.shape(), " weight ", weight.shape(), " stride ", options.conv.stride, " pad ",
               options.conv.padding, " dilation ", options.conv.dilation, " groups ", options.conv.groups,
               " activation ", options.activation.kind, " pool ", options.pool, " ", options.pool_options.stride, " ",
               options.pool_options.padding, bias.defined() ? " bias" : "");
  }
  Tensor apart() const {
    const Tensor y = shown(conv2d(x, weight, bias, options.conv), options.activation);
    return options.pool.empty() ? y : max_pool2d(y, options.pool, options.pool_options);
  }
  void check() const {
    const Tensor want = apart();
    ASSERT_TRUE(same_bits(conv2d_fused(x, weight, bias, options), want)) << text();
    if (x.dtype() != f32) return;
    const Tensor got = panel_conv2d(x, PanelMatrix::pack(weight, options.conv.groups), bias, options);
    if (weight.numel() / weight.size(0) <= 1600)
      ASSERT_TRUE(same_bits(got, want)) << text();
    else
      expect_close(got, want, {1e-4, 1e-4}, text());
  }
};

Case random_case(std::mt19937_64& rng) {
  const auto upto = [&](int64_t n) { return 1 + static_cast<int64_t>(rng() % static_cast<uint64_t>(n)); };
  const int64_t groups = rng() % 4 == 0 ? upto(3) : 1, c = upto(6), o = rng() % 3 ? upto(20) : upto(50);
  const int64_t kh = upto(5), kw = upto(5), dh = rng() % 4 ? 1 : upto(3), dw = rng() % 4 ? 1 : upto(3);
  const int64_t ph = static_cast<int64_t>(rng() % 3), pw = static_cast<int64_t>(rng() % 3);
  const int64_t eh = (kh - 1) * dh + 1, ew = (kw - 1) * dw + 1;
  const int64_t h = std::max<int64_t>(eh - 2 * ph, 1) + static_cast<int64_t>(rng() % 14);
  const int64_t w = std::max<int64_t>(ew - 2 * pw, 1) + static_cast<int64_t>(rng() % 30);
  Case k{randn({upto(3), groups * c, h, w}),
         randn({groups * o, c, kh, kw}),
         rng() % 2 ? randn({groups * o}) : Tensor(),
         {.conv = {.stride = {rng() % 3 ? 1 : upto(3), rng() % 3 ? 1 : upto(3)},
                   .padding = {ph, pw},
                   .dilation = {dh, dw},
                   .groups = groups},
          .activation = any_activation(rng)}};
  const Tensor y = conv2d(k.x, k.weight, k.bias, k.options.conv);
  if (rng() % 2) {
    if (rng() % 2 && y.size(2) >= 2 && y.size(3) >= 2) {
      k.options.pool = {2};
    } else {
      const int64_t ah = std::min<int64_t>(upto(4), y.size(2)), aw = std::min<int64_t>(upto(4), y.size(3));
      k.options.pool = {ah, aw};
      k.options.pool_options = {
          .stride = {upto(3), upto(3)},
          .padding = {static_cast<int64_t>(rng()) % (ah / 2 + 1) & 1, static_cast<int64_t>(rng()) % (aw / 2 + 1) & 1}};
    }
  }
  return k;
}

TEST(FusedConv, HasTheBitsOfTheOpsApartOnEveryTarget) {
  on_every_target([](int64_t) {
    std::mt19937_64 rng(1);
    manual_seed(1);
    NoGrad no_grad;
    for (int i = 0; i < 250 && !::testing::Test::HasFatalFailure(); ++i) random_case(rng).check();
  });
}

TEST(FusedConv, LargerPlanesAreMadeInBands) {
  on_every_target([](int64_t) {
    manual_seed(2);
    NoGrad no_grad;
    const auto check = [](const Shape& x, const Shape& w, FusedConv2dOptions o) {
      Case{randn(x), randn(w), randn({w[0]}), std::move(o)}.check();
    };
    check({1, 3, 70, 61}, {6, 3, 5, 5}, {.activation = Activation::relu, .pool = {2}});   // over positions
    check({1, 3, 70, 61}, {16, 3, 5, 5}, {.activation = Activation::relu, .pool = {2}});  // over outputs
    check({2, 16, 32, 32}, {32, 16, 3, 3}, {.conv = {.stride = {2}, .padding = {1}}});
    check({1, 8, 40, 500}, {9, 8, 3, 3},
          {.conv = {.padding = {1}},
           .activation = Activation::tanh,
           .pool = {3},
           .pool_options = {.stride = {2}, .padding = {1}}});
    check({1, 70, 12, 12}, {24, 70, 5, 5}, {.activation = Activation::relu});  // beyond 1600 taps
    check({1, 128, 8, 8}, {128, 128, 1, 1}, {});
    check({1, 6, 20, 20}, {6, 1, 3, 3}, {.conv = {.padding = {1}, .groups = 6}, .activation = Activation::relu});
  });
}

TEST(FusedConv, OtherDTypesAreTheOpsApart) {
  manual_seed(3);
  NoGrad no_grad;
  for (const DType d : {f64, bf16}) {
    Case k{cast(randn({2, 3, 9, 9}), d), cast(randn({5, 3, 3, 3}), d), cast(randn({5}), d), {}};
    k.options = {.activation = Activation::relu, .pool = {2}};
    k.check();
    EXPECT_TRUE(same_bits(linear_fused(cast(randn({3, 4}), d) * 0.0, cast(ones({2, 4}), d), {}, Activation::sigmoid),
                          sigmoid(linear(cast(zeros({3, 4}), d), cast(ones({2, 4}), d)))));
  }
}

TEST(FusedConv, NaNsInfinitiesAndNegativeZerosGoThrough) {
  on_every_target([](int64_t) {
    manual_seed(4);
    NoGrad no_grad;
    for (const int64_t outs : {6, 16}) {
      Case k{
          randn({1, 2, 12, 12}), randn({outs, 2, 3, 3}), zeros({outs}), {.activation = Activation::relu, .pool = {2}}};
      k.x.data<float>()[20] = NAN;
      k.x.data<float>()[77] = INFINITY;
      k.bias.data<float>()[1] = -0.0f;
      for (int64_t i = 144; i < 200; ++i) k.x.data<float>()[i] = 0;
      const Tensor got = conv2d_fused(k.x, k.weight, k.bias, k.options), want = k.apart();
      const std::vector<float> a = got.to_vector<float>(), b = want.to_vector<float>();
      for (size_t i = 0; i < a.size(); ++i)
        ASSERT_TRUE((std::isnan(a[i]) && std::isnan(b[i])) ||
                    (a[i] == b[i] && std::signbit(a[i]) == std::signbit(b[i])))
            << i << ": " << a[i] << " " << b[i];
    }
  });
}

TEST(FusedConv, AnyLayoutAndThreadCount) {
  manual_seed(5);
  NoGrad no_grad;
  const Tensor x = randn({3, 8, 33, 30}), w = randn({40, 8, 3, 3}), b = randn({40});
  const FusedConv2dOptions o{.conv = {.padding = {1}}, .activation = Activation::relu, .pool = {2}};
  const PanelMatrix packed = PanelMatrix::pack(w);
  const Tensor want = conv2d_fused(x, w, b, o);
  for (const auto& [name, xl] : layouts(x)) {
    EXPECT_TRUE(same_bits(conv2d_fused(xl, w, b, o), want)) << name;
    EXPECT_TRUE(same_bits(panel_conv2d(xl, packed, b, o), want)) << name;
  }
  for (const auto& [name, wl] : layouts(w)) EXPECT_TRUE(same_bits(PanelMatrix::pack(wl).values, packed.values)) << name;
  EXPECT_TRUE(same_at_any_thread_count([&] { return panel_conv2d(x, packed, b, o); }));
  const PanelMatrix fc = PanelMatrix::pack(randn({300, 200}));
  const Tensor rows = randn({130, 200});
  EXPECT_TRUE(same_at_any_thread_count([&] { return panel_linear(rows, fc, {}, Activation::gelu); }));
}

// Each row alone gives the bits that it has in any batch, near f64 loops.
TEST(PanelLinear, NearPlainLoopsAndTheSameForARowAlone) {
  on_every_target([](int64_t) {
    std::mt19937_64 rng(6);
    manual_seed(6);
    NoGrad no_grad;
    for (int i = 0; i < 60; ++i) {
      const auto rows = static_cast<int64_t>(rng() % 60), in = static_cast<int64_t>(rng() % 90),
                 outs = 1 + static_cast<int64_t>(rng() % 150);
      const Tensor x = randn({rows, in}), w = randn({outs, in}), b = rng() % 3 ? randn({outs}) : Tensor();
      const ActivationAttrs a = any_activation(rng);
      const PanelMatrix packed = PanelMatrix::pack(w);
      ASSERT_TRUE(equal(packed.dense(), w));
      const Tensor y = panel_linear(x, packed, b, a);
      const Tensor want = shown(linear(cast(x, f64), cast(w, f64), b.defined() ? cast(b, f64) : b), a);
      expect_close(y, want, {2e-5, 2e-5}, str(rows, " x ", in, " -> ", outs, " activation ", a.kind));
      if (::testing::Test::HasFatalFailure()) return;
      for (int64_t r = 0; r < rows; r += 7)
        ASSERT_TRUE(same_bits(panel_linear(select(x, 0, r), packed, b, a), select(y, 0, r))) << r;
    }
  });
}

TEST(Panels, PackAndUnpack) {
  manual_seed(7);
  for (const auto& [shape, groups] : std::vector<std::pair<Shape, int64_t>>{{{1, 1}, 1},
                                                                            {{8, 3}, 1},
                                                                            {{9, 3}, 1},
                                                                            {{16, 5}, 1},
                                                                            {{24, 2}, 1},
                                                                            {{25, 0}, 1},
                                                                            {{6, 2, 3, 5}, 1},
                                                                            {{6, 2, 3, 5}, 3},
                                                                            {{40, 3, 1, 2}, 2}}) {
    const Tensor w = randn(shape);
    const PanelMatrix p = PanelMatrix::pack(w, groups);
    EXPECT_TRUE(equal(p.dense(), w)) << to_string(shape);
    const std::vector<float> stored = p.values.to_vector<float>();
    EXPECT_EQ(std::count_if(stored.begin(), stored.end(), [](float v) { return v != 0; }), w.numel())
        << to_string(shape);
  }
}

TEST(Panels, RefuseWhatIsNone) {
  const PanelMatrix p = PanelMatrix::pack(randn({5, 4})), conv = PanelMatrix::pack(randn({6, 2, 3, 3}), 3);
  expect_error<ValueError>([] { PanelMatrix::pack(Tensor()); }, "undefined");
  expect_error<DTypeError>([] { PanelMatrix::pack(zeros({2, 2}, f64)); }, "f64");
  expect_error<ShapeError>([] { PanelMatrix::pack(zeros({2, 2, 2})); }, "[2, 2, 2]");
  expect_error<ShapeError>([] { PanelMatrix::pack(zeros({5, 2, 1, 1}), 2); }, "2 groups");
  expect_error<ShapeError>([] { PanelMatrix::pack(zeros({0, 2})); }, "[0, 2]");
  PanelMatrix bad = p;
  bad.values = slice(p.values, 0, 1);
  expect_error<FormatError>([&] { bad.check(); }, {"[5, 4]", "f32"});
  bad.shape = {5, -4};
  expect_error<FormatError>([&] { bad.check(); }, "[5, -4]");
  expect_error<ShapeError>([&] { panel_linear(zeros({2, 3}), p); }, {"panels", "shape"});
  expect_error<ShapeError>([&] { panel_linear(zeros({2, 4}), p, zeros({4})); }, {"bias", "[4]", "[5]"});
  expect_error<DTypeError>([&] { panel_linear(zeros({2, 4}, f64), p); }, "f64");
  expect_error<ShapeError>([&] { panel_linear(zeros({2, 4}), conv); }, "[6, 2, 3, 3]");
  expect_error<ShapeError>([&] { panel_conv2d(zeros({1, 6, 5, 5}), p); }, "[5, 4]");
  expect_error<ValueError>([&] { panel_conv2d(zeros({1, 6, 5, 5}), conv); }, {"groups 1", "packed in 3"});
  const FusedConv2dOptions three{.conv = {.groups = 3}};
  expect_error<ShapeError>([&] { panel_conv2d(zeros({1, 5, 5, 5}), conv, {}, three); }, "channels");
  expect_error<ShapeError>([&] { panel_conv2d(zeros({1, 6, 2, 2}), conv, {}, three); }, "larger than");
  expect_error<ValueError>(
      [&] {
        conv2d_fused(zeros({1, 1, 4, 4}), zeros({1, 1, 1, 1}), {}, {.pool = {2}, .pool_options = {.dilation = {2}}});
      },
      "dilation");
  expect_error<ValueError>([&] { conv2d_fused(zeros({1, 1, 4, 4}), zeros({1, 1, 1, 1}), {}, {.pool = {0}}); }, "pool");
  ActivationAttrs unknown;
  for (const int64_t kind : {-1, 9}) {
    unknown.kind = kind;
    expect_error<ValueError>(
        [&] {
          linear_fused(zeros({1, 4}), zeros({2, 4}), {}, unknown);
        },
        str("activation ", kind));
  }
  expect_error<ValueError>([&] { linear_fused(zeros({1, 4}), zeros({2, 4}), {}, {Activation::clamp, 2, 1}); }, "low 2");
  // An attribute that a file may hold: sizes beyond 32 bits are refused before anything is computed.
  PanelConvAttrs wide{6, {}};
  wide.fused.conv.groups = 3, wide.fused.conv.size_h = wide.fused.conv.size_w = 3, wide.fused.conv.pad_w = 1 << 30;
  expect_error<ShapeError>([&] { apply(kPanelConv2d, wide, {zeros({1, 6, 5, 5}), conv.values}); }, "32 bits");
}

TEST(FusedOps, DoNotTrainInPanelsAndSaySo) {
  const Tensor x = randn({2, 4}).requires_grad_();
  const Tensor y = panel_linear(x, PanelMatrix::pack(randn({3, 4})));
  expect_error<GradError>([&] { sum(y).backward(); }, "packed weights are for inference");
}

}  // namespace
}  // namespace hone::test
