// Rows of the ops that weight types and fake quantization are made of, and their straight-through gradients, which no
// central difference can see, against their definitions.

#include <algorithm>
#include <cmath>

#include "op_rows.h"

namespace hone::test {
namespace {

// The double nearest-even rounding, without the library's tricks.
double nearest_even(double v) {
  const double below = std::floor(v), part = v - below;
  if (part != 0.5) return part < 0.5 ? below : below + 1;
  return std::fmod(below, 2) == 0 ? below : below + 1;
}
int64_t level_of(const Arrays& in, int64_t i) {
  const int64_t count = in[1].numel();
  if (in.size() > 3) return static_cast<int64_t>(in[3][i]);
  return count == 1 ? 0 : i / (in[0].numel() / count);
}
struct Place {
  double scale, shift, low, high, q, code;
};
Place place(const Arrays& in, int64_t i) {
  const int64_t l = level_of(in, i);
  Place p{std::abs(in[1][l]), in[2].at({l, 0}), in[2].at({l, 1}), in[2].at({l, 2}), 0, 0};
  p.q = (in[0][i] - p.shift) / p.scale;
  const double whole = in[2].at({l, 3}) != 0 ? std::trunc(p.q) : nearest_even(p.q);
  p.code = std::min(std::max(whole, p.low), p.high);
  return p;
}
Arrays quantized(const Arrays& in) {
  Array y(in[0].shape);
  for (int64_t i = 0; i < y.numel(); ++i) {
    const Place p = place(in, i);
    y[i] = p.scale == 0 || std::isnan(in[0][i]) ? in[0][i] : p.scale * p.code + p.shift;
  }
  return {y};
}

Tensor points(std::initializer_list<double> v) { return values(v, {static_cast<int64_t>(v.size()) / 4, 4}); }
Tensors call_fake_quantize(const Tensors& x) {
  return {fake_quantize(x[0], x[1], cast(x[2], DType::f64), x.size() > 3 ? x[3] : Tensor())};
}

}  // namespace

std::vector<OpRow> weight_rows() {
  std::vector<OpRow> rows;
  rows.push_back(
      {.op = "codebook",
       .call = [](const Tensors& x) { return Tensors{codebook(x[0], x[1])}; },
       .samples =
           [] {
             return std::vector<Sample>{
                 {"codes in disorder", {uniform({7}, -2, 2, 1), cast(integers({3, 5, 2}, 0, 7, 2), DType::u8)}},
                 {"one centroid", {uniform({1}, -2, 2, 3), zeros({4}, DType::u8)}},
                 {"all 256, some never used", {uniform({256}, -2, 2, 4), cast(integers({40}, 0, 256, 5), DType::u8)}},
                 {"0-d codes", {uniform({3}, -2, 2, 6), scalar(2, DType::u8)}},
                 {"no codes", {uniform({3}, -2, 2, 7), zeros({2, 0}, DType::u8)}},
                 {"a code without a centroid", {uniform({3}, -2, 2, 8), tensor(std::vector<uint8_t>{0, 3, 2})}, false}};
           },
       .reference =
           [](const Arrays& x) {
             Array y(x[1].shape);
             for (int64_t i = 0; i < y.numel(); ++i) {
               const auto code = static_cast<int64_t>(x[1][i]);
               y[i] = code < x[0].numel() ? x[0][code] : kNan;
             }
             return Arrays{y};
           }});
  rows.push_back(
      {.op = "fake_quantize",
       .variant = "grids",
       .call = call_fake_quantize,
       .samples =
           [] {
             return std::vector<Sample>{
                 {"one level with a shift",
                  {uniform({5, 7}, -2, 2, 10), values({0.125}), points({0.5, -8, 7, 0})},
                  false,
                  false},
                 {"halves go to even",
                  {values({-2.5, -1.5, -0.5, 0.5, 1.5, 2.5, 3.5}), values({1}), points({0, -2, 3, 0})},
                  false,
                  false},
                 {"truncation",
                  {values({-2.75, -0.5, 0.5, 1.75, 9}), values({1}), points({0, -2, 3, 1})},
                  false,
                  false},
                 {"a level a row",
                  {uniform({3, 4}, -2, 2, 11), values({0.5, 0, 0.25}),
                   points({0, -4, 3, 0, 0, 0, 0, 0, 0.5, -2, 1, 1})},
                  false,
                  false},
                 {"levels by id, one keeps",
                  {uniform({6, 5}, -2, 2, 12), values({0.25, 0, 1}), points({0, -4, 3, 0, 0, 0, 0, 0, 0, -1, 1, 0}),
                   cast(integers({6, 5}, 0, 3, 13), DType::u8)},
                  false,
                  false},
                 {"a scale below 0", {values({-1.2, 0.7}), values({-0.5}), points({0, -2, 1, 0})}, false, false},
                 {"not numbers, and beyond every code",
                  {values({kNan, kInf, -kInf, 1e30}), values({0.5}), points({0, -128, 127, 0})},
                  false,
                  false},
                 {"0-d", {scalar(0.3, DType::f64), values({0.25}), points({0, -8, 7, 0})}, false, false},
                 {"empty", {zeros({0, 3}, DType::f64), values({0.25}), points({0, -8, 7, 0})}, false, false}};
           },
       .reference = quantized,
       .differentiable = false,  // rounding: the surrogate is tested below
       .second_order = false,
       .constant = {2}});
  rows.push_back(
      {.op = "fake_quantize",
       .variant = "beyond_its_bounds",  // where the surrogate is the derivative
       .call = call_fake_quantize,
       .samples =
           [] {
             return std::vector<Sample>{
                 {"above", {uniform({3, 4}, 2, 3, 14), values({0.25}), points({0.5, -4, 3, 0})}, true, false},
                 {"below, by rows",
                  {uniform({2, 4}, -3, -2, 15), values({0.25, 0.5}), points({0, -4, 3, 0, 0, -2, 1, 0})},
                  true,
                  false}};
           },
       .reference = quantized,
       .second_order = false,
       .constant = {2}});
  rows.push_back({.op = "straight_through",
                  .call = [](const Tensors& x) { return Tensors{straight_through(x[0], x[1], -1, 0.5)}; },
                  .samples =
                      [] {
                        return std::vector<Sample>{
                            {"matrices", {uniform({5, 7}, -2, 2, 16), uniform({5, 7}, -2, 2, 17)}},
                            {"0-d", {scalar(0.3, DType::f64), scalar(2, DType::f64)}},
                            {"not numbers", {values({kNan, 1, 2}), values({1, kInf, kNan})}, false},
                            {"empty", {zeros({0, 3}, DType::f64), zeros({0, 3}, DType::f64)}}};
                      },
                  .reference = [](const Arrays& x) { return Arrays{x[1]}; },
                  .differentiable = false,  // it is another function's gradient: tested below
                  .second_order = false});
  return rows;
}

namespace {

Array array_of(const Tensor& t) {
  Array a(t.shape());
  a.v = t.to_vector<double>();
  return a;
}

TEST(FakeQuantize, GradientsAreTheStatedSurrogate) {
  for (const bool by_id : {false, true}) {
    for (const auto mode : {ScaleGradient::none, ScaleGradient::plain, ScaleGradient::normalized}) {
      for (const bool clip : {true, false}) {
        const Tensor x = uniform({4, 30}, -2, 2, 20).requires_grad_(), g = uniform({4, 30}, -1, 1, 21);
        const Tensor scale = by_id ? values({0.25, 0, -0.5}) : values({0.25, 0, 0.5, 0.125});
        const Tensor at = by_id ? points({0, -4, 3, 0, 0, -1, 1, 0, 0.25, -2, 0, 0})
                                : points({0, -4, 3, 0, 0, -1, 1, 0, 0.25, -2, 0, 0, 0, 0, 15, 0});
        const Tensor ids = by_id ? cast(integers({4, 30}, 0, 3, 22), DType::u8) : Tensor();
        Tensor(scale).requires_grad_();
        fake_quantize(x, scale, at, ids, {mode, clip}).backward(g);

        Arrays in = {array_of(x), array_of(scale), array_of(at)};
        if (by_id) in.push_back(array_of(ids));
        std::vector<double> dx, ds(static_cast<size_t>(scale.numel()), 0), count(ds.size(), 0);
        for (int64_t i = 0; i < x.numel(); ++i) {
          const Place p = place(in, i);
          const auto l = static_cast<size_t>(level_of(in, i));
          const double gi = array_of(g)[i];
          const bool inside = p.q >= p.low && p.q <= p.high, keeps = p.scale == 0;
          dx.push_back(!clip || keeps || inside ? gi : 0);
          ++count[l];
          if (keeps) continue;
          const double sign = in[1][static_cast<int64_t>(l)] < 0 ? -1 : 1;
          ds[l] += gi * sign * (inside ? nearest_even(p.q) - p.q : p.q < p.low ? p.low : p.high);
        }
        for (size_t l = 0; l < ds.size(); ++l) {
          const double high = in[2].at({static_cast<int64_t>(l), 2}), low = in[2].at({static_cast<int64_t>(l), 1});
          if (mode == ScaleGradient::normalized) ds[l] /= std::sqrt(count[l] * (high > 0 ? high : -low));
        }
        expect_close(x.grad().to_vector<double>(), dx, {0, 0}, "dx");
        if (mode == ScaleGradient::none)
          EXPECT_FALSE(scale.grad().defined() && max(abs(scale.grad())).item() > 0);
        else
          expect_close(scale.grad().to_vector<double>(), ds, {1e-12, 1e-13}, "dscale");
      }
    }
  }
}

TEST(FakeQuantize, SumsHaveTheSameBitsAtAnyThreadCount) {
  const Tensor g = randn({70000}), codes = cast(randint(0, 9, {70000}), DType::u8);
  const auto run = [&] {
    const Tensor c = zeros({9}).requires_grad_(), s = full({1}, 0.1).requires_grad_();
    codebook(c, codes).backward(g);
    fake_quantize(g, s, points({0, -8, 7, 0})).backward(g);
    return std::pair{c.grad(), s.grad()};
  };
  const int threads = num_threads();
  set_num_threads(1);
  const auto one = run();
  set_num_threads(4);
  const auto four = run();
  set_num_threads(threads);
  EXPECT_TRUE(equal(one.first, four.first));
  EXPECT_TRUE(equal(one.second, four.second));
}

TEST(FakeQuantize, RefusesWhatIsNoGrid) {
  const Tensor x = ones({2, 3}), s = ones({1}), p = points({0, -1, 1, 0});
  expect_error<ShapeError>(
      [&] {
        fake_quantize(x, ones({3}), points({0, -1, 1, 0, 0, -1, 1, 0, 0, -1, 1, 0}));
      },
      "3 scales");
  expect_error<ShapeError>([&] { fake_quantize(x, s, ones({1, 3}, DType::f64)); }, "[1, 4]");
  expect_error<DTypeError>([&] { fake_quantize(x, s, ones({1, 4})); }, "f64");
  expect_error<DTypeError>([&] { fake_quantize(x, s, p, ones({2, 3})); }, "u8");
  expect_error<ShapeError>([&] { fake_quantize(x, s, p, zeros({3, 2}, DType::u8)); }, "levels");
  expect_error<ShapeError>([&] { fake_quantize(x, s, p, {}, {.kept = ones({3, 2}, DType::boolean)}); }, "kept");
  expect_error<DTypeError>([&] { fake_quantize(x, s, p, {}, {.kept = ones({2, 3})}); }, "kept");
  expect_error<ValueError>([&] { fake_quantize(x, s, points({0, 1, -1, 0})); }, "in order");
  expect_error<ValueError>([&] { fake_quantize(x, s, points({0, 0.5, 1, 0})); }, "integers");
  expect_error<ValueError>([&] { fake_quantize(x, s, points({kNan, 0, 1, 0})); }, "shift");
  for (const double bad : {static_cast<double>(kNan), HUGE_VAL, -HUGE_VAL}) {
    expect_error<ValueError>([&] { fake_quantize(x, full(s.shape(), bad, s.dtype()), p); },
                             {"level 0", "scale", str(bad)});
    expect_error<ValueError>(
        [&] {
          Parameter(ones({3})).ref().set_grid({full({1}, bad), points({0, -1, 1, 0})});
        },
        {"scale", str(bad)});
  }
  expect_error<GradError>(
      [&] {
        const Tensor y = ones({2, 3}).requires_grad_();
        const Tensor dy = grad({sum(square(fake_quantize(y, s, p)))}, {y}, {.create_graph = true})[0];
        sum(dy).backward();
      },
      "straight-through");
}

TEST(StraightThrough, HasTheGradientOfClamp) {
  const Tensor x = values({-2, -1, -0.5, 0.5, 0.75}).requires_grad_(), y = uniform({5}, -1, 1, 28).requires_grad_();
  const Tensor g = values({1, 2, 3, 4, 5});
  straight_through(x, y, -1, 0.5).backward(g);
  EXPECT_EQ(x.grad().to_vector<double>(), (std::vector<double>{0, 2, 3, 4, 0}));
  EXPECT_FALSE(y.grad().defined() && max(abs(y.grad())).item() > 0);
  x.set_grad({});
  straight_through(x, y, -kInf, kInf).backward(g);
  EXPECT_TRUE(equal(x.grad(), g));
  expect_error<ValueError>([&] { straight_through(x, y, 1, 0); }, "above high");
  expect_error<ShapeError>([&] { straight_through(x, ones({4}, DType::f64), 0, 1); }, "one shape");
  expect_error<DTypeError>([&] { straight_through(x, ones({5}), 0, 1); }, "straight_through");
}

TEST(QuantizationInTraining, LsqIsThePapersFormula) {
  const Tensor v = uniform({50}, -2, 2, 30).requires_grad_(), s = values({0.3}).requires_grad_(),
               g = uniform({50}, -1, 1, 31);
  const Tensor y = lsq(v, s, {.bits = 3});
  y.backward(g);
  double ds = 0;
  for (int64_t i = 0; i < 50; ++i) {
    const double r = array_of(v)[i] / 0.3, bar = nearest_even(std::min(std::max(r, -4.0), 3.0));
    EXPECT_NEAR(array_of(y)[i], bar * 0.3, 1e-15);
    EXPECT_EQ(array_of(v.grad())[i], r > -4 && r < 3 ? array_of(g)[i] : 0);
    ds += array_of(g)[i] * (r <= -4 ? -4 : r >= 3 ? 3 : bar - r);
  }
  EXPECT_NEAR(s.grad().item(), ds / std::sqrt(50 * 3.0), 1e-13);
  EXPECT_NEAR(lsq_start(v, {.bits = 3}).item(), 2 * mean(abs(v)).item() / std::sqrt(3.0), 1e-15);
  EXPECT_EQ(max(lsq(abs(v), s, {.bits = 2, .is_signed = false})).item(), 3 * 0.3);
}

TEST(QuantizationInTraining, PactIsThePapersFormula) {
  const Tensor x = uniform({60}, -1, 2, 32).requires_grad_(), g = uniform({60}, -1, 1, 33);
  const Tensor alpha = values({0.9}).requires_grad_();
  const Tensor y = pact(x, alpha, 2);
  y.backward(g);
  double da = 0;
  for (int64_t i = 0; i < 60; ++i) {
    const double v = array_of(x)[i], clip = std::min(std::max(v, 0.0), 0.9);
    EXPECT_NEAR(array_of(y)[i], nearest_even(clip * 3 / 0.9) * 0.9 / 3, 1e-12);
    EXPECT_EQ(array_of(x.grad())[i], v > 0 && v < 0.9 ? array_of(g)[i] : 0);
    if (v >= 0.9) da += array_of(g)[i];
  }
  EXPECT_NEAR(alpha.grad().item(), da, 1e-13);
  expect_error<ShapeError>([&] { pact(x, values({1, 2})); }, "[1]");
  for (const double bad : {0.0, -0.5, std::nan("")})
    expect_error<ValueError>([&] { pact(x, values({bad})); }, {"pact", "alpha", str(bad)});
  struct Bounded : nn::Module {
    Parameter bound{full({1}, 6.0)};
    HONE_MODULE(Bounded, bound)
    Tensor forward(const Tensor& t) { return pact(t, bound.value()); }
  } module;
  const Tensor rows = cast(reshape(x.detach(), {6, 10}), f32);
  graph::Network net = graph::trace(module, rows);  // the check is no part of the graph
  EXPECT_TRUE(equal(net(rows), module(rows)));
}

TEST(QuantizationInTraining, DoReFaIsThePapersFormula) {
  const Tensor w = uniform({40}, -2, 2, 34).requires_grad_(), x = uniform({40}, -0.5, 1.5, 35).requires_grad_();
  const Tensor g = uniform({40}, -1, 1, 36);
  double most = 0;
  for (const double v : w.to_vector<double>()) most = std::max(most, std::abs(std::tanh(v)));
  const Tensor q = dorefa_weight(w, 3), a = dorefa_activation(x, 2);
  for (int64_t i = 0; i < 40; ++i) {
    const double n = std::tanh(array_of(w)[i]) / (2 * most) + 0.5;
    EXPECT_NEAR(array_of(q)[i], 2 * nearest_even(7 * n) / 7 - 1, 1e-12);
    EXPECT_NEAR(array_of(a)[i], nearest_even(3 * std::min(std::max(array_of(x)[i], 0.0), 1.0)) / 3, 1e-12);
  }
  // The gradient is that of the same formula without its rounding, which central differences do see.
  const auto smooth = [](const std::vector<Tensor>& in) { return tanh(in[0]) / max(abs(tanh(in[0]))); };
  const Tensor plain = w.detach();
  const Tensor copy = clone(plain).requires_grad_();
  gradcheck([&](const std::vector<Tensor>& in) { return std::vector<Tensor>{smooth(in)}; }, {copy});
  q.backward(g);
  smooth({copy}).backward(g);
  expect_close(w.grad(), copy.grad(), {1e-12, 1e-14}, "dw");
  a.backward(g);
  for (int64_t i = 0; i < 40; ++i) {
    const double v = array_of(x)[i];
    EXPECT_EQ(array_of(x.grad())[i], v >= 0 && v <= 1 ? array_of(g)[i] : 0);
  }
}

TEST(QuantizationInTraining, DynamicRangeIsThatOfTheBatch) {
  for (const double size : {0.01, 1.0, 300.0}) {
    const Tensor x = (uniform({4, 9}, -1, 1, 37) * size).detach().requires_grad_(), g = uniform({4, 9}, -1, 1, 38);
    const Tensor y = dynamic_fake_quantize(x, 8);
    y.backward(g);
    const double step = max(abs(x)).item() / 127;
    for (int64_t i = 0; i < 36; ++i)
      EXPECT_NEAR(array_of(y)[i], nearest_even(array_of(x)[i] / step) * step, 1e-12 * size);
    EXPECT_TRUE(equal(x.grad(), g));
  }
  EXPECT_TRUE(equal(dynamic_fake_quantize(zeros({3})), zeros({3})));
  EXPECT_EQ(dynamic_fake_quantize(zeros({0, 2})).numel(), 0);
  EXPECT_EQ(dynamic_fake_quantize(full({2}, 3.0, DType::bf16)).to_vector<double>(), (std::vector<double>{3, 3}));
  expect_error<ValueError>([] { dynamic_fake_quantize(ones({2}), 1); }, "bits");
  expect_error<DTypeError>([] { dynamic_fake_quantize(arange(0, 3)); }, "floating");
  for (const double bad : {static_cast<double>(kNan), HUGE_VAL})
    expect_error<ValueError>([&] { dynamic_fake_quantize(tensor({1.0, bad})); }, {"scale", str(bad)});
}

}  // namespace
}  // namespace hone::test
