#include "hone/compress/prune/coupling.h"

#include <algorithm>
#include <map>
#include <numeric>
#include <set>

#include "hone/compress/prune/fields.h"
#include "hone/core/basic_ops.h"
#include "hone/ops/arithmetic.h"
#include "hone/ops/conv.h"
#include "hone/ops/dropout.h"
#include "hone/ops/fused.h"
#include "hone/ops/matmul.h"
#include "hone/ops/norm.h"
#include "hone/ops/pool.h"
#include "hone/ops/reduce.h"
#include "hone/ops/shape_ops.h"
#include "hone/ops/softmax.h"
#include "hone/ops/unary.h"

namespace hone::compress::detail {
namespace {

using graph::kNone;
using graph::Network;
using graph::Node;
using graph::ValueId;

// Ops that make element i of their result of elements i of their inputs alone, broadcast.
constexpr const OpDef* kElementwise[] = {
    &kAlias,    &kCast,       &kAccumulate, &kMasked,     &kAdd,     &kSub, &kMul,  &kDiv,       &kPow,
    &kMaximum,  &kMinimum,    &kNeg,        &kEq,         &kNe,      &kLt,  &kLe,   &kGt,        &kGe,
    &kWhere,    &kLogicalAnd, &kLogicalOr,  &kLogicalNot, &kDropout, &kAbs, &kSign, &kExp,       &kLog,
    &kSqrt,     &kRsqrt,      &kSquare,     &kTanh,       &kSigmoid, &kErf, &kRelu, &kLeakyRelu, &kGelu,
    &kGeluTanh, &kSilu,       &kClamp,      &kRound,      &kFloor,   &kCeil};
constexpr const OpDef* kPools[] = {&kMaxPool2d, &kAdaptiveMaxPool2d, &kAvgPool2d, &kAdaptiveAvgPool2d};
constexpr const OpDef* kReductions[] = {&kSum, &kMean, &kVar, &kLogsumexp, &kMax, &kMin, &kArgmax, &kArgmin};
constexpr const OpDef* kReshapes[] = {&kReshape, &kFlatten, &kSqueeze, &kUnsqueeze};

template <size_t N> bool is_one_of(const OpDef* op, const OpDef* const (&list)[N]) {
  return std::find(std::begin(list), std::end(list), op) != std::end(list);
}

/// Where a reshape cuts one dim into several, one of these can lose indices: which, by node and first dim.
using Split = std::pair<size_t, int>;
using Choices = std::map<Split, size_t>;

/// A union-find over all places (value, dim, index). Each op's rule unites places that go together and locks those that
/// cannot go. Nodes are in the order of the network, so what comes in is settled as far as earlier nodes settle it.
class Rules {
 public:
  Rules(const Network& net, const Choices& choices) : net_(net), choices_(choices), uses_(net.uses()) {
    int32_t next = 0;
    for (const graph::Value& v : net.values()) {
      std::vector<int32_t>& first = first_.emplace_back();
      for (const graph::Dim& d : v.shape) {
        first.push_back(d.per_batch == 0 ? next : -1);
        if (d.per_batch == 0) next += static_cast<int32_t>(d.fixed);
      }
    }
    parent_.resize(static_cast<size_t>(next));
    std::iota(parent_.begin(), parent_.end(), 0);
    why_.assign(parent_.size(), -1);
    for (const ValueId v : net.inputs()) lock_all(v, str("'", net.value(v).name, "' is an input of the network"));
    for (node_ = 0; node_ < net.nodes().size(); ++node_) apply(net.nodes()[node_]);
    for (const ValueId v : net.outputs()) lock_all(v, str("'", net.value(v).name, "' is an output of the network"));
    lock_what_would_leave_nothing();
  }

  /// The first split whose chosen dim can lose nothing while others were not tried; nothing left to try: none.
  std::optional<Split> to_revise(const std::set<Split>& settled) {
    for (const auto& [split, dim] : splits_)
      if (!settled.count(split) && all_locked(dim.first, dim.second)) return split;
    return std::nullopt;
  }
  size_t candidates(const Split& split) const { return candidates_.at(split); }

