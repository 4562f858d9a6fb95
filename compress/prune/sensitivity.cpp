#include "hone/compress/prune/sensitivity.h"

#include <cstdio>
#include <optional>

#include "hone/compress/prune/pruner.h"
#include "hone/compress/prune/select.h"
#include "hone/core/error.h"
#include "hone/core/text_table.h"

namespace hone::compress {
namespace {

std::string percent(const char* format, double v) {
  char text[32];
  std::snprintf(text, sizeof text, format, 100 * v);
  return text;
}

}  // namespace

std::string Sensitivity::table() const {
  std::vector<std::vector<std::string>> lines{{"parameter"}};
  for (const double d : densities) lines[0].push_back(percent("%g %%", d));
  for (size_t i = 0; i < layers.size(); ++i) {
    lines.push_back({layers[i]});
    for (const double s : score[i]) lines.back().push_back(percent("%.2f", s));
  }
  return str(hone::detail::text_table(lines, 1), "nothing pruned: ", percent("%.2f", whole), "\n");
}

Sensitivity sensitivity(nn::Module& module, const std::function<double()>& score, const SensitivityOptions& o) {
  PruneOptions options{.criterion = o.criterion, .only = o.only, .except = o.except, .biases = o.biases};
  HONE_CHECK(!o.densities.empty(), ValueError, "sensitivity: no densities were given");
  for (const double d : o.densities) {
    options.density = d;
    detail::chosen("sensitivity", module, options);
  }
  const auto parameters = detail::chosen("sensitivity", module, options);
  const Snapshot before(module);
  const auto and_restore = [&](const auto& f) {
    std::optional<decltype(f())> result;
    try {
      result = f();
    } catch (...) {
      before.restore(module);
      throw;
    }
    before.restore(module);
    return *result;
  };
  const auto score_and_restore = [&] { return and_restore(score); };
  const std::vector<Tensor> scores = and_restore([&] { return compress::scores(o.criterion, parameters, o.losses); });
  Sensitivity found{.densities = o.densities, .whole = score_and_restore()};
  for (size_t i = 0; i < parameters.size(); ++i) {
    found.layers.push_back(parameters[i].name);
    found.score.emplace_back();
    for (const double d : o.densities) {
      options.density = d;
      const ParameterRef& p = parameters[i].parameter;
      p.set_mask(detail::select({parameters[i]}, options, 0, {scores[i]})[0], p.mask_gradient());
      found.score.back().push_back(score_and_restore());
    }
  }
  return found;
}

}  // namespace hone::compress
