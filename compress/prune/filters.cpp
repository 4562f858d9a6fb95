#include "hone/compress/prune/filters.h"

#include <algorithm>
#include <cmath>
#include <functional>
#include <map>
#include <numeric>

#include "hone/compress/prune/scores.h"
#include "hone/compress/prune/select.h"
#include "hone/core/text_table.h"

namespace hone::compress {
namespace {

using detail::Coupling;
using detail::Group;
using detail::is_named;
using detail::Removal;
using graph::Network;
using graph::ValueId;

constexpr const char* kWho = "prune_filters";

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
  HONE_CHECK(
      !all.empty(), GraphError, kWho,
      ": the network has no convolution or linear layer; packed ones are for inference: prune before optimize()");
  std::vector<std::string> named = o.only;
  for (const auto& [layer, n] : o.keep) named.push_back(layer);
  const auto known = [&](const std::string& name) {
    if (std::any_of(all.begin(), all.end(), [&](const Group& g) { return has(net, g, name); })) return;
    net.find_node(name);  // throws where there is none
    throw GraphError(str(kWho, ": '", name, "' makes no channels of its own"));
  };
  std::for_each(named.begin(), named.end(), known);
  std::for_each(o.except.begin(), o.except.end(), known);
  for (const Group& g : all)
    for (const auto& [layer, n] : o.keep)
      for (const std::string& e : o.except)
        HONE_CHECK(!has(net, g, layer) || !has(net, g, e), ValueError, kWho, ": keep '", layer, "' and except '", e,
                   "' contradict each other: they mean the same channels, of '", detail::joined(names_of(net, g)), "'");
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

/// A layer whose count FilterOptions::keep sets.
struct Kept {
  const detail::Layer* layer;
  int64_t count;
};

class Selection {
 public:
  Selection(const Network& net, const Coupling& coupling, const std::vector<Group>& groups,
            const std::vector<double>& scores, const FilterOptions& options)
      : net_(net),
        coupling_(coupling),
        groups_(groups),
        scores_(scores),
        options_(options),
        limits_(coupling),
        left_(limits_.sizes()),
        kept_by_(coupling.size(), nullptr),
        by_name_(coupling.size(), false),
        rank_(coupling.size(), kNoRank) {
    for (const Group& g : groups)
      for (const detail::Layer& l : g.layers) limits_.set(l, options.min_channels);
    find_kept();
    for (const Kept& k : kept_) keep(k);
    for (const Group& g : groups) rank(g);
    std::stable_sort(candidates_.begin(), candidates_.end(),
                     [](const Candidate& a, const Candidate& b) { return a.key < b.key; });
    for (size_t i = 0; i < candidates_.size(); ++i)
      rank_[static_cast<size_t>(candidates_[i].cls)] = static_cast<int64_t>(i);
  }

