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

/// How many indices of each dim of each value must stay.
class Limits {
 public:
  struct Axis {
    graph::ValueId value;
    size_t dim;
    int64_t least;
  };
  explicit Limits(const Coupling& coupling);  // one of each dim
  void set(const Layer& layer, int64_t least);
  std::vector<int64_t> sizes() const { return sizes_; }  ///< [axis]: how many there are
  /// The axis that must keep the class where `left` indices of each are; null if it can go.
  const Axis* limit_of(int32_t cls, const std::vector<int64_t>& left) const;
  void take(int32_t cls, std::vector<int64_t>& left) const;

 private:
  struct Use {
    size_t axis;
    int64_t count;
  };
  std::vector<Axis> axes_;
  std::vector<int64_t> sizes_;
  std::vector<size_t> first_;           // [value]: of its axes
  std::vector<std::vector<Use>> uses_;  // [class]
};

std::string joined(const std::vector<std::string>& names);  ///< "conv1, conv2"
std::vector<std::string> names_of(const graph::Network& network, const Group& group);
/// The node of that name, else the one layer in the module of that name. GraphError naming the layers where the module
/// has none or several.
size_t layer_named(const graph::Network& network, const char* who, std::string_view name);

/// Marks the classes of a layer's channels for removal. As remove_channels() says; `who` begins the messages.
void mark(const graph::Network& network, const Coupling& coupling, const char* who, std::string_view layer,
          const std::vector<int64_t>& channels, Removal& removed);

}  // namespace hone::compress::detail
