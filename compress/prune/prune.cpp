#include "hone/compress/prune/prune.h"

#include <algorithm>
#include <cmath>

#include "hone/compress/graph/buffer_scope.h"
#include "hone/compress/prune/select.h"
#include "hone/core/autograd.h"
#include "hone/core/basic_ops.h"
#include "hone/core/error.h"
#include "hone/core/text_table.h"
#include "hone/ops/arithmetic.h"
#include "hone/ops/reduce.h"
#include "hone/ops/unary.h"

namespace hone::compress {
namespace {

/// Parameters and all that they lie in: "fc1.weight", "fc1".
std::vector<std::string> all_names(const std::vector<nn::NamedParameter>& parameters) {
  std::vector<std::string> names;
  for (const auto& [name, p] : parameters)
    for (size_t end = name.size(); end != std::string::npos && end > 0; end = name.rfind('.', end - 1))
      if (std::string part = name.substr(0, end); std::find(names.begin(), names.end(), part) == names.end())
        names.push_back(std::move(part));
  return names;
}

void check_names(const char* what, const std::vector<nn::NamedParameter>& all, const std::string& name) {
  const auto there = [&](const auto& n) { return detail::is_named(n.name, name); };
  HONE_CHECK(std::any_of(all.begin(), all.end(), there), ValueError, what, ": no layer or parameter is named '", name,
             "'", hone::detail::nearest_names(name, all_names(all)));
}

void check_density(const char* what, const std::string& of, double d) {
  HONE_CHECK(d >= 0 && d <= 1, ValueError, what, ": the density", of, " must be in [0, 1], got ", d);
}

void check_pattern(const char* what, const Pattern& p) {
  if (p.kind == Pattern::Kind::n_m)
    HONE_CHECK(p.a >= 1 && p.a <= p.b, ValueError, what, ": N:M needs 1 <= n <= m, got ", p.a, " and ", p.b);
  if (p.kind == Pattern::Kind::block)
    HONE_CHECK(p.a >= 1 && p.b >= 1, ValueError, what, ": rows and cols of a block must be at least 1, got ", p.a,
               " and ", p.b);
}

std::string percent(double part) {
  char text[32];
  std::snprintf(text, sizeof text, "%.2f %%", 100 * part);
  return text;
}

}  // namespace

Pattern n_m(int64_t n, int64_t m) {
  const Pattern p{Pattern::Kind::n_m, n, m};
  check_pattern("n_m", p);
  return p;
}
Pattern block(int64_t rows, int64_t cols) {
  const Pattern p{Pattern::Kind::block, rows, cols};
  check_pattern("block", p);
  return p;
}

int64_t PruneReport::kept() const {
  int64_t n = 0;
  for (const LayerCount& l : layers) n += l.kept;
  return n;
}
int64_t PruneReport::total() const {
  int64_t n = 0;
  for (const LayerCount& l : layers) n += l.total;
  return n;
}
double PruneReport::density() const {
  return total() > 0 ? static_cast<double>(kept()) / static_cast<double>(total()) : 1;
}
std::string PruneReport::table() const {
  std::vector<std::vector<std::string>> lines{{"parameter", "kept", "total", "density"}};
  const auto add = [&](const LayerCount& l) {
    const double part = l.total > 0 ? static_cast<double>(l.kept) / static_cast<double>(l.total) : 1;
    lines.push_back({l.name, hone::detail::grouped(l.kept), hone::detail::grouped(l.total), percent(part)});
  };
  for (const LayerCount& l : layers) add(l);
  add({"all", kept(), total()});
  return hone::detail::text_table(lines, 1);
}

namespace detail {

bool is_named(const std::string& parameter, const std::string& name) {
  return parameter == name || parameter.starts_with(name + '.');
}

std::vector<nn::NamedParameter> named(const char* what, nn::Module& module, const std::vector<std::string>& only,
                                      const std::vector<std::string>& except, bool biases) {
  const std::vector<nn::NamedParameter> all = module.named_parameters();
  for (const auto* list : {&only, &except})
    for (const std::string& name : *list) check_names(what, all, name);
  std::vector<nn::NamedParameter> found;
  for (const auto& n : all) {
    const auto meant = [&](const std::string& name) { return is_named(n.name, name); };
    if (!biases && n.parameter.shape().ndim() < 2) continue;
    if (!only.empty() && std::none_of(only.begin(), only.end(), meant)) continue;
    if (std::any_of(except.begin(), except.end(), meant)) continue;
    found.push_back(n);
  }
  return found;
}

std::vector<nn::NamedParameter> chosen(const char* what, nn::Module& module, const std::vector<std::string>& only,
                                       const std::vector<std::string>& except, bool biases) {
  std::vector<nn::NamedParameter> found = named(what, module, only, except, biases);
  check_types(what, found);
  HONE_CHECK(!found.empty(), ValueError, what, ": no parameter of ", module.type_name(),
             " is left to prune (those of fewer than two dims count with .biases alone)");
  return found;
}

std::vector<nn::NamedParameter> chosen(const char* what, nn::Module& module, const PruneOptions& o) {
  HONE_CHECK(o.criterion.finish && (o.criterion.order == 0 || o.criterion.term), ValueError, what, ": the criterion '",
             o.criterion.name, "' lacks a function");
  check_pattern(what, o.pattern);
  const bool n_m = o.pattern.kind == Pattern::Kind::n_m;
  HONE_CHECK(!n_m || (!o.density && o.densities.empty()), ValueError, what,
             ": an N:M pattern has its own density; give no other");
  HONE_CHECK(n_m || o.density || !o.densities.empty(), ValueError, what, ": no density was given");
  if (o.density) check_density(what, "", *o.density);
  for (const auto& [name, d] : o.densities) check_density(what, " of '" + name + "'", d);
  std::vector<nn::NamedParameter> found = chosen(what, module, o.only, o.except, o.biases);
  for (const auto& [name, d] : o.densities) {
    check_names(what, module.named_parameters(), name);
    HONE_CHECK(
        std::any_of(found.begin(), found.end(), [&named = name](const auto& n) { return is_named(n.name, named); }),
        ValueError, what, ": a density for '", name, "', of which nothing is pruned here");
  }
  if (!o.density && !n_m)
    std::erase_if(found, [&](const auto& n) {
      return std::none_of(o.densities.begin(), o.densities.end(),
                          [&](const auto& d) { return is_named(n.name, d.first); });
    });
  return found;
}

PruneReport report_of(const std::vector<nn::NamedParameter>& parameters) {
  PruneReport report;
  for (const auto& [name, p] : parameters) {
    const int64_t total = p.shape().numel();
    report.layers.push_back({name, p.mask().defined() ? sum(to(p.mask(), cpu)).item<int64_t>() : total, total});
  }
  return report;
}

void check_types(const char* what, const std::vector<nn::NamedParameter>& parameters) {
  for (const auto& [name, p] : parameters)
    HONE_CHECK(p.type() != WeightType::codebook, ValueError, what, ": '", name,
               "' is of weight type codebook; prune first, then share weights");
}

}  // namespace detail

PruneReport prune(nn::Module& module, const PruneOptions& options) {
  HONE_CHECK(std::holds_alternative<OneShot>(options.schedule), ValueError, "prune: schedule ", name(options.schedule),
             " takes a Pruner");
  const auto parameters = detail::chosen("prune", module, options);
  const graph::detail::BufferScope buffers(graph::detail::buffers_of(module));
  const std::vector<Tensor> s = scores(options.criterion, parameters, options.losses);
  const std::vector<Tensor> masks = detail::select(parameters, options, 0, s);
  for (size_t i = 0; i < masks.size(); ++i) {
    const ParameterRef& p = parameters[i].parameter;
    p.set_mask(masks[i], p.mask_gradient());
  }
  return detail::report_of(parameters);
}

PruneReport threshold(nn::Module& module, const ThresholdOptions& options) {
  HONE_CHECK(options.below >= 0, ValueError, "threshold: below must be at least 0, got ", options.below);
  const auto parameters = detail::chosen("threshold", module, options.only, options.except, options.biases);
  const NoGrad no_grad;
  for (const auto& [name, p] : parameters) {
    const Tensor small = lt(abs(cast(to(p.value().detach(), cpu), f64)), options.below);  // a NaN is not small
    p.set_mask(logical_and(detail::mask_of(p), logical_not(small)), p.mask_gradient());
  }
  return detail::report_of(parameters);
}

PruneReport prune_report(nn::Module& module) { return detail::report_of(module.named_parameters()); }

}  // namespace hone::compress
