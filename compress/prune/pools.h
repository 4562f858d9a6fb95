#pragma once
// Pruning places: pools and residual blocks of a network, scored by the gradient of the loss at their output. A place
// is a node, not a module: one pool module called twice stands at two places ("max_pool2d", "max_pool2d_1").
//
//   for (const auto& s : compress::place_scores(network, compress::pools(network), data))
//     std::cout << s.place << ": " << s.mean() << "\n";
//   compress::zero_channels(network, {.ratio = 0.25, .places = {"max_pool2d_1"}, .data = data});
//   compress::to_strided_conv(network, "max_pool2d");

#include <string>
#include <string_view>
#include <vector>

#include "hone/compress/prune/channels.h"
#include "hone/compress/prune/data.h"

namespace hone::compress {

/// The places of max and average pools, adaptive ones among them, in order.
std::vector<std::string> pools(const graph::Network& network);
/// The places of residual adds y = f(x) + g(x), where f, the branch, has layers (conv2d, linear, matmul by a parameter)
/// and more nodes of its own than the shortcut g, which may be x itself.
std::vector<std::string> residual_blocks(const graph::Network& network);

struct PlaceScores {
  std::string place;
  std::vector<double> channels;  ///< mean over samples and positions of |∂L/∂output|, L a batch's loss
  double mean() const;
};
/// GraphError for a place that is not there (the nearest names are offered) or whose channels grow with the batch,
/// ValueError as filter_scores(), NumericError for a score that is not finite.
std::vector<PlaceScores> place_scores(graph::Network& network, const std::vector<std::string>& places,
                                      const Pass& data);

/// Makes these channels of a place's output 0 for all that follows, which takes them out of the network: the kernels
/// that feed them go, and all that is coupled to them. As remove_channels(), whose errors are these.
std::vector<Shrink> zero_channels(graph::Network& network, std::string_view place,
                                  const std::vector<int64_t>& channels);

struct ZeroOptions {
  double ratio = 0;                      ///< share of each place's channels, in (0, 1), rounded to the nearest
  std::vector<std::string> places = {};  ///< none: all pools
  Pass data = {};
};
struct ZeroReport {
  std::vector<LayerChannels> zeroed;  ///< of each place: what went, indices before
  std::vector<Shrink> shrinks;
};
/// zero_channels() of the channels of lowest score, of equal ones the first. Channels that go together (channels.h), be
/// they of one place or of several, have the mean of their scores, and go where each of these places loses no more than
/// its share by them: a place may keep more. A channel that is blocked, or without which nothing would be left of some
/// value, stays, and another goes. ValueError for a ratio out of range, or that is all channels of a place; GraphError
/// where too few channels of a place can go; and what place_scores() throws. On any error nothing has changed.
ZeroReport zero_channels(graph::Network& network, const ZeroOptions& options);

/// Takes a pool out: what follows reads its input. GraphError where that does not fit (a flatten into a linear layer)
/// or would change the network's outputs; nothing has changed then.
void remove_pool(graph::Network& network, std::string_view place);
/// Takes a pool out and multiplies the stride of the convolution that feeds it by the pool's. Between the two only
/// elementwise ops, batch norm and dropout may stand, and nothing else may read what they make. GraphError naming what
/// is in the way, or the shapes where they would differ; nothing has changed then.
void to_strided_conv(graph::Network& network, std::string_view place);
/// Takes the branch of a residual block out: y = g(x). Parameters that only the branch used go. GraphError where the
/// place is no residual block.
void remove_block(graph::Network& network, std::string_view place);

}  // namespace hone::compress
