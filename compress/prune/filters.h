#pragma once
// Filter pruning: whole channels, scored by the kernels that make them, are taken out of a network.
//
//   auto report = compress::prune_filters(network, {.criterion = compress::FilterCriterion::taylor,
//                                                   .macs = 0.5, .scope = compress::FilterScope::global, .data =
//                                                   data});
//   std::cout << report.table();
//   for (const Shrink& s : report.shrinks) sgd.apply(s);     // and train on

#include <map>
#include <string>
#include <vector>

#include "hone/compress/prune/channels.h"
#include "hone/compress/prune/data.h"

namespace hone::compress {

/// The score s of a channel; the lowest go. K: its kernels, the rows of the weights of all layers that make the channel
/// (of one layer, or of all that a residual add or a depthwise convolution ties), without biases; masked weights are 0.
enum class FilterCriterion : uint8_t {
  l1,  ///< Σ_K |w|. Li et al., "Pruning filters for efficient ConvNets", 2017
  l2,  ///< √(Σ_K w²). He et al., "Soft filter pruning", 2018
  /// Σ over layers and kernels v of the layer of ‖K − v‖₂: the channel that others can stand for goes. He et al.,
  /// "Filter pruning via geometric median", 2019
  geometric_median,
  bn_gamma,  ///< Σ |γ| over the channel's batch norms. Liu et al., "Learning efficient convolutional networks", 2017
  /// 1 − APoZ: the share of elements above 0 in the outputs of the channel's ReLUs, the mean over these. Needs data. Hu
  /// et al., "Network trimming", 2016
  apoz,
  /// Mean over samples of |Σ_K w ∂l/∂w| of each batch: the first-order change of the loss. Needs data. Molchanov et
  /// al., "Importance estimation for neural network pruning", 2019 (there squared)
  taylor,
  gradient,  ///< mean over K of |∂L/∂w|, L the loss over all data: kernels of small gradient go. Needs data
  random,    ///< uniform, from the generator: what a criterion must beat
};
const char* name(FilterCriterion c);

enum class FilterScope : uint8_t {
  per_layer,  ///< the same share of each group of layers
  global,     ///< all channels compete
};

struct FilterOptions {
  FilterCriterion criterion = FilterCriterion::l2;
  /// Share of the channels that goes, in [0, 1), rounded to the nearest; those that go together count as one.
  /// per_layer: of all channels of a group, as far as they can go; global: of the channels of all groups that can go.
  double ratio = 0;
  double macs = 0;  ///< or: the share of multiply-adds that may stay, in (0, 1); no more channels go than that takes
  FilterScope scope = FilterScope::per_layer;
  bool normalize = true;     ///< global: scores are divided by their mean over the group, so that layers compare
  int64_t round_to = 1;      ///< what a layer keeps is a multiple of this, or all: the best of what would go stay
  int64_t min_channels = 1;  ///< that a layer keeps
  std::vector<std::string> only = {}, except = {};  ///< layers, or modules of layers; none: all that can be pruned
  /// Layers, or modules of layers, that keep this many channels of their output, whatever the ratio, the multiply-adds
  /// and round_to.
  std::map<std::string, int64_t> keep = {};
  Pass data = {};  ///< for the criteria that need it
};

struct GroupScores {
  std::vector<std::string> layers;
  std::vector<double> scores;  ///< of the group's channels, in the order of channel_groups(); blocked ones too
};
/// The scores of every group with a channel that can go. GraphError where a criterion has nothing to look at (no batch
/// norm, no ReLU, a kernel that is no parameter, taylor: one that no loss depends on), ValueError for data that is
/// missing, empty or of another form, NumericError naming the layers for a score that is not finite.
std::vector<GroupScores> filter_scores(graph::Network& network, FilterCriterion criterion, const Pass& data = {});

struct FilterReport {
  struct Group {
    std::vector<std::string> layers;
    int64_t kept = 0, total = 0;  ///< channels of the layer that has the most
  };
  std::vector<Group> groups;  ///< that could lose channels
  int64_t macs_before = 0, macs_after = 0, parameters_before = 0, parameters_after = 0;
  std::vector<Shrink> shrinks;  ///< for optimizers, in order
  std::string table() const;
};

/// Scores channels and removes the lowest, of equal ones the first, with all that is coupled to them (channels.h). A
/// group that other layers share its channels with (a concat) may keep more, so that each layer keeps min_channels.
/// ValueError for options out of range, no aim or two, multiply-adds that cannot be reached, a count to keep that
/// contradicts that of a tied layer, `except` or min_channels, or that channels which go together cannot give;
/// GraphError for a layer that is not there (the nearest names are offered) or named and blocked; and what
/// filter_scores() throws. On any error nothing has changed.
FilterReport prune_filters(graph::Network& network, const FilterOptions& options);

}  // namespace hone::compress
