// Networks as text: a table, and Graphviz' language.

#include "hone/compress/graph/attributes.h"
#include "hone/compress/graph/network.h"
#include "hone/core/text_table.h"

namespace hone::graph {

namespace {

int64_t parameters_of(const Network& net, const Node& n, std::vector<bool>& counted) {
  int64_t count = 0;
  for (const ValueId v : n.inputs) {
    if (v == kNone || net.value(v).kind != ValueKind::parameter || counted[static_cast<size_t>(v)]) continue;
    counted[static_cast<size_t>(v)] = true;
    count += net.parameter(v).shape().numel();
  }
  return count;
}

std::string quoted(const std::string& s) {
  std::string q = "\"";
  for (const char c : s) {
    if (c == '"' || c == '\\') q += '\\';
    q += c;
  }
  return q + "\"";
}

}  // namespace

std::string Network::table() const {
  using hone::detail::grouped;
  std::vector<std::vector<std::string>> lines{{"name", "op", "output", "parameters", "multiply-adds"}};
  std::vector<bool> counted(values_.size(), false);
  int64_t parameters = 0, total = 0;
  for (const ValueId v : inputs_) lines.push_back({value(v).name, "input", to_string(value(v).shape), "", ""});
  for (const Node& n : nodes_) {
    const int64_t own = parameters_of(*this, n, counted), macs = n.train_only ? 0 : detail::node_macs(*this, n, 1);
    parameters += own;
    total += macs;
    lines.push_back({n.name, str(n.op->name, n.train_only ? " (training)" : ""),
                     n.outputs.empty() ? "" : to_string(value(n.outputs[0]).shape), grouped(own), grouped(macs)});
  }
  lines.push_back({"total", "", "", grouped(parameters), grouped(total)});
  return hone::detail::text_table(lines, 3);
}

std::string Network::dot() const {
  std::string s = "digraph network {\n  node [shape=box];\n";
  const auto label = [&](ValueId v) {
    const Value& x = value(v);
    return x.kind == ValueKind::result ? nodes_[static_cast<size_t>(x.index)].name : x.name;
  };
  for (const ValueId v : inputs_) s += str("  ", quoted(value(v).name), " [shape=oval];\n");
  for (const Node& n : nodes_) {
    std::string text = n.name + "\n" + n.op->name;
    if (!n.outputs.empty()) text += " " + to_string(value(n.outputs[0]).shape);
    for (const ValueId v : n.inputs) {
      if (v != kNone && value(v).kind == ValueKind::parameter) text += "\n" + to_string(value(v).shape);
    }
    std::string escaped;
    for (const char c : quoted(text)) escaped += c == '\n' ? std::string("\\n") : std::string(1, c);
    s += str("  ", quoted(n.name), " [label=", escaped, n.train_only ? ", style=dashed" : "", "];\n");
    for (const ValueId v : n.inputs) {
      if (v == kNone) continue;
      const ValueKind k = value(v).kind;
      if (k == ValueKind::result || k == ValueKind::input)
        s += str("  ", quoted(label(v)), " -> ", quoted(n.name), ";\n");
    }
  }
  for (size_t i = 0; i < outputs_.size(); ++i)
    s += str("  ", quoted(str("output ", i)), " [shape=oval];\n  ", quoted(label(outputs_[i])), " -> ",
             quoted(str("output ", i)), ";\n");
  return s + "}\n";
}

}  // namespace hone::graph
