#pragma once
// Convolution kernels with their channels, neurons, and pools: networks that are really smaller.

#include "masked_channels.h"
#include "prune_lenet.h"

namespace prune_lenet_channels {

using namespace hone;

/// A pass over part of the training images, to score with.
struct Scoring {
  explicit Scoring(const Seed& seed)
      : batches(seed.fashion.training.first(2048), {.batch = 128, .transform = fashion_transforms()}),
        pass(compress::pass_over(batches, [](const Tensor& y, const Tensor& t) { return cross_entropy(y, t); })) {}
  Scoring(const Scoring&) = delete;
  data::Loader batches;
  compress::Pass pass;
};

/// What `edit` makes of the dense network, before and after retraining; or why it cannot.
template <class Edit> Outcome edit_and_fit(const PruneLeNetOptions& o, Seed& seed, const Edit& edit) {
  Outcome out;
  graph::Network network = graph::trace(seed.dense, sample_image());
  try {
    edit(network, out);
  } catch (const GraphError& e) {
    out.refused = e.what();
    return out;
  }
  out.before = seed.score(network);
  retrain(network, nullptr, seed.fashion.training, from_labels(o.epochs));
  out.after = seed.score(network);
  out.weights = weights_left(network);
  return out;
}

}  // namespace prune_lenet_channels

/// size: the share of multiply-adds that may stay.
inline std::vector<Case> kernels_cases(const PruneLeNetOptions& o) {
  using namespace prune_lenet_channels;
  using enum compress::FilterCriterion;
  std::vector<Case> cases;
  for (const auto criterion : {l1, l2, geometric_median, bn_gamma, apoz, taylor, gradient, random})
    for (const double share : o.shares)
      cases.push_back({compress::name(criterion), share, [=, &o](Seed& seed) {
                         return edit_and_fit(o, seed, [&](graph::Network& network, Outcome& out) {
                           const Scoring scoring(seed);
                           const graph::Network whole = network;
                           const auto report = compress::prune_filters(network, {.criterion = criterion,
                                                                                 .macs = share,
                                                                                 .scope = compress::FilterScope::global,
                                                                                 .data = scoring.pass});
                           out.difference = difference_from_masked(whole, network, report.shrinks,
                                                                   seed.fashion.validation.first(1000));
                         });
                       }});
  return cases;
}

/// size: the share of the pools' channels that stays.
inline std::vector<Case> pools_cases(const PruneLeNetOptions& o) {
  using namespace prune_lenet_channels;
  std::vector<Case> cases;
  const auto add = [&](const std::string& method, double size, std::function<void(graph::Network&, Seed&)> edit) {
    cases.push_back({method, size, [=, &o](Seed& seed) {
                       return edit_and_fit(o, seed, [&](graph::Network& network, Outcome&) { edit(network, seed); });
                     }});
  };
  const std::vector<std::vector<std::string>> choices = {
      {"max_pool2d"}, {"max_pool2d_1"}, {"max_pool2d", "max_pool2d_1"}};
  for (const auto& places : choices) {
    const std::string names = places.size() == 1 ? places[0] : "both pools";
    for (const double share : o.shares)
      add("zero channels, " + names, share, [=](graph::Network& network, Seed& seed) {
        const Scoring scoring(seed);
        compress::zero_channels(network, {.ratio = 1 - share, .places = places, .data = scoring.pass});
      });
    add("strided convolution, " + names, 1, [=](graph::Network& network, Seed&) {
      for (const std::string& place : places) compress::to_strided_conv(network, place);
    });
    add("no pool, " + names, 1, [=](graph::Network& network, Seed&) {
      for (const std::string& place : places) compress::remove_pool(network, place);
    });
  }
  return cases;
}
