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
          [names](const std::string& parameter, const Tensor& w, const Tensor&) {
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
          [masks = std::move(masks)](const std::string& parameter, const Tensor& w, const Tensor&) {
            return detail::for_parameter(masks, parameter, zeros(w.shape(), DType::boolean));
          },
          std::move(names)};
}
Part in_interval(double low, double high) {
  return {"in_interval", [low, high](const std::string&, const Tensor& w, const Tensor&) {
            return logical_and(ge(w, low), le(w, high));
          }};
}
Part outliers(double share) {
  HONE_CHECK(share >= 0 && share <= 1, ValueError, "outliers: share must be in [0, 1], got ", share);
  return {"outliers", [share](const std::string&, const Tensor& w, const Tensor& kept) {
            const std::vector<double> v = w.to_vector<double>();
            const std::vector<bool> k = kept.to_vector<bool>();
            const auto n = static_cast<double>(std::count(k.begin(), k.end(), true));
            Tensor in = zeros(w.shape(), DType::boolean);
            compress::detail::choose_largest(
                w.numel(), std::llround(share * n), [&](int64_t i) { return k[static_cast<size_t>(i)]; },
                [&](int64_t i) { return std::abs(v[static_cast<size_t>(i)]); },
                [&](int64_t i) { in.data<bool>()[i] = true; });
            return in;
          }};
}
Part operator!(Part part) {
  return {"!" + part.name,
          [part](const std::string& parameter, const Tensor& w, const Tensor& kept) {
            return logical_not(part.holds(parameter, w, kept));
          },
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
  const Tensor held = o.part.holds(name, cast(to(p.raw().detach(), cpu), DType::f64), compress::detail::mask_of(p));
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
  HONE_CHECK(o.coarse_step > 0 && std::isfinite(o.coarse_step) && std::isfinite(1 / o.coarse_step), ValueError, kWhat,
             ": coarse_step must be above 0, with a finite inverse, got ", o.coarse_step);
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

void check_bits(const std::string& of, int64_t bits) {
  HONE_CHECK((bits >= 2 && bits <= 16) || bits == kFloatBits, ValueError, of, " must be in [2, 16] or 32, got ", bits);
}
detail::Grid grid_at(const char* what, const nn::NamedParameter& n, int64_t bits, Shift shift) {
  const double half = std::exp2(static_cast<double>(bits - 1));
  const detail::Kept kept = detail::kept_of(what, n.name, n.parameter);
  return {{detail::fit(kept.values, {.range = {-half, half - 1}, .shift = shift})}};
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
        const auto [it, fresh] = next.try_emplace(budget > 0 ? std::llround(t.cost / budget * 65536) : 0, t);
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
  for (const int64_t b : o.bits) check_bits(str(kWhat, ": bits"), b);
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
  const detail::Former former(module);
  const auto measured = [&](const std::string& with, const auto& change) {
    double s = 0;
    try {
      change();
      s = score();
    } catch (...) {
      former.restore();
      throw;
    }
    former.restore();
    HONE_CHECK(std::isfinite(s), NumericError, kWhat, ": the score with ", with, " is ", s, "; it must be finite");
    return s;
  };
  plan.whole = measured("nothing quantized", [] {});
  std::vector<std::vector<double>> loss, cost;
  for (size_t l = 0; l < parameters.size(); ++l) {
    plan.score.emplace_back(), loss.emplace_back(), cost.emplace_back();
    for (const int64_t b : plan.choices) {
      const auto& n = parameters[l];
      plan.score[l].push_back(b == kFloatBits ? plan.whole : measured(str("'", n.name, "' at ", b, " bits"), [&] {
        detail::set_grid(n.parameter, grid_at(kWhat, n, b, o.shift));
      }));
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
  constexpr const char* kWhat = "apply";
  const auto parameters = detail::chosen(kWhat, module, plan.layers, {}, true);
  HONE_CHECK(parameters.size() == plan.layers.size() && plan.bits.size() == plan.layers.size(), ValueError, kWhat,
             ": the plan has ", plan.layers.size(), " layers with ", plan.bits.size(), " widths, the module ",
             parameters.size(), " parameters of their names");
  std::vector<std::pair<nn::NamedParameter, detail::Grid>> all;
  for (const auto& n : parameters) {
    const auto at = std::find(plan.layers.begin(), plan.layers.end(), n.name) - plan.layers.begin();
    HONE_CHECK(at < static_cast<std::ptrdiff_t>(plan.layers.size()), ValueError, kWhat, ": the plan does not have '",
               n.name, "' by its whole name");
    const int64_t bits = plan.bits[static_cast<size_t>(at)];
    check_bits(str(kWhat, ": bits of '", n.name, "'"), bits);
    detail::check_type(kWhat, n);
    if (bits != kFloatBits) all.emplace_back(n, grid_at(kWhat, n, bits, plan.shift));
  }
  QuantizeReport report;
  for (const auto& [n, grid] : all) {
    detail::set_grid(n.parameter, grid);
    report.layers.push_back(detail::measure(kWhat, n));
  }
  return report;
}

}  // namespace hone::compress::quantize
