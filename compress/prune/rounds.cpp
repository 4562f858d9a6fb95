// Recipes of several rounds: going back, and pruning while it is good.

#include <algorithm>
#include <cmath>
#include <map>

#include "hone/compress/prune/pruner.h"
#include "hone/compress/prune/select.h"
#include "hone/core/basic_ops.h"
#include "hone/core/error.h"

namespace hone::compress {
namespace {

/// A state without the masks of the module's parameters.
TensorFile without_masks(nn::Module& module, const TensorFile& state) {
  const auto parameters = module.named_parameters();
  TensorFile rest;
  for (const auto& entry : state.tensors) {
    const auto is_mask_of = [&](const auto& n) { return entry.first == n.name + ".mask"; };
    if (std::none_of(parameters.begin(), parameters.end(), is_mask_of)) rest.tensors.push_back(entry);
  }
  return rest;
}

/// Metadata: where a parameter's mask lets gradients through, "dense".
std::string rule_of(const std::string& parameter) { return parameter + ".mask_gradient"; }

}  // namespace

Snapshot::Snapshot(nn::Module& module) : state_(module.state_dict()) {
  for (const auto& [name, p] : module.named_parameters())
    if (p.mask_gradient() == MaskGradient::dense) state_.metadata[rule_of(name)] = "dense";
}

TensorFile Snapshot::state_dict() const { return state_; }
void Snapshot::load_state_dict(const TensorFile& file) { state_ = file; }

void Snapshot::check(const char* what, nn::Module& module) const {
  const TensorFile then = without_masks(module, state_), now = without_masks(module, module.state_dict());
  HONE_CHECK(then.tensors.size() == now.tensors.size(), FormatError, what, ": the snapshot has ", then.tensors.size(),
             " values and buffers, the module ", now.tensors.size());
  for (const auto& [name, tensor] : now.tensors) {
    const Tensor& old = then.at(name);
    HONE_CHECK(old.shape() == tensor.shape() && old.dtype() == tensor.dtype(), ShapeError, what, ": '", name, "' is ",
               tensor.dtype(), " ", tensor.shape(), " now, and was ", old.dtype(), " ", old.shape());
  }
}

void Snapshot::rewind(nn::Module& module) const {
  check("Snapshot.rewind", module);
  module.load_state_dict(without_masks(module, state_), {.strict = false});
}

void Snapshot::restore(nn::Module& module) const {
  constexpr const char* what = "Snapshot.restore";
  check(what, module);
  const auto was_masked = [&](const std::string& name) {
    const auto is_mask = [&](const auto& entry) { return entry.first == name + ".mask"; };
    return std::any_of(state_.tensors.begin(), state_.tensors.end(), is_mask);
  };
  const auto parameters = module.named_parameters();
  for (const auto& [name, p] : parameters)
    HONE_CHECK(p.type() != WeightType::codebook || !p.mask().defined() || was_masked(name), FormatError, what, ": '",
               name, "' is a codebook that got a mask since, which cannot be taken away");
  module.load_state_dict(state_, {.strict = false});  // check() saw that only masks may be missing
  for (const auto& [name, p] : parameters) {
    if (p.type() == WeightType::codebook) continue;  // has one rule only
    const bool masked = was_masked(name);
    const auto rule = state_.metadata.contains(rule_of(name)) ? MaskGradient::dense : MaskGradient::masked;
    p.set_mask(masked ? p.mask() : ones(p.shape(), DType::boolean), rule);
    if (!masked) p.bake_mask();
  }
}

PruneReport prune_while(nn::Module& module, PruneOptions options, const IterateOptions& iterate) {
  constexpr const char* what = "prune_while";
  HONE_CHECK(iterate.retrain && iterate.satisfactory, ValueError, what, ": give it retrain and satisfactory");
  HONE_CHECK(iterate.factor > 0 && iterate.factor < 1, ValueError, what, ": factor must be in (0, 1), got ",
             iterate.factor);
  HONE_CHECK(iterate.rounds >= 1, ValueError, what, ": rounds must be at least 1, got ", iterate.rounds);
  const auto parameters = detail::chosen(what, module, options);
  HONE_CHECK(options.density, ValueError, what, ": no density was given");
  const double last = *options.density;
  for (int64_t round = 1; round <= iterate.rounds; ++round) {
    const Snapshot before(module);
    options.density = std::max(last, std::pow(iterate.factor, static_cast<double>(round)));
    prune(module, options);
    bool satisfactory = false;
    try {
      iterate.retrain();
      satisfactory = iterate.satisfactory();
    } catch (...) {
      before.restore(module);
      throw;
    }
    if (!satisfactory) {
      before.restore(module);
      break;
    }
    if (*options.density == last) break;
  }
  return detail::report_of(parameters);
}

}  // namespace hone::compress
