// Modules: names, copies, moves, calls, hooks, state, modes. Most layers here are made of elementwise ops.

#include <gtest/gtest.h>

#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <new>

#include "hone/hone.h"
#include "support.h"

namespace hone {
namespace {

using test::expect_error;

/// y = scale·x + shift, elementwise; counts its calls in a buffer while training.
struct Affine : nn::Module {
  Parameter scale, shift;
  Buffer calls{zeros({1}, i64)};
  HONE_MODULE(Affine, scale, shift, calls)
  explicit Affine(int64_t n = 3, bool with_shift = true) : scale(rand({n})) {
    if (with_shift) shift = Parameter(rand({n}));
  }
  Tensor forward(const Tensor& x) {
    if (training()) ++calls.tensor().data<int64_t>()[0];
    const Tensor y = x * scale.value();
    return shift.defined() ? y + shift.value() : y;
  }
};

struct Net : nn::Module {
  Affine first;
  std::vector<Affine> blocks = std::vector<Affine>(2);
  std::optional<Affine> extra, absent;
  std::array<Affine, 1> fixed{Affine(3, false)};
  Parameter gain{full({}, 2.0)};
  HONE_MODULE(Net, first, blocks, extra, absent, fixed, gain)
  Net() { extra.emplace(); }
  Tensor forward(const Tensor& x) {
    Tensor h = first(x);
    for (auto& b : blocks) h = tanh(b(h));
    return fixed[0]((*extra)(h)) * gain.value();
  }
};

std::vector<std::string> names(nn::Module& m) {
  std::vector<std::string> all;
  for (const auto& p : m.named_parameters()) all.push_back(p.name);
  return all;
}

TEST(Module, NamesParametersBuffersAndModules) {
  Net net;
  EXPECT_EQ(names(net), (std::vector<std::string>{"first.scale", "first.shift", "blocks.0.scale", "blocks.0.shift",
                                                  "blocks.1.scale", "blocks.1.shift", "extra.scale", "extra.shift",
                                                  "fixed.0.scale", "gain"}));
  EXPECT_EQ(net.parameters().size(), 10u);
  EXPECT_EQ(net.parameter_count(), 9 * 3 + 1);
  std::vector<std::string> buffers, modules;
  for (const auto& b : net.named_buffers()) buffers.push_back(b.name);
  for (const auto& m : net.named_modules()) modules.push_back(m.name + ":" + m.module->type_name());
  EXPECT_EQ(buffers, (std::vector<std::string>{"first.calls", "blocks.0.calls", "blocks.1.calls", "extra.calls",
                                               "fixed.0.calls"}));
  EXPECT_EQ(modules, (std::vector<std::string>{":Net", "first:Affine", "blocks.0:Affine", "blocks.1:Affine",
                                               "extra:Affine", "fixed.0:Affine"}));
}

TEST(Module, ManyMembersAndNone) {
  struct None : nn::Module {
    HONE_MODULE(None)
    Tensor forward(const Tensor& x) { return x; }
  };
  struct Many : nn::Module {
    Parameter a1{ones({1})}, a2{ones({1})}, a3{ones({1})}, a4{ones({1})}, a5{ones({1})}, a6{ones({1})}, a7{ones({1})},
        a8{ones({1})}, a9{ones({1})}, a10{ones({1})}, a11{ones({1})}, a12{ones({1})}, a13{ones({1})}, a14{ones({1})},
        a15{ones({1})}, a16{ones({1})}, a17{ones({1})}, a18{ones({1})}, a19{ones({1})}, a20{ones({1})}, a21{ones({1})},
        a22{ones({1})}, a23{ones({1})}, a24{ones({1})}, a25{ones({1})}, a26{ones({1})}, a27{ones({1})}, a28{ones({1})},
        a29{ones({1})}, a30{ones({1})}, a31{ones({1})}, a32{ones({1})}, a33{ones({1})}, a34{ones({1})};
    HONE_MODULE(Many, a1, a2, a3, a4, a5, a6, a7, a8, a9, a10, a11, a12, a13, a14, a15, a16, a17, a18, a19, a20, a21,
                a22, a23, a24, a25, a26, a27, a28, a29, a30, a31, a32, a33, a34)
    Tensor forward(const Tensor& x) { return x * a34.value(); }
  };
  None none;
  Many many;
  EXPECT_TRUE(names(none).empty());
  EXPECT_TRUE(none(ones({2})).defined());
  const auto all = names(many);
  ASSERT_EQ(all.size(), 34u);
  EXPECT_EQ(all[9], "a10");
  EXPECT_EQ(all[20], "a21");
  EXPECT_EQ(all[33], "a34");
}

TEST(Module, CopyIsDeep) {
  manual_seed(1);
  Net net;
  const Tensor x = rand({4, 3});
  const auto before = net.state_dict();
  Net copy = net;
  EXPECT_TRUE(equal(net(x), copy(x)));
  for (size_t i = 0; i < net.parameters().size(); ++i) {
    EXPECT_FALSE(net.parameters()[i] == copy.parameters()[i]);
    EXPECT_FALSE(net.parameters()[i].raw().shares_storage_with(copy.parameters()[i].raw()));
  }
  // Train the copy.
  net.eval();
  copy.first.calls.tensor().fill_(5);
  for (int step = 0; step < 3; ++step) {
    copy.zero_grad();
    copy(x).backward(ones({4, 3}));
    NoGrad no_grad;
    for (const auto& p : copy.parameters()) {
      ASSERT_TRUE(p.grad().defined());
      Tensor(p.raw()).copy_(p.raw() - p.grad() * 0.1);
    }
  }
  auto after = net.state_dict();
  ASSERT_EQ(after.tensors.size(), before.tensors.size());
  after.at("first.calls").bump_version();
  for (size_t i = 0; i < after.tensors.size(); ++i) {
    if (after.tensors[i].first.find("calls") == std::string::npos) {
      EXPECT_TRUE(equal(after.tensors[i].second, before.tensors[i].second)) << after.tensors[i].first;
    }
  }
  EXPECT_EQ(net.first.calls.tensor().item<int64_t>(), 1);  // its own call above
  EXPECT_FALSE(net.parameters()[0].grad().defined());
  EXPECT_FALSE(equal(copy.first.scale.raw(), net.first.scale.raw()));

  // The same through the base class.
  nn::Module& base = net;
  auto cloned = base.clone();
  EXPECT_FALSE(cloned->training());
  EXPECT_TRUE(equal(cloned->call(x), net(x)));
  EXPECT_FALSE(cloned->parameters()[0] == net.parameters()[0]);

  // Assignment gives new identities too, and keeps requires_grad.
  net.requires_grad_(false);
  copy = net;
  EXPECT_FALSE(copy.parameters()[0] == net.parameters()[0]);
  EXPECT_FALSE(copy.first.scale.raw().requires_grad());
  EXPECT_TRUE(equal(copy(x), net(x)));
}

TEST(Module, MoveKeepsIdentities) {
  Net net;
  const auto before = net.parameters();
  Net moved = std::move(net);
  EXPECT_TRUE(moved.parameters() == before);
  Net assigned;
  assigned = std::move(moved);
  EXPECT_TRUE(assigned.parameters() == before);
  std::vector<Affine> list;
  for (int i = 0; i < 20; ++i) list.emplace_back();  // reallocation moves
  const ParameterRef first = list[0].scale;
  list.reserve(list.capacity() * 4);
  EXPECT_TRUE(list[0].scale.ref() == first);
}

// ---- calls ----

TEST(Module, CallsWithAnyArgumentList) {
  struct Two : nn::Module {
    HONE_MODULE(Two)
    std::pair<Tensor, int> forward(const Tensor& a, const Tensor& b) { return {a + b, 7}; }
  };
  struct Mixed : nn::Module {
    HONE_MODULE(Mixed)
    Tensor forward(const Tensor& x, int64_t times, double by, std::vector<int>& log, const std::string& label) {
      log.push_back(static_cast<int>(label.size()));
      Tensor y = x;
      for (int64_t i = 0; i < times; ++i) y = y * by;
      return y;
    }
  };
  struct Nothing : nn::Module {
    int calls = 0;
    HONE_MODULE(Nothing)
    void forward() { ++calls; }
  };
  struct Optional : nn::Module {
    HONE_MODULE(Optional)
    Tensor forward(const Tensor& x, const Tensor& mask = {}) const { return mask.defined() ? x * mask : x; }
  };
  struct Overloaded : nn::Module {
    HONE_MODULE(Overloaded)
    Tensor forward(const Tensor& x) { return x; }
    Tensor forward(const Tensor& x, const Tensor& y) { return x + y; }
  };
  const Tensor x = ones({2}), y = full({2}, 3.0);
  Two two;
  auto [sum, n] = two(x, y);
  EXPECT_TRUE(equal(sum, full({2}, 4.0)));
  EXPECT_EQ(n, 7);
  expect_error<Error>([&] { two.call(x); }, "Two: forward does not take one tensor to one tensor");

  Mixed mixed;
  std::vector<int> log;
  EXPECT_TRUE(equal(mixed(x, 2, 3, log, std::string("abc")), full({2}, 9.0)));
  EXPECT_TRUE(equal(mixed(x, int8_t{1}, 0.5f, log, std::string("")), full({2}, 0.5)));
  EXPECT_EQ(log, (std::vector<int>{3, 0}));
  expect_error<ValueError>([&] { (void)mixed(x, 2.5, 3, log, std::string("abc")); },
                           "Mixed: argument 2 of the call has another type than forward's parameter");
  const std::vector<int> constant;
  EXPECT_THROW((void)mixed(x, 2, 3, constant, std::string("abc")), ValueError);
  EXPECT_THROW((void)mixed(x, 2, 3), ValueError);

  Nothing nothing;
  nothing();
  EXPECT_EQ(nothing.calls, 1);
  Optional optional;
  EXPECT_TRUE(equal(optional(x), x));
  EXPECT_TRUE(equal(optional(x, y), y));
  EXPECT_TRUE(equal(optional(y, {}), y));
  Overloaded overloaded;
  EXPECT_TRUE(equal(overloaded(x), x));
  EXPECT_TRUE(equal(overloaded(x, y), full({2}, 4.0)));

  // Hooks see the first tensor, wherever it stands, and may change it.
  struct Late : nn::Module {
    HONE_MODULE(Late)
    Tensor forward(int64_t times, const Tensor& x, const Tensor& z) { return x * static_cast<double>(times) + z; }
  };
  Late late;
  late.register_forward_pre_hook([](nn::Module&, Tensor& input) { input = input * 10.0; });
  EXPECT_TRUE(equal(late(2, x, y), full({2}, 23.0)));
  int seen = 0;
  nothing.register_forward_hook(
      [&](nn::Module&, const Tensor& in, Tensor& out) { seen += !in.defined() && !out.defined(); });
  nothing();
  EXPECT_EQ(seen, 1);
  two.register_forward_pre_hook([](nn::Module&, Tensor& input) { input = input * 2.0; });
  EXPECT_TRUE(equal(two(x, y).first, full({2}, 5.0)));
}

// ---- hooks ----

TEST(Module, HooksRunInOrderAndAreRemoved) {
  Affine m;
  std::string order;
  auto a = m.register_forward_pre_hook([&](nn::Module&, Tensor&) { order += 'a'; });
  auto b = m.register_forward_pre_hook([&](nn::Module& self, Tensor& x) {
    order += 'b';
    EXPECT_EQ(&self, &m);
    x = x * 0.0;
  });
  auto c = m.register_forward_hook([&](nn::Module&, const Tensor& x, Tensor&) {
    order += 'c';
    EXPECT_TRUE(equal(x, zeros({3})));
  });
  auto d = m.register_forward_hook([&](nn::Module&, const Tensor&, Tensor& y) {
    order += 'd';
    y = y + 100.0;
  });
  const Tensor x = ones({3});
  EXPECT_TRUE(allclose(m(x), m.shift.value() + 100.0));
  EXPECT_EQ(order, "abcd");
  b.remove();
  c.remove();
  b.remove();  // twice does no harm
  order.clear();
  m(x);
  EXPECT_EQ(order, "ad");
  a.remove();
  d.remove();
  order.clear();
  EXPECT_TRUE(allclose(m(x), m.scale.value() + m.shift.value()));
  EXPECT_EQ(order, "");
}

TEST(Module, HooksMoveWithTheModuleAndAreNotCopied) {
  int calls = 0;
  nn::Module* seen = nullptr;
  HookHandle handle;
  Affine kept;
  {
    Affine m;
    handle = m.register_forward_hook([&](nn::Module& self, const Tensor&, Tensor&) {
      ++calls;
      seen = &self;
    });
    Affine copy = m;
    copy(ones({3}));
    EXPECT_EQ(calls, 0);
    kept = std::move(m);
  }
  kept(ones({3}));
  EXPECT_EQ(calls, 1);
  EXPECT_EQ(seen, &kept);
  handle.remove();
  kept(ones({3}));
  EXPECT_EQ(calls, 1);
  HookHandle orphan;
  {
    Affine m;
    orphan = m.register_forward_hook([](nn::Module&, const Tensor&, Tensor&) {});
  }
  orphan.remove();
}

TEST(Module, AHookMayRemoveItself) {
  Affine m;
  int calls = 0;
  HookHandle once;
  once = m.register_forward_hook([&](nn::Module&, const Tensor&, Tensor&) {
    ++calls;
    once.remove();
  });
  m(ones({3}));
  m(ones({3}));
  EXPECT_EQ(calls, 1);
}

TEST(Module, BackwardHooksSeeAndReplaceTheGradient) {
  Affine m(2);
  const Tensor x = ones({2});
  std::vector<double> seen;
  auto first = m.register_backward_hook([&](nn::Module&, const Tensor& g) {
    seen = g.to_vector<double>();
    return g * 10.0;
  });
  auto second = m.register_backward_hook([&](nn::Module&, const Tensor& g) {
    EXPECT_TRUE(equal(g, full({2}, 30.0)));
    return Tensor();
  });
  m(x).backward(full({2}, 3.0));
  EXPECT_EQ(seen, (std::vector<double>{3, 3}));
  EXPECT_TRUE(equal(m.shift.grad(), full({2}, 30.0)));
  first.remove();
  second.remove();
  m.zero_grad();
  EXPECT_FALSE(m.shift.grad().defined());
  m(x).backward(full({2}, 3.0));
  EXPECT_TRUE(equal(m.shift.grad(), full({2}, 3.0)));

  // A module that returns its input: the hook does not stay on the input.
  nn::Identity identity;
  int calls = 0;
  identity.register_backward_hook([&](nn::Module&, const Tensor& g) {
    ++calls;
    return g * 2.0;
  });
  Tensor leaf = ones({2});
  leaf.requires_grad_();
  identity(leaf).backward(ones({2}));
  EXPECT_TRUE(equal(leaf.grad(), full({2}, 2.0)));
  (leaf * 1.0).backward(ones({2}));
  EXPECT_TRUE(equal(leaf.grad(), full({2}, 3.0)));
  EXPECT_EQ(calls, 1);

  // The module is gone before backward: the gradient passes as it is.
  Tensor y;
  {
    nn::Identity gone;
    gone.register_backward_hook([&](nn::Module&, const Tensor& g) { return g * 100.0; });
    y = gone(leaf);
  }
  leaf.set_grad({});
  y.backward(ones({2}));
  EXPECT_TRUE(equal(leaf.grad(), ones({2})));
}

// ---- state ----

TEST(Module, StateDictRoundTrip) {
  manual_seed(3);
  Net a, b;
  const Tensor x = rand({2, 3});
  a(x);  // calls differ now
  auto state = a.state_dict();
  EXPECT_EQ(state.tensors.front().first, "first.scale");
  EXPECT_EQ(state.tensors[2].first, "first.calls");
  EXPECT_EQ(state.tensors.size(), 15u);
  const auto identities = b.parameters();
  EXPECT_FALSE(equal(a.first.scale.raw(), b.first.scale.raw()));
  const auto report = b.load_state_dict(state);
  EXPECT_TRUE(report.missing.empty() && report.unexpected.empty());
  EXPECT_TRUE(b.parameters() == identities);
  EXPECT_TRUE(b.first.scale.raw().requires_grad());
  EXPECT_EQ(b.first.calls.tensor().item<int64_t>(), 1);
  a.eval();
  b.eval();
  EXPECT_TRUE(equal(a(x), b(x)));
  // A state is a snapshot: what comes later does not reach it.
  NoGrad no_grad;
  const Tensor kept = clone(state.at("gain"));
  Tensor(a.gain.raw()).fill_(50);
  EXPECT_TRUE(equal(state.at("gain"), kept));

  const std::string path = testing::TempDir() + "hone_nn_test.safetensors";
  a.save(path);
  Net c;
  c.load(path);
  c.eval();
  EXPECT_TRUE(equal(a(x), c(x)));
  std::remove(path.c_str());
}

TEST(Module, StrictLoadingNamesEveryEntry) {
  Affine a;
  auto state = a.state_dict();
  state.tensors[0].first = "scales";
  state.tensors[1].first = "shifts";
  expect_error<FormatError>(
      [&] { a.load_state_dict(state); },
      "load_state_dict: does not match Affine; missing: scale, shift; unexpected: scales, shifts");
  EXPECT_THROW(a.load_state_dict(state), FormatError);
  const auto report = a.load_state_dict(state, {.strict = false});
  EXPECT_EQ(report.missing, (std::vector<std::string>{"scale", "shift"}));
  EXPECT_EQ(report.unexpected, (std::vector<std::string>{"scales", "shifts"}));

  // Renamed, it fits; "" drops an entry.
  Affine b;
  state.tensors.emplace_back("optimizer", ones({1}));
  b.load_state_dict(state, {.rename = [](const std::string& n) -> std::string {
                      if (n == "optimizer") return "";
                      return n.back() == 's' && n != "calls" ? n.substr(0, n.size() - 1) : n;
                    }});
  EXPECT_TRUE(equal(a.scale.raw(), b.scale.raw()));
  EXPECT_TRUE(equal(a.shift.raw(), b.shift.raw()));
  EXPECT_THROW(b.load_state_dict(state, {.strict = false, .rename = [](const std::string&) { return "scale"; }}),
               FormatError);
}

TEST(Module, LoadingIsAllOrNothing) {
  Affine m, other;
  const auto before = m.state_dict();
  auto state = other.state_dict();
  state.tensors[1].second = ones({4});
  expect_error<ShapeError>([&] { m.load_state_dict(state); },
                           "load_state_dict: shift has shape [4], the module's is [3]");
  EXPECT_THROW(m.load_state_dict(state), ShapeError);
  state.tensors[1].second = ones({3}, f64);
  EXPECT_THROW(m.load_state_dict(state), DTypeError);
  state.tensors[1].second = Tensor();
  EXPECT_THROW(m.load_state_dict(state), FormatError);
  const auto after = m.state_dict();
  for (size_t i = 0; i < before.tensors.size(); ++i)
    EXPECT_TRUE(equal(before.tensors[i].second, after.tensors[i].second));
  EXPECT_FALSE(equal(m.scale.raw(), other.scale.raw()));
}

TEST(Module, ConvertsDType) {
  Net net;
  net(ones({3})).backward(ones({3}));
  const auto refs = net.parameters();
  const uint64_t generation = refs[0].generation();
  Tensor(net.first.shift.raw()).requires_grad_(false);
  net.to(f64);
  EXPECT_TRUE(net.parameters() == refs);
  EXPECT_GT(refs[0].generation(), generation);
  for (const auto& p : refs) {
    EXPECT_EQ(p.raw().dtype(), f64);
    EXPECT_TRUE(p.raw().is_leaf());
    ASSERT_TRUE(p.grad().defined());
    EXPECT_EQ(p.grad().dtype(), f64);
  }
  EXPECT_TRUE(net.first.scale.raw().requires_grad());
  EXPECT_FALSE(net.first.shift.raw().requires_grad());
  EXPECT_EQ(net.first.calls.tensor().dtype(), i64);  // counts stay counts
  EXPECT_EQ(net(ones({3}, f64)).dtype(), f64);
  const uint64_t now = refs[0].generation();
  net.to(f64);
  EXPECT_EQ(refs[0].generation(), now);
  EXPECT_THROW(net.to(i32), DTypeError);
  if (!kHasCuda) {
    EXPECT_THROW(net.to(cuda_device()), DeviceError);
    EXPECT_EQ(net.first.scale.raw().device(), cpu);
  }
  net.to(cpu);
  EXPECT_EQ(refs[0].generation(), now);
}

TEST(Module, ModesReachEveryModule) {
  Net net;
  for (const auto& m : net.named_modules()) EXPECT_TRUE(m.module->training());
  net.eval();
  for (const auto& m : net.named_modules()) EXPECT_FALSE(m.module->training()) << m.name;
  net.blocks[1].train();
  EXPECT_TRUE(net.blocks[1].training());
  EXPECT_FALSE(net.blocks[0].training());
  EXPECT_FALSE(net.training());
}

TEST(Module, SummaryLeavesTheModuleAsItWas) {
  Net net;
  net.blocks[1].eval();
  net.first.calls.tensor().fill_(9);
  const std::string text = net.summary(ones({5, 3}));
  EXPECT_NE(text.find("blocks.1  Affine  [5, 3]           6"), std::string::npos) << text;
  EXPECT_NE(text.find("total"), std::string::npos) << text;
  EXPECT_NE(text.find(" 28  "), std::string::npos) << text;
  EXPECT_TRUE(net.training());
  EXPECT_TRUE(net.blocks[0].training());
  EXPECT_FALSE(net.blocks[1].training());
  EXPECT_EQ(net.first.calls.tensor().item<int64_t>(), 9);
  EXPECT_THROW(net.summary(ones({5, 4})), ShapeError);
  EXPECT_TRUE(net.training());
  int calls = 0;
  net.register_forward_hook([&](nn::Module&, const Tensor&, Tensor&) { ++calls; });
  net(ones({3}));
  EXPECT_EQ(calls, 1);
}

// ---- parameters ----

TEST(Parameter, OwnsALeaf) {
  EXPECT_THROW(Parameter(ones({2}, i64)), DTypeError);
  EXPECT_THROW(Parameter(Tensor{}), ValueError);
  Parameter p(ones({2, 2}));
  EXPECT_TRUE(p.raw().requires_grad() && p.raw().is_leaf());
  const Tensor made = p.value() * 2.0;
  Parameter q(made);  // not a leaf: copied
  EXPECT_TRUE(q.raw().is_leaf());
  EXPECT_FALSE(q.raw().shares_storage_with(made));
  Parameter absent, copy = absent;
  EXPECT_FALSE(copy.defined());
  EXPECT_FALSE(absent.value().defined());
  const uint64_t g = p.ref().generation();
  p.ref().replace(zeros({2, 2}));
  EXPECT_EQ(p.ref().generation(), g);
  p.ref().replace(zeros({1, 2}));
  EXPECT_EQ(p.ref().generation(), g + 1);
  EXPECT_TRUE(p.raw().requires_grad());
}

}  // namespace
}  // namespace hone
