#include "hone/compress/prune/shrink.h"

#include <algorithm>

#include "hone/compress/prune/fields.h"
#include "hone/core/autograd.h"
#include "hone/core/basic_ops.h"
#include "hone/ops/conv.h"
#include "hone/ops/fused.h"
#include "hone/ops/indexing.h"
#include "hone/ops/shape_ops.h"

namespace hone::compress::detail {
namespace {

using graph::Attributes;
using graph::Dims;
using graph::Network;
using graph::Node;
using graph::ValueId;
using graph::ValueKind;

/// What stays of a network's dims.
class Kept {
 public:
  Kept(const Network& net, const Coupling& coupling, const Removal& removed) : coupling_(coupling), removed_(removed) {
    for (const graph::Value& v : net.values()) {
      const auto id = static_cast<ValueId>(shapes_.size());
      Dims& shape = shapes_.emplace_back(v.shape);
      for (size_t d = 0; d < shape.size(); ++d) {
        if (shape[d].per_batch != 0 || shape[d].fixed == 0) continue;
        shape[d].fixed = count(id, static_cast<int64_t>(d), 0, shape[d].fixed);
        HONE_CHECK(shape[d].fixed > 0, ValueError, "prune: all ", v.shape[d].fixed, " channels of '", v.name, "' (dim ",
                   d, ") would go; at least one must stay");
      }
    }
  }
  const Dims& shape(ValueId v) const { return shapes_[static_cast<size_t>(v)]; }
  int64_t size(ValueId v, int64_t dim) const { return shape(v)[static_cast<size_t>(dim)].fixed; }
  bool stays(ValueId v, int64_t dim, int64_t i) const {
    return !removed_[static_cast<size_t>(coupling_.at(v, dim)[static_cast<size_t>(i)])];
  }
  /// How many of [begin, end) stay.
  int64_t count(ValueId v, int64_t dim, int64_t begin, int64_t end) const {
    int64_t n = 0;
    for (int64_t i = begin; i < end; ++i) n += stays(v, dim, i);
    return n;
  }
  std::vector<int64_t> indices(ValueId v, int64_t dim) const {
    std::vector<int64_t> kept;
    const auto n = static_cast<int64_t>(coupling_.at(v, dim).size());
    for (int64_t i = 0; i < n; ++i)
      if (stays(v, dim, i)) kept.push_back(i);
    return kept;
  }

 private:
  const Coupling& coupling_;
  const Removal& removed_;
  std::vector<Dims> shapes_;
};

/// The sizes that an op's attributes state, for what is left.
void edit_attributes(const Network& net, const Node& n, const Kept& kept, Attributes& attributes) {
  Attrs& a = attributes.fixed;
  const auto changed = [&](ValueId v, int64_t d) {
    return net.value(v).shape[static_cast<size_t>(d)] != kept.shape(v)[static_cast<size_t>(d)];
  };
  const ValueId x = n.inputs.empty() ? graph::kNone : n.inputs[0], y = n.outputs[0];
  const auto dim_of = [&](ValueId v) {
    return wrap_dim("prune", field<int64_t>(a, "dim"), static_cast<int64_t>(net.value(v).shape.size()));
  };
  if (n.op == &kConv2d || n.op == &kConv2dFused || n.op == &kConv2dInputGrad) {
    field<int64_t>(a, "groups") = kept.size(n.op == &kConv2dInputGrad ? y : x, 1) / kept.size(n.inputs[1], 1);
  } else if (n.op == &kReshape || n.op == &kExpand) {
    Shape& shape = field<Shape>(a, "shape");
    for (int d = 0; d < shape.ndim(); ++d)
      if (changed(y, d) && shape[d] != -1) shape[d] = kept.size(y, d);
  } else if (n.op == &kPad) {
    Shape &before = field<Shape>(a, "before"), &after = field<Shape>(a, "after");
    const auto ndim = static_cast<int64_t>(net.value(y).shape.size());
    for (int i = 0; i < before.ndim(); ++i) {
      const int64_t d = ndim - before.ndim() + i, n_y = net.value(y).shape[static_cast<size_t>(d)].fixed;
      if (!changed(y, d)) continue;
      after[i] = kept.count(y, d, n_y - after[i], n_y);
      before[i] = kept.count(y, d, 0, before[i]);
    }
  } else if (n.op == &kSlice) {
    const int64_t d = dim_of(x);
    if (!changed(x, d)) return;
    const int64_t size = net.value(x).shape[static_cast<size_t>(d)].fixed;
    int64_t &start = field<int64_t>(a, "start"), &end = field<int64_t>(a, "end");
    const auto place = [&](int64_t i) {
      return kept.count(x, d, 0, std::clamp<int64_t>(i < 0 ? i + size : i, 0, size));
    };
    if (end != kEnd) end = place(end);
    start = place(start);
  } else if (n.op == &kSelect) {
    const int64_t d = dim_of(x);
    if (!changed(x, d)) return;
    int64_t& index = field<int64_t>(a, "index");
    index = kept.count(x, d, 0, index < 0 ? index + net.value(x).shape[static_cast<size_t>(d)].fixed : index);
  }
}

Tensor taken(const Tensor& t, int64_t dim, const std::vector<int64_t>& kept) {
  return index_select(t, dim, to(tensor(kept), t.device()));
}

}  // namespace

std::vector<Shrink> shrink(Network& net, const Coupling& coupling, const Removal& removed) {
  const Kept kept(net, coupling, removed);
  for (size_t i = 0; i < net.nodes().size(); ++i) {
    Node& n = net.node(i);
    if (n.outputs.empty()) continue;
    edit_attributes(net, n, kept, n.attributes);
    if (n.train) edit_attributes(net, n, kept, *n.train);
  }
  const NoGrad no_grad;
  std::vector<Shrink> shrinks;
  for (size_t i = 0; i < net.values().size(); ++i) {
    const auto v = static_cast<ValueId>(i);
    const graph::Value& value = net.value(v);
    if (value.kind == ValueKind::result || value.kind == ValueKind::input || value.shape == kept.shape(v)) continue;
    if (value.kind == ValueKind::constant && net.constant(v).uniform) {
      net.resize_uniform(v, kept.shape(v));
      continue;
    }
    for (size_t d = 0; d < value.shape.size(); ++d) {
      if (value.shape[d] == kept.shape(v)[d]) continue;
      const auto dim = static_cast<int64_t>(d);
      const std::vector<int64_t> indices = kept.indices(v, dim);
      if (value.kind == ValueKind::parameter) {
        const Shrink shrink = net.parameter(v).ref().shrink(dim, indices);
        if (shrink.parameter.defined()) shrinks.push_back(shrink);
      } else if (value.kind == ValueKind::buffer) {
        Tensor& buffer = net.buffer_slot(v).tensor();
        buffer = taken(buffer, dim, indices);
      } else {
        net.set_constant(v, {taken(net.constant(v).value, dim, indices), false});
      }
    }
  }
  net.refresh();
  const auto uses = net.uses();
  for (size_t i = 0; i < net.values().size(); ++i) {
    const graph::Value& value = net.values()[i];
    if (is_unread_aux(net, uses, static_cast<ValueId>(i))) continue;
    const Dims& expected = kept.shape(static_cast<ValueId>(i));
    HONE_CHECK(value.shape == expected, GraphError, "prune: '", value.name, "' would have shape ",
               to_string(value.shape), " instead of ", to_string(expected),
               value.kind == ValueKind::result
                   ? str(": op ", net.nodes()[static_cast<size_t>(value.index)].op->name, " cannot follow")
                   : std::string());
  }
  return shrinks;
}

}  // namespace hone::compress::detail