  Coupling result() {
    Coupling c;
    std::vector<int32_t> number(parent_.size(), -1);
    for (size_t v = 0; v < first_.size(); ++v) {
      auto& dims = c.classes.emplace_back(first_[v].size());
      for (size_t d = 0; d < dims.size(); ++d) {
        if (first_[v][d] < 0) continue;
        for (int64_t i = 0; i < size(static_cast<ValueId>(v), static_cast<int>(d)); ++i) {
          const auto root = static_cast<size_t>(find(first_[v][d] + static_cast<int32_t>(i)));
          if (number[root] < 0) {
            number[root] = static_cast<int32_t>(c.blocked.size());
            c.blocked.push_back(why_[root] < 0 ? std::string() : reasons_[static_cast<size_t>(why_[root])]);
          }
          dims[d].push_back(number[root]);
        }
      }
    }
    return c;
  }

 private:
  // ---- places ----
  int ndim(ValueId v) const { return static_cast<int>(net_.value(v).shape.size()); }
  const graph::Dim& dim(ValueId v, int d) const { return net_.value(v).shape[static_cast<size_t>(d)]; }
  int64_t size(ValueId v, int d) const { return dim(v, d).fixed; }
  bool grows(ValueId v, int d) const { return dim(v, d).per_batch != 0; }
  int32_t place(ValueId v, int d, int64_t i) const {
    return first_[static_cast<size_t>(v)][static_cast<size_t>(d)] + static_cast<int32_t>(i);
  }
  int32_t find(int32_t p) {
    while (parent_[static_cast<size_t>(p)] != p) {
      int32_t& up = parent_[static_cast<size_t>(p)];
      up = parent_[static_cast<size_t>(up)];
      p = up;
    }
    return p;
  }
  bool locked(int32_t p) { return why_[static_cast<size_t>(find(p))] >= 0; }
  bool all_locked(ValueId v, int d) {
    if (grows(v, d)) return true;
    for (int64_t i = 0; i < size(v, d); ++i)
      if (!locked(place(v, d, i))) return false;
    return true;
  }

  void unite(int32_t p, int32_t q) {
    p = find(p), q = find(q);
    if (p == q) return;
    if (q < p) std::swap(p, q);
    parent_[static_cast<size_t>(q)] = p;
    int32_t &why = why_[static_cast<size_t>(p)], other = why_[static_cast<size_t>(q)];
    if (why < 0 || (other >= 0 && other < why)) why = other;  // the reason found first
  }
  void unite(ValueId v, int d, ValueId w, int e) {
    if (!grows(v, d) && !grows(w, e) && size(v, d) == size(w, e)) {
      for (int64_t i = 0; i < size(v, d); ++i) unite(place(v, d, i), place(w, e, i));
    } else if (!grows(v, d) || !grows(w, e)) {
      lock(v, d, "relates it to the batch");
      lock(w, e, "relates it to the batch");
    }
  }
  void lock(int32_t p, int32_t reason) {
    int32_t& why = why_[static_cast<size_t>(find(p))];
    if (why < 0) why = reason;
  }
  void lock_by(ValueId v, int d, std::string reason) {
    if (grows(v, d)) return;
    reasons_.push_back(std::move(reason));
    for (int64_t i = 0; i < size(v, d); ++i) lock(place(v, d, i), static_cast<int32_t>(reasons_.size()) - 1);
  }
  std::string reason(ValueId v, int d, const char* why) const {
    const Node& n = net_.nodes()[node_];
    return str("op ", n.op->name, " ('", n.name, "') ", why, ": dim ", d, " of '", net_.value(v).name, "'");
  }
  void lock(ValueId v, int d, const char* why) { lock_by(v, d, reason(v, d, why)); }
  void lock_all(ValueId v, const std::string& why) {
    for (int d = 0; d < ndim(v); ++d) lock_by(v, d, why);
  }

  void lock_what_would_leave_nothing() {
    for (size_t v = 0; v < first_.size(); ++v) {
      const auto id = static_cast<ValueId>(v);
      for (int d = 0; d < ndim(id); ++d) {
        if (grows(id, d) || size(id, d) == 0) continue;
        const int32_t root = find(place(id, d, 0));
        bool whole = why_[static_cast<size_t>(root)] < 0;
        for (int64_t i = 1; whole && i < size(id, d); ++i) whole = find(place(id, d, i)) == root;
        if (whole) lock_by(id, d, str("nothing would be left of dim ", d, " of '", net_.value(id).name, "'"));
      }
    }
  }

