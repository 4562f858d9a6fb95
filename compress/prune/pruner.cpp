#include "hone/compress/prune/pruner.h"

#include <algorithm>
#include <cmath>
#include <numbers>
#include <utility>

#include "hone/compress/prune/select.h"
#include "hone/core/autograd.h"
#include "hone/core/basic_ops.h"
#include "hone/core/error.h"
#include "hone/ops/indexing.h"

namespace hone::compress {

Pruner::Pruner(nn::Module& module, PruneOptions options)
    : options_(std::move(options)),
      parameters_(detail::chosen("Pruner", module, options_)),
      refs_(detail::refs(parameters_)) {
  detail::check(options_.schedule, options_.density.value_or(0));
  for (const auto& [name, d] : options_.densities) detail::check(options_.schedule, d);
  HONE_CHECK(!std::holds_alternative<RigL>(options_.schedule) || options_.pattern.kind == Pattern::Kind::unstructured,
             ValueError, "Pruner: RigL moves single weights; it takes no pattern");
  if (!decide(0)) set_masks({}, gradient_for_next(0));
}

void Pruner::observe(int64_t samples) {
  HONE_CHECK(options_.criterion.order == 1, ValueError, "Pruner.observe: criterion '", options_.criterion.name,
             "' does not score by gradients");
  std::vector<Tensor> gradients;
  for (const ParameterRef& p : refs_) gradients.push_back(p.grad());
  observed_.add(options_.criterion, refs_, gradients, static_cast<double>(samples));
}

bool Pruner::step() {
  const bool changed = decide(t_ + 1);
  const MaskGradient next = gradient_for_next(t_ + 1);
  if (!changed && next != refs_[0].mask_gradient()) set_masks({}, next);
  ++t_;
  return changed;
}

std::vector<Tensor> Pruner::current_scores() const {
  const Criterion& c = options_.criterion;
  if (c.order == 1 && !options_.losses) {
    HONE_CHECK(observed_.weight > 0, ValueError, "Pruner: criterion '", c.name,
               "' scores by gradients; give it data (.losses) or call observe() before masks are decided");
    return observed_.finish(c, refs_);
  }
  return scores(c, refs_, options_.losses);
}

bool Pruner::decide(int64_t t) {
  if (const auto* rigl = std::get_if<RigL>(&options_.schedule); rigl && t > 0) {
    if (t % rigl->every != 0 || t > rigl->end) return false;
    swap_weights(t, *rigl);
    return true;
  }
  const auto density = density_at(options_.schedule, t, options_.density.value_or(0));
  if (!density) return false;
  const auto* surgery = std::get_if<Surgery>(&options_.schedule);
  const bool own = !options_.densities.empty() || options_.pattern.kind == Pattern::Kind::n_m;
  // Where nothing goes or comes, no scores are needed.
  if (*density >= 1 && !own && (!surgery || report().density() == 1)) return false;
  const detail::SelectOptions how{.revive = surgery != nullptr, .margin = surgery ? surgery->margin : 0};
  set_masks(detail::select(parameters_, options_, t, current_scores(), how), gradient_for_next(t));
  if (!options_.criterion.lasting) observed_ = {};
  return true;
}

/// RigL's exchange in each layer: the smallest weights for those with the largest gradients.
void Pruner::swap_weights(int64_t t, const RigL& schedule) {
  std::vector<Tensor> gradients;
  if (options_.losses) {
    gradients = scores(gradient(), refs_, options_.losses);
  } else {
    for (size_t i = 0; i < refs_.size(); ++i) {
      HONE_CHECK(refs_[i].grad().defined(), GradError, "Pruner.step: RigL needs the gradient of '", parameters_[i].name,
                 "'; call step() before gradients are cleared, or give .losses");
      gradients.push_back(cast(to(refs_[i].grad().detach(), cpu), f64));
    }
  }
  const double part = schedule.fraction / 2 *
                      (1 + std::cos(std::numbers::pi * static_cast<double>(t) / static_cast<double>(schedule.end)));
  const NoGrad no_grad;
  std::vector<Tensor> masks, values;
  for (size_t i = 0; i < refs_.size(); ++i) {
    const Tensor former = detail::mask_of(refs_[i]), mask = clone(former), stays = clone(former);
    const Tensor w = cast(to(refs_[i].raw().detach(), cpu), f64);
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
    values.push_back(masked(refs_[i].raw().detach(), to(stays, refs_[i].raw().device())));
  }
  for (size_t i = 0; i < refs_.size(); ++i) refs_[i].raw().detach().copy_(values[i]);
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
  for (size_t i = 0; i < refs_.size(); ++i)
    refs_[i].set_mask(masks.empty() ? detail::mask_of(refs_[i]) : masks[i], gradient);
}

PruneReport Pruner::report() const { return detail::report_of(parameters_); }

void Pruner::apply(const Shrink& shrink) {
  for (size_t i = 0; i < observed_.sums.size(); ++i)
    if (refs_[i] == shrink.parameter)
      observed_.sums[i] = index_select(observed_.sums[i], shrink.dim, tensor(shrink.kept));
}

TensorFile Pruner::state_dict() const {
  const NoGrad no_grad;
  TensorFile file;
  file.metadata["pruner"] = name(options_.schedule);
  file.metadata["criterion"] = options_.criterion.name;
  file.tensors.emplace_back("t", tensor(std::vector<int64_t>{t_}, Shape{}));
  file.tensors.emplace_back("observed", scalar(observed_.weight, f64));
  for (size_t i = 0; i < observed_.sums.size(); ++i)
    file.tensors.emplace_back("sum." + parameters_[i].name, clone(observed_.sums[i]));
  return file;
}

void Pruner::load_state_dict(const TensorFile& file) {
  constexpr const char* what = "Pruner.load_state_dict";
  const auto same = [&](const char* key, const std::string& own) {
    const auto found = file.metadata.find(key);
    HONE_CHECK(found != file.metadata.end() && found->second == own, FormatError, what, ": the state is of ", key, " '",
               found == file.metadata.end() ? std::string("something else") : found->second, "', not '", own, "'");
  };
  same("pruner", name(options_.schedule));
  same("criterion", options_.criterion.name);
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
    observed.sums.push_back(entry("sum." + parameters_[i].name, f64, parameters_[i].parameter.raw().shape()));
  observed_ = std::move(observed);
  t_ = t;
  set_masks({}, gradient_for_next(t));
}

}  // namespace hone::compress
