#include "hone/compress/prune/pools.h"

#include <algorithm>
#include <cmath>
#include <iterator>
#include <map>
#include <numeric>
#include <set>

#include "hone/compress/prune/groups.h"
#include "hone/compress/prune/observe.h"
#include "hone/core/text_table.h"
#include "hone/ops/arithmetic.h"
#include "hone/ops/conv.h"
#include "hone/ops/norm.h"
#include "hone/ops/pool.h"
#include "hone/ops/unary.h"

namespace hone::compress {

using graph::kNone;
using graph::Network;
using graph::Node;
using graph::ValueId;

namespace {

const Node& maker(const Network& net, ValueId v) { return net.nodes()[static_cast<size_t>(net.value(v).index)]; }

/// The node of that name among `places`; GraphError offering the nearest of them.
size_t place_of(const Network& net, const char* who, std::string_view name, const std::vector<std::string>& places,
                const char* what) {
  HONE_CHECK(std::find(places.begin(), places.end(), name) != places.end(), GraphError, who, ": no ", what,
             " is named '", name, "'", hone::detail::nearest_names(std::string(name), places));
  return net.find_node(name);
}

/// An edit that must leave the shapes of the network's outputs as they are.
template <class Edit> void edit_graph(Network& network, const char* who, std::string_view place, const Edit& edit) {
  detail::edit_whole(network, [&](Network& n) {
    std::vector<graph::Dims> before;
    for (const ValueId v : n.outputs()) before.push_back(n.value(v).shape);
    try {
      edit(n);
      n.refresh();
    } catch (const GraphError& e) { throw GraphError(str(who, ": '", place, "' cannot go: ", e.what())); }
    for (size_t i = 0; i < before.size(); ++i) {
      const graph::Value& out = n.value(n.outputs()[i]);
      HONE_CHECK(out.shape == before[i], GraphError, who, ": '", place, "' cannot go: the output would be ",
                 to_string(out.shape), " instead of ", to_string(before[i]));
    }
  });
}

void drop_pool(Network& net, size_t pool) {
  const Node& n = net.nodes()[pool];
  net.replace_uses(n.outputs[0], n.inputs[0]);
  net.erase_node(pool);  // throws where something reads the indices
}

/// The results and inputs that a value is made of, itself among them.
std::set<ValueId> sources(const Network& net, ValueId v) {
  std::set<ValueId> found;
  std::vector<ValueId> open{v};
  while (!open.empty()) {
    const ValueId at = open.back();
    open.pop_back();
    if (at == kNone) continue;
    const graph::ValueKind kind = net.value(at).kind;
    if (kind != graph::ValueKind::result && kind != graph::ValueKind::input) continue;
    if (!found.insert(at).second || kind == graph::ValueKind::input) continue;
    const std::vector<ValueId>& inputs = maker(net, at).inputs;
    open.insert(open.end(), inputs.begin(), inputs.end());
  }
  return found;
}

/// What a residual add gives without its branch; kNone if the node is none.
ValueId shortcut_of(const Network& net, const Node& n) {
  if (n.op != &kAdd) return kNone;
  const ValueId a = n.inputs[0], b = n.inputs[1];
  if (net.value(a).shape != net.value(b).shape) return kNone;
  const std::set<ValueId> of_a = sources(net, a), of_b = sources(net, b);
  const auto own = [](const std::set<ValueId>& from, const std::set<ValueId>& other) {
    std::set<ValueId> only;
    std::set_difference(from.begin(), from.end(), other.begin(), other.end(), std::inserter(only, only.end()));
    return only;
  };
  const std::set<ValueId> own_a = own(of_a, of_b), own_b = own(of_b, of_a);
  if (own_a.size() == own_b.size() || own_a.size() == of_a.size()) return kNone;  // no branch; nothing in common
  const bool a_is_branch = own_a.size() > own_b.size();
  for (const detail::Layer& l : detail::layers_of(net))
    if ((a_is_branch ? own_a : own_b).count(l.out)) return a_is_branch ? b : a;
  return kNone;
}

std::vector<std::string> all_places(const Network& net) {
  std::vector<std::string> places = pools(net), blocks = residual_blocks(net);
  places.insert(places.end(), blocks.begin(), blocks.end());
  return places;
}

std::vector<PlaceScores> scores_of(Network& net, const char* who, const std::vector<std::string>& places,
                                   const Pass& data) {
  const std::vector<std::string> known = all_places(net);
  std::vector<ValueId> watched;
  std::vector<int64_t> dims;
  std::vector<PlaceScores> scores;
  for (const std::string& place : places) {
    const Node& n = net.nodes()[place_of(net, who, place, known, "pool or residual block")];
    watched.push_back(n.outputs[0]);
    dims.push_back(detail::channel_dim(net, n));
    const graph::Dim& channels = net.value(n.outputs[0]).shape[static_cast<size_t>(dims.back())];
    HONE_CHECK(channels.per_batch == 0, GraphError, who, ": the channels of '", place, "' grow with the batch");
    scores.push_back({place, std::vector<double>(static_cast<size_t>(channels.fixed), 0)});
  }
  double samples = 0;
  detail::observe(net, who, data, watched, detail::Watch::gradients, [&](const detail::Observed& o) {
    samples += o.samples;
    for (size_t i = 0; i < watched.size(); ++i) {
      if (!o.gradients[i].defined()) continue;
      const std::vector<double> sums = detail::sums_along(abs(o.gradients[i]), dims[i]);
      const double positions = static_cast<double>(o.gradients[i].numel()) / static_cast<double>(sums.size());
      for (size_t c = 0; c < sums.size(); ++c) scores[i].channels[c] += o.samples * sums[c] / positions;
    }
  });
  for (PlaceScores& s : scores)
    for (size_t c = 0; c < s.channels.size(); ++c) {
      s.channels[c] /= samples;
      HONE_CHECK(std::isfinite(s.channels[c]), NumericError, who, ": the score of channel ", c, " of '", s.place,
                 "' is ", s.channels[c]);
    }
  return scores;
}

/// Channels of places that can only go together.
struct Tied {
  double scores = 0;                   // the sum of theirs
  std::map<size_t, int64_t> channels;  // how many each place has
  double mean() const {
    int64_t n = 0;
    for (const auto& [place, count] : channels) n += count;
    return scores / static_cast<double>(n);
  }
};

}  // namespace

std::vector<std::string> pools(const Network& net) {
  std::vector<std::string> places;
  for (const Node& n : net.nodes())
    if (detail::is_pool(n.op)) places.push_back(n.name);
  return places;
}

std::vector<std::string> residual_blocks(const Network& net) {
  std::vector<std::string> places;
  for (const Node& n : net.nodes())
    if (shortcut_of(net, n) != kNone) places.push_back(n.name);
  return places;
}

double PlaceScores::mean() const {
  return std::accumulate(channels.begin(), channels.end(), 0.0) / static_cast<double>(channels.size());
}

std::vector<PlaceScores> place_scores(Network& net, const std::vector<std::string>& places, const Pass& data) {
  return scores_of(net, "place_scores", places, data);
}

std::vector<Shrink> zero_channels(Network& net, std::string_view place, const std::vector<int64_t>& channels) {
  place_of(net, "zero_channels", place, all_places(net), "pool or residual block");
  const detail::Coupling coupling = detail::couple(net);
  detail::Removal removed(coupling.size(), false);
  detail::mark(net, coupling, "zero_channels", place, channels, removed);
  return detail::edit_whole(net, [&](Network& n) { return detail::shrink(n, coupling, removed); });
}

ZeroReport zero_channels(Network& net, const ZeroOptions& options) {
  constexpr const char* who = "zero_channels";
  HONE_CHECK(options.ratio > 0 && options.ratio < 1, ValueError, who, ": ratio must be in (0, 1), is ", options.ratio);
  const std::vector<std::string> places = options.places.empty() ? pools(net) : options.places;
  HONE_CHECK(!places.empty(), GraphError, who, ": the network has no pool");
  const std::vector<PlaceScores> scores = scores_of(net, who, places, options.data);
  const detail::Coupling coupling = detail::couple(net);
  const auto classes_of = [&](const std::string& place) -> const std::vector<int32_t>& {
    const Node& n = net.nodes()[net.find_node(place)];
    return coupling.at(n.outputs[0], detail::channel_dim(net, n));
  };

  std::map<int32_t, Tied> tied;
  std::vector<int32_t> order;   // of classes that can go, as places have them first
  std::vector<int64_t> may_go;  // [place]
  for (size_t p = 0; p < places.size(); ++p) {
    const std::vector<int32_t>& classes = classes_of(places[p]);
    const auto n = static_cast<int64_t>(classes.size());
    may_go.push_back(std::llround(options.ratio * static_cast<double>(n)));
    HONE_CHECK(may_go[p] < n, ValueError, who, ": all ", n, " channels of '", places[p],
               "' would go; at least one must stay");
    int64_t free = 0;
    std::string why;
    for (size_t c = 0; c < classes.size(); ++c) {
      const int32_t of = classes[c];
      if (const std::string& blocked = coupling.blocked[static_cast<size_t>(of)]; !blocked.empty()) {
        why = blocked;
        continue;
      }
      ++free;
      const auto [at, fresh] = tied.try_emplace(of);
      if (fresh) order.push_back(of);
      at->second.scores += scores[p].channels[c];
      ++at->second.channels[p];
    }
    HONE_CHECK(free >= may_go[p], GraphError, who, ": ", may_go[p], " channels of '", places[p], "' cannot go: ", why);
  }
  std::stable_sort(order.begin(), order.end(),
                   [&](int32_t a, int32_t b) { return tied.at(a).mean() < tied.at(b).mean(); });
  detail::Removal removed(coupling.size(), false);
  const detail::Limits limits(coupling);
  std::vector<int64_t> left = limits.sizes();
  for (const int32_t c : order) {
    const auto& channels = tied.at(c).channels;
    if (std::any_of(channels.begin(), channels.end(), [&](const auto& of) { return of.second > may_go[of.first]; }) ||
        limits.limit_of(c, left))
      continue;
    limits.take(c, left);
    for (const auto& [place, count] : channels) may_go[place] -= count;
    removed[static_cast<size_t>(c)] = true;
  }

  ZeroReport report;
  for (const std::string& place : places) {
    const std::vector<int32_t>& classes = classes_of(place);
    LayerChannels& of_place = report.zeroed.emplace_back(LayerChannels{place, {}});
    for (size_t c = 0; c < classes.size(); ++c)
      if (removed[static_cast<size_t>(classes[c])]) of_place.channels.push_back(static_cast<int64_t>(c));
  }
  report.shrinks = detail::edit_whole(net, [&](Network& n) { return detail::shrink(n, coupling, removed); });
  return report;
}

void remove_pool(Network& net, std::string_view place) {
  const size_t pool = place_of(net, "remove_pool", place, pools(net), "pool");
  edit_graph(net, "remove_pool", place, [&](Network& n) { drop_pool(n, pool); });
}

void to_strided_conv(Network& net, std::string_view place) {
  constexpr const char* who = "to_strided_conv";
  const size_t pool = place_of(net, who, place, pools(net), "pool");
  const Node& node = net.nodes()[pool];
  const auto& attributes = node.attributes.as<PoolAttrs>();
  HONE_CHECK(!attributes.adaptive && (node.op == &kMaxPool2d || node.op == &kAvgPool2d), GraphError, who, ": '", place,
             "' (op ", node.op->name, ") has no stride");

  // Up to the convolution, through what keeps each position to itself.
  const auto uses = net.uses();
  ValueId v = node.inputs[0];
  for (;; v = maker(net, v).inputs[0]) {
    HONE_CHECK(net.value(v).kind == graph::ValueKind::result, GraphError, who, ": '", place, "' is fed by '",
               net.value(v).name, "', not by a convolution");
    const bool is_output = std::find(net.outputs().begin(), net.outputs().end(), v) != net.outputs().end();
    const auto& readers = uses[static_cast<size_t>(v)];
    HONE_CHECK(readers.size() == 1 && !is_output, GraphError, who, ": '", net.value(v).name,
               is_output ? "' is an output of the network too"
                         : "' is read by '" + net.nodes()[static_cast<size_t>(readers.back())].name + "' too");
    const Node& n = maker(net, v);
    if (n.op == &kConv2d) break;
    const auto is_per_channel = [&](ValueId x) {  // the same at every position
      if (x == kNone) return true;
      const graph::Dims& shape = net.value(x).shape;
      return std::all_of(shape.end() - static_cast<std::ptrdiff_t>(std::min<size_t>(2, shape.size())), shape.end(),
                         [](const graph::Dim& d) {
                           return d == graph::Dim{1, 0};
                         });
    };
    const bool passes =
        n.op == &kBatchNorm || (detail::is_elementwise(n.op) && net.value(n.inputs[0]).shape == net.value(v).shape &&
                                std::all_of(n.inputs.begin() + 1, n.inputs.end(), is_per_channel));
    HONE_CHECK(passes, GraphError, who, ": op ", n.op->name, " ('", n.name, "') stands between '", place,
               "' and a convolution");
  }
  const auto conv = static_cast<size_t>(net.value(v).index);
  const ValueId input = node.inputs[0];
  const graph::Dims wanted = net.value(node.outputs[0]).shape;
  const int64_t stride_h = attributes.stride_h, stride_w = attributes.stride_w;
  edit_graph(net, who, place, [&](Network& n) {
    const auto stride = [&](graph::Attributes& a) {
      ConvAttrs c = a.as<ConvAttrs>();
      c.stride_h *= stride_h, c.stride_w *= stride_w;
      a.fixed = c;
    };
    Node& c = n.node(conv);
    stride(c.attributes);
    if (c.train) stride(*c.train);
    const std::string reads = n.value(input).name;
    drop_pool(n, pool);
    n.refresh();
    const graph::Dims& got = n.value(n.find(reads)).shape;
    HONE_CHECK(got == wanted, GraphError, "the stride of '", n.nodes()[conv].name, "' would make it ", to_string(got),
               ", the pool makes ", to_string(wanted));
  });
}

void remove_block(Network& net, std::string_view place) {
  constexpr const char* who = "remove_block";
  const size_t add = place_of(net, who, place, residual_blocks(net), "residual block");
  const ValueId shortcut = shortcut_of(net, net.nodes()[add]);
  edit_graph(net, who, place, [&](Network& n) {
    n.replace_uses(n.nodes()[add].outputs[0], shortcut);
    n.remove_dead();
  });
}

}  // namespace hone::compress