  // ---- ops ----
  void apply(const Node& n) {
    const ValueId x = n.inputs.empty() ? kNone : n.inputs[0], y = n.outputs.empty() ? kNone : n.outputs[0];
    const OpDef* op = n.op;
    if (y != kNone && is_elementwise(op)) return broadcast(n);
    if (x == kNone || y == kNone) return unknown(n);
    if (is_pool(op)) return pool(n);
    if (is_one_of(op, kReductions)) return reduce(n);
    if (is_one_of(op, kReshapes)) return reshape(x, y);
    if (op == &kConv2d || op == &kConv2dFused) return convolution(n, x, y);
    if (op == &kConv2dInputGrad) return convolution(n, y, x);  // a transposed convolution
    if (op == &kLinear || op == &kLinearFused) return linear(n);
    if (op == &kMatmul) return matmul(x, n.inputs[1], y);
    if (op == &kBatchNorm) return batch_norm(n);
    if (op == &kLayerNorm) return layer_norm(n);
    if (op == &kSoftmax || op == &kLogSoftmax) {
      broadcast(n);
      return lock(x, wrapped("dim", ndim(x)), "normalizes over it");
    }
    if (op == &kPermute) return permute(x, y);
    if (op == &kSlice) return slice(x, y);
    if (op == &kSelect) return select(x, y);
    if (op == &kConcat) return concat(n);
    if (op == &kPad) return pad(x, y);
    if (op == &kExpand) return broadcast(n);
    if (op == &kFlip) return flip(x, y);
    unknown(n);
  }
  const Attrs& attrs() const { return net_.nodes()[node_].attributes.fixed; }
  int wrapped(const char* name, int ndim) const {
    return static_cast<int>(wrap_dim("coupling", field<int64_t>(attrs(), name), std::max(ndim, 1)));
  }

  void unknown(const Node& n) {
    const auto lock_each = [&](const std::vector<ValueId>& values, const char* does) {
      for (const ValueId v : values)
        if (v != kNone)
          lock_all(v, str("op ", n.op->name, " ('", n.name, "') ", does, " '", net_.value(v).name,
                          std::string_view(n.op->name).starts_with("panel_")
                              ? "' of packed weights: prune before optimize(), or give it {.pack = false}"
                              : "', and what it does with channels is not known"));
    };
    lock_each(n.inputs, "reads");
    lock_each(n.outputs, "makes");
  }

  void broadcast(const Node& n) {
    const ValueId y = n.outputs[0];
    for (const ValueId x : n.inputs) {
      if (x == kNone) continue;
      const int lead = ndim(y) - ndim(x);
      for (int d = 0; d < ndim(x); ++d)
        if (dim(x, d) == dim(y, d + lead)) unite(x, d, y, d + lead);  // else its size is 1
    }
  }

  /// Channels c of the side [N, C, …] and o of [N, O, …], of a weight [O, C/groups, KH, KW].
  void convolution(const Node& n, ValueId c, ValueId o) {
    const ValueId w = n.inputs[1];
    if (n.inputs.size() > 2 && n.inputs[2] != kNone) unite(n.inputs[2], 0, o, 1);
    unite(c, 0, o, 0);
    unite(w, 0, o, 1);
    const int64_t groups = field<int64_t>(attrs(), "groups"), in = size(w, 1), out = size(w, 0) / groups;
    if (groups == 1) {
      unite(w, 1, c, 1);
    } else if (in == 1 || out == 1) {  // a group goes as a whole: depthwise convolutions
      for (int64_t g = 0; g < groups; ++g) {
        for (int64_t i = 0; i < in; ++i) unite(place(c, 1, g * in + i), place(o, 1, g * out));
        for (int64_t i = 1; i < out; ++i) unite(place(o, 1, g * out + i), place(o, 1, g * out));
      }
      lock(w, 1, "has it in each group");
    } else {  // one channel of each group goes: the weight's dim 1 is shared by all groups
      for (int64_t g = 0; g < groups; ++g) {
        for (int64_t i = 0; i < in; ++i) unite(place(c, 1, g * in + i), place(w, 1, i));
        for (int64_t i = 0; i < out; ++i) unite(place(o, 1, g * out + i), place(o, 1, i));
      }
    }
    for (int d = 2; d < 4; ++d)
      lock(c, d, "slides over it"), lock(o, d, "slides over it"), lock(w, d, "slides over it");
  }

