#pragma once
// Groups of layers tied by their channels, as classes of a Coupling. Private to compress/prune.

#include <string>
#include <string_view>
#include <vector>

#include "hone/compress/prune/shrink.h"

namespace hone::compress::detail {

struct Group {
  std::vector<Layer> layers;
  std::vector<int32_t> classes;
};
std::vector<Group> groups_of(const graph::Network& network, const Coupling& coupling);
std::string joined(const std::vector<std::string>& names);  ///< "conv1, conv2"
std::vector<std::string> names_of(const graph::Network& network, const Group& group);

/// Marks the classes of a node's channels for removal. As remove_channels() says; `who` begins the messages.
void mark(const graph::Network& network, const Coupling& coupling, const char* who, std::string_view node,
          const std::vector<int64_t>& channels, Removal& removed);

}  // namespace hone::compress::detail
