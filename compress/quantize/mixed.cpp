#include "hone/compress/quantize/mixed.h"

#include <algorithm>
#include <cmath>

#include "hone/compress/quantize/grid.h"
#include "hone/core/autograd.h"
#include "hone/core/basic_ops.h"
#include "hone/core/text_table.h"
#include "hone/ops/arithmetic.h"

namespace hone::compress::quantize {

// ---- parts ----

Part in_layers(std::vector<std::string> names) {
  return {"in_layers",
          [names](const std::string& parameter, const Tensor& w) {
            const bool in = std::any_of(names.begin(), names.end(), [&](const std::string& name) {
              return compress::detail::is_named(parameter, name);
            });
            return full(w.shape(), in ? 1 : 0, DType::boolean);
          },
          names};
}
Part in_mask(std::map<std::string, Tensor> masks) {
  std::vector<std::string> names;
  for (const auto& entry : masks) names.push_back(entry.first);
  return {"in_mask",
          [masks = std::move(masks)](const std::string& parameter, const Tensor& w) {
            return detail::for_parameter(masks, parameter, zeros(w.shape(), DType::boolean));
          },
          std::move(names)};
}
Part in_interval(double low, double high) {
  return {"in_interval",
          [low, high](const std::string&, const Tensor& w) { return logical_and(ge(w, low), le(w, high)); }};
}
Part outliers(double share) {
  HONE_CHECK(share >= 0 && share <= 1, ValueError, "outliers: share must be in [0, 1], got ", share);
  return {"outliers", [share](const std::string&, const Tensor& w) {
            Tensor in = zeros(w.shape(), DType::boolean);
            const Tensor values = contiguous(w);
            const auto* v = values.data<double>();
            compress::detail::choose_largest(
                w.numel(), std::llround(share * static_cast<double>(w.numel())), [](int64_t) { return true; },
                [&](int64_t i) { return std::abs(v[i]); }, [&](int64_t i) { in.data<bool>()[i] = true; });
            return in;
          }};
}
Part operator!(Part part) {
  return {"!" + part.name,
          [part](const std::string& parameter, const Tensor& w) { return logical_not(part.holds(parameter, w)); },
          part.layers};
}

// ---- mixed ----

namespace {

struct Chosen {
  detail::Grid grid;
  int64_t inside = 0, outside = 0;
};
Chosen grid_of(const nn::NamedParameter& named, const MixedOptions& o) {
  const auto& [name, p] = named;
  const detail::Kept kept = detail::kept_of("mixed", name, p);
  const Tensor held = o.part.holds(name, cast(to(p.raw().detach(), cpu), DType::f64));
  HONE_CHECK(held.defined() && held.shape() == p.shape() && held.dtype() == DType::boolean, ValueError, "mixed: part '",
             o.part.name, "' must answer '", name, "' with bools of shape ", p.shape());
  const std::vector<bool> in = held.to_vector<bool>();
  std::vector<double> inside;
  Chosen c;
  c.grid.ids.assign(in.size(), 0);
  for (size_t i = 0; i < in.size(); ++i) c.grid.ids[i] = in[i] ? 0 : 1;
  for (size_t i = 0; i < kept.at.size(); ++i)
    if (in[static_cast<size_t>(kept.at[i])]) inside.push_back(kept.values[i]);
  c.inside = static_cast<int64_t>(inside.size());
  c.outside = static_cast<int64_t>(kept.values.size()) - c.inside;
  detail::Level rest;
  if (o.outside == Outside::coarse) rest.scale = 1 / o.coarse_step;
  if (o.outside == Outside::round_to_integer) rest.scale = 1;
  c.grid.levels = {
      detail::fit(inside, {.range = o.inside.range, .shift = o.inside.shift, .rounding = o.inside.rounding}), rest};
  if (c.inside == 0 || c.outside == 0) {
    c.grid.levels = {c.grid.levels[c.outside == 0 ? 0 : 1]};
    c.grid.ids.clear();
  }
  return c;
}

}  // namespace

QuantizeReport mixed(nn::Module& module, const MixedOptions& o) {
  constexpr const char* kWhat = "mixed";
  detail::check(kWhat, {.range = o.inside.range, .shift = o.inside.shift});
  HONE_CHECK(o.part.holds, ValueError, kWhat, ": the options lack a part, the A that is quantized");
  HONE_CHECK(o.coarse_step > 0 && std::isfinite(o.coarse_step), ValueError, kWhat,
             ": coarse_step must be above 0, got ", o.coarse_step);
  const auto parameters = detail::chosen(kWhat, module, o.only, o.except, o.biases);
  detail::check_used(str(kWhat, ": part '", o.part.name, "'"), o.part.layers, parameters);
  const NoGrad no_grad;
  std::vector<Chosen> all;
  for (const auto& n : parameters) {
    detail::check_type(kWhat, n);
    all.push_back(grid_of(n, o));
  }
  QuantizeReport report;
  for (size_t i = 0; i < all.size(); ++i) {
    const auto& [name, p] = parameters[i];
    detail::set_grid(p, all[i].grid);
    report.layers.push_back(detail::measure(kWhat, parameters[i]));
    if (o.outside != Outside::round_to_integer || all[i].outside == 0) continue;
    const std::vector<double> value = p.value().detach().to_vector<double>();
    const detail::Kept kept = detail::kept_of(kWhat, name, p);
    int64_t zeroed = 0;
    for (size_t k = 0; k < kept.at.size(); ++k) {
      const auto at = static_cast<size_t>(kept.at[k]);
      const bool outside = all[i].grid.ids.empty() || all[i].grid.ids[at] == 1;
      zeroed += outside && kept.values[k] != 0 && value[at] == 0;
    }
    if (zeroed > 0)
      report.warnings.push_back(str("round_to_integer made 0 of ", zeroed, " of the ", all[i].outside, " weights of '",
                                    name, "' outside A; keep_float leaves them as they are"));
  }
  return report;
}

// ---- bit widths by measured sensitivity ----

namespace {

constexpr int64_t kFloatBits = 32;

void quantize_to(const nn::NamedParameter& n, int64_t bits, Shift shift) {
  if (bits == kFloatBits) return;
  const double half = std::exp2(static_cast<double>(bits - 1));
  const detail::Kept kept = detail::kept_of("plan_bits", n.name, n.parameter);
  detail::set_grid(n.parameter, {{detail::fit(kept.values, {.range = {-half, half - 1}, .shift = shift})}});
}

/// The choice of each layer with the least loss in all whose costs sum to at most `budget`; the first of equals. Of
/// sums that fall into one 65,536th of the budget the best alone is followed.
std::vector<size_t> least_loss(const std::vector<std::vector<double>>& loss,
                               const std::vector<std::vector<double>>& cost, double budget) {
  struct Sum {
    double cost = 0, loss = 0;
    std::vector<size_t> choices = {};
  };
  std::vector<Sum> sums(1);
  for (size_t l = 0; l < loss.size(); ++l) {
    double rest = 0;  // at least, of the layers to come
    for (size_t k = l + 1; k < loss.size(); ++k) rest += *std::min_element(cost[k].begin(), cost[k].end());
    std::map<int64_t, Sum> next;
    for (const Sum& s : sums) {
      for (size_t c = 0; c < loss[l].size(); ++c) {
        Sum t{s.cost + cost[l][c], s.loss + loss[l][c], s.choices};
        if (t.cost + rest > budget) continue;
        t.choices.push_back(c);
        const auto [it, fresh] = next.try_emplace(std::llround(t.cost / budget * 65536), t);
        if (!fresh && (t.loss < it->second.loss || (t.loss == it->second.loss && t.cost < it->second.cost)))
          it->second = std::move(t);
      }
    }
    sums.clear();
    for (auto& entry : next)  // in order of cost: what costs more must lose less
      if (sums.empty() || entry.second.loss < sums.back().loss) sums.push_back(std::move(entry.second));
  }
  HONE_ASSERT(!sums.empty());
  return sums.back().choices;
}

}  // namespace

std::string BitPlan::table() const {
  std::vector<std::vector<std::string>> lines{{"parameter"}};
  for (const int64_t b : choices) lines[0].push_back(str(b, " bits"));
  lines[0].push_back("chosen");
  for (size_t l = 0; l < layers.size(); ++l) {
    lines.push_back({layers[l]});
    for (const double s : score[l]) lines.back().push_back(detail::fixed(100 * s, 2));
    lines.back().push_back(str(bits[l]));
  }
  return str(hone::detail::text_table(lines, 1), "nothing quantized: ", detail::fixed(100 * whole, 2),
             "; the plan: ", detail::fixed(bits_per_weight, 2), " bits a weight\n");
}

BitPlan plan_bits(nn::Module& module, const std::function<double()>& score, const PlanOptions& o) {
  constexpr const char* kWhat = "plan_bits";
  HONE_CHECK(score, ValueError, kWhat, ": there is no score to measure by");
  HONE_CHECK(!o.bits.empty(), ValueError, kWhat, ": there are no bits to choose from");
  for (const int64_t b : o.bits)
    HONE_CHECK((b >= 2 && b <= 16) || b == kFloatBits, ValueError, kWhat, ": bits must be in [2, 16] or 32, got ", b);
  const auto parameters = detail::chosen(kWhat, module, o.only, o.except, o.biases);
  BitPlan plan{.choices = o.bits, .shift = o.shift};
  std::sort(plan.choices.begin(), plan.choices.end());
  HONE_CHECK(o.bits_per_weight >= static_cast<double>(plan.choices[0]), ValueError, kWhat, ": a budget of ",
             o.bits_per_weight, " bits a weight is below the least width, ", plan.choices[0]);
  std::vector<double> kept;
  double all = 0;
  for (const auto& n : parameters) {
    detail::check_type(kWhat, n);
    kept.push_back(static_cast<double>(detail::kept_of(kWhat, n.name, n.parameter).values.size()));
    all += kept.back();
    plan.layers.push_back(n.name);
  }
  detail::Restore as_it_was(module);
  plan.whole = score();
  std::vector<std::vector<double>> loss, cost;
  for (size_t l = 0; l < parameters.size(); ++l) {
    plan.score.emplace_back(), loss.emplace_back(), cost.emplace_back();
    for (const int64_t b : plan.choices) {
      quantize_to(parameters[l], b, o.shift);
      plan.score[l].push_back(b == kFloatBits ? plan.whole : score());
      as_it_was.restore();
      loss[l].push_back(plan.whole - plan.score[l].back());
      cost[l].push_back(kept[l] * static_cast<double>(b));
    }
  }
  const std::vector<size_t> choices = least_loss(loss, cost, o.bits_per_weight * all * (1 + 1e-12));
  for (size_t l = 0; l < choices.size(); ++l) {
    plan.bits.push_back(plan.choices[choices[l]]);
    plan.bits_per_weight += all > 0 ? cost[l][choices[l]] / all : 0;
  }
  return plan;
}

QuantizeReport apply(nn::Module& module, const BitPlan& plan) {
  const auto parameters = detail::chosen("apply", module, plan.layers, {}, true);
  HONE_CHECK(parameters.size() == plan.layers.size() && plan.bits.size() == plan.layers.size(), ValueError,
             "apply: the plan has ", plan.layers.size(), " layers, the module ", parameters.size(), " of their names");
  for (const auto& n : parameters) detail::check_type("apply", n);
  QuantizeReport report;
  for (const auto& n : parameters) {
    const auto at = std::find(plan.layers.begin(), plan.layers.end(), n.name) - plan.layers.begin();
    const int64_t bits = plan.bits[static_cast<size_t>(at)];
    if (bits == kFloatBits) continue;
    quantize_to(n, bits, plan.shift);
    report.layers.push_back(detail::measure("apply", n));
  }
  return report;
}

}  // namespace hone::compress::quantize
