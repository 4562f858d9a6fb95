// What every optimizer keeps, through one table: lengths and dtypes, threads, state, shrinks, bad gradients,
// convergence.

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <map>

#include "optim_cases.h"
#include "simd_targets.h"

namespace hone {
namespace {

using namespace optim;
using namespace optim_test;

// The state tensors of a parameter by name.
std::map<std::string, Tensor> states(const Optimizer& o, int64_t parameter) {
  const TensorFile file = o.state_dict();
  std::map<std::string, Tensor> out;
  for (const std::string& name : o.state_names())
    for (const auto& [entry, t] : file.tensors)
      if (entry == str("parameter.", parameter, ".", name)) out[name] = t;
  return out;
}
void expect_same_state(const Optimizer& a, const Optimizer& b, const std::string& what) {
  const TensorFile x = a.state_dict(), y = b.state_dict();
  ASSERT_EQ(x.tensors.size(), y.tensors.size()) << what;
  for (size_t i = 0; i < x.tensors.size(); ++i) {
    ASSERT_EQ(x.tensors[i].first, y.tensors[i].first) << what;
    if (x.tensors[i].first == "non_finite_steps") continue;  // one may have skipped a step
    ASSERT_EQ(x.tensors[i].second.to_vector<double>(), y.tensors[i].second.to_vector<double>())
        << what << ": " << x.tensors[i].first;
  }
}

// Which the formulas and PyTorch's traces check. The same gradients, so that states do not drift apart.
void expect_f64_values() {
  for (const Case& c : cases())
    for (const DType dtype : {f32, bf16}) {
      std::vector<Parameter> low = make_parameters(dtype, shapes_of(c)), high;
      for (const Parameter& p : low) high.emplace_back(cast(p.raw().detach(), f64));
      Optimizers a = c.make(refs(low)), b = c.make(refs(high));
      for (int t = 0; t < 4; ++t) {
        set_gradients_by(low, [t](int64_t i, double) { return std::cos(0.3 * t + static_cast<double>(i)); });
        for (size_t k = 0; k < low.size(); ++k) high[k].raw().set_grad(cast(low[k].grad(), f64));
        a->step();
        b->step();
      }
      const std::string what = std::string(c.label) + " " + name(dtype);
      expect_near(values(low), values(high), dtype == f32 ? 2e-6 : 1e-2, what);
      for (const auto& [entry, state] : states(*a, 0)) EXPECT_EQ(state.dtype(), f32) << what << " " << entry;
    }
}

TEST(OptimCommon, EveryLengthAndDtypeFollowsTheF64OneOnEveryTarget) {
  test::on_every_target([](int64_t) { expect_f64_values(); });
}

void expect_same_bits_anywhere() {
  for (const Case& c : cases()) {
    if (c.kind != Case::elementwise) continue;
    std::vector<Parameter> split = make_parameters(f32, {{5}, {0}, {64}, {3, 7}, {}}),
                           whole = make_parameters(f32, {{91}});
    Optimizers a = c.make(refs(split)), b = c.make(refs(whole));
    for (int t = 0; t < 5; ++t) {
      set_gradients(split, t);
      set_gradients(whole, t);
      a->step();
      b->step();
    }
    EXPECT_EQ(values(split), values(whole)) << c.label;
  }
}
TEST(OptimCommon, ElementsDoNotSeeTheirPlaceOnAnyTarget) {
  test::on_every_target([](int64_t) { expect_same_bits_anywhere(); });
}

TEST(OptimCommon, SameBitsAtAnyThreadCount) {
  const int before = num_threads();
  for (const Case& c : cases()) {
    const auto run = [&](int threads) {
      set_num_threads(threads);
      std::vector<Parameter> p = make_parameters(
          f32, c.kind == Case::matrices ? std::vector<Shape>{{150, 220}, {33, 7}}
                                        : std::vector<Shape>{{50021}, {33}, {150, 220}, {40, 30, 3, 3}});
      Optimizers o = c.make(refs(p));
      for (int t = 0; t < 4; ++t) {
        set_gradients(p, t);
        o->step();
      }
      return values(p);
    };
    const std::vector<double> one = run(1);
    EXPECT_EQ(one, run(2)) << c.label;
    EXPECT_EQ(one, run(3)) << c.label;
  }
  set_num_threads(before);
}

TEST(OptimCommon, MaximizeIsMinusTheGradient) {
  const auto both = [&]<class O, class Options>(Options options, O*, const std::vector<Shape>& shapes) {
    std::vector<Parameter> up = make_parameters(f64, shapes), down = make_parameters(f64, shapes);
    options.weight_decay = 0.1;
    Optimizers b = make<O>(options)(refs(down));
    options.maximize = true;
    Optimizers a = make<O>(options)(refs(up));
    for (int t = 0; t < 6; ++t) {
      set_gradients(up, t);
      set_gradients_by(down, [t](int64_t i, double w) { return -gradient(i, t, w); });
      a->step();
      b->step();
    }
    EXPECT_EQ(values(up), values(down)) << a->name();
  };
  const std::vector<Shape> shapes = {{3, 4}, {5}};
  both(LionOptions{}, static_cast<Lion*>(nullptr), shapes);
  both(LARSOptions{}, static_cast<LARS*>(nullptr), shapes);
  both(LAMBOptions{}, static_cast<LAMB*>(nullptr), shapes);
  both(ScheduleFreeAdamWOptions{}, static_cast<ScheduleFreeAdamW*>(nullptr), shapes);
  both(RpropOptions{}, static_cast<Rprop*>(nullptr), shapes);
  both(MuonOptions{}, static_cast<Muon*>(nullptr), {{3, 4}});
  both(LAMBOptions{.decoupled_decay = false}, static_cast<LAMB*>(nullptr), shapes);
  both(ScheduleFreeAdamWOptions{.decoupled_decay = false}, static_cast<ScheduleFreeAdamW*>(nullptr), shapes);
  both(AdafactorOptions{.decoupled_decay = false}, static_cast<Adafactor*>(nullptr), shapes);
}

TEST(OptimCommon, ResumeGoesOnWithTheSameBits) {
  for (const Case& c : cases())
    for (const DType dtype : {f32, bf16}) {
      std::vector<Parameter> p = make_parameters(dtype, small_shapes(c));
      Optimizers first = c.make(refs(p));
      for (int t = 0; t < 7; ++t) {
        set_gradients(p, t);
        if (t == 3) first->set_lr(first->lr() * 0.5);
        first->step();
      }
      const TensorFile saved = first->state_dict();
      std::vector<Parameter> copy = p;  // values only: new identities, no gradients
      Optimizers second = c.make(refs(copy));
      second->load_state_dict(saved);
      EXPECT_EQ(second->lr(), first->lr()) << c.label;
      for (int t = 7; t < 17; ++t) {
        set_gradients(p, t);
        set_gradients(copy, t);
        first->step();
        second->step();
        ASSERT_EQ(values(p), values(copy)) << c.label << " " << name(dtype) << ", step " << t;
      }
      expect_same_state(*first, *second, c.label);
    }
}

TEST(OptimCommon, StateBytesAreThoseOfTheDocumentation) {
  const std::map<std::string, int64_t> bytes_each = {
      {"SGD momentum", 4}, {"Adagrad", 4}, {"RMSprop", 4}, {"ASGD", 4},     {"Lion", 4},
      {"LARS", 4},         {"Muon", 4},    {"SGD", 0},     {"AMSGrad", 12}, {"RMSprop centred momentum", 12}};
  for (const Case& c : cases()) {
    std::vector<Parameter> p = make_parameters(f32, {{60, 50}});
    Optimizers o = c.make(refs(p));
    EXPECT_EQ(o->state_bytes(), 0) << c.label;
    set_gradients(p, 0);
    o->step();
    const int64_t each = bytes_each.contains(c.label) ? bytes_each.at(c.label) : 8;
    EXPECT_EQ(o->state_bytes(), c.kind == Case::factored ? 4 * (60 + 50) : each * 60 * 50) << c.label;
  }
}

TEST(OptimCommon, StateOfAnotherOptimizerIsRefused) {
  for (const Case& from : cases())
    for (const Case& to : cases()) {
      std::vector<Parameter> p = make_parameters(f32, {{6, 5}, {2, 2}}), q = make_parameters(f32, {{6, 5}, {2, 2}});
      Optimizers a = from.make(refs(p)), b = to.make(refs(q)), fresh = to.make(refs(q));
      if (std::string(a->name()) == b->name()) continue;
      set_gradients(p, 0);
      a->step();
      test::expect_error<FormatError>([&] { b->load_state_dict(a->state_dict()); }, std::string("'") + a->name() + "'");
      expect_same_state(*b, *fresh, to.label);
    }
  // The same rule with other state: nothing has changed either.
  std::vector<Parameter> p = make_parameters(f32, {{6, 5}});
  RMSprop plain(refs(p), {.lr = 0.5}), centred(refs(p), {.lr = 0.1, .centered = true}),
      rest(refs(p), {.momentum = 0.9});
  set_gradients(p, 0);
  centred.step();
  rest.step();
  test::expect_error<ValueError>([&] { plain.load_state_dict(centred.state_dict()); }, "no group was made centered");
  test::expect_error<ValueError>([&] { plain.load_state_dict(rest.state_dict()); }, "made without momentum");
  plain.step();
  test::expect_error<FormatError>([&] { centred.load_state_dict(plain.state_dict()); }, "grad_avg");
  EXPECT_EQ(plain.lr(), 0.5);
  EXPECT_EQ(centred.lr(), 0.1);
}

TEST(OptimCommon, ShrinkSlicesTheState) {
  const std::vector<int64_t> kept = {0, 2, 3};
  for (const Case& c : cases())
    for (const int64_t dim : {0, 1}) {
      const auto keep = [&](const Tensor& t) { return index_select(t.detach(), dim, tensor(kept)); };
      const auto gradient_at = [](int t) {
        std::vector<double> g;
        for (int64_t i = 0; i < 30; ++i) g.push_back(gradient(i, t, 0.5));
        return tensor(g, {6, 5});
      };
      std::vector<Parameter> p = make_parameters(f64, {{6, 5}}), only;
      only.emplace_back(keep(p[0].raw()));
      Optimizers a = c.make(refs(p)), b = c.make(refs(only));
      const auto step = [](const Optimizers& o, const Parameter& parameter, const Tensor& g) {
        parameter.raw().set_grad(g);
        o->step();
      };
      for (int t = 0; t < 3; ++t) {
        step(a, p[0], gradient_at(t));
        step(b, only[0], keep(gradient_at(t)));
      }
      const std::map<std::string, Tensor> former = states(*a, 0);
      p[0].ref().replace(keep(p[0].raw()));
      test::expect_error<GradError>([&] { step(a, p[0], keep(gradient_at(3))); }, "stale");
      a->apply(Shrink{p[0].ref(), dim, kept});
      for (const auto& [entry, now] : states(*a, 0)) {
        const Tensor& old = former.at(entry);
        // Adafactor: one number over all of the dimension, and the variance that a matrix has not.
        const bool whole = c.kind == Case::factored && (old.numel() == 0 || old.size(dim) == 1);
        const Tensor want = whole ? old : keep(old);
        EXPECT_EQ(to_string(now.shape()), to_string(want.shape())) << c.label << " " << entry;
        EXPECT_EQ(now.to_vector<double>(), want.to_vector<double>()) << c.label << " " << entry;
      }
      for (int t = 3; t < 6; ++t) {
        step(a, p[0], keep(gradient_at(t)));
        step(b, only[0], keep(gradient_at(t)));
      }
      if (c.kind == Case::elementwise) { EXPECT_EQ(values(p), values(only)) << c.label << ", dimension " << dim; }
    }
}

void expect_non_finite_policies() {
  constexpr double kNaN = std::numeric_limits<double>::quiet_NaN(), kInf = std::numeric_limits<double>::infinity();
  for (const Case& c : cases()) {
    std::vector<Parameter> p = make_parameters(f32, small_shapes(c));
    std::vector<Parameter> q = p;
    Optimizers a = c.make(refs(p)), b = c.make(refs(q));
    const auto step = [&](const Optimizers& o, const std::vector<Parameter>& at, int t, bool bad) {
      set_gradients_by(at, [&](int64_t i, double) {
        const double g = std::cos(t + static_cast<double>(i));  // at most 1, which is g(0) at t = 0
        if (i == 3) return bad ? kNaN : 0;
        if (i == 4) return bad ? -kInf : static_cast<double>(-1.0F);
        return t == 0 || i > 0 ? g : 1;
      });
      o->step();
    };
    step(a, p, 0, false);
    step(b, q, 0, false);
    const std::vector<double> before = values(p);
    test::expect_error<NumericError>([&] { step(a, p, 1, true); }, "parameter 0");
    EXPECT_EQ(values(p), before) << c.label;
    expect_same_state(*a, *b, c.label);
    a->set_non_finite(NonFinite::skip);
    step(a, p, 1, true);
    EXPECT_EQ(values(p), before) << c.label;
    expect_same_state(*a, *b, c.label);
    EXPECT_EQ(a->non_finite_steps(), 1);
    a->set_non_finite(NonFinite::clip);
    step(a, p, 1, true);
    step(b, q, 1, false);
    EXPECT_EQ(values(p), values(q)) << c.label;
    expect_same_state(*a, *b, c.label);
    EXPECT_EQ(a->non_finite_steps(), 2);
    b->load_state_dict(a->state_dict());
    EXPECT_EQ(b->non_finite_steps(), 2);
  }
}
TEST(OptimCommon, GradientsThatAreNotFiniteOnEveryTarget) {
  test::on_every_target([](int64_t) { expect_non_finite_policies(); });
}

// One NaN at any place of any length is found.
TEST(OptimCommon, NonFiniteAtAnyPlaceOnEveryTarget) {
  test::on_every_target([](int64_t) {
    for (const DType dtype : {f64, f32, bf16})
      for (int64_t n = 1; n < 40; ++n)
        for (int64_t at = 0; at < n; ++at) {
          std::vector<Parameter> p = make_parameters(dtype, {{3}, {n}});
          SGD sgd(refs(p));
          sgd.set_non_finite(NonFinite::skip);
          const double bad = at % 2 ? std::numeric_limits<double>::quiet_NaN() : -HUGE_VAL;
          set_gradients_by(p, [&](int64_t i, double) { return i == 3 + at ? bad : 1; });
          sgd.step();
          ASSERT_EQ(sgd.non_finite_steps(), 1) << name(dtype) << ", " << at << " of " << n;
        }
  });
}

// Two groups are two optimizers: nothing of one's options reaches the other.
TEST(OptimCommon, GroupsAreOptimizersOfTheirOwn) {
  const auto check = [&]<class O, class Options>(Options one, Options two, O*) {
    const std::vector<Shape> shapes = {{3, 4}, {2, 5}, {4, 4}};
    std::vector<Parameter> p = make_parameters(f64, shapes), q = make_parameters(f64, shapes);
    two.weight_decay = 0.2;
    two.maximize = true;
    O both({{.parameters = {p[0].ref(), p[2].ref()}, .options = one}, {.parameters = {p[1].ref()}, .options = two}});
    O first({q[0].ref(), q[2].ref()}, one), second({q[1].ref()}, two);
    for (int t = 0; t < 12; ++t) {
      if (t == 6) {  // saved and loaded on the way
        const TensorFile saved = both.state_dict();
        for (int g : {0, 1}) both.set_lr(0.7, g);
        both.load_state_dict(saved);
      }
      set_gradients(p, t);
      set_gradients(q, t);
      both.step();
      first.step();
      second.step();
    }
    expect_near(values(p), values(q), 1e-13, both.name());
  };
  check(SGDOptions{.lr = 0.01}, {.lr = 0.02, .momentum = 0.9, .nesterov = true}, static_cast<SGD*>(nullptr));
  check(AdamOptions{.lr = 0.01}, {.lr = 0.02, .beta2 = 0.9, .amsgrad = true}, static_cast<Adam*>(nullptr));
  check(AdagradOptions{.lr = 0.01}, {.lr = 0.02, .initial_accumulator = 0.5}, static_cast<Adagrad*>(nullptr));
  check(AdadeltaOptions{}, {.rho = 0.5, .decoupled_decay = true}, static_cast<Adadelta*>(nullptr));
  check(RMSpropOptions{}, {.momentum = 0.5, .centered = true}, static_cast<RMSprop*>(nullptr));
  check(RMSpropOptions{.momentum = 0.5}, {.eps_inside_sqrt = true}, static_cast<RMSprop*>(nullptr));
  check(AdamaxOptions{}, {.lr = 0.1, .beta1 = 0.5}, static_cast<Adamax*>(nullptr));
  check(NAdamOptions{}, {.beta1 = 0.5, .momentum_decay = 0.1}, static_cast<NAdam*>(nullptr));
  check(RAdamOptions{}, {.lr = 0.1, .beta2 = 0.5}, static_cast<RAdam*>(nullptr));
  check(RpropOptions{}, {.lr = 0.1, .eta_plus = 1.5}, static_cast<Rprop*>(nullptr));
  check(ASGDOptions{}, {.lr = 0.1, .lambd = 0.1, .t0 = 0}, static_cast<ASGD*>(nullptr));
  check(LionOptions{.lr = 0.01}, {.lr = 0.02, .beta1 = 0.5, .decoupled_decay = false}, static_cast<Lion*>(nullptr));
  check(LARSOptions{}, {.lr = 0.5, .momentum = 0.1, .decoupled_decay = true}, static_cast<LARS*>(nullptr));
  check(LAMBOptions{}, {.lr = 0.5, .norm_max = 2, .decoupled_decay = false}, static_cast<LAMB*>(nullptr));
  check(AdafactorOptions{}, {.lr = 0.5, .eps2 = 0.1, .decoupled_decay = false}, static_cast<Adafactor*>(nullptr));
  check(MuonOptions{}, {.lr = 0.5, .iterations = 2, .decoupled_decay = false}, static_cast<Muon*>(nullptr));
  check(ScheduleFreeAdamWOptions{}, {.lr = 0.5, .beta1 = 0.5, .warmup_steps = 5},
        static_cast<ScheduleFreeAdamW*>(nullptr));
}

// ---- convergence, under a rate that falls to 0 in a straight line

template <class F>
double minimize(const Case& c, const Shape& shape, const std::vector<double>& start, int steps,
                const F& loss_and_gradient) {
  std::vector<Parameter> p;
  p.emplace_back(tensor(start, shape));
  Optimizers o = c.fast(refs(p));
  const double rate = o->lr();
  std::vector<double> g(start.size());
  for (int t = 0; t < steps; ++t) {
    o->set_lr(rate * (1 - static_cast<double>(t) / steps));
    loss_and_gradient(values(p), g);
    p[0].raw().set_grad(tensor(g, shape));
    o->step();
  }
  if (auto* free = dynamic_cast<ScheduleFreeAdamW*>(o.get())) free->eval();
  return loss_and_gradient(values(p), g);
}

TEST(OptimCommon, ConvexQuadraticConverges) {
  // ½ Σ a_i (w_i − 1)², a_i from 1 to 10, from 0: 33 at first.
  const auto f = [](const std::vector<double>& w, std::vector<double>& g) {
    double loss = 0;
    for (size_t i = 0; i < w.size(); ++i) {
      const double a = 1 + 9 * static_cast<double>(i) / 11;
      g[i] = a * (w[i] - 1);
      loss += 0.5 * a * (w[i] - 1) * (w[i] - 1);
    }
    return loss;
  };
  for (const Case& c : cases()) {
    const double loss = minimize(c, {3, 4}, std::vector<double>(12, 0.0), 6000, f);
    EXPECT_LT(loss, 1e-3) << c.label;
  }
}

TEST(OptimCommon, RosenbrockConverges) {
  // (1 − x)² + 100 (y − x²)², from (−1.2, 1): 24.2 at first.
  const auto f = [](const std::vector<double>& w, std::vector<double>& g) {
    const double x = w[0], y = w[1], off = y - x * x;
    g[0] = -2 * (1 - x) - 400 * x * off;
    g[1] = 200 * off;
    return (1 - x) * (1 - x) + 100 * off * off;
  };
  for (const Case& c : cases()) {
    const double loss = minimize(c, {1, 2}, {-1.2, 1.0}, 10000, f);
    EXPECT_LT(loss, 1e-2) << c.label;
  }
}

// ---- options

TEST(OptimCommon, OptionsOutsideTheirRange) {
  const std::vector<Parameter> p = make_parameters(f32, {{3, 4}, {2, 2}});
  const double nan = std::numeric_limits<double>::quiet_NaN();
  const auto refused = [&]<class O, class Options>(Options options, O*, const std::string& message) {
    test::expect_error<ValueError>([&] { O(refs(p), options); }, message);
  };
#define HONE_REFUSED(O, message, ...) refused(O##Options{__VA_ARGS__}, static_cast<O*>(nullptr), message)
  HONE_REFUSED(Adagrad, "Adagrad: lr_decay must be finite and at least 0, got -1", .lr_decay = -1);
  HONE_REFUSED(Adadelta, "Adadelta: lr must be finite and at least 0, got -1", .lr = -1);
  HONE_REFUSED(Adadelta, "Adadelta: rho must be in [0, 1), got 1", .rho = 1);
  HONE_REFUSED(RMSprop, "RMSprop: beta must be in [0, 1)", .beta = nan);
  HONE_REFUSED(RMSprop, "RMSprop: momentum must be finite and at least 0", .momentum = -0.1);
  HONE_REFUSED(Adamax, "Adamax: beta1 must be in [0, 1)", .beta1 = 1);
  HONE_REFUSED(Adamax, "Adamax: eps must be finite and at least 0", .eps = -1);
  HONE_REFUSED(NAdam, "NAdam: momentum_decay must be finite and at least 0", .momentum_decay = -1);
  HONE_REFUSED(RAdam, "RAdam: beta2 must be in [0, 1)", .beta2 = -0.5);
  HONE_REFUSED(Rprop, "Rprop: eta_minus must be in (0, 1), got 1", .eta_minus = 1);
  HONE_REFUSED(Rprop, "Rprop: eta_plus must be finite and above 1, got 1", .eta_plus = 1);
  HONE_REFUSED(Rprop, "Rprop: step_max must be finite and at least step_min (1), got 0.5", .step_min = 1,
               .step_max = 0.5);
  HONE_REFUSED(ASGD, "ASGD: lambd must be finite and at least 0", .lambd = -1);
  HONE_REFUSED(ASGD, "ASGD: t0 must be finite and at least 0", .t0 = nan);
  HONE_REFUSED(Lion, "Lion: weight_decay must be finite and at least 0", .weight_decay = -1);
  HONE_REFUSED(LARS, "LARS: trust_coefficient must be finite and above 0, got 0", .trust_coefficient = 0);
  HONE_REFUSED(LAMB, "LAMB: norm_max must be at least norm_min (2), got 1", .norm_min = 2, .norm_max = 1);
  HONE_REFUSED(LAMB, "LAMB: norm_max", .norm_max = nan);
  HONE_REFUSED(Adafactor, "Adafactor: beta2_decay must be finite and at most 0, got 0.1", .beta2_decay = 0.1);
  HONE_REFUSED(Adafactor, "Adafactor: clip_threshold must be finite and at least 1, got 0.5", .clip_threshold = 0.5);
  HONE_REFUSED(Muon, "Muon: momentum must be in [0, 1), got 1", .momentum = 1);
  HONE_REFUSED(Muon, "Muon: iterations must be from 1 to 99, got 0", .iterations = 0);
  HONE_REFUSED(Muon, "Muon: adjust must be", .adjust = static_cast<MuonAdjust>(3));
  HONE_REFUSED(ScheduleFreeAdamW, "ScheduleFreeAdamW: beta1 must be in (0, 1), got 0", .beta1 = 0);
  HONE_REFUSED(ScheduleFreeAdamW, "ScheduleFreeAdamW: warmup_steps must be at least 0, got -1", .warmup_steps = -1);
#undef HONE_REFUSED
  const std::vector<Parameter> mixed = make_parameters(f32, {{3, 4}, {5}, {2, 2, 2}});
  test::expect_error<ValueError>([&] { Muon(refs(mixed)); },
                                 "Muon: parameter 1 has shape [5]; Muon updates matrices alone");
  for (const Case& c : cases()) {
    Optimizers o = c.make(refs(p));
    const double lr = o->lr();
    test::expect_error<ValueError>([&] { o->set_lr(nan); },
                                   std::string(o->name()) + ": lr must be finite and at least 0");
    EXPECT_EQ(o->lr(), lr) << c.label;
  }
}

}  // namespace
}  // namespace hone
