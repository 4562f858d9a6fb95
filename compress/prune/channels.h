#pragma once
// Channels of a network: what is coupled to one, and taking it out. A convolution's kernel makes a channel; batch norms
// scale it, residual adds and depthwise convolutions tie it to channels of other layers, a concat moves it, a flatten
// spreads it, the layers that follow read it. What is tied goes together, and the network is then really smaller: it
// trains on, and its file, memory and run time shrink.
//
//   graph::Network network = graph::trace(module, sample);
//   std::cout << compress::channel_table(network);
//   for (const Shrink& s : compress::remove_channels(network, "conv1", {0, 5})) adam.apply(s);
//   graph::write_back(network, module, sample);          // where the module can be what the network is now
//
// The smaller network computes what the larger one would if each element of a removed channel, in every value that has
// the channel, were 0 (the batch's statistics, where training, are those of each channel alone).
//
// What the ops do with channels is known for: elementwise ops with broadcasting, batch norm, convolutions (dense,
// grouped, depthwise, transposed, fused), linear, matmul, pooling, dropout, reshape, flatten, squeeze, permute, concat,
// slice, split, select, pad, expand, flip, and reductions and softmax over other dims. Of a grouped convolution one
// channel of each group goes at a time; where its groups have one input or output, whole groups go. What normalizes or
// reduces over channels (layer norm, softmax, mean; a sum loses terms of 0) and ops not named here block them.

#include <string>
#include <string_view>
#include <vector>

#include "hone/compress/graph/network.h"

namespace hone::compress {

/// The indices of one dim of a value that belong to a channel.
struct ChannelSlice {
  graph::ValueId value;
  int64_t dim;
  std::vector<int64_t> indices;
};

/// What goes when one channel goes.
struct Channel {
  std::vector<ChannelSlice> slices;  ///< of every value of the network, parameters and results alike
  std::string blocked;               ///< why it cannot go, naming op and value; empty where it can
};

/// Layers (conv2d and linear, fused or not; matmul by a parameter) tied by channels that they share, and those channels
/// in the order in which the layers have them. A layer's channel may be one of several that count as one here (grouped
/// convolutions).
struct ChannelGroup {
  std::vector<std::string> layers;  ///< names of nodes, in order
  std::vector<Channel> channels;
  int64_t prunable() const;  ///< how many are not blocked
};

/// All groups, in the order of their first layers.
std::vector<ChannelGroup> channel_groups(const graph::Network& network);
/// A row a group: layers, channels, how many can go, and what blocks the first of the others.
std::string channel_table(const graph::Network& network);

struct LayerChannels {
  std::string layer;              ///< a node's name, or that of a module with one layer
  std::vector<int64_t> channels;  ///< of dim 1 of its output; of the last dim of linear and matmul
};

/// Removes these channels and all that is coupled to them. Parameters keep their identity: hand each Shrink to the
/// optimizers of the network's parameters. Masks, gradients, buffers, constants and sizes in attributes follow.
/// GraphError for a layer that is not there (the nearest names are offered), for a module of no or several layers,
/// which are named, and for a channel that is blocked, naming op and value; ValueError for a channel out of range, or
/// where nothing would be left of a layer. On any error nothing has changed.
std::vector<Shrink> remove_channels(graph::Network& network, const std::vector<LayerChannels>& channels);
std::vector<Shrink> remove_channels(graph::Network& network, std::string_view layer,
                                    const std::vector<int64_t>& channels);

}  // namespace hone::compress
