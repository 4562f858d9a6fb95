#include "hone/compress/quantize/uniform.h"

#include <cmath>

#include "hone/compress/quantize/grid.h"
#include "hone/core/autograd.h"
#include "hone/core/text_table.h"

namespace hone::compress::quantize {

double QuantizeReport::bits_per_weight() const {
  double bits = 0, kept = 0;
  for (const QuantizedLayer& l : layers) bits += l.bits, kept += static_cast<double>(l.kept);
  return kept > 0 ? bits / kept : 0;
}

std::string QuantizeReport::table() const {
  using hone::detail::grouped;
  std::vector<std::vector<std::string>> lines{{"parameter", "kept", "levels", "step", "shift", "mean squared error",
                                               "clipped, %", "zeros, %", "values", "entropy, bits", "bits a weight"}};
  for (const QuantizedLayer& l : layers)
    lines.push_back({l.name, grouped(l.kept), str(l.levels), detail::scientific(l.step), detail::scientific(l.shift),
                     detail::scientific(l.error), detail::fixed(100 * l.clipped, 2), detail::fixed(100 * l.zeros, 2),
                     grouped(l.values), detail::fixed(l.entropy, 2),
                     detail::fixed(l.kept > 0 ? l.bits / static_cast<double>(l.kept) : 0, 2)});
  std::string text =
      str(hone::detail::text_table(lines, 1), "all: ", detail::fixed(bits_per_weight(), 2), " bits a weight\n");
  for (const std::string& w : warnings) text += "warning: " + w + "\n";
  return text;
}

QuantizeReport uniform(nn::Module& module, const UniformOptions& o) {
  constexpr const char* kWhat = "uniform";
  const detail::FitOptions how{o.range, o.step, o.step_rule, o.shift, o.rounding};
  detail::check(kWhat, how);
  HONE_CHECK(!o.global || !o.learned, ValueError, kWhat, ": a global step cannot be learned: each layer has its own");
  const auto parameters = detail::chosen(kWhat, module, o.only, o.except, o.biases);
  std::vector<std::vector<double>> weights(o.global ? 1 : parameters.size());
  for (size_t i = 0; i < parameters.size(); ++i) {
    detail::check_type(kWhat, parameters[i]);
    const detail::Kept kept = detail::kept_of(kWhat, parameters[i].name, parameters[i].parameter);
    std::vector<double>& into = weights[o.global ? 0 : i];
    into.insert(into.end(), kept.values.begin(), kept.values.end());
  }
  QuantizeReport report;
  for (size_t i = 0; i < parameters.size(); ++i) {
    detail::set_grid(parameters[i].parameter, {{detail::fit(weights[o.global ? 0 : i], how)}}, o.learned);
    report.layers.push_back(detail::measure(kWhat, parameters[i]));
  }
  return report;
}

QuantizeReport quantize_report(nn::Module& module) {
  QuantizeReport report;
  for (const auto& n : module.named_parameters())
    if (const WeightType t = n.parameter.type(); t == WeightType::fake_quantized || t == WeightType::codebook)
      report.layers.push_back(detail::measure("quantize_report", n));
  return report;
}

void bake(nn::Module& module) {
  for (const ParameterRef& p : module.parameters())
    if (const WeightType t = p.type(); t == WeightType::fake_quantized || t == WeightType::codebook) p.bake();
}

}  // namespace hone::compress::quantize