  void linear(const Node& n) {
    const ValueId x = n.inputs[0], w = n.inputs[1], y = n.outputs[0];
    const int last = ndim(x) - 1;
    unite(x, last, w, 1);
    unite(w, 0, y, last);
    if (n.inputs.size() > 2 && n.inputs[2] != kNone) unite(n.inputs[2], 0, y, last);
    for (int d = 0; d < last; ++d) unite(x, d, y, d);
  }

  void matmul(ValueId a, ValueId b, ValueId y) {
    const bool row = ndim(a) == 1, column = ndim(b) == 1;
    unite(a, ndim(a) - 1, b, column ? 0 : ndim(b) - 2);
    int last = ndim(y) - 1;
    if (!column) unite(b, ndim(b) - 1, y, last--);
    if (!row) unite(a, ndim(a) - 2, y, last--);
    for (const auto& [x, taken] : {std::pair(a, row ? 1 : 2), std::pair(b, column ? 1 : 2)}) {
      for (int d = ndim(x) - taken - 1, e = last; d >= 0; --d, --e)
        if (dim(x, d) == dim(y, e)) unite(x, d, y, e);
    }
  }

  void batch_norm(const Node& n) {
    const ValueId x = n.inputs[0];
    for (size_t i = 1; i < n.inputs.size(); ++i)
      if (n.inputs[i] != kNone) unite(n.inputs[i], 0, x, 1);
    for (int d = 0; d < ndim(x); ++d) unite(x, d, n.outputs[0], d);
    unite(n.outputs[1], 1, x, 1);
    lock(n.outputs[1], 0, "makes it");
  }

  void layer_norm(const Node& n) {
    const ValueId x = n.inputs[0];
    const int lead = ndim(x) - static_cast<int>(n.attributes.as<LayerNormAttrs>().dims);
    for (int d = 0; d < ndim(x); ++d) unite(x, d, n.outputs[0], d);
    for (int d = lead; d < ndim(x); ++d) {
      lock(x, d, "normalizes over it");
      for (size_t i = 1; i < n.inputs.size(); ++i)
        if (n.inputs[i] != kNone) unite(n.inputs[i], d - lead, x, d);
    }
    for (int d = 0; d < ndim(n.outputs[1]); ++d) lock(n.outputs[1], d, "makes it");
    // The statistics of each row stand in one dim of all rows, whose places are not followed.
    if (is_unread_aux(net_, uses_, n.outputs[1])) return;
    for (int d = 0; d < lead; ++d) lock(x, d, "makes statistics, which are read, for each index of it");
  }

  void pool(const Node& n) {
    const ValueId x = n.inputs[0];
    for (const ValueId y : n.outputs) {  // values, and indices
      for (int d = 0; d < 2; ++d) unite(x, d, y, d);
      for (int d = 2; d < 4; ++d) lock(y, d, "slides over it");
    }
    for (int d = 2; d < 4; ++d) lock(x, d, "slides over it");
  }

  /// A sum loses a term of 0 without a change; all others would give another result.
  void reduce(const Node& n) {
    const ValueId x = n.inputs[0];
    const uint32_t mask = dim_mask("coupling", field<Shape>(attrs(), "dims"), ndim(x));
    const bool keepdim = field<bool>(attrs(), "keepdim");
    for (int d = 0, e = 0; d < ndim(x); ++d) {
      if (!(mask >> d & 1)) {
        for (const ValueId y : n.outputs) unite(x, d, y, e);
        ++e;
        continue;
      }
      if (n.op != &kSum) lock(x, d, "reduces it");
      if (keepdim) ++e;
    }
  }