  /// Without the first n candidates, but for those that a limit holds back.
  Removal removal(size_t n) const {
    Removal removed = by_name_;
    std::vector<int64_t> left = left_;
    for (size_t i = 0; i < n; ++i)
      if (!limits_.limit_of(candidates_[i].cls, left)) take(candidates_[i].cls, removed, left);
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
  static constexpr int64_t kNoRank = -1;
  struct Open {  // a class of a layer that no other count decides about
    int32_t cls;
    int64_t count = 0;  // of the layer's channels
  };

  double score(int32_t c) const { return scores_[static_cast<size_t>(c)]; }
  const std::vector<int32_t>& classes_of(const detail::Layer& l) const { return coupling_.at(l.out, l.out_dim); }
  const std::string& name_of(const detail::Layer& l) const { return net_.nodes()[l.node].name; }

  void take(int32_t c, Removal& removed, std::vector<int64_t>& left) const {
    limits_.take(c, left);
    removed[static_cast<size_t>(c)] = true;
  }

  /// The group's layers, those of few channels first: what has the channels of several, of a concat, comes after them
  /// and does with what they leave open.
  std::vector<const detail::Layer*> by_width(const Group& g) const {
    std::vector<const detail::Layer*> layers;
    for (const detail::Layer& l : g.layers) layers.push_back(&l);
    std::stable_sort(layers.begin(), layers.end(), [&](const detail::Layer* a, const detail::Layer* b) {
      return classes_of(*a).size() < classes_of(*b).size();
    });
    return layers;
  }

  /// The layers that FilterOptions::keep means.
  void find_kept() {
    for (const Group& g : groups_)
      for (const detail::Layer* l : by_width(g))
        for (const auto& [layer, count] : options_.keep)
          if (is_named(name_of(*l), layer)) kept_.push_back({l, count});
  }

  /// Takes channels so that the layer keeps its count.
  void keep(const Kept& k) {
    const std::vector<int32_t>& classes = classes_of(*k.layer);
    const std::string& name = name_of(*k.layer);
    const auto n = static_cast<int64_t>(classes.size());
    HONE_CHECK(k.count <= n, ValueError, kWho, ": '", name, "' cannot keep ", k.count, " channels: it has ", n);
    HONE_CHECK(k.count >= std::min(n, options_.min_channels), ValueError, kWho, ": '", name, "' cannot keep ", k.count,
               " channels: min_channels is ", options_.min_channels);
    std::vector<Open> open;
    std::map<int32_t, size_t> place;
    int64_t wanted = n - k.count, most = 0;
    const Kept* other = nullptr;
    std::string why;
    for (const int32_t c : classes) {
      if (blocked(coupling_, c)) {
        why = coupling_.blocked[static_cast<size_t>(c)];
      } else if (kept_by_[static_cast<size_t>(c)]) {
        other = kept_by_[static_cast<size_t>(c)];
        wanted -= by_name_[static_cast<size_t>(c)];
      } else {
        const auto [at, fresh] = place.emplace(c, open.size());
        if (fresh) open.push_back({c});
        ++open[at->second].count;
        ++most;
      }
    }
    HONE_CHECK(!other || (wanted >= 0 && wanted <= most), ValueError, kWho, ": '", name, "' cannot keep ", k.count,
               " channels and '", name_of(*other->layer), "' ", other->count, ": they are tied");
    HONE_CHECK(wanted <= most, GraphError, kWho, ": '", name, "' must keep ", n - most, " channels: ", why);
    for (const Open& o : open) kept_by_[static_cast<size_t>(o.cls)] = &k;
    std::stable_sort(open.begin(), open.end(),
                     [&](const Open& a, const Open& b) { return score(a.cls) < score(b.cls); });
    take_lowest(k, open, wanted);
  }

  /// Takes as many channels of the layer as are wanted: the first of `open` that can be among them.
  void take_lowest(const Kept& k, const std::vector<Open>& open, int64_t wanted) {
    const std::string& name = name_of(*k.layer);
    // [i][m]: whether some of the classes from the i-th on have m channels.
    std::vector<std::vector<bool>> can_go(open.size() + 1, std::vector<bool>(static_cast<size_t>(wanted) + 1));
    can_go.back()[0] = true;
    for (size_t i = open.size(); i-- > 0;) {
      const auto count = static_cast<size_t>(open[i].count);
      for (size_t m = 0; m < can_go[i].size(); ++m)
        can_go[i][m] = can_go[i + 1][m] || (m >= count && can_go[i + 1][m - count]);
    }
    int64_t fewer = wanted, step = 0;
    while (!can_go[0][static_cast<size_t>(fewer)]) --fewer;
    for (const Open& o : open) step = std::gcd(step, o.count);
    HONE_CHECK(fewer == wanted, ValueError, kWho, ": '", name, "' cannot keep ", k.count, " of its ",
               classes_of(*k.layer).size(), " channels: they go in steps of ", step, ", and it can keep ",
               k.count + wanted - fewer);
    const detail::Limits::Axis* limit = nullptr;
    for (size_t i = 0; i < open.size(); ++i) {
      const auto& [cls, count] = open[i];
      if (count > wanted || !can_go[i + 1][static_cast<size_t>(wanted - count)]) continue;
      if (const detail::Limits::Axis* held = limits_.limit_of(cls, left_)) {
        limit = held;
        continue;
      }
      take(cls, by_name_, left_);
      wanted -= count;
    }
    HONE_CHECK(wanted == 0, ValueError, kWho, ": '", name, "' cannot keep ", k.count, " channels: dim ", limit->dim,
               " of '", net_.value(limit->value).name, "' keeps at least ", limit->least);
  }

  /// Puts the group's channels among the candidates. Within a layer: by their rank as a share of the group, so that the
  /// same share of every group comes first.
  void rank(const Group& g) {
    std::vector<int32_t> order;
    for (const int32_t c : g.classes)
      if (!blocked(coupling_, c)) order.push_back(c);
    std::stable_sort(order.begin(), order.end(), [&](int32_t a, int32_t b) { return score(a) < score(b); });
    double mean = 0;
    for (const int32_t c : order) mean += score(c) / static_cast<double>(order.size());
    const double scale = options_.normalize && mean > 0 ? mean : 1;
    const auto by_name = std::erase_if(order, [&](int32_t c) { return kept_by_[static_cast<size_t>(c)] != nullptr; });
    const auto total = static_cast<double>(g.classes.size() - by_name);
    for (size_t i = 0; i < order.size(); ++i) {
      const double key =
          options_.scope == FilterScope::global ? score(order[i]) / scale : (static_cast<double>(i) + 0.5) / total;
      candidates_.push_back({order[i], key});
    }
  }

  /// Takes back what makes the count of a layer no multiple, the best first, till that holds for all: a layer changes
  /// the counts of those that share its channels.
  void round(const Group& g, Removal& removed) const {
    if (options_.round_to == 1) return;
    for (bool changed = true; changed;) {
      changed = false;
      for (const detail::Layer* l : by_width(g)) changed = round(classes_of(*l), removed) || changed;
    }
  }
  bool round(const std::vector<int32_t>& classes, Removal& removed) const {
    if (std::any_of(classes.begin(), classes.end(), [&](int32_t c) { return kept_by_[static_cast<size_t>(c)]; }))
      return false;
    const auto goes = [&](int32_t c) { return removed[static_cast<size_t>(c)]; };
    const auto at = [&](int32_t c) { return goes(c) ? rank_[static_cast<size_t>(c)] : kNoRank; };
    for (bool changed = false;; changed = true) {
      const auto kept = static_cast<int64_t>(classes.size()) - std::count_if(classes.begin(), classes.end(), goes);
      const int32_t best =
          *std::max_element(classes.begin(), classes.end(), [&](int32_t a, int32_t b) { return at(a) < at(b); });
      if (kept % options_.round_to == 0 || at(best) == kNoRank) return changed;
      removed[static_cast<size_t>(best)] = false;
    }
  }

  const Network& net_;
  const Coupling& coupling_;
  const std::vector<Group>& groups_;
  const std::vector<double>& scores_;
  const FilterOptions& options_;
  detail::Limits limits_;
  std::vector<int64_t> left_;  // [axis]: what the counts of names leave
  std::vector<Kept> kept_;
  std::vector<const Kept*> kept_by_;   // [class]: which of them decides whether it goes; null: its rank does
  Removal by_name_;                    // what they take
  std::vector<Candidate> candidates_;  // in the order in which they go
  std::vector<int64_t> rank_;          // [class]: among them
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
    FilterReport::Group& of = report.groups.emplace_back(FilterReport::Group{names_of(net, g)});
    for (const detail::Layer& l : g.layers) {
      const std::vector<int32_t>& classes = coupling.at(l.out, l.out_dim);
      if (static_cast<int64_t>(classes.size()) <= of.total) continue;
      of.total = static_cast<int64_t>(classes.size());
      of.kept =
          std::count_if(classes.begin(), classes.end(), [&](int32_t c) { return !removed[static_cast<size_t>(c)]; });
    }
  }
  return report;
}

}  // namespace hone::compress
