// AdaRound: codes one step from the floor at most, and less error of the result than rounding to the nearest.

#include <cmath>

#include "graph_support.h"
#include "support.h"

namespace hone::test {
namespace {

using compress::quantize::ada_round;
using compress::quantize::AdaRoundOptions;
using compress::quantize::Affine;
using compress::quantize::AffineSpec;
using compress::quantize::calibration;
using compress::quantize::Granularity;
using compress::quantize::quantize_static;
using graph::Network;

/// Rows [n, in] of correlated numbers: all share a few causes.
Tensor correlated(int64_t n, int64_t in, const Tensor& mix) {
  const Tensor causes = randn({n, mix.size(0)}), noise = randn({n, in});
  return matmul(causes, mix) + noise * 0.2;
}
Tensor moment_of(const Tensor& x) {
  const Tensor rows = cast(x, f64);
  return reshape(matmul(transpose(rows), rows) * (1.0 / static_cast<double>(x.size(0))), {1, x.size(1), x.size(1)});
}
double squared_error(const Tensor& x, const Tensor& w, const Tensor& rounded) {
  return sum(square(matmul(x, transpose(w - rounded)))).item() / static_cast<double>(x.size(0));
}

TEST(AdaRound, HasLessErrorOnHeldOutInputsThanTheNearest) {
  for (uint64_t seed = 1; seed <= 3; ++seed) {
    manual_seed(seed);
    const Tensor mix = randn({6, 40}), x = correlated(500, 40, mix), held = correlated(500, 40, mix);
    const Tensor w = randn({12, 40});
    const Affine a = Affine::of(w, {.bits = 4, .granularity = Granularity::channel});
    const Tensor codes = ada_round(w, a, moment_of(x)), nearest = a.codes(w);
    const NoGrad no_grad;
    EXPECT_LT(squared_error(held, w, a.values(codes)), 0.3 * squared_error(held, w, a.values(nearest))) << seed;
    const auto q = codes.to_vector<int64_t>();
    const auto v = w.to_vector<double>();
    int64_t moved = 0;
    for (size_t i = 0; i < q.size(); ++i) {
      const auto floor = static_cast<int64_t>(std::floor(v[i] / a.scale[i / 40]));
      ASSERT_TRUE(q[i] == floor || q[i] == floor + 1) << v[i] / a.scale[i / 40] << " is " << q[i];
      ASSERT_LE(std::abs(q[i]), 7);
      moved += q[i] != nearest.to_vector<int64_t>()[i];
    }
    EXPECT_GT(moved, 20);
  }
}

TEST(AdaRound, WithoutCorrelationIsTheNearest) {
  manual_seed(4);
  const Tensor w = randn({5, 9});
  const Affine a = Affine::of(w, {.bits = 4, .granularity = Granularity::channel});
  EXPECT_TRUE(equal(ada_round(w, a, reshape(eye(9), {1, 9, 9})), a.codes(w)));
  EXPECT_TRUE(equal(ada_round(w, a, zeros({1, 9, 9})), a.codes(w)));  // inputs of zeros
}

TEST(AdaRound, NoSingleWeightIsBetterTurnedOver) {
  manual_seed(9);
  const Tensor mix = randn({4, 20}), w = randn({6, 20}), m = moment_of(correlated(90, 20, mix));
  const Affine a = Affine::of(w, {.bits = 4, .granularity = Granularity::channel});
  const auto mv = m.to_vector<double>(), wv = w.to_vector<double>();
  for (const int64_t iterations : {0, 100}) {
    const auto q = ada_round(w, a, m, {.iterations = iterations}).to_vector<double>();
    for (size_t row = 0; row < 6; ++row) {
      std::vector<double> p(20), d(20);
      for (size_t k = 0; k < 20; ++k) p[k] = wv[20 * row + k] / a.scale[row], d[k] = q[20 * row + k] - p[k];
      const auto error = [&] {
        double e = 0;
        for (size_t i = 0; i < 20; ++i)
          for (size_t k = 0; k < 20; ++k) e += d[i] * mv[20 * i + k] * d[k];
        return e;
      };
      const double got = error();
      for (double& e : d) {
        const double was = e;
        if (std::abs(was) < 1e-9) continue;
        e = was > 0 ? was - 1 : was + 1;
        EXPECT_GE(error(), got * (1 - 1e-9));
        e = was;
      }
    }
  }
}

TEST(AdaRound, FindsTheBestOfAllRoundings) {
  // Few enough weights to try all 2^8 ways.
  manual_seed(5);
  const Tensor mix = randn({2, 8}), x = correlated(200, 8, mix), w = randn({3, 8});
  const Affine a = Affine::of(w, {.bits = 3, .granularity = Granularity::tensor});
  const Tensor m = moment_of(x);
  const NoGrad no_grad;
  const auto mv = m.to_vector<double>(), wv = w.to_vector<double>();
  const auto error = [&](const std::vector<double>& d) {
    double e = 0;
    for (size_t i = 0; i < 8; ++i)
      for (size_t k = 0; k < 8; ++k) e += d[i] * mv[8 * i + k] * d[k];
    return e;
  };
  const auto codes = ada_round(w, a, m).to_vector<double>(), nearest = a.codes(w).to_vector<double>();
  for (size_t row = 0; row < 3; ++row) {
    double best = 1e300;
    std::vector<double> got(8), near(8);
    for (size_t ways = 0; ways < 256; ++ways) {
      std::vector<double> d(8);
      for (size_t k = 0; k < 8; ++k) {
        const double p = wv[8 * row + k] / a.scale[0], code = std::floor(p) + static_cast<double>(ways >> k & 1);
        d[k] = std::clamp(code, -3.0, 3.0) - p;
        got[k] = codes[8 * row + k] - p, near[k] = nearest[8 * row + k] - p;
      }
      best = std::min(best, error(d));
    }
    EXPECT_LT(error(got), best + 0.3 * (error(near) - best)) << row;
    EXPECT_GE(error(got), best - 1e-9);
  }
}

struct Net : nn::Module {
  nn::Conv2d conv1{{.in = 2, .out = 6, .kernel = 3, .padding = 1}};
  nn::Conv2d conv2{{.in = 6, .out = 8, .kernel = 3, .stride = 2, .groups = 2}};
  nn::Linear fc{{.in = 8 * 9, .out = 5}};
  HONE_MODULE(Net, conv1, conv2, fc)
  Tensor forward(const Tensor& x) { return fc(flatten(relu(conv2(relu(conv1(x)))), 1)); }
};
double relative_error(const Tensor& got, const Tensor& want) {
  const auto a = got.to_vector<double>(), b = want.to_vector<double>();
  double error = 0, size = 0;
  for (size_t i = 0; i < a.size(); ++i) error += (a[i] - b[i]) * (a[i] - b[i]), size += b[i] * b[i];
  return std::sqrt(error / size);
}
/// Smooth images: neighbours are alike.
Tensor images(int64_t n) {
  const Tensor coarse = randn({n, 2, 4, 1, 4, 1});
  const Tensor noise = randn({n, 2, 8, 8});
  return reshape(expand(coarse, {n, 2, 4, 2, 4, 2}), {n, 2, 8, 8}) + noise * 0.2;
}

TEST(AdaRound, MakesFourBitNetworksBetterOnHeldOutInputs) {
  manual_seed(6);
  Net module;
  const Tensor x = images(200), held = images(200);
  const Network net = graph::trace(module, x);
  const NoGrad no_grad;
  const auto error = [&](std::optional<AdaRoundOptions> o) {
    const auto data = calibration({slice(x, 0, 0, 120), slice(x, 0, 120, 200)});
    Network small = quantize_static(net, data, {.bits = 4, .ada_round = o});
    return relative_error(small(held), module(held));
  };
  const double nearest = error({}), adaptive = error(AdaRoundOptions());
  EXPECT_LT(adaptive, 0.75 * nearest) << adaptive << " and " << nearest;
}

TEST(AdaRound, MomentsAreThoseOfThePatches) {
  manual_seed(7);
  Net module;
  const Network net = graph::trace(module, randn({3, 2, 8, 8}));
  const graph::Node& n = net.nodes()[net.find_node("conv2")];
  const Shape shape{8, 3, 3, 3};
  compress::quantize::detail::InputMoment moment(n, shape);
  const Tensor x = randn({2, 6, 8, 8}), y = randn({1, 6, 8, 8});
  moment.see(x);
  moment.see(y);
  const auto got = moment.value().to_vector<double>();
  std::vector<double> want(2 * 27 * 27);
  for (const Tensor& t : {x, y})
    for (int64_t b = 0; b < t.size(0); ++b)
      for (int64_t g = 0; g < 2; ++g)
        for (int64_t i = 0; i < 3; ++i)
          for (int64_t j = 0; j < 3; ++j) {
            const auto at = [&](int64_t k) {
              const int64_t c = g * 3 + k / 9, r = 2 * i + k / 3 % 3, q = 2 * j + k % 3;
              return static_cast<double>(t.data<float>()[((b * 6 + c) * 8 + r) * 8 + q]);
            };
            for (int64_t k = 0; k < 27; ++k)
              for (int64_t l = 0; l < 27; ++l) want[static_cast<size_t>((g * 27 + k) * 27 + l)] += at(k) * at(l) / 27;
          }
  ASSERT_EQ(got.size(), want.size());
  for (size_t i = 0; i < got.size(); ++i) ASSERT_NEAR(got[i], want[i], 1e-6) << i;
}

TEST(AdaRound, GroupsHaveMomentsOfTheirOwn) {
  manual_seed(10);
  const Tensor one = randn({3, 12}), two = randn({3, 12}), w = randn({8, 12});
  const Tensor x = correlated(60, 12, one), y = correlated(60, 12, two);
  const Affine a = Affine::of(w, {.bits = 4, .granularity = Granularity::channel});
  const Tensor both = ada_round(w, a, concat({moment_of(x), moment_of(y)}, 0), {.iterations = 50});
  const auto half = [&](int64_t first, const Tensor& m) {
    const Tensor part = contiguous(slice(w, 0, first, first + 4));
    return ada_round(part, Affine::of(part, a.spec), m, {.iterations = 50});
  };
  EXPECT_TRUE(equal(both, concat({half(0, moment_of(x)), half(4, moment_of(y))}, 0)));
}

TEST(AdaRound, ZerosStayZerosAndThreadsChangeNothing) {
  manual_seed(8);
  const Tensor mix = randn({4, 30}), x = correlated(100, 30, mix);
  const Tensor w = where(gt(rand({7, 30}), 0.6), randn({7, 30}), zeros({7, 30}));
  const Affine a = Affine::of(w, {.bits = 4, .granularity = Granularity::channel});
  const Tensor codes = ada_round(w, a, moment_of(x));
  EXPECT_EQ(sum(cast(masked(cast(codes, f32), eq(w, 0.0)), f64)).item(), 0);
  const auto q = codes.to_vector<int64_t>();
  const auto v = w.to_vector<double>();
  for (size_t i = 0; i < q.size(); ++i) ASSERT_TRUE(v[i] != 0 || q[i] == 0);
  const int threads = num_threads();
  set_num_threads(3);
  EXPECT_TRUE(equal(ada_round(w, a, moment_of(x)), codes));
  set_num_threads(threads);
}

TEST(AdaRound, WeightsOnTheGridStayWhereOthersMove) {
  for (const int64_t bits : {4, 8}) {
    manual_seed(11);
    const double high = bits == 4 ? 7 : 127;
    const Tensor mix = randn({3, 24}), x = correlated(100, 24, mix), steps = rand({16, 1}) + 0.01;
    const Tensor whole = clamp(cast(cast(randn({16, 24}) * (high / 2), i32), f32), -high, high);
    for (int64_t o = 0; o < 16; ++o) whole.data<float>()[24 * o] = static_cast<float>(high);
    const Tensor free = gt(rand({16, 24}), 0.5), off = where(free, rand({16, 24}) - 0.5, zeros({16, 24}));
    for (int64_t o = 0; o < 16; ++o) off.data<float>()[24 * o] = 0;
    const Tensor w = clamp(whole + off, -high, high) * steps;
    const Affine a = Affine::of(w, {.bits = bits, .granularity = Granularity::channel});
    const auto q = ada_round(w, a, moment_of(x), {.iterations = 100}).to_vector<double>(),
               nearest = a.codes(w).to_vector<double>(), on = whole.to_vector<double>(), o = off.to_vector<double>(),
               v = w.to_vector<double>();
    int64_t hairs = 0, moved = 0;
    for (size_t i = 0; i < q.size(); ++i) {
      moved += q[i] != nearest[i];
      if (o[i] != 0) continue;
      ASSERT_EQ(q[i], on[i]) << bits << " bits, element " << i;
      hairs += v[i] / a.scale[i / 24] != on[i];
    }
    EXPECT_GT(hairs, 20);
    EXPECT_GT(moved, 20);
  }
}

TEST(AdaRound, ErrorsNameTheLayer) {
  manual_seed(12);
  Net module;
  const Tensor x = randn({3, 2, 8, 8});
  const Network net = graph::trace(module, x);
  expect_error<ValueError>(
      [&] { quantize_static(net, calibration({x}), {.ada_round = AdaRoundOptions{.iterations = -1}}); },
      {"quantize_static: 'conv1': ada_round", "-1 iterations"});
}

TEST(AdaRound, RefusesWhatItCannotDo) {
  const Tensor w = ones({4, 3}), m = reshape(eye(3), {1, 3, 3});
  const Affine a = Affine::of(w, {.bits = 4, .granularity = Granularity::channel});
  expect_error<ShapeError>([&] { ada_round(w, a, eye(3)); }, {"[groups, 3, 3]"});
  expect_error<ShapeError>([&] { ada_round(w, a, zeros({3, 3, 3})); }, {"groups"});
  expect_error<DTypeError>([&] { ada_round(cast(w, i8), a, m); }, {"floating"});
  expect_error<ValueError>([&] { ada_round(w, a, m, {.warm_up = 1}); }, {"warm_up"});
  expect_error<ValueError>([&] { ada_round(w, Affine::of(w, {.bits = 4, .symmetric = false}), m); }, {"symmetric"});
  expect_error<NumericError>([&] { ada_round(w, a, full({1, 3, 3}, NAN)); }, {"nan"});
  Tensor bad = clone(w);
  bad.data<float>()[2] = NAN;
  expect_error<NumericError>([&] { ada_round(bad, a, m); }, {"NaN"});
  nn::Linear wide{{.in = 9000, .out = 2}};
  const Tensor x = randn({3, 9000});
  expect_error<ValueError>(
      [&] { quantize_static(graph::trace(wide, x), calibration({x}), {.ada_round = AdaRoundOptions()}); },
      {"9000 taps"});
}

}  // namespace
}  // namespace hone::test
