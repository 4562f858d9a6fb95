#pragma once
// Taking classes of coupled indices out of a network. Private to compress/prune.

#include <utility>
#include <vector>

#include "hone/compress/prune/coupling.h"
#include "hone/core/parameter.h"

namespace hone::compress::detail {

/// An edit as a whole or not at all: it is made on a copy first, so what it throws leaves the network as it was.
template <class Edit> auto edit_whole(graph::Network& network, const Edit& edit) {
  graph::Network trial = network;
  edit(trial);
  return edit(network);
}

/// [class]: whether it goes.
using Removal = std::vector<bool>;

/// Removes every index of the classes: parameters (with masks and gradients), buffers, constants and attributes become
/// smaller, then shapes are found anew, and each must be the one expected. One Shrink for each parameter and dim.
/// ValueError naming a value of which nothing would be left; GraphError naming a node that cannot follow. The network
/// may then be half changed: see edit_whole.
std::vector<Shrink> shrink(graph::Network& network, const Coupling& coupling, const Removal& removed);

}  // namespace hone::compress::detail