  // ---- shapes ----
  void permute(ValueId x, ValueId y) {
    const Shape dims = field<Shape>(attrs(), "dims");
    for (int i = 0; i < dims.ndim(); ++i) unite(x, static_cast<int>(wrap_dim("coupling", dims[i], ndim(x))), y, i);
  }
  void unite_others(ValueId x, ValueId y, int but) {
    for (int d = 0; d < ndim(x); ++d)
      if (d != but) unite(x, d, y, d);
  }
  void slice(ValueId x, ValueId y) {
    const int d = wrapped("dim", ndim(x));
    unite_others(x, y, d);
    if (grows(x, d) || grows(y, d) || field<int64_t>(attrs(), "step") != 1) {
      lock(x, d, "takes a part of it");
      return lock(y, d, "takes a part of it");
    }
    const int64_t n = size(x, d), start = field<int64_t>(attrs(), "start");
    const int64_t from = std::clamp<int64_t>(start < 0 ? start + n : start, 0, n);
    for (int64_t i = 0; i < size(y, d); ++i) unite(place(x, d, from + i), place(y, d, i));
  }
  void select(ValueId x, ValueId y) {
    const int d = wrapped("dim", ndim(x));
    for (int i = 0; i < ndim(x); ++i)
      if (i != d) unite(x, i, y, i < d ? i : i - 1);
    if (grows(x, d)) return;
    const int64_t index = field<int64_t>(attrs(), "index");
    reasons_.push_back(reason(x, d, "takes one index of it"));
    lock(place(x, d, index < 0 ? index + size(x, d) : index), static_cast<int32_t>(reasons_.size()) - 1);
  }
  void concat(const Node& n) {
    const ValueId y = n.outputs[0];
    const int d = wrapped("dim", ndim(y));
    int64_t at = 0;
    for (const ValueId x : n.inputs) {
      unite_others(x, y, d);
      if (grows(y, d)) {
        lock(x, d, "joins it with the batch");
        continue;
      }
      for (int64_t i = 0; i < size(x, d); ++i) unite(place(x, d, i), place(y, d, at++));
    }
  }
  void pad(ValueId x, ValueId y) {
    const Shape before = field<Shape>(attrs(), "before");
    const int lead = ndim(x) - before.ndim();
    for (int d = 0; d < ndim(x); ++d) {
      if (d < lead || grows(x, d)) {
        unite(x, d, y, d);
        continue;
      }
      // What is added can go as well, unless it surrounds what cannot.
      if (all_locked(x, d)) lock(y, d, "adds to it");
      for (int64_t i = 0; i < size(x, d); ++i) unite(place(x, d, i), place(y, d, before[d - lead] + i));
    }
  }
  void flip(ValueId x, ValueId y) {
    const uint32_t mask = dim_mask("coupling", field<Shape>(attrs(), "dims"), ndim(x));
    for (int d = 0; d < ndim(x); ++d) {
      if (!(mask >> d & 1) || grows(x, d)) {
        unite(x, d, y, d);
        continue;
      }
      for (int64_t i = 0, n = size(x, d); i < n; ++i) unite(place(x, d, i), place(y, d, n - 1 - i));
    }
  }

  /// Row-major order cuts both shapes into the shortest runs of dims that hold the same elements.
  void reshape(ValueId x, ValueId y) {
    constexpr int64_t kBatch = 65537;  // a prime that no usual size has for a factor
    const Shape a = graph::at(net_.value(x).shape, kBatch), b = graph::at(net_.value(y).shape, kBatch);
    if (a.numel() == 0) return unknown(net_.nodes()[node_]);
    for (int i = 0, j = 0; i < a.ndim() || j < b.ndim();) {
      const int i0 = i, j0 = j;
      int64_t p = i < a.ndim() ? a[i++] : 1, q = j < b.ndim() ? b[j++] : 1;
      while (p != q) p < q ? p *= a[i++] : q *= b[j++];
      run(x, i0, i, y, j0, j);
    }
  }
  void run(ValueId x, int i0, int i1, ValueId y, int j0, int j1) {
    std::vector<int> from, to;  // dims of more than one index
    bool batch = false;
    const auto collect = [&](ValueId v, int begin, int end, std::vector<int>& dims) {
      for (int d = begin; d < end; ++d) {
        batch = batch || grows(v, d);
        if (grows(v, d) || size(v, d) > 1) dims.push_back(d);
      }
    };
    collect(x, i0, i1, from);
    collect(y, j0, j1, to);
    if (from.empty()) return;
    if (from.size() == 1 && to.size() == 1) return unite(x, from[0], y, to[0]);
    std::vector<int> loose;
    for (const int d : from)
      if (!all_locked(x, d)) loose.push_back(d);
    if (batch || loose.size() > 1) {
      for (const int d : from) lock(x, d, batch ? "mixes it with the batch" : "mixes it with other dims");
      for (const int d : to) lock(y, d, batch ? "mixes it with the batch" : "mixes it with other dims");
      return;
    }
    // One dim on either side: what share an element go together.
    const int d = loose.empty() ? from[0] : loose[0];
    const Split split{node_, i0};
    const auto chosen = choices_.find(split);
    std::stable_sort(to.begin(), to.end(), [&](int a, int b) { return size(y, a) > size(y, b); });
    const int e = to[chosen == choices_.end() ? 0 : chosen->second];
    if (to.size() > 1) {
      splits_.push_back({split, {y, e}});
      candidates_[split] = to.size();
      for (const int other : to)
        if (other != e) lock(y, other, "cuts it from another dim");
    }
    int64_t inner_x = 1, inner_y = 1, total = 1;
    for (const int k : from) total *= size(x, k), inner_x *= k > d ? size(x, k) : 1;
    for (const int k : to) inner_y *= k > e ? size(y, k) : 1;
    for (int64_t i = 0; i < total; ++i)
      unite(place(x, d, i / inner_x % size(x, d)), place(y, e, i / inner_y % size(y, e)));
  }

