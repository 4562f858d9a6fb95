#pragma once
// Whether a network that lost channels computes what it was to compute.

#include <algorithm>

#include "fashion.h"

/// The network before pruning with its pruned kernels at 0, batch norms included, computes what the smaller one does.
/// Returns the largest difference of their answers to some images, over the largest answer.
inline double difference_from_masked(hone::graph::Network dense, hone::graph::Network& pruned,
                                     const std::vector<hone::Shrink>& shrinks, const hone::data::Dataset& images) {
  using namespace hone;
  const NoGrad no_grad;
  const auto names = pruned.named_parameters();
  for (const Shrink& s : shrinks) {
    if (s.dim != 0) continue;
    const auto at = std::find_if(names.begin(), names.end(), [&](const auto& n) { return n.parameter == s.parameter; });
    const Parameter& whole = dense.parameter(dense.find(at->name));
    Tensor masked = zeros_like(whole.raw());
    for (const int64_t row : s.kept) slice(masked, 0, row, row + 1).copy_(slice(whole.raw(), 0, row, row + 1));
    whole.ref().replace(masked);
  }
  const Tensor a = evaluate(dense, images).logits, b = evaluate(pruned, images).logits;
  return max(abs(a - b)).item() / max(abs(a)).item();
}
