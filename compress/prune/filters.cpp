#include "hone/compress/prune/filters.h"

#include <algorithm>
#include <cmath>
#include <functional>
#include <numeric>

#include "hone/compress/prune/scores.h"
#include "hone/core/text_table.h"

namespace hone::compress {
namespace {

using detail::Coupling;
using detail::Group;
using detail::Removal;
using graph::Network;
using graph::ValueId;

constexpr const char* kWho = "prune_filters";

bool is_named(const std::string& layer, const std::string& name) {
  return layer == name || layer.starts_with(name + ".");
}
bool has(const Network& net, const Group& g, const std::string& name) {
  const std::vector<std::string> layers = names_of(net, g);
  return std::any_of(layers.begin(), layers.end(), [&](const std::string& l) { return is_named(l, name); });
}
bool blocked(const Coupling& coupling, int32_t c) { return !coupling.blocked[static_cast<size_t>(c)].empty(); }
int64_t prunable(const Coupling& coupling, const Group& g) {
  return std::count_if(g.classes.begin(), g.classes.end(), [&](int32_t c) { return !blocked(coupling, c); });
}
const std::string& why_blocked(const Coupling& coupling, const Group& g) {
  for (const int32_t c : g.classes)
    if (blocked(coupling, c)) return coupling.blocked[static_cast<size_t>(c)];
  HONE_ASSERT(false);
  return coupling.blocked[0];
}

void check(const FilterOptions& o) {
  HONE_CHECK(o.ratio >= 0 && o.ratio < 1, ValueError, kWho, ": ratio must be in [0, 1), is ", o.ratio);
  HONE_CHECK(o.macs >= 0 && o.macs < 1, ValueError, kWho, ": macs must be in (0, 1), is ", o.macs);
  HONE_CHECK(o.ratio == 0 || o.macs == 0, ValueError, kWho, ": ratio ", o.ratio, " and macs ", o.macs,
             " are two aims; give one");
  HONE_CHECK(o.ratio > 0 || o.macs > 0 || !o.keep.empty(), ValueError, kWho,
             ": nothing is aimed at; give ratio, macs or keep");
  HONE_CHECK(o.round_to >= 1 && o.min_channels >= 1, ValueError, kWho,
             ": round_to and min_channels must be at least 1, are ", o.round_to, " and ", o.min_channels);
  for (const auto& [layer, n] : o.keep)
    HONE_CHECK(n >= 1, ValueError, kWho, ": '", layer, "' must keep at least one channel, not ", n);
}

/// The groups that the options mean, which can lose channels.
std::vector<Group> chosen(const Network& net, const Coupling& coupling, const FilterOptions& o) {
  std::vector<Group> all = groups_of(net, coupling), groups;
  std::vector<std::string> named = o.only;
  for (const auto& [layer, n] : o.keep) named.push_back(layer);
  const auto known = [&](const std::string& name) {
    if (std::any_of(all.begin(), all.end(), [&](const Group& g) { return has(net, g, name); })) return;
    throw GraphError(str(kWho, ": '", net.nodes()[net.find_node(name)].name, "' makes no channels of its own"));
  };
  std::for_each(named.begin(), named.end(), known);
  std::for_each(o.except.begin(), o.except.end(), known);
  const auto any_of = [&](const Group& g, const std::vector<std::string>& names) {
    return std::any_of(names.begin(), names.end(), [&](const std::string& n) { return has(net, g, n); });
  };
  for (Group& g : all) {
    const bool is_meant = any_of(g, named);
    if ((!o.only.empty() && !is_meant) || any_of(g, o.except)) continue;
    if (prunable(coupling, g) > 0) {
      groups.push_back(std::move(g));
      continue;
    }
    HONE_CHECK(!is_meant, GraphError, kWho, ": no channel of '", detail::joined(names_of(net, g)),
               "' can go: ", why_blocked(coupling, g));
  }
  HONE_CHECK(!groups.empty(), GraphError, kWho, ": no channel of the network can go");
  return groups;
}

/// A channel that may go, and its place in the order in which they go: lower first.
struct Candidate {
  int32_t cls;
  double key;
};

class Selection {
 public:
  Selection(const Network& net, const Coupling& coupling, const std::vector<Group>& groups,
            const std::vector<double>& scores, const FilterOptions& options)
      : net_(net), coupling_(coupling), groups_(groups), options_(options), kept_by_name_(coupling.size(), false) {
    find_axes();
    for (const Group& g : groups) rank(g, scores);
    std::stable_sort(candidates_.begin(), candidates_.end(),
                     [](const Candidate& a, const Candidate& b) { return a.key < b.key; });
  }