  const Network& net_;
  const Choices& choices_;
  std::vector<std::vector<int32_t>> uses_;
  size_t node_ = 0;
  std::vector<std::vector<int32_t>> first_;  // [value][dim]: its first place; −1: it grows with the batch
  std::vector<int32_t> parent_, why_;        // why_ of a root: which reason locks it
  std::vector<std::string> reasons_;
  std::vector<std::pair<Split, std::pair<ValueId, int>>> splits_;
  std::map<Split, size_t> candidates_;
};

}  // namespace

Coupling couple(const Network& network) {
  // Which dim of a split can lose channels shows only where they are used: begin with the longest, and try the next
  // where nothing could go. One split at a time, for a wrong choice locks others too.
  Choices choices;
  std::set<Split> settled;
  for (;;) {
    Rules rules(network, choices);
    const std::optional<Split> split = rules.to_revise(settled);
    if (!split) return rules.result();
    if (++choices[*split] == rules.candidates(*split)) {
      choices[*split] = 0;
      settled.insert(*split);
    }
  }
}

bool is_elementwise(const OpDef* op) { return is_one_of(op, kElementwise); }
bool is_pool(const OpDef* op) { return is_one_of(op, kPools); }

bool is_unread_aux(const Network& net, const std::vector<std::vector<int32_t>>& uses, ValueId v) {
  if (net.value(v).kind != graph::ValueKind::result || !uses[static_cast<size_t>(v)].empty()) return false;
  if (std::find(net.outputs().begin(), net.outputs().end(), v) != net.outputs().end()) return false;
  const Node& n = net.nodes()[static_cast<size_t>(net.value(v).index)];
  const auto o = std::find(n.outputs.begin(), n.outputs.end(), v) - n.outputs.begin();
  return (n.op->aux_outputs >> o & 1) != 0;
}

std::vector<Layer> layers_of(const Network& net) {
  std::vector<Layer> layers;
  for (size_t i = 0; i < net.nodes().size(); ++i) {
    const Node& n = net.nodes()[i];
    constexpr const OpDef* kOps[] = {&kConv2d, &kConv2dFused, &kConv2dInputGrad, &kLinear, &kLinearFused, &kMatmul};
    if (!is_one_of(n.op, kOps)) continue;
    const ValueId w = n.inputs[1];
    const bool owned = net.value(w).kind == graph::ValueKind::parameter;
    const auto last = static_cast<int64_t>(net.value(w).shape.size()) - 1;
    if (n.op == &kMatmul && (!owned || last < 1)) continue;
    const int64_t weight_dim = n.op == &kMatmul ? last : n.op == &kConv2dInputGrad ? 1 : 0;
    layers.push_back({i, n.outputs[0], channel_dim(net, n), owned ? w : kNone, weight_dim});
  }
  return layers;
}

int64_t channel_dim(const Network& net, const Node& n) {
  const auto ndim = static_cast<int64_t>(net.value(n.outputs[0]).shape.size());
  const int64_t dim = n.op == &kLinear || n.op == &kLinearFused || n.op == &kMatmul ? ndim - 1 : 1;
  HONE_CHECK(dim >= 0 && dim < ndim, GraphError, "prune: '", n.name, "' (op ", n.op->name,
             ") has no dim of channels: its output has shape ", to_string(net.value(n.outputs[0]).shape));
  return dim;
}

}  // namespace hone::compress::detail
