#include "hone/compress/prune/pruner.h"

#include <algorithm>
#include <cmath>
#include <numbers>
#include <utility>

#include "hone/compress/graph/buffer_scope.h"
#include "hone/compress/prune/select.h"
#include "hone/core/autograd.h"
#include "hone/core/basic_ops.h"
#include "hone/core/error.h"
#include "hone/ops/indexing.h"

namespace hone::compress {
namespace {

bool is_finite(const Tensor& wide) {
  const Tensor plain = contiguous(wide);
  const double* v = plain.data<double>();
  return std::all_of(v, v + plain.numel(), [](double x) { return std::isfinite(x); });
}
/// As f64 on the cpu; NumericError unless finite: weights are put in an order by it.
Tensor finite(const char* what, const std::string& name, const Tensor& t) {
  const Tensor wide = cast(to(t.detach(), cpu), f64);
  HONE_CHECK(is_finite(wide), NumericError, "Pruner.step: RigL: the ", what, " of '", name, "' are not finite");
  return wide;
}

}  // namespace

Pruner::Pruner(nn::Module& module, PruneOptions options)
    : options_(std::move(options)),
      parameters_(detail::chosen("Pruner", module, options_)),
      buffers_(graph::detail::buffers_of(module)) {
  detail::check(options_.schedule, options_.density);
  for (const auto& [name, d] : options_.densities) detail::check(options_.schedule, d);
  HONE_CHECK(!std::holds_alternative<RigL>(options_.schedule) || options_.pattern.kind == Pattern::Kind::unstructured,
             ValueError, "Pruner: RigL moves single weights; it takes no pattern");
  if (!decide(0)) set_masks({}, gradient_for_next(0));
}

void Pruner::observe(int64_t samples) {
  constexpr const char* what = "Pruner.observe";
  const Criterion& c = options_.criterion;
  HONE_CHECK(c.order == 1, ValueError, what, ": criterion '", c.name, "' does not score by gradients");
  HONE_CHECK(c.of == GradientOf::loss, ValueError, what, ": criterion '", c.name,
             "' scores by gradients of the output, and training's own are of the loss; give it data (.losses)");
  detail::check_types(what, parameters_);
  std::vector<Tensor> gradients;
  for (const auto& n : parameters_) gradients.push_back(n.parameter.grad());
  detail::ScoreSum next = observed_;
  next.add(c, parameters_, gradients, static_cast<double>(samples));
  // Once in a sum they would be in every later score. A look at the sums sees the terms too.
  for (size_t i = 0; i < parameters_.size(); ++i)
    HONE_CHECK(is_finite(next.sums[i]), NumericError, what, ": the gradients of '", parameters_[i].name,
               "', or what criterion '", c.name, "' makes of them, are not finite");
  observed_ = std::move(next);
}

bool Pruner::step() {
  const bool changed = decide(t_ + 1);
  const MaskGradient next = gradient_for_next(t_ + 1);
  if (!changed && next != parameters_[0].parameter.mask_gradient()) set_masks({}, next);
  ++t_;
  return changed;
}

std::vector<Tensor> Pruner::current_scores() const {
  const Criterion& c = options_.criterion;
  if (c.order == 1 && c.of == GradientOf::loss && !options_.losses) {
    HONE_CHECK(observed_.weight > 0, ValueError, "Pruner: criterion '", c.name,
               "' scores by gradients; give it data (.losses) or call observe() before masks are decided");
    return observed_.finish(c, parameters_);
  }
  const graph::detail::BufferScope buffers(buffers_);
  return scores(c, parameters_, options_.losses);
}

bool Pruner::decide(int64_t t) {
  if (const auto* rigl = std::get_if<RigL>(&options_.schedule); rigl && t > 0) {
    if (t % rigl->every != 0 || t > rigl->end) return false;
    swap_weights(t, *rigl);
    return true;
  }
  const auto now = [&](double density) { return density_at(options_.schedule, t, density); };
  if (!now(options_.density.value_or(0))) return false;
  const auto* surgery = std::get_if<Surgery>(&options_.schedule);
  const auto& own = options_.densities;
  const bool whole = options_.pattern.kind != Pattern::Kind::n_m &&
                     (!options_.density || *now(*options_.density) >= 1) &&
                     std::all_of(own.begin(), own.end(), [&](const auto& d) { return *now(d.second) >= 1; });
  // Where nothing goes or comes, no scores are needed.
  if (whole && (!surgery || report().density() == 1)) return false;
  detail::check_types("Pruner.step", parameters_);
  const detail::SelectOptions how{.revive = surgery != nullptr, .margin = surgery ? surgery->margin : 0};
  set_masks(detail::select(parameters_, options_, t, current_scores(), how), gradient_for_next(t));
  if (!options_.criterion.lasting) observed_ = {};
  return true;
}

/// RigL's exchange in each layer: the smallest weights for those with the largest gradients.
void Pruner::swap_weights(int64_t t, const RigL& schedule) {
  detail::check_types("Pruner.step", parameters_);
  std::vector<Tensor> gradients;
  if (options_.losses) {
    const graph::detail::BufferScope buffers(buffers_);
    gradients = scores(gradient(), parameters_, options_.losses);
  } else {
    for (const auto& [name, p] : parameters_) {
      HONE_CHECK(p.grad().defined(), GradError, "Pruner.step: RigL needs the gradient of '", name,
                 "'; call step() before gradients are cleared, or give .losses");
      gradients.push_back(finite("gradients", name, p.grad()));
    }
  }
  const double part = schedule.fraction / 2 *
                      (1 + std::cos(std::numbers::pi * static_cast<double>(t) / static_cast<double>(schedule.end)));
  const NoGrad no_grad;
  std::vector<Tensor> masks, values;
  for (size_t i = 0; i < parameters_.size(); ++i) {
    const auto& [name, p] = parameters_[i];
    const Tensor former = detail::mask_of(p), mask = clone(former), stays = clone(former);
    const Tensor w = finite("weights", name, p.raw());
    bool* kept = mask.data<bool>();
    const int64_t n = mask.numel();
    const auto count = static_cast<int64_t>(part * static_cast<double>(std::count(kept, kept + n, true)));
    detail::choose_largest(
        n, count, [&](int64_t k) { return kept[k]; }, [&](int64_t k) { return -std::abs(w.data<double>()[k]); },
        [&](int64_t k) { kept[k] = false; });
    std::vector<int64_t> grown;
    detail::choose_largest(
        n, count, [&](int64_t k) { return !kept[k]; },
        [&](int64_t k) { return std::abs(gradients[i].data<double>()[k]); }, [&](int64_t k) { grown.push_back(k); });
    for (const int64_t k : grown) kept[k] = true;
    masks.push_back(mask);
    // What was not there before begins at 0.
    for (int64_t k = 0; k < n; ++k) stays.data<bool>()[k] = former.data<bool>()[k] || !kept[k];
    values.push_back(masked(p.raw().detach(), to(stays, p.raw().device())));
  }
  for (size_t i = 0; i < parameters_.size(); ++i) parameters_[i].parameter.raw().detach().copy_(values[i]);
  set_masks(masks, gradient_for_next(t));
}

/// The gradient that the step after t needs: dense where pruned weights learn on, or are about to be judged by it.
MaskGradient Pruner::gradient_for_next(int64_t t) const {
  bool dense = false;
  if (const auto* s = std::get_if<Surgery>(&options_.schedule)) dense = t < std::max(s->end, s->last);
  if (const auto* s = std::get_if<RigL>(&options_.schedule)) dense = (t + 1) % s->every == 0 && t + 1 <= s->end;
  return dense ? MaskGradient::dense : MaskGradient::masked;
}

void Pruner::set_masks(const std::vector<Tensor>& masks, MaskGradient gradient) {
  for (size_t i = 0; i < parameters_.size(); ++i) {
    const ParameterRef& p = parameters_[i].parameter;
    p.set_mask(masks.empty() ? detail::mask_of(p) : masks[i], gradient);
  }
}

PruneReport Pruner::report() const { return detail::report_of(parameters_); }

void Pruner::apply(const Shrink& shrink) {
  for (size_t i = 0; i < observed_.sums.size(); ++i)
    if (parameters_[i].parameter == shrink.parameter)
      observed_.sums[i] = index_select(observed_.sums[i], shrink.dim, tensor(shrink.kept));
}

/// What a state must share with the Pruner that takes it, as text.
std::vector<std::pair<std::string, std::string>> Pruner::settings() const {
  const Criterion& c = options_.criterion;
  std::string density = options_.density ? str(*options_.density) : "none";
  for (const auto& [name, d] : options_.densities) density += str(", ", name, " ", d);
  std::string parameters;
  for (const auto& n : parameters_) parameters += (parameters.empty() ? "" : ", ") + n.name;
  constexpr const char* scopes[] = {"global", "per_layer", "erdos_renyi"};
  constexpr const char* patterns[] = {"unstructured", "n_m", "block"};
  const Pattern& p = options_.pattern;
  std::string pattern = patterns[static_cast<int>(p.kind)];
  if (p.kind != Pattern::Kind::unstructured) pattern += str("(", p.a, ", ", p.b, ")");
  return {{"pruner", detail::text(options_.schedule)},
          {"density", density},
          {"scope", scopes[static_cast<int>(options_.scope)]},
          {"pattern", pattern},
          {"parameters", parameters},
          {"criterion", str(c.name, ", order ", c.order, ", probes ", c.probes,
                            c.of == GradientOf::loss ? ", of the loss" : ", of the output",
                            c.normalized ? ", normalized" : "", c.lasting ? ", lasting" : "")}};
}

TensorFile Pruner::state_dict() const {
  const NoGrad no_grad;
  TensorFile file;
  for (const auto& [key, text] : settings()) file.metadata[key] = text;
  file.tensors.emplace_back("t", tensor(std::vector<int64_t>{t_}, Shape{}));
  file.tensors.emplace_back("observed", scalar(observed_.weight, f64));
  for (size_t i = 0; i < observed_.sums.size(); ++i)
    file.tensors.emplace_back("sum." + parameters_[i].name, clone(observed_.sums[i]));
  return file;
}

void Pruner::load_state_dict(const TensorFile& file) {
  constexpr const char* what = "Pruner.load_state_dict";
  for (const auto& [key, own] : settings()) {
    const auto found = file.metadata.find(key);
    HONE_CHECK(found != file.metadata.end() && found->second == own, FormatError, what, ": the state is of ", key, " '",
               found == file.metadata.end() ? std::string("something else") : found->second, "', not '", own, "'");
  }
  const auto entry = [&](const std::string& name, DType dtype, const Shape& shape) {
    const Tensor& t = file.at(name);
    HONE_CHECK(t.dtype() == dtype && t.shape() == shape, FormatError, what, ": entry '", name, "' is ", t.dtype(), " ",
               t.shape(), ", expected ", dtype, " ", shape);
    return clone(t);
  };
  const int64_t t = entry("t", i64, {}).item<int64_t>();
  detail::ScoreSum observed{.weight = entry("observed", f64, {}).item()};
  HONE_CHECK(t >= 0 && std::isfinite(observed.weight) && observed.weight >= 0, FormatError, what,
             ": 't' and 'observed' must be counts, got ", t, " and ", observed.weight);
  const size_t sums = observed.weight > 0 ? parameters_.size() : 0;
  HONE_CHECK(file.tensors.size() == sums + 2, FormatError, what, ": the state has ", file.tensors.size(),
             " entries, expected ", sums + 2);
  for (size_t i = 0; i < sums; ++i)
    observed.sums.push_back(entry("sum." + parameters_[i].name, f64, parameters_[i].parameter.shape()));
  observed_ = std::move(observed);
  t_ = t;
  set_masks({}, gradient_for_next(t));
}

}  // namespace hone::compress
