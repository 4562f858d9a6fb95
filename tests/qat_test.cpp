// Training on integers: what forward computes is what the converted network computes, bit for bit.

#include <cmath>
#include <map>

#include "graph_support.h"
#include "hone/compress/graph/pass_support.h"
#include "simd_targets.h"
#include "support.h"

namespace hone::test {
namespace {

using compress::quantize::calibration;
using compress::quantize::Granularity;
using compress::quantize::QatNetwork;
using compress::quantize::QatOptions;
using compress::quantize::quantize_static;
using graph::Network;

struct Small : nn::Module {
  nn::Conv2d conv1{{.in = 2, .out = 6, .kernel = 3, .padding = 1}};
  nn::Conv2d conv2{{.in = 6, .out = 8, .kernel = 3, .padding = 1, .bias = false}};
  nn::BatchNorm2d bn{{.features = 8}};
  nn::Linear fc1{{.in = 8 * 4, .out = 16}}, fc2{{.in = 16, .out = 5}};
  HONE_MODULE(Small, conv1, conv2, bn, fc1, fc2)
  Tensor forward(const Tensor& x) {
    Tensor h = max_pool2d(relu(conv1(x)), 2);
    h = avg_pool2d(clamp(bn(conv2(h)), -0.5, 3.0), 2);
    return fc2(relu(fc1(flatten(h, 1))));
  }
};

/// Adds, concat, a table, grouped convolution, a value with several readers, moves of codes, f32 behind the last layer.
struct Residual : nn::Module {
  nn::Conv2d conv1{{.in = 2, .out = 6, .kernel = 3, .padding = 1}};
  nn::Conv2d conv2{{.in = 6, .out = 6, .kernel = 3, .padding = 1, .groups = 2, .bias = false}};
  nn::BatchNorm2d bn{{.features = 6}};
  nn::Linear fc{{.in = 12 * 4, .out = 7}}, last{{.in = 7, .out = 5}};
  HONE_MODULE(Residual, conv1, conv2, bn, fc, last)
  Tensor forward(const Tensor& x) {
    const Tensor h = tanh(conv1(x));
    const Tensor g = relu(bn(conv2(h)) + h);
    Tensor y = concat({max_pool2d(g, 2), avg_pool2d(clamp(h, -0.5, 0.75), 2)}, 1);
    y = adaptive_avg_pool2d(y, 2);
    y = silu(fc(reshape(permute(y, {0, 2, 3, 1}), {x.size(0), -1})));
    return relu(last(y));
  }
};

/// Images whose class is which of five patterns they hold.
std::pair<Tensor, Tensor> draw(int64_t n) {
  static const Tensor patterns = [] {
    manual_seed(100);
    return randn({5, 2, 8, 8});
  }();
  const Tensor labels = randint(0, 5, {n});
  const Tensor noise = randn({n, 2, 8, 8});
  return {index_select(patterns, 0, labels) + noise, labels};
}
void train(QatNetwork& qat, int steps, double lr = 2e-3) {
  optim::Adam adam(qat.parameters(), {.lr = lr});
  for (int i = 0; i < steps; ++i) {
    const auto [x, labels] = draw(16);
    const Tensor loss = cross_entropy(qat(x), labels);
    adam.zero_grad();
    loss.backward();
    adam.step();
  }
}
/// The logits of training, of eval mode, of the converted network, its file and its executor are the same bits, at 1
/// and 2 threads and on every SIMD target.
void expect_one_truth(QatNetwork& qat, const Tensor& x) {
  const NoGrad no_grad;
  qat.train();
  const Tensor moving = qat(x);  // by the ranges that this batch has moved
  ASSERT_TRUE(equal(qat.convert()(x), moving));
  qat.freeze();
  const Tensor want = qat(x);
  Network small = qat.convert();
  ASSERT_TRUE(equal(small(x), want)) << small.table();
  ASSERT_TRUE(equal(graph::from_tensor_file(graph::to_tensor_file(small))(x), want));
  const int threads = num_threads();
  for (const int t : {1, 2}) {
    set_num_threads(t);
    on_every_int8_target([&](int64_t) {
      ASSERT_TRUE(equal(qat.train()(x), want)) << t << " threads";
      ASSERT_TRUE(equal(qat.eval()(x), want));
      ASSERT_TRUE(equal(small(x), want));
      graph::Executor executor(small, {.batch = x.size(0)});
      for (int run = 0; run < 2; ++run) ASSERT_TRUE(equal(executor.run(x), want));
    });
  }
  set_num_threads(threads);
  qat.train();
}
template <class M> Network traced() {
  M module;
  disturb_norms(module);
  return graph::trace(module, randn({3, 2, 8, 8}));
}

TEST(Qat, ConversionChangesNoLogit) {
  for (const int64_t bits : {8, 4})
    for (const bool learned : {false, true})
      for (const Granularity weights : {Granularity::channel, Granularity::tensor}) {
        SCOPED_TRACE(str(bits, " bits, learned ", learned));
        manual_seed(1);
        QatNetwork qat(traced<Small>(), {.bits = bits, .weights = weights, .learned_steps = learned});
        train(qat, 5);
        const Tensor x = draw(33).first;
        expect_one_truth(qat, x);
        train(qat, 5);
        expect_one_truth(qat, x);
      }
}

TEST(Qat, ConversionChangesNoLogitOfResidualNetworks) {
  for (const int64_t bits : {8, 4}) {
    manual_seed(2);
    QatNetwork qat(traced<Residual>(), {.bits = bits});
    train(qat, 5);
    expect_one_truth(qat, draw(9).first);
  }
  nn::ResNet module{{.depth = 8, .in = 1, .width = 8}};
  disturb_norms(module);
  const Tensor x = randn({4, 1, 32, 32});
  QatNetwork qat(graph::trace(module, x));
  sum(square(qat(x))).backward();
  expect_one_truth(qat, x);
}

TEST(Qat, IsWhatStaticQuantizationMakes) {
  manual_seed(3);
  const Network net = traced<Small>();
  const Tensor x = draw(40).first;
  QatNetwork qat(net, {.activations = {.method = compress::quantize::Observe::min_max, .momentum = 1}});
  const NoGrad no_grad;
  qat(x);
  // Ranges here are of values made by integers, there of f32: near, not the same.
  Network here = qat.convert(), there = quantize_static(net, calibration({x}));
  ASSERT_EQ(here.nodes().size(), there.nodes().size());
  int weights = 0;  // whose codes take no ranges of activations
  for (size_t i = 0; i < here.nodes().size(); ++i) {
    const graph::Node &n = here.nodes()[i], &m = there.nodes()[i];
    ASSERT_EQ(n.op, m.op);
    for (size_t k = 0; k < n.inputs.size(); ++k) {
      if (n.inputs[k] == graph::kNone || here.value(n.inputs[k]).dtype != i8) continue;
      ++weights;
      EXPECT_TRUE(equal(graph::detail::elements(here, n.inputs[k]), graph::detail::elements(there, m.inputs[k])))
          << n.name;
    }
  }
  EXPECT_GE(weights, 2);
  const auto a = here(x).to_vector<double>(), b = there(x).to_vector<double>();
  double error = 0, size = 0;
  for (size_t i = 0; i < a.size(); ++i) error += (a[i] - b[i]) * (a[i] - b[i]), size += b[i] * b[i];
  EXPECT_LT(std::sqrt(error / size), 0.02);
}

TEST(Qat, LearnsWhatRoundingAloneLoses) {
  manual_seed(4);
  Small module;
  optim::Adam adam(module.parameters(), {.lr = 3e-3});
  for (int i = 0; i < 150; ++i) {
    const auto [x, labels] = draw(32);
    const Tensor loss = cross_entropy(module(x), labels);
    adam.zero_grad();
    loss.backward();
    adam.step();
  }
  const Network net = graph::trace(module.eval(), draw(3).first);
  const auto [x, labels] = draw(1000);
  const auto [c, unused] = draw(200);
  const auto loss_of = [&, &x = x, &labels = labels](Network n) {
    const NoGrad no_grad;
    return cross_entropy(n(x), labels).item();
  };
  const double rounded = loss_of(quantize_static(net, calibration({c}), {.bits = 4, .weights = Granularity::tensor}));
  for (const bool learned : {false, true}) {
    QatNetwork qat(net, {.bits = 4, .weights = Granularity::tensor, .learned_steps = learned});
    std::vector<ParameterRef> trained = qat.parameters();
    EXPECT_EQ(qat.steps().size(), learned ? 4u : 0u);
    train(qat, 40);
    qat.freeze();
    train(qat, 60);
    EXPECT_LT(loss_of(qat.convert()), 0.9 * rounded) << learned;
  }
}

TEST(Qat, LearnedStepsBeginAsInThePaper) {
  for (const int64_t bits : {8, 4}) {
    manual_seed(9);
    nn::Linear module{{.in = 3, .out = 2}};
    QatNetwork qat(graph::trace(module, randn({4, 3})), {.bits = bits, .learned_steps = true});
    const auto w = module.weight.raw().to_vector<double>();
    ASSERT_EQ(qat.steps().size(), 1u);
    const auto step = qat.steps()[0].raw().to_vector<double>();
    const double high = bits == 8 ? 127 : 7;
    for (size_t o = 0; o < 2; ++o) {
      const double mean = (std::abs(w[3 * o]) + std::abs(w[3 * o + 1]) + std::abs(w[3 * o + 2])) / 3;
      EXPECT_NEAR(step[o], 2 * mean / std::sqrt(high), 1e-6);
    }
    sum(square(qat(randn({4, 3})))).backward();
    EXPECT_GT(max(abs(qat.steps()[0].grad())).item(), 0);
  }
}

TEST(Qat, LearnedStepsBeginWithoutClippingMaskedWeights) {
  for (const int64_t bits : {8, 4})
    for (const Granularity weights : {Granularity::channel, Granularity::tensor}) {
      manual_seed(10);
      Network net = traced<Small>();
      compress::prune(net, {.criterion = compress::magnitude(), .density = 0.1});
      QatNetwork qat(net, {.bits = bits, .weights = weights, .learned_steps = true});
      for (const auto& [name, p] : qat.named_parameters()) {
        if (!p.mask().defined()) continue;
        const auto w = masked(p.raw(), p.mask()).detach().to_vector<double>(), v = p.value().to_vector<double>();
        const size_t row = weights == Granularity::tensor ? w.size() : w.size() / static_cast<size_t>(p.shape()[0]);
        for (size_t first = 0; first < w.size(); first += row) {
          double most = 0;
          for (size_t i = first; i < first + row; ++i) most = std::max(most, std::abs(w[i]));
          const double half = most / (bits == 8 ? 127 : 7) / 2;
          for (size_t i = first; i < first + row; ++i) ASSERT_NEAR(v[i], w[i], 1.0001 * half + 1e-12) << name;
        }
      }
    }
}

TEST(Qat, RowsOfZerosLearnOnTheirOwnGrid) {
  manual_seed(11);
  nn::Linear module{{.in = 4, .out = 3}};
  std::fill_n(Tensor(module.weight.raw()).data<float>() + 4, 4, 0.0f);
  const Tensor x = randn({5, 4});
  QatNetwork qat(graph::trace(module, x), {.bits = 4, .learned_steps = true});
  const auto scales = qat.steps()[0].raw().to_vector<double>();
  EXPECT_NEAR(scales[1], 1 / (2.0 * 7), 1e-6);
  const ParameterRef p = qat.parameters()[0];
  const Tensor w = clone(p.raw());
  w.data<float>()[5] = 0.1f;
  p.replace(w);
  const NoGrad no_grad;
  const auto v = qat.parameters()[0].value().to_vector<double>();
  EXPECT_NEAR(v[5], 1 / 14.0, 1e-6);  // on the grid, not a float
  expect_one_truth(qat, x);
  // A row whose step is 0 has a scale of its own in integers; the others keep their learned steps.
  Network zero = graph::trace(module, x);
  const ParameterRef q = zero.parameter(zero.find("weight")).ref();
  q.replace(w);
  q.set_grid({.scale = tensor({0.5f, 0.0f, 0.25f}),
              .points = tensor({0.0, -7.0, 7.0, 0.0, 0.0, -7.0, 7.0, 0.0, 0.0, -7.0, 7.0, 0.0}, {3, kGridColumns})});
  const Network small = quantize_static(zero, calibration({x}), {.bits = 4});
  const auto unit = small.constant(small.find("weight.scale")).value.to_vector<double>();
  EXPECT_NEAR(unit[0] / unit[2], 2, 1e-5);
  EXPECT_NEAR(unit[1] / unit[2], 0.1 / 7 / 0.25, 1e-5);
}

TEST(Qat, MasksSurvive) {
  for (const bool learned : {false, true}) {
    manual_seed(5);
    Network net = traced<Small>();
    compress::prune(net, {.criterion = compress::magnitude(), .density = 0.2});
    QatNetwork qat(net, {.bits = 4, .learned_steps = learned});
    train(qat, 10);
    qat.freeze();
    const Network small = qat.convert();
    for (const auto& [name, p] : qat.named_parameters()) {
      if (!p.mask().defined()) continue;
      const auto mask = p.mask().to_vector<int64_t>();
      const auto value = p.value().to_vector<double>();
      int64_t hidden = 0;
      for (size_t i = 0; i < mask.size(); ++i) {
        if (mask[i] != 0) continue;
        ASSERT_EQ(value[i], 0);
        ++hidden;
      }
      EXPECT_GT(hidden, 0) << name;
      // And so they are code 0 in the integer network.
      if (p.shape().ndim() != 2) continue;
      const Int8Matrix packed{small.constant(small.find(name + ".codes")).value, p.shape(), 1, 4, 1};
      const auto codes = packed.dense().to_vector<int64_t>();
      for (size_t i = 0; i < mask.size(); ++i) {
        if (mask[i] != 0) continue;
        ASSERT_EQ(codes[i], 0) << name;
      }
    }
    expect_one_truth(qat, draw(7).first);
  }
}

// Pruned, then shared, then trained on integers by a teacher: each stage keeps what those before it made.
TEST(Qat, ComposesWithMasksCodebooksAndDistillation) {
  struct Plain : nn::Module {  // no batch norm, which is not folded into a codebook
    nn::Conv2d conv1{{.in = 2, .out = 6, .kernel = 3, .padding = 1}}, conv2{{.in = 6, .out = 8, .kernel = 3}};
    nn::Linear fc1{{.in = 8 * 4, .out = 16}}, fc2{{.in = 16, .out = 5}};
    HONE_MODULE(Plain, conv1, conv2, fc1, fc2)
    Tensor forward(const Tensor& x) {
      const Tensor h = max_pool2d(relu(conv1(x)), 2);
      return fc2(relu(fc1(flatten(relu(conv2(h)), 1))));
    }
  };
  manual_seed(12);
  Plain wide, net;
  const compress::Teacher teacher(wide);
  compress::prune(net, {.density = 0.3});
  const auto shared =
      compress::quantize::share_weights(net, {.clusters = 6, .start = compress::quantize::KMeansStart::optimal});
  ASSERT_EQ(shared.layers.size(), 4u);
  QatNetwork qat(graph::trace(net, draw(2).first), {.weights = Granularity::tensor});
  struct Kept {
    Tensor mask, codes, centroids;
  };
  std::map<std::string, Kept> before;
  for (const auto& [name, p] : qat.named_parameters())
    if (p.type() == WeightType::codebook) before[name] = {clone(p.mask()), clone(p.codes()), clone(p.raw().detach())};
  ASSERT_EQ(before.size(), 4u);

  const Tensor x = draw(64).first;
  optim::Adam adam(qat.parameters(), {.lr = 1e-2});
  double first = 0, last = 0;
  for (int i = 0; i < 40; ++i) {
    if (i == 20) qat.freeze();
    adam.zero_grad();
    const Tensor loss = compress::kd_loss(qat(x), teacher.logits(x), {}, {.temperature = 2, .alpha = 1});
    (i == 0 ? first : last) = loss.item();
    loss.backward();
    adam.step();
  }
  EXPECT_LT(last, 0.8 * first);

  Network small = qat.convert();
  for (const auto& [name, p] : qat.named_parameters()) {
    if (!before.contains(name)) continue;
    const Kept& kept = before[name];
    EXPECT_EQ(p.type(), WeightType::codebook) << name;
    EXPECT_TRUE(equal(p.mask(), kept.mask)) << name;
    EXPECT_TRUE(equal(p.codes(), kept.codes)) << name;
    EXPECT_EQ(p.raw().shape(), kept.centroids.shape()) << name;
    EXPECT_FALSE(equal(p.raw().detach(), kept.centroids)) << name << ": nothing was learnt";
    // And the integer network has an integer for each centroid, and 0 for what the mask hides.
    if (p.shape().ndim() != 2) continue;
    const Int8Matrix packed{small.constant(small.find(name + ".codes")).value, p.shape(), 1, 8, 1};
    const auto integers = packed.dense().to_vector<int64_t>(), mask = p.mask().to_vector<int64_t>(),
               codes = p.codes().to_vector<int64_t>();
    std::map<int64_t, int64_t> of_code;
    size_t hidden = 0;
    for (size_t i = 0, k = 0; i < mask.size(); ++i) {
      if (mask[i] == 0) {
        ASSERT_EQ(integers[i], 0) << name;
        ++hidden;
        continue;
      }
      const auto code = codes[codes.size() == mask.size() ? i : k++];
      ASSERT_EQ(of_code.emplace(code, integers[i]).first->second, integers[i])
          << name << ": two integers of code " << code;
    }
    EXPECT_GT(hidden, mask.size() / 3) << name;
    EXPECT_GT(of_code.size(), 1u) << name;
  }
  expect_one_truth(qat, draw(7).first);
  // The packed file holds the same integers; that of the network before conversion its masks, codes and centroids.
  Network loaded = compress::Packed::parse(compress::pack(small).bytes()).network();
  EXPECT_EQ(graph::difference(small, loaded), "");
  EXPECT_TRUE(equal(loaded(x), small(x)));
  Network floats = compress::Packed::parse(compress::pack(qat.network()).bytes()).network();
  EXPECT_EQ(graph::difference(qat.network(), floats), "");
}

TEST(Qat, GradientsAreThoseOfTheValuesThatCodesStandFor) {
  // y = Ŵ x̂ + b: dW = gᵀ x̂, db = Σ g, dx = g Ŵ, where x̂ and Ŵ are what the codes stand for, far from x and W.
  manual_seed(6);
  struct One : nn::Module {
    nn::Linear fc{{.in = 3, .out = 2}};
    HONE_MODULE(One, fc)
    Tensor forward(const Tensor& x) { return fc(x); }
  } module;
  const Tensor x = randn({5, 3}), g = randn({5, 2});
  QatNetwork qat(graph::trace(module, x), {.bits = 4});
  {
    const NoGrad no_grad;
    qat(x * 40.0);  // a coarse range
  }
  qat.freeze();
  Tensor far = clone(x);
  far.data<float>()[4] = 1000;
  far.requires_grad_();
  qat(far).backward(g);
  const Network small = qat.convert();
  const auto& q = small.nodes()[0].attributes.as<QuantizeAttrs>();
  const NoGrad no_grad;
  const Tensor rounded = int8_dequantize(int8_quantize(far, q.scale, q.range), q.scale, q.range.zero_point);
  ASSERT_GT(max(abs(rounded - x)).item(), 0.05);
  EXPECT_TRUE(allclose(qat.parameters()[0].grad(), matmul(transpose(g), rounded), 1e-4, 1e-4));
  EXPECT_TRUE(allclose(qat.parameters()[1].grad(), sum(g, {0})));
  const auto w = module.fc.weight.raw().to_vector<double>(), gv = g.to_vector<double>();
  const auto dx = far.grad().to_vector<double>();
  const auto grid = [&](size_t o, size_t k) {
    const double step = std::max({std::abs(w[3 * o]), std::abs(w[3 * o + 1]), std::abs(w[3 * o + 2])}) / 7;
    return step * std::nearbyint(w[3 * o + k] / step);
  };
  for (size_t i = 0; i < 15; ++i) {  // nothing for the x that lies outside of its range
    const size_t r = i / 3, k = i % 3;
    EXPECT_NEAR(dx[i], i == 4 ? 0 : gv[2 * r] * grid(0, k) + gv[2 * r + 1] * grid(1, k), 1e-5) << i;
  }
}

TEST(Qat, RangesAreMovingAveragesUntilFrozen) {
  manual_seed(7);
  nn::Linear module{{.in = 2, .out = 2}};
  QatNetwork qat(graph::trace(module, randn({3, 2})),
                 {.activations = {.method = compress::quantize::Observe::moving_average, .momentum = 0.25}});
  const NoGrad no_grad;
  const auto range = [&] { return qat.named_buffers()[0].buffer->tensor().to_vector<double>(); };
  ASSERT_EQ(qat.named_buffers()[0].name, "qat.ranges");
  qat(tensor({-1.0f, 0.0f, 3.0f, 2.0f}, {2, 2}));
  EXPECT_EQ(range(), (std::vector<double>{-1, 3}));
  qat(tensor({-5.0f, 0.0f, 4.0f, 2.0f}, {2, 2}));
  EXPECT_EQ(range(), (std::vector<double>{-2, 3.25}));
  qat.freeze();
  qat(tensor({-50.0f, 0.0f, 40.0f, 2.0f}, {2, 2}));
  EXPECT_EQ(range(), (std::vector<double>{-2, 3.25}));
  // They are saved, loaded and copied.
  QatNetwork other(graph::trace(module, randn({3, 2}))), copy = qat;
  other.load_state_dict(qat.state_dict());
  const Tensor x = randn({4, 2});
  EXPECT_TRUE(other.frozen() && copy.frozen());
  EXPECT_TRUE(equal(other(x), qat(x)));
  EXPECT_TRUE(equal(copy.eval()(x), qat(x)));
}

TEST(Qat, RefusesWhatIsNotFinite) {
  manual_seed(12);
  nn::Linear module{{.in = 2, .out = 2}};
  const Tensor x = randn({3, 2});
  const Network net = graph::trace(module, x);
  const NoGrad no_grad;
  for (const float bad : {NAN, INFINITY, -INFINITY}) {
    Tensor y = clone(x);
    y.data<float>()[3] = bad;
    QatNetwork qat(net);
    expect_error<NumericError>([&] { qat(y); }, {"QatNetwork: '", "an element is"});
    qat(x);
    qat.freeze();
    expect_error<NumericError>([&] { qat(y); }, {"QatNetwork: '", "an element is"});
    // In eval mode codes are clamped.
    Tensor far = clone(x);
    far.data<float>()[3] = bad > 0 ? 1e30f : -1e30f;
    qat.eval();
    EXPECT_TRUE(equal(qat(y), qat(far))) << bad;
    for (const char* name : {"weight", "bias"})
      for (const bool learned : {false, true}) {
        Network broken = net;
        QatNetwork trained(net, {.learned_steps = learned});
        trained(x);
        for (const auto& owner : {broken.named_parameters(), trained.named_parameters()})
          for (const auto& [n, p] : owner) {
            if (n != name) continue;
            Tensor values = clone(p.raw());
            values.data<float>()[1] = bad;
            p.replace(values);
          }
        expect_error<NumericError>([&] { trained(x); }, {"QatNetwork: '", name});
        expect_error<NumericError>([&] { trained.eval()(x); }, {"QatNetwork: '", name});
        expect_error<NumericError>([&] { quantize_static(broken, calibration({x})); }, {"quantize_static: '", name});
      }
  }
}

TEST(Qat, RefusesWhatItCannotDo) {
  manual_seed(8);
  nn::Linear module{{.in = 2, .out = 2}};
  const Tensor x = randn({3, 2});
  const Network net = graph::trace(module, x);
  expect_error<ValueError>([&] { QatNetwork(net, {.bits = 3}); }, {"3 bits"});
  expect_error<ValueError>([&] { QatNetwork(net, {.weights = Granularity::group}); }, {"groups"});
  expect_error<ValueError>([&] { QatNetwork(net, {.activations = {.momentum = 0}}); }, {"momentum"});
  QatNetwork qat(net);
  expect_error<ValueError>([&] { qat.convert(); }, {"no batch"});
  expect_error<ValueError>([&] { qat.freeze(); }, {"before any batch"});
  expect_error<ValueError>([&] { qat.eval()(x); }, {"no batch"});
  qat.train();
  Tensor bad = clone(x);
  bad.data<float>()[3] = NAN;
  expect_error<NumericError>([&] { qat(bad); }, {"nan"});
  expect_error<ValueError>([&] { qat.convert(); }, {"no batch"});  // nothing was kept of it
  expect_error<ShapeError>([&] { qat(randn({3, 4})); }, {"[3, 4]"});
  struct Soft : nn::Module {
    nn::Linear a{{.in = 6, .out = 8}}, b{{.in = 8, .out = 3}};
    HONE_MODULE(Soft, a, b)
    Tensor forward(const Tensor& z) { return b(softmax(a(z), 1) * 3.0); }
  } soft;
  const Network mixed = graph::trace(soft, randn({3, 6}));
  expect_error<GraphError>([&] { QatNetwork q(mixed); }, {"softmax", "float_fallback"});
  QatNetwork fallback(mixed, {.float_fallback = true});
  sum(square(fallback(randn({5, 6})))).backward();
  expect_one_truth(fallback, randn({5, 6}));
}

}  // namespace
}  // namespace hone::test
