#include "hone/compress/prune/channels.h"

#include <algorithm>

#include "hone/compress/prune/groups.h"
#include "hone/compress/prune/select.h"
#include "hone/compress/prune/shrink.h"
#include "hone/core/text_table.h"

namespace hone::compress {

using graph::Network;
using graph::ValueId;

int64_t ChannelGroup::prunable() const {
  return std::count_if(channels.begin(), channels.end(), [](const Channel& c) { return c.blocked.empty(); });
}

namespace detail {

std::vector<Group> groups_of(const Network& net, const Coupling& coupling) {
  const std::vector<Layer> layers = layers_of(net);
  std::vector<Group> groups;
  std::vector<int32_t> group_of(coupling.size(), -1);
  for (const Layer& layer : layers) {
    const std::vector<int32_t>& classes = coupling.at(layer.out, layer.out_dim);
    if (classes.empty()) continue;  // it grows with the batch
    const auto home = static_cast<int32_t>(groups.size());
    groups.push_back({{layer}, {}});
    for (const int32_t c : classes) {
      const int32_t former = group_of[static_cast<size_t>(c)];
      if (former == home) continue;
      if (former < 0) {
        group_of[static_cast<size_t>(c)] = home;
        groups.back().classes.push_back(c);
        continue;
      }
      // Tied to an earlier group, which becomes part of this one.
      Group &into = groups[static_cast<size_t>(home)], &from = groups[static_cast<size_t>(former)];
      for (const int32_t moved : from.classes) group_of[static_cast<size_t>(moved)] = home;
      into.layers.insert(into.layers.begin(), from.layers.begin(), from.layers.end());
      into.classes.insert(into.classes.begin(), from.classes.begin(), from.classes.end());
      from = {};
    }
  }
  std::erase_if(groups, [](const Group& g) { return g.layers.empty(); });
  for (Group& g : groups)
    std::sort(g.layers.begin(), g.layers.end(), [](const Layer& a, const Layer& b) { return a.node < b.node; });
  std::sort(groups.begin(), groups.end(),
            [](const Group& a, const Group& b) { return a.layers[0].node < b.layers[0].node; });
  return groups;
}

Limits::Limits(const Coupling& coupling) : uses_(coupling.size()) {
  for (size_t v = 0; v < coupling.classes.size(); ++v) {
    first_.push_back(axes_.size());
    for (size_t d = 0; d < coupling.classes[v].size(); ++d) {
      const std::vector<int32_t>& classes = coupling.classes[v][d];
      const size_t axis = axes_.size();
      axes_.push_back({static_cast<ValueId>(v), d, 1});
      sizes_.push_back(static_cast<int64_t>(classes.size()));
      for (const int32_t c : classes) {
        auto& uses = uses_[static_cast<size_t>(c)];
        if (uses.empty() || uses.back().axis != axis) uses.push_back({axis, 0});
        ++uses.back().count;
      }
    }
  }
}
void Limits::set(const Layer& l, int64_t least) {
  axes_[first_[static_cast<size_t>(l.out)] + static_cast<size_t>(l.out_dim)].least = least;
}
const Limits::Axis* Limits::limit_of(int32_t cls, const std::vector<int64_t>& left) const {
  for (const Use& u : uses_[static_cast<size_t>(cls)])
    if (left[u.axis] - u.count < axes_[u.axis].least) return &axes_[u.axis];
  return nullptr;
}
void Limits::take(int32_t cls, std::vector<int64_t>& left) const {
  for (const Use& u : uses_[static_cast<size_t>(cls)]) left[u.axis] -= u.count;
}

std::vector<std::string> names_of(const Network& net, const Group& group) {
  std::vector<std::string> names;
  for (const Layer& l : group.layers) names.push_back(net.nodes()[l.node].name);
  return names;
}

std::string joined(const std::vector<std::string>& names) {
  std::string s;
  for (const std::string& n : names) s += s.empty() ? n : ", " + n;
  return s;
}

size_t layer_named(const Network& net, const char* who, std::string_view name) {
  const size_t first = net.find_node(name);
  if (net.nodes()[first].name == name) return first;
  std::vector<std::string> inside;
  size_t found = first;
  for (const Layer& l : layers_of(net)) {
    const std::string& layer = net.nodes()[l.node].name;
    if (!is_named(layer, std::string(name))) continue;
    inside.push_back(layer);
    found = l.node;
  }
  HONE_CHECK(!inside.empty(), GraphError, who, ": module '", name, "' has no layer that makes channels");
  HONE_CHECK(inside.size() == 1, GraphError, who, ": module '", name, "' has ", inside.size(),
             " layers; name one of them: ", joined(inside));
  return found;
}

void mark(const Network& net, const Coupling& coupling, const char* who, std::string_view name,
          const std::vector<int64_t>& channels, Removal& removed) {
  const graph::Node& node = net.nodes()[layer_named(net, who, name)];
  const std::vector<int32_t>& classes = coupling.at(node.outputs[0], channel_dim(net, node));
  const auto n = static_cast<int64_t>(classes.size());
  HONE_CHECK(n > 0, GraphError, who, ": the channels of '", name, "' grow with the batch");
  for (const int64_t c : channels) {
    HONE_CHECK(c >= 0 && c < n, ValueError, who, ": channel ", c, " of '", name, "', which has ", n);
    const auto cls = static_cast<size_t>(classes[static_cast<size_t>(c)]);
    HONE_CHECK(coupling.blocked[cls].empty(), GraphError, who, ": channel ", c, " of '", name,
               "' cannot go: ", coupling.blocked[cls]);
    removed[cls] = true;
  }
  HONE_CHECK(std::any_of(classes.begin(), classes.end(), [&](int32_t c) { return !removed[static_cast<size_t>(c)]; }),
             ValueError, who, ": all ", n, " channels of '", name, "' would go; at least one must stay");
}

}  // namespace detail

std::vector<ChannelGroup> channel_groups(const Network& net) {
  const detail::Coupling coupling = detail::couple(net);
  std::vector<Channel> channels(coupling.size());
  for (size_t v = 0; v < coupling.classes.size(); ++v) {
    for (size_t d = 0; d < coupling.classes[v].size(); ++d) {
      const std::vector<int32_t>& classes = coupling.classes[v][d];
      for (size_t i = 0; i < classes.size(); ++i) {
        auto& slices = channels[static_cast<size_t>(classes[i])].slices;
        const ChannelSlice slice{static_cast<ValueId>(v), static_cast<int64_t>(d), {}};
        if (slices.empty() || slices.back().value != slice.value || slices.back().dim != slice.dim)
          slices.push_back(slice);
        slices.back().indices.push_back(static_cast<int64_t>(i));
      }
    }
  }
  std::vector<ChannelGroup> groups;
  for (const detail::Group& g : detail::groups_of(net, coupling)) {
    ChannelGroup& group = groups.emplace_back();
    group.layers = detail::names_of(net, g);
    for (const int32_t c : g.classes) {
      channels[static_cast<size_t>(c)].blocked = coupling.blocked[static_cast<size_t>(c)];
      group.channels.push_back(std::move(channels[static_cast<size_t>(c)]));
    }
  }
  return groups;
}

std::string channel_table(const Network& net) {
  std::vector<std::vector<std::string>> lines{{"layers", "why not all", "channels", "prunable"}};
  for (const ChannelGroup& g : channel_groups(net)) {
    const auto blocked =
        std::find_if(g.channels.begin(), g.channels.end(), [](const Channel& c) { return !c.blocked.empty(); });
    lines.push_back({detail::joined(g.layers), blocked == g.channels.end() ? "" : blocked->blocked,
                     std::to_string(g.channels.size()), std::to_string(g.prunable())});
  }
  return hone::detail::text_table(lines, 2);
}

std::vector<Shrink> remove_channels(Network& net, const std::vector<LayerChannels>& channels) {
  const detail::Coupling coupling = detail::couple(net);
  detail::Removal removed(coupling.size(), false);
  for (const auto& [layer, indices] : channels) detail::mark(net, coupling, "remove_channels", layer, indices, removed);
  return detail::edit_whole(net, [&](Network& n) { return detail::shrink(n, coupling, removed); });
}
std::vector<Shrink> remove_channels(Network& net, std::string_view layer, const std::vector<int64_t>& channels) {
  return remove_channels(net, std::vector<LayerChannels>{{std::string(layer), channels}});
}

}  // namespace hone::compress
