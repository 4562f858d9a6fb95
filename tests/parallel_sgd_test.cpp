// Mini-batches in parallel, full-batch gradients, and the stop rule.

#include <gtest/gtest.h>

#include <cmath>

#include "hone/hone.h"
#include "support.h"

namespace hone {
namespace {

using optim::ParallelMode;
using optim::ParallelSGD;
using optim::ParallelSGDOptions;
using optim::SGD;
using test::expect_error;

struct Net : nn::Module {
  nn::Linear fc1{{.in = 6, .out = 8}}, fc2{{.in = 8, .out = 3}};
  nn::BatchNorm1d norm{{.features = 8}};
  nn::Dropout dropout{{.p = 0.3}};
  bool plain = true;
  HONE_MODULE(Net, fc1, fc2, norm, dropout)
  Tensor forward(const Tensor& x) {
    Tensor h = tanh(fc1(x));
    if (!plain) h = dropout(norm(h));
    return fc2(h);
  }
};
const auto kLoss = [](Net& net, const Tensor& x, const Tensor& y) { return cross_entropy(net(x), y); };

std::vector<double> values(nn::Module& net) {
  std::vector<double> out;
  for (const auto& [name, t] : net.state_dict().tensors)
    for (double v : t.to_vector<double>()) out.push_back(v);
  return out;
}
Net make_net(bool plain, DType dtype = f64) {
  manual_seed(11);
  Net net;
  net.to(dtype);
  net.plain = plain;
  return net;
}
data::Batch batch(int64_t n, DType dtype = f64) { return {randn({n, 6}, dtype), randint(0, 3, {n})}; }

class Threads {
 public:
  explicit Threads(int n) : before_(num_threads()) { set_num_threads(n); }
  ~Threads() { set_num_threads(before_); }