  /// Without the first n candidates, but for those that a limit holds back.
  Removal removal(size_t n) const {
    Removal removed(coupling_.size(), false);
    std::vector<int64_t> left = sizes_;
    const auto take = [&](int32_t c) {
      const auto& uses = axes_of_[static_cast<size_t>(c)];
      if (std::any_of(uses.begin(), uses.end(), [&](const Use& u) { return left[u.axis] - u.count < limits_[u.axis]; }))
        return;
      for (const Use& u : uses) left[u.axis] -= u.count;
      removed[static_cast<size_t>(c)] = true;
    };
    std::for_each(by_name_.begin(), by_name_.end(), take);
    for (size_t i = 0; i < n; ++i) take(candidates_[i].cls);
    for (const Group& g : groups_) round(g, removed);
    return removed;
  }
  size_t size() const { return candidates_.size(); }
  /// How many candidates a ratio means.
  size_t count(double ratio) const {
    if (options_.scope == FilterScope::global)
      return static_cast<size_t>(std::llround(ratio * static_cast<double>(candidates_.size())));
    return static_cast<size_t>(
        std::count_if(candidates_.begin(), candidates_.end(), [&](const Candidate& c) { return c.key <= ratio; }));
  }

 private:
  struct Use {
    size_t axis;
    int64_t count;
  };

  /// Each dim of each value, how many of its indices each class has, and how many must stay.
  void find_axes() {
    axes_of_.resize(coupling_.size());
    for (const auto& dims : coupling_.classes) {
      for (const std::vector<int32_t>& classes : dims) {
        const size_t axis = sizes_.size();
        sizes_.push_back(static_cast<int64_t>(classes.size()));
        limits_.push_back(1);
        for (const int32_t c : classes) {
          auto& uses = axes_of_[static_cast<size_t>(c)];
          if (uses.empty() || uses.back().axis != axis) uses.push_back({axis, 0});
          ++uses.back().count;
        }
      }
    }
    std::vector<size_t> first{0};
    for (const auto& dims : coupling_.classes) first.push_back(first.back() + dims.size());
    for (const Group& g : groups_)
      for (const detail::Layer& l : g.layers)
        limits_[first[static_cast<size_t>(l.out)] + static_cast<size_t>(l.out_dim)] = options_.min_channels;
  }

  /// Puts the group's channels among the candidates. Within a layer: by their rank as a share of the group, so that the
  /// same share of every group comes first.
  void rank(const Group& g, const std::vector<double>& scores) {
    std::vector<int32_t> order;
    for (const int32_t c : g.classes)
      if (!blocked(coupling_, c)) order.push_back(c);
    const auto score = [&](int32_t c) { return scores[static_cast<size_t>(c)]; };
    std::stable_sort(order.begin(), order.end(), [&](int32_t a, int32_t b) { return score(a) < score(b); });
    const auto total = static_cast<double>(g.classes.size());
    for (const auto& [layer, keep] : options_.keep) {
      if (!has(net_, g, layer)) continue;
      const auto n = static_cast<int64_t>(g.classes.size()), gone = n - keep;
      HONE_CHECK(keep <= n, ValueError, kWho, ": '", layer, "' cannot keep ", keep, " channels: it has ", n);
      HONE_CHECK(gone <= static_cast<int64_t>(order.size()), GraphError, kWho, ": '", layer, "' must keep ",
                 n - static_cast<int64_t>(order.size()), " channels: ", why_blocked(coupling_, g));
      by_name_.insert(by_name_.end(), order.begin(), order.begin() + gone);
      for (const int32_t c : g.classes) kept_by_name_[static_cast<size_t>(c)] = true;
      return;
    }
    double mean = 0;
    for (const int32_t c : order) mean += score(c) / static_cast<double>(order.size());
    for (size_t i = 0; i < order.size(); ++i) {
      const double scale = options_.normalize && mean > 0 ? mean : 1;
      const double key =
          options_.scope == FilterScope::global ? score(order[i]) / scale : (static_cast<double>(i) + 0.5) / total;
      candidates_.push_back({order[i], key});
    }
  }

