#include "hone/compress/graph/attributes.h"

#include <algorithm>
#include <bit>

#include "hone/core/autograd.h"
#include "hone/core/basic_ops.h"
#include "hone/ops/contiguous_view.h"

namespace hone::graph {

namespace {

/// Addresses of every integer, in the order of fields(), and what else there is.
struct Integers : FieldVisitor {
  void operator()(const char*, int64_t& v) override { at.push_back(&v), layout.push_back(1); }
  void operator()(const char*, double& v) override { other(std::bit_cast<int64_t>(v)); }
  void operator()(const char*, bool& v) override { other(v); }
  void operator()(const char*, Shape& v) override {
    other(v.ndim());
    for (int64_t& n : v) at.push_back(&n), layout.push_back(1);
  }
  void operator()(const char*, DType& v) override { other(static_cast<int64_t>(v)); }
  void other(int64_t v) { layout.push_back(0), others.push_back(v); }
  std::vector<int64_t*> at;
  std::vector<int64_t> layout, others;
};

Integers integers_of(Attrs& a) {
  Integers v;
  a.visit(v);
  return v;
}

}  // namespace

bool same(const Attrs& a, const Attrs& b) {
  if (a.type() != b.type()) return false;
  Attrs x = a, y = b;
  const Integers u = integers_of(x), v = integers_of(y);
  return u.layout == v.layout && u.others == v.others &&
         std::equal(u.at.begin(), u.at.end(), v.at.begin(),
                    [](const int64_t* p, const int64_t* q) { return *p == *q; });
}

bool operator==(const Attributes& a, const Attributes& b) {
  return same(a.fixed, b.fixed) && a.per_batch == b.per_batch;
}

Attrs Attributes::at(int64_t batch) const {
  Attrs a = fixed;
  if (per_batch.empty()) return a;
  const Integers v = integers_of(a);
  HONE_CHECK(v.at.size() == per_batch.size(), ValueError, "attributes have ", v.at.size(),
             " integers, their batch factors are ", per_batch.size());
  for (size_t i = 0; i < v.at.size(); ++i) *v.at[i] += per_batch[i] * batch;
  return a;
}

std::optional<Attributes> Attributes::join(const Attrs& a, int64_t batch_a, const Attrs& b, int64_t batch_b) {
  if (a.type() != b.type()) return std::nullopt;
  Attributes joined{.fixed = a, .per_batch = {}};
  Attrs other = b;
  const Integers u = integers_of(joined.fixed), v = integers_of(other);
  if (u.layout != v.layout || u.others != v.others) return std::nullopt;
  std::vector<int64_t> per(u.at.size(), 0);
  bool any = false;
  for (size_t i = 0; i < per.size(); ++i) {
    const int64_t difference = *v.at[i] - *u.at[i];
    if (difference % (batch_b - batch_a) != 0) return std::nullopt;
    per[i] = difference / (batch_b - batch_a);
    *u.at[i] -= per[i] * batch_a;
    any = any || per[i] != 0;
  }
  if (any) joined.per_batch = std::move(per);
  return joined;
}

namespace detail {

namespace {

constexpr int64_t kBatches[2] = {2, 3};

View view_of(const Value& v, int64_t batch) {
  const Shape shape = at(v.shape, batch);
  shape.numel();  // throws for sizes beyond any memory
  return hone::detail::dense_view(v.dtype, shape);
}

std::vector<View> input_views(const std::vector<Value>& values, const Node& node, int64_t batch) {
  std::vector<View> in;
  for (const ValueId v : node.inputs)
    in.push_back(v == kNone ? View() : view_of(values[static_cast<size_t>(v)], batch));
  return in;
}

std::vector<Inferred> infer_with(const std::vector<Value>& values, const Node& node, const Attributes& attributes) {
  std::vector<Inferred> outputs;
  for (const int64_t batch : kBatches) {
    const std::vector<View> in = input_views(values, node, batch);
    const Attrs attrs = attributes.at(batch);
    ShapeContext c{node.op->name, in, attrs};
    node.op->shapes(c);
    for (int o = 0; o < c.outputs; ++o) {
      const auto& out = c.out[static_cast<size_t>(o)];
      if (batch == kBatches[0]) {
        Inferred first{out.dtype, {}};
        for (const int64_t n : out.shape) first.shape.push_back({n, 0});
        outputs.push_back(std::move(first));
        continue;
      }
      Inferred& first = outputs[static_cast<size_t>(o)];
      HONE_CHECK(first.dtype == out.dtype && static_cast<int>(first.shape.size()) == out.shape.ndim(), ShapeError,
                 node.op->name, ": output ", o, " depends on the batch in more than its sizes");
      for (int d = 0; d < out.shape.ndim(); ++d) {
        Dim& dim = first.shape[static_cast<size_t>(d)];
        dim.per_batch = (out.shape[d] - dim.fixed) / (kBatches[1] - kBatches[0]);
        dim.fixed -= dim.per_batch * kBatches[0];
      }
    }
  }
  return outputs;
}

}  // namespace

std::vector<Inferred> infer(const std::vector<Value>& values, const Node& node) {
  HONE_CHECK(node.op != nullptr, GraphError, "graph: node '", node.name, "' has no op");
  HONE_CHECK(node.op->attributes == node.attributes.fixed.type(), GraphError, "graph: node '", node.name,
             "' has attributes of another op than ", node.op->name);
  try {
    std::vector<Inferred> outputs = infer_with(values, node, node.attributes);
    if (node.train) {
      const std::vector<Inferred> train = infer_with(values, node, *node.train);
      bool equal = train.size() == outputs.size();
      for (size_t i = 0; equal && i < train.size(); ++i)
        equal = train[i].dtype == outputs[i].dtype && train[i].shape == outputs[i].shape;
      HONE_CHECK(equal, ShapeError, node.op->name, ": outputs differ between eval and training mode");
    }
    if (node.train_only) {
      HONE_CHECK(!outputs.empty() && !node.inputs.empty() && node.inputs[0] != kNone, ShapeError, node.op->name,
                 ": an op of training mode alone needs an input to stand for its output");
      const Value& in = values[static_cast<size_t>(node.inputs[0])];
      HONE_CHECK(in.dtype == outputs[0].dtype && in.shape == outputs[0].shape, ShapeError, node.op->name,
                 ": an op of training mode alone must keep dtype and shape, ", in.dtype, " ", to_string(in.shape),
                 " becomes ", outputs[0].dtype, " ", to_string(outputs[0].shape));
    }
    return outputs;
  } catch (const GraphError&) { throw; } catch (const Error& e) {
    throw GraphError(str("graph: node '", node.name, "': ", e.what()));
  }
}

int64_t node_macs(const Network& net, const Node& node, int64_t batch) {
  if (!node.op->macs) return 0;
  const Attrs attrs = node.attributes.at(batch);
  const std::vector<View> in = input_views(net.values(), node, batch);
  std::vector<View> out;
  for (const ValueId v : node.outputs) out.push_back(view_of(net.value(v), batch));
  return node.op->macs(in, out, attrs);
}

Tensor materialize(const Tensor& element, const Shape& shape) {
  Tensor t = empty(shape, {element.dtype(), element.device()});
  NoGrad no_grad;
  View from = t.view();
  from.data = element.raw_data();
  std::fill_n(from.strides, View::kDims, 0);
  hone::detail::copy_strided(from, t.view());
  return t;
}

}  // namespace detail
}  // namespace hone::graph
