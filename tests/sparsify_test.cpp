// graph::sparsify: what it puts in place computes what was there, and what it chooses follows from what it measured.

#include "graph_support.h"

namespace hone::test {
namespace {

using graph::Network;
using graph::SparseLayer;
using graph::SparseReport;
using graph::SparsifyOptions;
using graph::WeightForm;

/// Whatever the times: the fastest sparse form, of those alone.
SparsifyOptions forced(std::vector<WeightForm> forms) {
  return {.runs = 1, .margin = -1e12, .forms = std::move(forms)};
}

void mask_by(const ParameterRef& p, double density, std::mt19937& rng) {
  std::bernoulli_distribution keep(density);
  Tensor mask = zeros(p.raw().shape(), boolean);
  for (int64_t i = 0; i < mask.numel(); ++i) mask.data<bool>()[i] = keep(rng);
  p.set_mask(mask);
}
/// At most n of every m neighbours of a row.
void mask_n_m(const ParameterRef& p, int64_t n, int64_t m) {
  Tensor mask = zeros(p.raw().shape(), boolean);
  const int64_t cols = mask.numel() / mask.size(0);
  for (int64_t i = 0; i < mask.numel(); ++i) mask.data<bool>()[i] = (i % cols + i / cols) % m < n;
  p.set_mask(mask);
}
void mask_weights(nn::Module& module, double density, std::mt19937& rng) {
  for (const auto& [name, p] : module.named_parameters())
    if (p.raw().ndim() > 1) mask_by(p, density, rng);
}
/// Convolutions with groups, stride, padding, dilation and other activations; a layer without a bias; one weight at two
/// places.
struct Mixed : nn::Module {
  nn::Conv2d conv1{{.in = 4, .out = 12, .kernel = 3, .padding = 1, .groups = 2}};
  nn::Conv2d conv2{{.in = 12, .out = 20, .kernel = 3, .stride = 2, .padding = 2, .dilation = 2, .bias = false}};
  nn::Conv2d conv3{{.in = 20, .out = 17, .kernel = 1}};
  nn::Linear fc1{{.in = 17 * 9, .out = 33}}, fc2{{.in = 33, .out = 33, .bias = false}}, fc3{{.in = 33, .out = 5}};
  HONE_MODULE(Mixed, conv1, conv2, conv3, fc1, fc2, fc3)
  Tensor forward(const Tensor& x) {
    Tensor h = max_pool2d(silu(conv1(x)), 3, {.stride = {2}, .padding = {1}});
    h = clamp(conv3(tanh(conv2(h))), -2, 2);
    h = fc2(leaky_relu(fc1(flatten(h, 1)), 0.1));
    return fc3(gelu(fc2(h)));
  }
};
const Shape kMixedRow = {4, 11, 11};

TEST(Sparsify, EveryFormComputesWhatTheMaskedNetworkDoes) {
  const std::vector<WeightForm> forms = {WeightForm::csr(),         WeightForm::blocks(4, 4), WeightForm::blocks(2, 1),
                                         WeightForm::blocks(16, 1), WeightForm::blocks(1, 8), WeightForm::n_m(8)};
  std::mt19937 rng(1);
  for (uint64_t seed = 0; seed < 6; ++seed) {
    manual_seed(seed);
    Mixed module;
    mask_weights(module, std::array{0.0, 0.05, 0.2, 0.4, 0.7, 0.99}[seed], rng);
    const Network traced = graph::trace(module, randn({1, 4, 11, 11}));
    for (const int64_t batch : {1, 2, 19}) {
      const Tensor x = randn({batch, 4, 11, 11}), want = eval(module, x);
      for (const WeightForm& form : forms) {
        // As traced, fused and packed: the three ways in which a dense layer may lie there.
        for (Network net : {traced, graph::optimize(traced, {.pack = false}), graph::optimize(traced)}) {
          const SparseReport report = graph::sparsify(net, x, forced({form}));
          ASSERT_EQ(report.layers.size(), 7u);
          EXPECT_EQ(report.batch, batch);
          for (const SparseLayer& l : report.layers) {
            EXPECT_EQ(l.chosen, l.forms.size() - 1) << l.name;
            EXPECT_EQ(l.chosen == 1, l.kept < l.total() && l.forms.size() == 2) << l.name;
            EXPECT_TRUE(form != WeightForm::csr() || l.forms.size() == 2 || l.kept == l.total()) << l.name;
          }
          const std::string what = str(seed, " batch ", batch, " ", to_string(form));
          expect_computes(net, x, want, false, what);
          expect_computes(net, x, want, false, what);  // an executor's second run, of a network loaded again
        }
      }
    }
  }
}

TEST(Sparsify, LeNetByFormAndWithoutTheDenseWeights) {
  manual_seed(2);
  std::mt19937 rng(2);
  nn::LeNet module;
  mask_weights(module, 0.1, rng);
  const Tensor x = randn({3, 3, 32, 32});
  Network net = graph::optimize(graph::trace(module, x));
  const int64_t macs = net.macs();
  const SparseReport report = graph::sparsify(net, x, forced({WeightForm::csr()}));
  EXPECT_EQ(ops_of(net), (std::vector<std::string>{"csr_conv2d", "csr_conv2d", "flatten", "csr_linear", "csr_linear",
                                                   "csr_linear"}));
  expect_computes(net, x, eval(module, x), false, "LeNet");
  EXPECT_LT(net.macs(), macs / 8);
  EXPECT_EQ(net.value(net.nodes()[3].inputs[1]).name, "fc1.weight.values");
  for (const graph::Value& v : net.values()) EXPECT_EQ(v.name.find("panels"), std::string::npos) << v.name;
  const auto kept = compress::prune_report(module).layers;
  ASSERT_EQ(report.layers.size(), 5u);
  for (size_t i = 0; i < 5; ++i) {
    const SparseLayer& l = report.layers[i];
    EXPECT_EQ(l.name + ".weight", kept[2 * i].name);
    EXPECT_EQ(l.kept, kept[2 * i].kept);
    EXPECT_EQ(l.total(), kept[2 * i].total);
    ASSERT_EQ(l.forms.size(), 2u);
    EXPECT_EQ(l.forms[1].bytes, 8 * l.kept + 4 * (l.weight[0] + 1));
    EXPECT_GE(l.forms[0].bytes, 4 * l.total());
    EXPECT_GT(l.forms[0].microseconds, 0);
    EXPECT_GT(l.forms[1].microseconds, 0);
  }
  EXPECT_TRUE(graph::sparsify(net, x, forced({WeightForm::csr()})).layers.empty()) << "sparse already";
}

TEST(Sparsify, FindsNMPatternsAndLeavesWhatHasNone) {
  manual_seed(3);
  nn::Sequential module{nn::Linear{{.in = 24, .out = 20}}, nn::Linear{{.in = 20, .out = 18}},
                        nn::Linear{{.in = 18, .out = 40}}, nn::Linear{{.in = 40, .out = 3}}};
  const auto p = module.parameters();
  mask_n_m(p[0], 1, 4);
  mask_n_m(p[2], 2, 4);
  mask_n_m(p[4], 3, 8);
  mask_n_m(p[6], 3, 4);
  const Tensor x = randn({2, 24}), want = eval(module, x);
  Network net = graph::trace(module, x);
  const SparseReport report =
      graph::sparsify(net, x, forced({WeightForm::n_m(2), WeightForm::n_m(4), WeightForm::n_m(8)}));
  std::vector<std::string> forms;
  for (const SparseLayer& l : report.layers) {
    forms.emplace_back();
    for (size_t i = 1; i < l.forms.size(); ++i) forms.back() += to_string(l.forms[i].form) + " ";
  }
  // n of the least that holds the weight, and none above a half: of 1:4, two neighbours in eight; of 3:8, two in four.
  EXPECT_EQ(forms, (std::vector<std::string>{"1:2 1:4 2:8 ", "2:4 4:8 ", "3:8 ", ""}));
  EXPECT_EQ(ops_of(net)[3], "linear");
  EXPECT_EQ(report.layers[3].reason, "stays dense: no sparse form was tried");
  expect_computes(net, x, want, false, "N:M");
}

TEST(Sparsify, BlocksDoNotStraddleGroups) {
  manual_seed(4);
  nn::Sequential module{nn::Conv2d{{.in = 4, .out = 12, .kernel = 3, .groups = 2}}};
  std::mt19937 rng(4);
  mask_weights(module, 0.3, rng);
  const Tensor x = randn({1, 4, 8, 8});
  Network net = graph::trace(module, x);
  const SparseReport report =
      graph::sparsify(net, x, forced({WeightForm::blocks(4, 4), WeightForm::blocks(2, 4), WeightForm::blocks(16, 1)}));
  ASSERT_EQ(report.layers[0].forms.size(), 2u);
  EXPECT_EQ(report.layers[0].forms[1].form, WeightForm::blocks(2, 4));
  expect_computes(net, x, eval(module, x), false, "groups");
}

TEST(Sparsify, TiedWeightsAreStoredOnce) {
  manual_seed(5);
  std::mt19937 rng(5);
  Mixed module;
  mask_weights(module, 0.2, rng);
  const Tensor x = randn({1, 4, 11, 11});
  Network net = graph::optimize(graph::trace(module, x));
  graph::sparsify(net, x, forced({WeightForm::csr()}));
  const graph::Node &first = net.nodes()[net.find_node("fc2")], &second = net.nodes()[net.nodes().size() - 2];
  ASSERT_STREQ(second.op->name, "csr_linear");
  EXPECT_NE(&first, &second);
  for (size_t i = 1; i < 4; ++i) EXPECT_EQ(first.inputs[i], second.inputs[i]);
}

void share(nn::Module& module, int64_t clusters) { compress::quantize::share_weights(module, {.clusters = clusters}); }

TEST(Codebooks, ComputeWhatTheSharedNetworkDoesWithTheBitsOfPanels) {
  for (const int64_t clusters : {1, 16, 64}) {
    manual_seed(11);
    std::mt19937 rng(11);
    Mixed module;
    if (clusters == 16) mask_weights(module, 0.5, rng);
    share(module, clusters);
    const Network traced = graph::trace(module, randn({1, 4, 11, 11}));
    for (const int64_t batch : {1, 19}) {
      const Tensor x = randn({batch, 4, 11, 11}), want = eval(module, x);
      for (Network net : {traced, graph::optimize(traced, {.pack = false}), graph::optimize(traced)}) {
        const bool packed = ops_of(net)[0] == "panel_conv2d";
        const Tensor before = eval(net, x);
        const SparseReport report = graph::sparsify(net, x, forced({WeightForm::codebook()}));
        ASSERT_EQ(report.layers.size(), 7u);
        for (const SparseLayer& l : report.layers) {
          ASSERT_EQ(l.forms.size(), 2u) << l.name;
          EXPECT_EQ(l.forms[1].form.kind, WeightForm::Kind::codebook);
          EXPECT_LE(l.forms[1].form.a, clusters + 1) << l.name;
          EXPECT_TRUE(!packed || l.forms[1].bytes < l.forms[0].bytes) << l.name;
        }
        const std::string what = str(clusters, " values, batch ", batch);
        expect_computes(net, x, packed ? before : want, packed, what);
        Network again = compress::pack(net).network();
        EXPECT_EQ(graph::difference(net, again), "") << what;
        EXPECT_TRUE(equal(eval(again, x), eval(net, x))) << what;
      }
    }
  }
}

TEST(Codebooks, LeNetByABytePerWeight) {
  manual_seed(12);
  nn::LeNet module;
  share(module, 16);
  const Tensor x = randn({3, 3, 32, 32});
  Network net = graph::optimize(graph::trace(module, x));
  const int64_t macs = net.macs();
  const SparseReport report = graph::sparsify(net, x, forced({WeightForm::codebook()}));
  EXPECT_EQ(ops_of(net), (std::vector<std::string>{"codebook_conv2d", "codebook_conv2d", "flatten", "codebook_linear",
                                                   "codebook_linear", "codebook_linear"}));
  EXPECT_EQ(net.macs(), macs);
  EXPECT_EQ(net.value(net.nodes()[3].inputs[1]).name, "fc1.weight.codes");
  EXPECT_EQ(net.value(net.nodes()[3].inputs[2]).name, "fc1.weight.centroids");
  for (const graph::Value& v : net.values()) EXPECT_EQ(v.name.find("panels"), std::string::npos) << v.name;
  for (const SparseLayer& l : report.layers) {
    EXPECT_EQ(to_string(l.forms[1].form), "codebook of 16") << l.name;
    EXPECT_EQ(l.forms[1].bytes, l.forms[0].bytes / 4 + 16 * 4) << l.name;
    EXPECT_NE(report.table().find(l.reason), std::string::npos);
  }
  EXPECT_TRUE(graph::sparsify(net, x, forced({WeightForm::codebook()})).layers.empty()) << "codebooks already";
}

TEST(Codebooks, OfFewValuesAloneAndWhereTheyAreNamed) {
  manual_seed(13);
  nn::Sequential module{nn::Linear{{.in = 32, .out = 16}}, nn::Linear{{.in = 16, .out = 32}},
                        nn::Linear{{.in = 32, .out = 2}}};
  NoGrad no_grad;
  const auto values = [&](size_t i, int64_t count) {
    const ParameterRef p = module.parameters()[2 * i];
    const Tensor w = randn({count});
    const Tensor filled = empty(p.raw().shape());
    for (int64_t k = 0; k < filled.numel(); ++k) filled.data<float>()[k] = w.data<float>()[k % count];
    p.replace(filled);
  };
  values(0, 256);  // of 512
  values(1, 257);
  values(2, 33);  // of 64
  const Tensor x = randn({2, 32});
  const Network traced = graph::trace(module, x);
  Network net = graph::optimize(traced), other = net;
  const SparseReport report = graph::sparsify(net, x, forced({WeightForm::codebook(), WeightForm::csr()}));
  EXPECT_EQ(ops_of(net), (std::vector<std::string>{"codebook_linear", "panel_linear", "panel_linear"}));
  EXPECT_EQ(report.layers[0].forms[1].form.a, 256);
  EXPECT_EQ(report.layers[1].reason, "stays dense: no weight is 0");
  graph::sparsify(other, x, {.runs = 1, .margin = -1e12});
  EXPECT_EQ(ops_of(other), std::vector<std::string>(3, "panel_linear"));

  // A convolution that pack() leaves, for it has too many taps.
  nn::Sequential deep{nn::Conv2d{{.in = 200, .out = 16, .kernel = 3}}};
  share(deep, 4);
  const Tensor image = randn({1, 200, 5, 5});
  Network unpacked = graph::optimize(graph::trace(deep, image));
  EXPECT_EQ(graph::sparsify(unpacked, image, forced({WeightForm::codebook()})).layers[0].forms.size(), 1u);
  EXPECT_EQ(ops_of(unpacked), std::vector<std::string>{"conv2d"});
}

TEST(Codebooks, TiedWeightsAreStoredOnce) {
  manual_seed(14);
  Mixed module;
  share(module, 16);
  const Tensor x = randn({1, 4, 11, 11});
  Network net = graph::optimize(graph::trace(module, x));
  graph::sparsify(net, x, forced({WeightForm::codebook()}));
  const graph::Node &first = net.nodes()[net.find_node("fc2")], &second = net.nodes()[net.nodes().size() - 2];
  ASSERT_STREQ(second.op->name, "codebook_linear");
  EXPECT_NE(&first, &second);
  for (size_t i = 1; i < 3; ++i) EXPECT_EQ(first.inputs[i], second.inputs[i]);
}

// A row with these times, dense first.
SparseLayer timed(int64_t kept, std::vector<double> times) {
  SparseLayer l{.name = "fc", .weight = {10, 100}, .kept = kept, .forms = {}, .reason = {}};
  for (size_t i = 0; i < times.size(); ++i)
    l.forms.push_back({i == 0   ? WeightForm()
                       : i == 1 ? WeightForm::csr()
                                : WeightForm::blocks(8, 1),
                       i == 0 ? 4000 : 8 * kept, times[i]});
  return l;
}

TEST(SparsifyChoice, FollowsTheTimesAndSaysWhy) {
  const auto expect = [](SparseLayer l, double margin, size_t chosen, const std::string& reason) {
    graph::detail::choose(l, margin);
    EXPECT_EQ(l.chosen, chosen) << reason;
    EXPECT_EQ(l.reason, reason);
  };
  expect(timed(1000, {5}), 0.05, 0, "stays dense: no weight is 0");
  expect(timed(999, {5}), 0.05, 0, "stays dense: no sparse form was tried");
  expect(timed(100, {6, 2, 3}), 0.05, 1, "CSR: 2.00 us, 6.00 us dense, with 10.0 % kept");
  expect(timed(100, {6, 3, 2}), 0.05, 2, "8x1 blocks: 2.00 us, 6.00 us dense, with 10.0 % kept");
  expect(timed(100, {6, 5.8, 9}), 0.05, 0,
         "stays dense: 6.00 us, 5.80 us by CSR with 10.0 % kept, which saves less than 5 %");
  expect(timed(100, {6, 5.8, 9}), 0, 1, "CSR: 5.80 us, 6.00 us dense, with 10.0 % kept");
  expect(timed(100, {6, 6}), 0, 0,
         "stays dense: 6.00 us, 6.00 us by CSR with 10.0 % kept; in proportion it pays below 10.0 %");
  expect(timed(400, {200, 800, 900}), 0.05, 0,
         "stays dense: 200 us, 800 us by CSR with 40.0 % kept; in proportion it pays below 10.0 %");
  expect(timed(600, {200, 800, 300}), 0.05, 0,
         "stays dense: 200 us, 300 us by 8x1 blocks with 60.0 % kept, with 4,800 bytes to read, 4,000 dense");
  expect(timed(400, {200, 800, 900}), -4, 1, "CSR: 800 us, 200 us dense, with 40.0 % kept");
  const auto codebook = [](double us) {
    SparseLayer l = timed(1000, {6, us});
    l.forms[1] = {{WeightForm::Kind::codebook, 16}, 1064, us};
    return l;
  };
  expect(codebook(3), 0.05, 1, "codebook of 16: 3.00 us, 6.00 us dense, with 1,064 bytes to read, 4,000 dense");
  expect(codebook(9), -1, 1, "codebook of 16: 9.00 us, 6.00 us dense, with 1,064 bytes to read, 4,000 dense");
  expect(codebook(9), 0.05, 0,
         "stays dense: 6.00 us, 9.00 us by codebook of 16, with 1,064 bytes to read, 4,000 dense");
}

TEST(SparsifyChoice, OfANetworkIsWhatItsReportSays) {
  manual_seed(6);
  std::mt19937 rng(6);
  // Where the answer is clear on any machine: of a large layer 1 % kept, of another 60 %.
  nn::Sequential module{nn::Linear{{.in = 512, .out = 512}}, nn::Linear{{.in = 512, .out = 512}},
                        nn::Linear{{.in = 512, .out = 10}}};
  mask_by(module.parameters()[0], 0.01, rng);
  mask_by(module.parameters()[2], 0.6, rng);
  const Tensor x = randn({1, 512}), want = eval(module, x);
  Network net = graph::optimize(graph::trace(module, x));
  const SparseReport report = graph::sparsify(net, x, {.threads = 1, .runs = 25, .forms = {WeightForm::csr()}});
  ASSERT_EQ(report.layers.size(), 3u);
  for (size_t i = 0; i < 3; ++i) {
    const SparseLayer& l = report.layers[i];
    SparseLayer again = l;
    graph::detail::choose(again, 0.05);
    EXPECT_EQ(again.chosen, l.chosen);
    EXPECT_EQ(again.reason, l.reason);
    const bool sparse = std::string(net.nodes()[i].op->name) != "panel_linear";
    EXPECT_EQ(sparse, l.chosen > 0) << l.reason;
    EXPECT_NE(report.table().find(l.name + ": " + l.reason + "\n"), std::string::npos) << report.table();
  }
  EXPECT_GT(report.layers[0].chosen, 0u) << report.table();
  EXPECT_EQ(report.layers[1].chosen, 0u) << report.table();
  EXPECT_EQ(report.layers[2].forms.size(), 1u) << "no weight is 0";
  Network again = graph::optimize(graph::trace(module, x));
  EXPECT_GE(graph::sparsify(again, x, {.runs = 1}).layers[0].forms.size(), 6u) << "dense, CSR, blocks and more";
  EXPECT_NE(report.table().find("medians at batch 1, 1 thread\n"), std::string::npos);
  expect_computes(net, x, want, false, "chosen");
}

TEST(Sparsify, WhatCannotBeSparseStaysAndTheReportSaysSo) {
  manual_seed(7);
  struct Computed : nn::Module {
    nn::Linear fc{{.in = 4, .out = 4}};
    HONE_MODULE(Computed, fc)
    Tensor forward(const Tensor& x) { return linear(fc(x), x); }
  } computed;
  Network net = graph::trace(computed, randn({2, 4}));
  SparseReport report = graph::sparsify(net, randn({2, 4}));
  EXPECT_EQ(report.layers[0].reason, "stays dense: no weight is 0");
  EXPECT_EQ(report.layers[1].reason, "stays dense: its weight is computed");
  EXPECT_TRUE(report.layers[1].forms.empty());
  EXPECT_NE(report.table().find("its weight is computed"), std::string::npos);

  nn::Sequential wide{nn::Linear{{.in = 4, .out = 4}}};
  wide.to(f64);
  Network other = graph::trace(wide, zeros({1, 4}, f64));
  report = graph::sparsify(other, zeros({1, 4}, f64));
  EXPECT_EQ(report.layers[0].reason, "stays dense: it computes in f64");
  EXPECT_EQ(ops_of(other), std::vector<std::string>{"linear"});
}

TEST(Sparsify, Errors) {
  manual_seed(8);
  nn::Sequential module{nn::Linear{{.in = 4, .out = 4}}};
  std::mt19937 rng(8);
  mask_weights(module, 0.5, rng);
  const Tensor x = randn({1, 4});
  Network net = graph::trace(module, x);
  const Network before = net;
  const auto refuse = [&](SparsifyOptions o, const std::string& part) {
    expect_error<ValueError>([&] { graph::sparsify(net, x, o); }, part);
  };
  refuse({.runs = -1}, "runs -1");
  refuse({.seconds = -1}, "seconds -1");
  refuse({.seconds = std::nan("")}, "seconds");
  refuse({.margin = 1}, "margin 1 must be below 1");
  refuse({.margin = std::nan("")}, "margin");
  refuse({.threads = 0}, "1");
  refuse({.forms = {WeightForm::blocks(3, 4)}}, "3x4 blocks");
  refuse({.forms = {WeightForm::n_m(5)}}, "n of every 5");
  refuse({.forms = {WeightForm()}}, "dense always takes part");
  expect_error<ValueError>([&] { graph::sparsify(net, {}); }, "undefined");
  expect_error<ShapeError>([&] { graph::sparsify(net, randn({1, 5})); }, "[1, 5]");
  expect_error<DTypeError>([&] { graph::sparsify(net, zeros({1, 4}, f64)); }, "f64");
  EXPECT_EQ(graph::difference(net, before), "");
}

}  // namespace
}  // namespace hone::test