  /// Takes back what makes the group's count no multiple, the best first.
  void round(const Group& g, Removal& removed) const {
    if (options_.round_to == 1 || kept_by_name_[static_cast<size_t>(g.classes[0])]) return;
    auto kept =
        std::count_if(g.classes.begin(), g.classes.end(), [&](int32_t c) { return !removed[static_cast<size_t>(c)]; });
    for (auto c = candidates_.rbegin(); c != candidates_.rend() && kept % options_.round_to != 0; ++c) {
      if (!removed[static_cast<size_t>(c->cls)] ||
          std::find(g.classes.begin(), g.classes.end(), c->cls) == g.classes.end())
        continue;
      removed[static_cast<size_t>(c->cls)] = false;
      ++kept;
    }
  }

  const Network& net_;
  const Coupling& coupling_;
  const std::vector<Group>& groups_;
  const FilterOptions& options_;
  std::vector<Candidate> candidates_;
  std::vector<int32_t> by_name_;         // what FilterOptions::keep takes
  std::vector<bool> kept_by_name_;       // [class]: of a group of FilterOptions::keep
  std::vector<int64_t> sizes_, limits_;  // [axis]
  std::vector<std::vector<Use>> axes_of_;
};

int64_t macs_without(const Network& net, const Coupling& coupling, const Removal& removed) {
  Network trial = net;
  detail::shrink(trial, coupling, removed);
  return trial.macs();
}

/// The fewest candidates without which the network has no more than that share of its multiply-adds.
Removal for_macs(const Network& net, const Coupling& coupling, const Selection& selection, double share) {
  const auto whole = static_cast<double>(net.macs());
  const auto left = [&](size_t n) {
    return static_cast<double>(macs_without(net, coupling, selection.removal(n))) / whole;
  };
  size_t low = 0, high = selection.size();
  HONE_CHECK(whole > 0, ValueError, kWho, ": the network has no multiply-adds");
  const double least = left(high);
  HONE_CHECK(least <= share, ValueError, kWho, ": macs ", share, " cannot be reached: ", least,
             " of the multiply-adds would be left of the channels that can go");
  while (low < high) {
    const size_t middle = low + (high - low) / 2;
    if (left(middle) <= share)
      high = middle;
    else
      low = middle + 1;
  }
  return selection.removal(low);
}

}  // namespace

std::vector<GroupScores> filter_scores(Network& net, FilterCriterion criterion, const Pass& data) {
  const Coupling coupling = detail::couple(net);
  const std::vector<Group> groups = chosen(net, coupling, {});
  const std::vector<double> scores = detail::filter_scores(net, coupling, groups, criterion, data, "filter_scores");
  std::vector<GroupScores> result;
  for (const Group& g : groups) {
    GroupScores& r = result.emplace_back(GroupScores{names_of(net, g), {}});
    for (const int32_t c : g.classes) r.scores.push_back(scores[static_cast<size_t>(c)]);
  }
  return result;
}

std::string FilterReport::table() const {
  using hone::detail::grouped;
  std::vector<std::vector<std::string>> lines{{"layers", "kept", "of"}};
  for (const Group& g : groups) lines.push_back({detail::joined(g.layers), grouped(g.kept), grouped(g.total)});
  lines.push_back({"parameters", grouped(parameters_after), grouped(parameters_before)});
  lines.push_back({"multiply-adds", grouped(macs_after), grouped(macs_before)});
  return hone::detail::text_table(lines, 1);
}

FilterReport prune_filters(Network& net, const FilterOptions& options) {
  check(options);
  const Coupling coupling = detail::couple(net);
  const std::vector<Group> groups = chosen(net, coupling, options);
  const std::vector<double> scores =
      detail::filter_scores(net, coupling, groups, options.criterion, options.data, kWho);
  const Selection selection(net, coupling, groups, scores, options);
  const Removal removed = options.macs > 0 ? for_macs(net, coupling, selection, options.macs)
                                           : selection.removal(selection.count(options.ratio));
  FilterReport report;
  report.macs_before = net.macs();
  report.parameters_before = net.parameter_count();
  report.shrinks = detail::edit_whole(net, [&](Network& n) { return detail::shrink(n, coupling, removed); });
  report.macs_after = net.macs();
  report.parameters_after = net.parameter_count();
  for (const Group& g : groups) {
    const auto kept =
        std::count_if(g.classes.begin(), g.classes.end(), [&](int32_t c) { return !removed[static_cast<size_t>(c)]; });
    report.groups.push_back({names_of(net, g), kept, static_cast<int64_t>(g.classes.size())});
  }
  return report;
}

}  // namespace hone::compress