 private:
  int before_;
};

TEST(ParallelSGD, SynchronousIsTheStepOnTheWholeBatch) {
  Net a = make_net(true), b = a;
  const optim::SGDOptions options{.lr = 0.2, .momentum = 0.9, .weight_decay = 0.01};
  ParallelSGD parallel(a, {.sgd = options, .workers = 2, .shards = 4});
  std::vector<ParameterRef> used = b.fc1.parameters();
  for (const ParameterRef& p : b.fc2.parameters()) used.push_back(p);
  SGD sgd(used, options);
  for (int64_t n : {16, 17, 4, 31, 9}) {  // pieces of unequal size too
    const data::Batch m = batch(n);
    const double loss = parallel.step(m.inputs, m.targets, kLoss);
    sgd.zero_grad();
    Tensor whole = kLoss(b, m.inputs, m.targets);
    whole.backward();
    sgd.step();
    EXPECT_NEAR(loss, whole.item(), 1e-13);
    const std::vector<double> va = values(a), vb = values(b);
    for (size_t i = 0; i < va.size(); ++i) ASSERT_NEAR(va[i], vb[i], 1e-12) << n << " " << i;
  }
}

TEST(ParallelSGD, MasksThatChangeAreFollowed) {
  const auto change = [](Net& net, int step) {
    const ParameterRef& w = net.fc1.weight.ref();
    Tensor mask = ones(w.raw().shape(), DType::boolean);
    slice(mask, 0, step, step + 2).fill_(0);
    if (step < 5)
      w.set_mask(mask, step % 2 ? MaskGradient::dense : MaskGradient::masked);
    else
      w.bake_mask();
  };
  for (const bool masked_before : {false, true}) {
    Net a = make_net(true);
    if (masked_before) change(a, 0);
    Net b = a;
    ParallelSGD parallel(a, {.sgd = {.lr = 0.2}, .workers = 2, .shards = 4});
    std::vector<ParameterRef> used = b.fc1.parameters();
    for (const ParameterRef& p : b.fc2.parameters()) used.push_back(p);
    SGD sgd(used, {.lr = 0.2});
    for (int step = masked_before ? 5 : 0; step < 7; ++step) {
      if (step != 1) change(a, step), change(b, step);
      const data::Batch m = batch(12);
      parallel.step(m.inputs, m.targets, kLoss);
      sgd.zero_grad();
      kLoss(b, m.inputs, m.targets).backward();
      sgd.step();
      const std::vector<double> va = values(a), vb = values(b);
      ASSERT_EQ(va.size(), vb.size());
      for (size_t i = 0; i < va.size(); ++i) ASSERT_NEAR(va[i], vb[i], 1e-12) << step << " " << i;
    }
  }
  for (const ParallelMode mode : {ParallelMode::local_sgd, ParallelMode::hogwild}) {
    Net net = make_net(true);
    ParallelSGD parallel(net, {.sgd = {.lr = 0.1}, .workers = 2, .mode = mode, .shards = 2, .period = 3});
    for (int step = 0; step < 6; ++step) {
      if (step % 2 == 0) change(net, step);
      const Tensor mask = net.fc1.weight.ref().mask();
      std::atomic<int> differing{0};
      const data::Batch m = batch(12);
      parallel.step(m.inputs, m.targets, [&](Net& replica, const Tensor& x, const Tensor& y) {
        const Tensor& own = replica.fc1.weight.ref().mask();
        if (!own.defined() || !equal(own, mask)) ++differing;
        return kLoss(replica, x, y);
      });
      EXPECT_EQ(differing, 0) << step;
    }
  }
}

// Weight types that parameters get while they train: every worker computes with the same values.
TEST(ParallelSGD, GridsThatChangeAreFollowed) {
  const auto change = [](Net& net, int step) {
    const ParameterRef& w = net.fc1.weight.ref();
    const double codes = step < 3 ? 7 : 3;
    if (step == 5) return w.bake();
    w.set_grid({.scale = tensor({0.05 + 0.01 * step}), .points = tensor({0.0, -codes, codes, 0.0}, {1, 4})});
  };
  const auto same_values = [](const Net& a, const Net& b) {
    return equal(a.fc1.weight.value().detach(), b.fc1.weight.value().detach());
  };
  for (const ParallelMode mode : {ParallelMode::synchronous, ParallelMode::local_sgd, ParallelMode::hogwild}) {
    Net net = make_net(true), plain = net;
    ParallelSGD parallel(net, {.sgd = {.lr = 0.1}, .workers = 1, .mode = mode, .shards = 1, .period = 1});
    std::vector<ParameterRef> used = plain.fc1.parameters();
    for (const ParameterRef& p : plain.fc2.parameters()) used.push_back(p);
    SGD sgd(used, {.lr = 0.1});
    for (int step = 0; step < 7; ++step) {
      if (step != 1) change(net, step), change(plain, step);
      const data::Batch m = batch(12);
      bool alike = false;
      parallel.step(m.inputs, m.targets, [&](Net& replica, const Tensor& x, const Tensor& y) {
        alike = same_values(replica, net);
        return kLoss(replica, x, y);
      });
      EXPECT_TRUE(alike) << step;
      sgd.zero_grad();
      kLoss(plain, m.inputs, m.targets).backward();
      sgd.step();
      const std::vector<double> va = values(net), vb = values(plain);
      for (size_t i = 0; i < va.size(); ++i) ASSERT_NEAR(va[i], vb[i], 1e-12) << step << " " << i;
    }
  }
}

TEST(ParallelSGD, TrainsCentroidsAndRefusesParametersThatBecameOthers) {
  const auto share = [](Net& net) {
    const ParameterRef& w = net.fc1.weight.ref();
    Tensor codes = zeros(w.shape(), DType::u8);
    slice(codes, 0, 0, 2).fill_(1);
    w.set_codebook(codes, tensor({-0.25, 0.5}));
  };
  for (const ParallelMode mode : {ParallelMode::synchronous, ParallelMode::local_sgd, ParallelMode::hogwild}) {
    Net net = make_net(true);
    share(net);
    Net plain = net;
    ParallelSGD parallel(net, {.sgd = {.lr = 0.1}, .workers = 1, .mode = mode, .shards = 1, .period = 1});
    std::vector<ParameterRef> used = plain.fc1.parameters();
    for (const ParameterRef& p : plain.fc2.parameters()) used.push_back(p);
    SGD sgd(used, {.lr = 0.1});
    for (int step = 0; step < 3; ++step) {
      const data::Batch m = batch(12);
      parallel.step(m.inputs, m.targets, kLoss);
      sgd.zero_grad();
      kLoss(plain, m.inputs, m.targets).backward();
      sgd.step();
    }
    EXPECT_FALSE(equal(net.fc1.weight.raw().detach(), tensor({-0.25, 0.5})));
    const std::vector<double> va = values(net), vb = values(plain);
    ASSERT_EQ(va.size(), vb.size());
    for (size_t i = 0; i < va.size(); ++i) ASSERT_NEAR(va[i], vb[i], 1e-12) << i;

    Net late = make_net(true);
    ParallelSGD stale(late, {.sgd = {.lr = 0.1}, .workers = 1, .mode = mode, .shards = 1});
    share(late);
    const data::Batch m = batch(12);
    const std::vector<double> before = values(late);
    expect_error<GradError>([&] { stale.step(m.inputs, m.targets, kLoss); }, {"ParallelSGD.step", "changed its shape"});
    EXPECT_EQ(values(late), before);
  }
}

TEST(ParallelSGD, SameBitsForAnyWorkersAndThreads) {
  for (bool plain : {true, false}) {
    std::vector<double> first;
    for (int threads : {1, 2, 4})
      for (int64_t workers : {1, 2, 3, 7}) {
        const Threads set(threads);
        Net net = make_net(plain, f32);
        ParallelSGD parallel(net, {.sgd = {.lr = 0.1, .momentum = 0.9}, .workers = workers, .shards = 4});
        for (int t = 0; t < 6; ++t) {
          const data::Batch m = batch(20, f32);
          parallel.step(m.inputs, m.targets, kLoss);
        }
        if (first.empty())
          first = values(net);
        else
          ASSERT_EQ(values(net), first) << threads << " threads, " << workers << " workers";
      }
  }
}

TEST(ParallelSGD, DrawsDifferBetweenShardsAndSteps) {
  Net net = make_net(false);
  ParallelSGD parallel(net, {.sgd = {.lr = 0}, .workers = 2, .shards = 2});
  const Tensor row = randn({1, 6}, f64), x = concat({row, row}), y = zeros({2}, i64);
  std::vector<double> seen;
  const auto loss = [&](Net& n, const Tensor& input, const Tensor& target) {
    n.norm.eval();  // one sample has no statistics
    return cross_entropy(n(input), target);
  };
  // Two equal samples in two shards: equal draws would give the loss of one of them.
  for (int t = 0; t < 4; ++t) {
    const double mean = parallel.step(x, y, loss);
    for (double s : seen) EXPECT_NE(mean, s);
    seen.push_back(mean);
  }
}

TEST(ParallelSGD, LocalSGDAveragesWorkers) {
  const optim::SGDOptions options{.lr = 0.1, .momentum = 0.9};
  for (int threads : {1, 2}) {
    const Threads set(threads);
    Net a = make_net(true);
    std::vector<Net> workers(3, a);
    std::vector<std::unique_ptr<SGD>> sgd;
    for (Net& w : workers) sgd.push_back(std::make_unique<SGD>(w.parameters(), options));
    ParallelSGD parallel(a, {.sgd = options, .workers = 3, .mode = ParallelMode::local_sgd, .period = 2});
    for (int t = 1; t <= 6; ++t) {
      const data::Batch m = batch(9);
      parallel.step(m.inputs, m.targets, kLoss);
      for (size_t w = 0; w < 3; ++w) {
        sgd[w]->zero_grad();
        const int64_t from = static_cast<int64_t>(w) * 3;
        kLoss(workers[w], slice(m.inputs, 0, from, from + 3), slice(m.targets, 0, from, from + 3)).backward();
        sgd[w]->step();
      }
      if (t % 2 != 0) continue;
      const NoGrad no_grad;
      const auto lists = std::array{workers[0].parameters(), workers[1].parameters(), workers[2].parameters()};
      for (size_t i = 0; i < lists[0].size(); ++i) {
        const Tensor mean = (lists[0][i].raw() + lists[1][i].raw() + lists[2][i].raw()) / 3.0;
        for (const auto& list : lists) Tensor(list[i].raw().detach()).copy_(mean);
      }
      const std::vector<double> got = values(a), want = values(workers[0]);
      for (size_t i = 0; i < got.size(); ++i) ASSERT_NEAR(got[i], want[i], 1e-12) << t;
    }
    // Between averages the network waits; synchronize() brings it up to date.
    const std::vector<double> before = values(a);
    const data::Batch m = batch(9);
    parallel.step(m.inputs, m.targets, kLoss);
    EXPECT_EQ(values(a), before);
    parallel.synchronize();
    EXPECT_NE(values(a), before);
  }
}

TEST(ParallelSGD, HogwildOfOneWorkerIsSGDOnThePieces) {
  Net a = make_net(true), b = a;
  ParallelSGD parallel(
      a, {.sgd = {.lr = 0.1, .weight_decay = 0.01}, .workers = 1, .mode = ParallelMode::hogwild, .shards = 3});
  SGD sgd(b.parameters(), {.lr = 0.1, .weight_decay = 0.01});
  for (int t = 0; t < 5; ++t) {
    const data::Batch m = batch(12);
    parallel.step(m.inputs, m.targets, kLoss);
    for (int64_t i = 0; i < 3; ++i) {
      sgd.zero_grad();
      kLoss(b, slice(m.inputs, 0, i * 4, i * 4 + 4), slice(m.targets, 0, i * 4, i * 4 + 4)).backward();
      sgd.step();
    }
  }
  const std::vector<double> va = values(a), vb = values(b);
  for (size_t i = 0; i < va.size(); ++i) ASSERT_NEAR(va[i], vb[i], 1e-13);
}

TEST(ParallelSGD, HogwildLearnsOnSeveralThreads) {
  const Threads set(4);
  Net net = make_net(true, f32);
  ParallelSGD parallel(net, {.sgd = {.lr = 0.2}, .workers = 4, .mode = ParallelMode::hogwild, .shards = 8});
  const Tensor x = randn({256, 6}), y = argmax(slice(x, 1, 0, 3), 1);
  double first = 0, last = 0;
  for (int t = 0; t < 60; ++t) {
    last = parallel.step(x, y, kLoss);
    if (t == 0) first = last;
  }
  EXPECT_LT(last, 0.5 * first);
}

TEST(ParallelSGD, BuffersAreTheMeanOfReplicas) {
  Net net = make_net(false);
  ParallelSGD parallel(net, {.sgd = {.lr = 0.1}, .workers = 2, .shards = 2});
  const data::Batch m = batch(12);
  const Net before = net;
  parallel.step(m.inputs, m.targets, kLoss);
  std::vector<double> mean(8);
  for (int64_t i = 0; i < 2; ++i) {
    Net half = before;
    half(slice(m.inputs, 0, i * 6, i * 6 + 6));
    const std::vector<double> v = half.norm.running_mean.tensor().to_vector<double>();
    for (size_t j = 0; j < 8; ++j) mean[j] += v[j] / 2;
  }
  const std::vector<double> got = net.norm.running_mean.tensor().to_vector<double>();
  for (size_t j = 0; j < 8; ++j) EXPECT_NEAR(got[j], mean[j], 1e-13);
}

// What a failed step has done to replicas must not reach a later one.
TEST(ParallelSGD, AFailedStepLeavesNoTrace) {
  for (const ParallelMode mode : {ParallelMode::synchronous, ParallelMode::local_sgd}) {
    Net a = make_net(false), b = a;
    const ParallelSGDOptions options{.sgd = {.lr = 0.1}, .workers = 2, .mode = mode, .shards = 2, .period = 1};
    ParallelSGD one(a, options), two(b, options);
    const Threads set(1);  // the first piece is done when the second fails
    const data::Batch m = batch(12);
    int calls = 0;
    expect_error<ValueError>(
        [&] {
          one.step(m.inputs, m.targets, [&](Net& n, const Tensor& x, const Tensor& y) {
            if (++calls == 2) throw ValueError("of the second piece");
            return kLoss(n, x, y);
          });
        },
        "of the second piece");
    manual_seed(3);
    one.step(m.inputs, m.targets, kLoss);
    manual_seed(3);
    two.step(m.inputs, m.targets, kLoss);
    EXPECT_EQ(values(a), values(b));
  }
}

// Weights and statistics that the network is given from outside are what workers begin with.
TEST(ParallelSGD, WorkersBeginWithWhatTheNetworkHolds) {
  for (const ParallelMode mode : {ParallelMode::synchronous, ParallelMode::local_sgd, ParallelMode::hogwild}) {
    const Threads set(1);
    Net a = make_net(false), b = a, other = a;
    ParallelSGDOptions options{.sgd = {.lr = 0.1}, .workers = 2, .mode = mode, .shards = 2, .period = 2};
    const data::Batch m = batch(12);
    other(m.inputs);  // moves its statistics
    for (const ParameterRef& p : other.parameters()) Tensor(p.raw().detach()).copy_(p.raw().detach() * 0.5);
    ParallelSGD one(a, options);
    a.load_state_dict(other.state_dict());
    b.load_state_dict(other.state_dict());
    ParallelSGD two(b, options);
    one.synchronize();  // nothing to average yet: the network stays as it is
    EXPECT_EQ(values(a), values(b));
    for (ParallelSGD<Net>* parallel : {&one, &two}) {
      manual_seed(3);
      for (int t = 0; t < 2; ++t) parallel->step(m.inputs, m.targets, kLoss);
    }
    EXPECT_EQ(values(a), values(b));
    EXPECT_NE(values(a), values(other));
  }
}

TEST(ParallelSGD, ResumesAtAnyStepWithTheSameBits) {
  for (const ParallelMode mode : {ParallelMode::synchronous, ParallelMode::local_sgd}) {
    const ParallelSGDOptions options{
        .sgd = {.lr = 0.1, .momentum = 0.9}, .workers = 3, .mode = mode, .shards = 3, .period = 3};
    std::vector<data::Batch> batches;
    manual_seed(8);
    for (int t = 0; t < 8; ++t) batches.push_back(batch(12, f32));
    const auto go = [&](ParallelSGD<Net>& parallel, int from, int to) {
      for (int t = from; t < to; ++t) {
        const auto& [x, y] = batches[static_cast<size_t>(t)];
        parallel.step(x, y, kLoss);
      }
    };
    Net whole = make_net(false, f32);
    ParallelSGD reference(whole, options);
    manual_seed(4);
    go(reference, 0, 8);
    for (int cut = 0; cut <= 8; ++cut) {
      Net first = make_net(false, f32), second = make_net(false, f32);
      ParallelSGD before(first, options), after(second, options);
      manual_seed(4);
      go(before, 0, cut);
      train::Checkpoint saved, loaded;
      saved.add("net", first).add("sgd", before);
      loaded.add("net", second).add("sgd", after);
      const test::TempDir folder;
      saved.save(folder / "f");
      go(after, 0, 2);  // to be forgotten
      loaded.load(folder / "f");
      go(after, cut, 8);
      ASSERT_EQ(values(second), values(whole)) << cut;
    }
  }
}

TEST(ParallelSGD, StatesThatDoNotFit) {
  Net a = make_net(true), b = a, c = a;
  const optim::SGDOptions sgd{.lr = 0.1, .momentum = 0.9};
  ParallelSGD local(a, {.sgd = sgd, .workers = 2, .mode = ParallelMode::local_sgd}),
      same(b, {.sgd = sgd, .workers = 2}), three(c, {.sgd = sgd, .workers = 3, .mode = ParallelMode::local_sgd});
  const data::Batch m = batch(12);
  local.step(m.inputs, m.targets, kLoss);
  three.step(m.inputs, m.targets, kLoss);
  const TensorFile state = local.state_dict();
  local.step(m.inputs, m.targets, kLoss);
  const TensorFile before = local.state_dict();
  expect_error<FormatError>([&] { same.load_state_dict(state); },
                            "ParallelSGD.load_state_dict: the state is of 'local_sgd'");
  expect_error<FormatError>([&] { three.load_state_dict(state); }, "the state is of 2 workers, here there are 3");
  expect_error<FormatError>([&] { SGD(b.parameters(), sgd).load_state_dict(state); }, "no entry 'non_finite_steps'");
  const auto refused = [&](auto change, const std::string& part) {
    TensorFile file = state;
    change(file);
    expect_error<FormatError>([&] { local.load_state_dict(file); }, part);
    const TensorFile now = local.state_dict();
    for (size_t i = 0; i < now.tensors.size(); ++i)
      EXPECT_TRUE(equal(now.tensors[i].second, before.tensors[i].second)) << before.tensors[i].first;
  };
  for (size_t i = 0; i < state.tensors.size(); ++i) {
    const auto at = static_cast<int64_t>(i);
    refused([&](TensorFile& f) { f.tensors.erase(f.tensors.begin() + at); }, "no entry '");
    refused([&](TensorFile& f) { f.tensors[i].second = zeros({2, 1, 3}, u8); }, "expected");
  }
  for (const char* extra : {"extra", "network.extra", "worker.1.extra", "worker.2.group.0.lr", "weight.2.0"})
    refused([&](TensorFile& f) { f.tensors.emplace_back(extra, ones({1})); }, "not known here");
}

TEST(ParallelSGD, GradientsThatAreNotFinite) {
  for (const ParallelMode mode : {ParallelMode::synchronous, ParallelMode::local_sgd, ParallelMode::hogwild}) {
    Net net = make_net(true);
    const ParallelSGDOptions options{.sgd = {.lr = 0.1}, .workers = 2, .mode = mode, .shards = 2, .period = 1};
    ParallelSGD parallel(net, options);
    data::Batch m = batch(8);
    const auto bad = [](Net& n, const Tensor& x, const Tensor& y) { return kLoss(n, x, y) * std::nan(""); };
    const std::vector<double> before = values(net);
    expect_error<NumericError>([&] { parallel.step(m.inputs, m.targets, bad); }, "the gradient of parameter 0");
    EXPECT_EQ(values(net), before);
    parallel.optimizer().set_non_finite(optim::NonFinite::skip);
    parallel.step(m.inputs, m.targets, bad);
    EXPECT_EQ(values(net), before);
    EXPECT_EQ(parallel.non_finite_steps(), mode == ParallelMode::synchronous ? 1 : 2);
    parallel.optimizer().set_non_finite(optim::NonFinite::clip);
    parallel.step(m.inputs, m.targets, bad);  // all NaN: 0
    EXPECT_EQ(values(net), before);
    EXPECT_EQ(parallel.non_finite_steps(), mode == ParallelMode::synchronous ? 2 : 4);
    const int64_t counted = parallel.non_finite_steps();
    ParallelSGD again(net, options);
    again.load_state_dict(parallel.state_dict());
    EXPECT_EQ(again.non_finite_steps(), counted);
    parallel.step(m.inputs, m.targets, kLoss);
    EXPECT_NE(values(net), before);
    EXPECT_EQ(parallel.non_finite_steps(), counted);
  }
}

TEST(ParallelSGD, Errors) {
  Net net = make_net(true);
  const data::Batch m = batch(3);
  expect_error<ValueError>([&] { ParallelSGD(net, {.workers = 0}); }, "workers must be in [1, 1024], got 0");
  expect_error<ValueError>([&] { ParallelSGD(net, {.shards = 0}); }, "shards");
  expect_error<ValueError>([&] { ParallelSGD(net, {.period = 0}); }, "period");
  expect_error<ValueError>([&] { ParallelSGD(net, {.sgd = {.lr = -1}}); }, "SGD: lr");
  expect_error<ValueError>([&] { ParallelSGD(net, {.sgd = {.momentum = 0.9}, .mode = ParallelMode::hogwild}); },
                           "hogwild takes neither momentum");
  ParallelSGD parallel(net, {.workers = 2, .shards = 4});
  const std::vector<double> before = values(net);
  expect_error<ShapeError>([&] { parallel.step(m.inputs, m.targets, kLoss); }, "3 samples cannot be cut into 4 pieces");
  expect_error<ShapeError>([&] { parallel.step(m.inputs, zeros({2}, i64), kLoss); }, "as many rows");
  const data::Batch good = batch(8);
  expect_error<ValueError>(
      [&] {
        parallel.step(good.inputs, good.targets,
                      [](Net&, const Tensor&, const Tensor&) -> Tensor { throw ValueError("of a worker"); });
      },
      "of a worker");
  EXPECT_EQ(values(net), before);
  parallel.step(good.inputs, good.targets, kLoss);  // works on
  EXPECT_NE(values(net), before);
}

TEST(FullBatch, IsTheExactGradient) {
  Net net = make_net(true);
  const Tensor x = randn({50, 6}, f64), y = randint(0, 3, {50});
  data::Loader batches(data::Dataset(x, y), {.batch = 16, .shuffle = true});  // a last batch of 2
  net.zero_grad();
  const auto loss = [&](const Tensor& a, const Tensor& b) { return cross_entropy(net(a), b); };
  const double value = optim::full_batch(batches, loss);
  std::vector<std::vector<double>> got;
  for (const ParameterRef& p : net.fc1.parameters()) got.push_back(p.grad().to_vector<double>());
  net.zero_grad();
  Tensor whole = loss(x, y);
  whole.backward();
  EXPECT_NEAR(value, whole.item(), 1e-13);
  size_t i = 0;
  for (const ParameterRef& p : net.fc1.parameters()) {
    const std::vector<double> want = p.grad().to_vector<double>();
    for (size_t j = 0; j < want.size(); ++j) EXPECT_NEAR(got[i][j], want[j], 1e-13);
    ++i;
  }
  data::Loader partial(data::Dataset(x, y), {.batch = 16, .drop_last = true});
  expect_error<ValueError>([&] { optim::full_batch(partial, loss); }, "48 of 50 samples");
  data::Loader drawn(data::Dataset(x, y),
                     {.batch = 16, .sampler = data::weighted_sampler(std::vector<double>(50, 1.0))});
  expect_error<ValueError>([&] { optim::full_batch(drawn, loss); }, "a sampler may leave samples out");
}

TEST(FullBatch, DescendsUntilConverged) {
  Parameter w(tensor<double>({5.0, -3.0}));
  SGD sgd({w.ref()}, {.lr = 0.3});
  optim::Converged converged({.tolerance = 1e-12, .patience = 3});
  int steps = 0;
  double loss = 1;
  do {
    loss = sgd.step([&] {
      sgd.zero_grad();
      Tensor f = sum(square(w.value() - tensor<double>({1, 2})));
      f.backward();
      return f;
    });
    ++steps;
  } while (!converged(loss) && steps < 1000);
  EXPECT_LT(steps, 60);
  EXPECT_NEAR(w.raw().to_vector<double>()[1], 2, 1e-6);
}

TEST(Converged, Rule) {
  optim::Converged converged({.tolerance = 0.1, .patience = 2});
  EXPECT_FALSE(converged(1));
  EXPECT_FALSE(converged(1.05));
  EXPECT_FALSE(converged(1.3));  // moved: counts again
  EXPECT_FALSE(converged(1.25));
  EXPECT_TRUE(converged(1.25));
  optim::Converged large({.tolerance = 0.1});
  EXPECT_FALSE(large(1000));
  EXPECT_TRUE(large(1090));  // relative where the loss is large
  expect_error<NumericError>([&] { large(std::nan("")); }, "loss is nan");
  expect_error<ValueError>([] { optim::Converged({.tolerance = -1}); }, "tolerance");
  expect_error<ValueError>([] { optim::Converged({.patience = 0}); }, "patience");
}

}  // namespace
}  // namespace hone
