// Penalties, proximal steps and projections, against their formulas written again as plain loops.

#include "regularizer_support.h"

namespace hone {
namespace {

using namespace regularizer_test;
using Refs = std::vector<ParameterRef>;

// The penalty's value, and its derivatives by central differences, once and twice.
void check_penalty(const std::function<Tensor(const Refs&)>& penalty, double want, const std::string& what) {
  const std::vector<Parameter> p = some_parameters();
  const Refs list = refs(p);
  const Tensor value = penalty(list);
  EXPECT_EQ(value.ndim(), 0) << what;
  EXPECT_NEAR(value.item(), want, 1e-13 * std::max(1.0, std::abs(want))) << what;
  std::vector<Tensor> inputs;
  for (const ParameterRef& r : list) inputs.push_back(r.raw());
  const auto f = [&](const std::vector<Tensor>& in) {
    for (size_t i = 0; i < in.size(); ++i) put(list[i], in[i]);
    return std::vector<Tensor>{penalty(list)};
  };
  EXPECT_NO_THROW(gradcheck(f, inputs)) << what;
  EXPECT_NO_THROW(gradgradcheck(f, inputs)) << what;
}

double sum_over(const std::vector<Parameter>& p, bool weights_only, double (*term)(double)) {
  double sum = 0;
  for (const Parameter& one : p)
    if (!weights_only || one.raw().ndim() >= 2)
      for (double w : values(one.raw())) sum += term(w);
  return sum;
}

// Σ √n ‖slice‖ over slices along dim, by index arithmetic of its own.
double group_norms(const Tensor& w, int64_t dim) {
  const auto v = values(w);
  const int64_t groups = w.size(dim);
  std::vector<double> squares(static_cast<size_t>(groups));
  for (size_t i = 0; i < v.size(); ++i) {
    int64_t rest = static_cast<int64_t>(i), at = 0;
    for (int64_t d = w.ndim() - 1; d >= 0; --d) {
      if (d == dim) at = rest % w.size(d);
      rest /= w.size(d);
    }
    squares[static_cast<size_t>(at)] += v[i] * v[i];
  }
  double sum = 0;
  for (double s : squares) sum += std::sqrt(static_cast<double>(w.numel() / groups)) * std::sqrt(s);
  return sum;
}

TEST(Penalties, EqualTheirFormulas) {
  const std::vector<Parameter> p = some_parameters();
  const auto magnitude = [](double w) { return std::abs(w); };
  const auto square = [](double w) { return w * w; };
  for (bool only : {false, true}) {
    const double a = sum_over(p, only, magnitude), s = sum_over(p, only, square);
    check_penalty([&](const Refs& r) { return optim::l1(r, 0.3, {.weights_only = only}); }, 0.3 * a, "l1");
    check_penalty([&](const Refs& r) { return optim::l2(r, 0.3, {.weights_only = only}); }, 0.15 * s, "l2");
    check_penalty([&](const Refs& r) { return optim::elastic_net(r, {.l1 = 0.2, .l2 = 0.7, .weights_only = only}); },
                  0.2 * a + 0.35 * s, "elastic net");
  }
  EXPECT_NE(sum_over(p, false, magnitude), sum_over(p, true, magnitude));
}

TEST(Penalties, GroupLassoOverFiltersRowsAndColumns) {
  const std::vector<Parameter> p = some_parameters();
  for (int64_t dim : {0, 1}) {
    const double want = 0.4 * (group_norms(p[0].raw(), dim) + group_norms(p[2].raw(), dim));
    check_penalty([&](const Refs& r) { return optim::group_lasso(r, 0.4, {.dim = dim}); }, want,
                  "group lasso " + std::to_string(dim));
  }
}

// √ has an infinite derivative at 0: a dead filter would make NaN of the whole gradient.
TEST(Penalties, GroupOfZerosHasGradientZero) {
  const Parameter w(tensor({3.0, 4.0, 0.0, 0.0}, {2, 2}));
  const Tensor penalty = optim::group_lasso({w}, 1);
  EXPECT_NEAR(penalty.item(), std::sqrt(2.0) * 5, 1e-14);
  const auto g = grad({penalty}, {w.raw()}, {.create_graph = true});
  EXPECT_NEAR(values(g[0])[0], std::sqrt(2.0) * 0.6, 1e-14);
  EXPECT_NEAR(values(g[0])[1], std::sqrt(2.0) * 0.8, 1e-14);
  EXPECT_EQ(values(g[0])[2], 0);
  EXPECT_EQ(values(g[0])[3], 0);
  for (double v : values(grad({sum(square(g[0]))}, {w.raw()})[0])) EXPECT_TRUE(std::isfinite(v));
}

TEST(Penalties, OrthogonalityIsZeroForOrthonormalRowsAlone) {
  const std::vector<Parameter> p = some_parameters();
  double want = 0;
  for (size_t k : {0, 2}) {
    const auto w = values(p[k].raw());
    const int64_t rows = p[k].shape()[0], cols = p[k].raw().numel() / rows;
    for (int64_t i = 0; i < rows; ++i)
      for (int64_t j = 0; j < rows; ++j) {
        double dot = i == j ? -1 : 0;
        for (int64_t c = 0; c < cols; ++c)
          dot += w[static_cast<size_t>(i * cols + c)] * w[static_cast<size_t>(j * cols + c)];
        want += dot * dot;
      }
  }
  check_penalty([](const Refs& r) { return optim::orthogonality(r, 0.5); }, 0.5 * want, "orthogonality");
  const Parameter rotation(tensor({0.6, 0.8, -0.8, 0.6}, {2, 2}));
  EXPECT_NEAR(optim::orthogonality({rotation}, 1).item(), 0, 1e-30);
}

TEST(Penalties, L2IsCoupledDecayUnderSgd) {
  std::vector<Parameter> a = some_parameters(), b = some_parameters();
  optim::SGD with_penalty(refs(a), {.lr = 0.1, .momentum = 0.9});
  optim::SGD with_decay(refs(b), {.lr = 0.1, .momentum = 0.9, .weight_decay = 0.03});
  const auto loss = [](const std::vector<Parameter>& p) { return sum(tanh(p[0].value())) + sum(square(p[2].value())); };
  for (int t = 0; t < 40; ++t) {
    with_penalty.zero_grad();
    (loss(a) + optim::l2(refs(a), 0.03)).backward();
    with_penalty.step();
    with_decay.zero_grad();
    (loss(b) + sum(b[1].value()) * 0).backward();  // decay reaches parameters with a gradient alone
    with_decay.step();
  }
  for (size_t i = 0; i < a.size(); ++i) {
    const auto x = values(a[i].raw()), y = values(b[i].raw());
    for (size_t k = 0; k < x.size(); ++k) EXPECT_NEAR(x[k], y[k], 1e-12) << i << ' ' << k;
  }
}

TEST(Penalties, RefuseBadArguments) {
  const std::vector<Parameter> p = some_parameters();
  const Parameter bias(ones({3}, f64)), single(ones({2, 2}));
  expect_list_errors("l1", [](const Refs& r) { optim::l1(r, 1); });
  expect_list_errors("l2", [](const Refs& r) { optim::l2(r, 1); });
  expect_list_errors("elastic_net", [](const Refs& r) { optim::elastic_net(r, {.l1 = 1}); });
  expect_list_errors("group_lasso", [](const Refs& r) { optim::group_lasso(r, 1); });
  expect_list_errors("orthogonality", [](const Refs& r) { optim::orthogonality(r, 1); });
  expect_list_errors("prox_l1", [](const Refs& r) { optim::prox_l1(r, 1); });
  expect_list_errors("prox_group_lasso", [](const Refs& r) { optim::prox_group_lasso(r, 1); });
  expect_list_errors("max_norm", [](const Refs& r) { optim::max_norm(r); });
  for (double bad : {-1.0, kNaN, kInf}) {
    const std::string rule = " must be finite and at least 0, got ";
    expect_error<ValueError>([&] { optim::l1(refs(p), bad); }, "l1: lambda" + rule);
    expect_error<ValueError>([&] { optim::l2(refs(p), bad); }, "l2: lambda" + rule);
    expect_error<ValueError>([&] { optim::elastic_net(refs(p), {.l2 = bad}); }, "elastic_net: l2" + rule);
    expect_error<ValueError>([&] { optim::elastic_net(refs(p), {.l1 = bad}); }, "elastic_net: l1" + rule);
    expect_error<ValueError>([&] { optim::group_lasso(refs(p), bad); }, "group_lasso: lambda" + rule);
    expect_error<ValueError>([&] { optim::orthogonality(refs(p), bad); }, "orthogonality: lambda" + rule);
    expect_error<ValueError>([&] { optim::prox_l1(refs(p), bad); }, "prox_l1: threshold" + rule);
    expect_error<ValueError>([&] { optim::prox_group_lasso(refs(p), bad); }, "prox_group_lasso: threshold" + rule);
    expect_error<ValueError>([&] { optim::max_norm(refs(p), {.max = bad}); },
                             "max_norm: max must be finite and above 0");
    expect_error<ValueError>([&] { optim::confidence_penalty(ones({2, 3}), bad); }, "confidence_penalty: beta" + rule);
    expect_error<ValueError>(
        [&] {
          optim::entropy_minimization(ones({2, 3}), bad);
        },
        "entropy_minimization: beta" + rule);
  }
  expect_error<ValueError>([&] { optim::l1({bias}, 1, {.weights_only = true}); }, "no parameter has two dims or more");
  expect_error<ValueError>([&] { optim::max_norm({bias}); }, "max_norm: only weights count");
  expect_error<DTypeError>([&] { optim::l2({bias, single}, 1); }, "parameter 1 is f32, those before it f64");
  expect_error<ShapeError>([&] { optim::group_lasso(refs(p), 1, {.dim = 2}); },
                           "parameter 2 of shape [4, 6] has no dim 2");
  expect_error<ValueError>([&] { optim::group_lasso(refs(p), 1, {.dim = -1}); }, "dim must be at least 0, got -1");
  expect_error<DTypeError>([&] { optim::confidence_penalty(ones({2, 3}, i64), 1); }, "floating");
  expect_error<ValueError>([&] { optim::confidence_penalty({}, 1); }, "undefined");
  expect_error<ShapeError>([&] { optim::confidence_penalty(ones({0, 3}), 1); }, "[0, 3]");
  const auto before = values(p[0].raw());
  expect_error<ShapeError>([&] { optim::prox_group_lasso(refs(p), 1, {.dim = 3}); }, "has no dim 3");
  EXPECT_EQ(values(p[0].raw()), before);  // refused before anything changed
}

// ---- proximal steps

TEST(Proximal, L1IsTheSoftThreshold) {
  for (DType dtype : {f64, f32, bf16}) {
    const Parameter p(cast(tensor({-2.0, -0.5, -0.25, 0.0, 0.25, 0.5, 2.0, kNaN, kInf}), dtype));
    optim::prox_l1({p}, 0.5);
    const auto v = values(p.raw());
    const std::vector<double> want = {-1.5, 0, 0, 0, 0, 0, 1.5};
    for (size_t i = 0; i < want.size(); ++i) EXPECT_EQ(v[i], want[i]) << i;
    EXPECT_TRUE(std::isnan(v[7]));  // not hidden as a zero
    EXPECT_EQ(v[8], kInf);
  }
  std::vector<Parameter> p = some_parameters();
  const auto bias = values(p[1].raw());
  optim::prox_l1(refs(p), 10, {.weights_only = true});
  EXPECT_EQ(values(p[1].raw()), bias);
  for (double v : values(p[0].raw())) EXPECT_EQ(v, 0);
}

// min ½‖w − a‖² + λ‖w‖₁ has the solution soft(a, λ): ISTA must reach it with exact zeros, subgradient steps never do.
TEST(Proximal, IstaSolvesTheLassoWithExactZeros) {
  const Tensor a = wave({40}, 0.2);
  const Parameter p(zeros({40}, f64));
  optim::SGD sgd({p}, {.lr = 0.5});
  for (int t = 0; t < 80; ++t) {
    sgd.zero_grad();
    (sum(square(p.value() - a)) * 0.5).backward();
    sgd.step();
    optim::prox_l1({p}, 0.5 * 0.6);
  }
  int zero = 0;
  const auto w = values(p.raw()), target = values(a);
  for (size_t i = 0; i < w.size(); ++i) {
    const double soft = std::copysign(std::max(std::abs(target[i]) - 0.6, 0.0), target[i]);
    EXPECT_NEAR(w[i], soft, 1e-12);
    EXPECT_EQ(w[i] == 0, soft == 0) << i;
    zero += w[i] == 0;
  }
  EXPECT_GT(zero, 5);
  EXPECT_LT(zero, 35);
}

TEST(Proximal, GroupLassoShrinksNormsAndKillsGroups) {
  for (int64_t dim : {0, 1}) {
    const Parameter p(
        tensor({3.0, 0.1, 4.0, 0.1}, {2, 2}));  // columns (3, 4) and (0.1, 0.1); rows (3, 0.1) and (4, 0.1)
    optim::prox_group_lasso({p}, 0.5, {.dim = dim});
    const double t = 0.5 * std::sqrt(2.0);
    const auto v = values(p.raw());
    if (dim == 1) {
      EXPECT_NEAR(v[0], 3 * (1 - t / 5), 1e-14);
      EXPECT_NEAR(v[2], 4 * (1 - t / 5), 1e-14);
      EXPECT_EQ(v[1], 0);
      EXPECT_EQ(v[3], 0);
    } else {
      EXPECT_NEAR(v[0], 3 * (1 - t / std::hypot(3, 0.1)), 1e-14);
      EXPECT_NEAR(v[3], 0.1 * (1 - t / std::hypot(4, 0.1)), 1e-14);
    }
  }
  const Parameter conv(wave({3, 2, 2, 2}, 0.4)), bias(ones({3}, f64));
  const auto before = values(conv.raw());
  optim::prox_group_lasso({conv, bias}, 0.2, {.dim = 1});  // input channels of a convolution: strided groups
  const auto after = values(conv.raw());
  for (int64_t c : {0, 1}) {
    double squares = 0;
    for (int64_t o = 0; o < 3; ++o)
      for (int64_t k = 0; k < 4; ++k) squares += std::pow(before[static_cast<size_t>((o * 2 + c) * 4 + k)], 2);
    const double factor = 1 - 0.2 * std::sqrt(12.0) / std::sqrt(squares);
    for (int64_t o = 0; o < 3; ++o)
      for (int64_t k = 0; k < 4; ++k) {
        const size_t i = static_cast<size_t>((o * 2 + c) * 4 + k);
        EXPECT_NEAR(after[i], factor * before[i], 1e-14);
      }
  }
  EXPECT_EQ(values(bias.raw()), values(ones({3}, f64)));
}

TEST(MaxNorm, ProjectsOnlyWhatIsTooLong) {
  const Parameter p(tensor({3.0, 4.0, 0.3, 0.4}, {2, 2})), bias(full({3}, 9, f64));
  const uint64_t version = p.raw().version();
  optim::max_norm({p, bias}, {.max = 1});
  const auto v = values(p.raw());
  EXPECT_NEAR(v[0], 0.6, 1e-15);
  EXPECT_NEAR(v[1], 0.8, 1e-15);
  EXPECT_EQ(v[2], 0.3);
  EXPECT_EQ(v[3], 0.4);
  EXPECT_EQ(values(bias.raw())[0], 9);
  EXPECT_GT(p.raw().version(), version);                   // a graph that saved the former weights notices
  const Parameter tiny(tensor({3e-200, 4e-200}, {1, 2}));  // whose squares are 0
  optim::max_norm({tiny}, {.max = 1e-200});
  EXPECT_NEAR(values(tiny.raw())[1] / 0.8e-200, 1, 1e-14);
}

TEST(Proximal, SameBitsAtAnyThreadCount) {
  std::vector<Tensor> results[2];
  const int threads = num_threads();
  for (int k : {0, 1}) {
    set_num_threads(k == 0 ? 1 : 4);
    const Parameter a(cast(wave({50, 3001}, 0.3), f32));
    optim::prox_group_lasso({a}, 0.1);
    optim::max_norm({a}, {.max = 20, .dim = 1});
    optim::prox_l1({a}, 0.01);
    results[k] = {a.raw()};
  }
  set_num_threads(threads);
  EXPECT_TRUE(equal(results[0][0], results[1][0]));
}

// ---- entropy

TEST(Entropy, TermsHaveTheirSignsAndGradients) {
  Tensor logits = wave({4, 5}, 0.9) * 3.0;
  logits = logits.detach().requires_grad_();
  double mean_h = 0;
  const auto z = values(logits);
  for (size_t n = 0; n < 4; ++n) {
    double sum = 0, h = 0;
    for (size_t c = 0; c < 5; ++c) sum += std::exp(z[n * 5 + c]);
    for (size_t c = 0; c < 5; ++c) h -= std::exp(z[n * 5 + c]) / sum * std::log(std::exp(z[n * 5 + c]) / sum);
    mean_h += h / 4;
  }
  EXPECT_NEAR(optim::confidence_penalty(logits, 0.3).item(), -0.3 * mean_h, 1e-14);
  EXPECT_NEAR(optim::entropy_minimization(logits, 0.3).item(), 0.3 * mean_h, 1e-14);
  const auto f = [](const std::vector<Tensor>& in) {
    return std::vector<Tensor>{optim::confidence_penalty(in[0], 0.3), optim::entropy_minimization(in[0], 2)};
  };
  gradcheck(f, {logits});
  gradgradcheck(f, {logits});
}

TEST(Entropy, HoldsAtTheEnds) {
  EXPECT_NEAR(entropy(zeros({1, 8}, f64)).item(), std::log(8.0), 1e-15);
  EXPECT_NEAR(entropy(full({1, 8}, 1e300, f64)).item(), std::log(8.0), 1e-15);
  EXPECT_EQ(entropy(tensor({1e4, -1e4, 0.0}, {1, 3})).item(), 0);
  Tensor masked = tensor({0.5, -kInf, -0.25, -kInf}, {1, 4}).requires_grad_();
  const Tensor h = entropy(masked);
  const Tensor two = entropy(tensor({0.5, -0.25}, {1, 2}));
  EXPECT_NEAR(h.item(), two.item(), 1e-15);
  sum(h).backward();
  const auto g = values(masked.grad());
  EXPECT_EQ(g[1], 0);
  EXPECT_EQ(g[3], 0);
  EXPECT_NEAR(g[0] + g[2], 0, 1e-15);
  EXPECT_GT(g[2], 0);  // towards the even distribution
}

}  // namespace
}  // namespace hone
