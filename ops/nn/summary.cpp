#include <algorithm>

#include "hone/core/autograd.h"
#include "hone/core/text_table.h"
#include "hone/ops/nn/module.h"

namespace hone::nn {

namespace {

struct Row {
  std::string name, type, shape = "-";
  int64_t parameters = 0, macs = 0;
};

/// Attributes each op's multiply-adds to the innermost module being called.
struct MacCounter : OpRecorder {
  explicit MacCounter(std::vector<Row>& rows) : rows(rows) {}
  void record(const OpDef& op, const Attrs& attrs, std::span<const Tensor> inputs, const Outputs& outputs) override {
    if (!op.macs || stack.empty()) return;
    std::vector<View> in, out;
    for (const Tensor& t : inputs) in.push_back(t.defined() ? t.view() : View());
    for (int i = 0; i < outputs.size(); ++i) out.push_back(outputs[i].view());
    rows[stack.back()].macs += op.macs(in, out, attrs);
  }
  std::vector<Row>& rows;
  std::vector<size_t> stack;
};

/// Parameters that a module has by itself, each identity once over the whole walk.
struct OwnParameters : MemberVisitor {
  void member(const std::string&, Parameter& p) override {
    if (!p.defined() || std::find(seen.begin(), seen.end(), p.ref().id()) != seen.end()) return;
    seen.push_back(p.ref().id());
    count += p.shape().numel();
  }
  void member(const std::string&, Buffer&) override {}
  void member(const std::string&, Module&) override {}
  std::vector<const ParameterState*> seen;
  int64_t count = 0;
};

/// Removes the hooks, also when forward throws.
struct HookScope {
  ~HookScope() {
    for (auto& h : handles) h.remove();
  }
  std::vector<HookHandle> handles;
};

std::string table(const std::vector<Row>& rows) {
  using hone::detail::grouped;
  std::vector<std::vector<std::string>> lines{{"name", "type", "output", "parameters", "multiply-adds"}};
  int64_t parameters = 0, macs = 0;
  for (const Row& r : rows) {
    lines.push_back({r.name.empty() ? "(whole)" : r.name, r.type, r.shape, grouped(r.parameters), grouped(r.macs)});
    parameters += r.parameters;
    macs += r.macs;
  }
  lines.push_back({"total", "", "", grouped(parameters), grouped(macs)});
  return hone::detail::text_table(lines, 3);
}

}  // namespace

std::string Module::summary(const Tensor& sample) {
  NoGrad no_grad;
  std::vector<Row> rows;
  MacCounter counter(rows);
  OwnParameters own;
  HookScope hooks;
  ModeScope mode(*this, false);
  for (const auto& [name, m] : named_modules()) {
    own.count = 0;
    m->visit(own);
    const size_t row = rows.size();
    rows.push_back({.name = name, .type = m->type_name(), .parameters = own.count});
    hooks.handles.push_back(
        m->register_forward_pre_hook([&counter, row](Module&, Tensor&) { counter.stack.push_back(row); }));
    hooks.handles.push_back(m->register_forward_hook([&counter, row](Module&, const Tensor&, Tensor& output) {
      if (output.defined()) counter.rows[row].shape = to_string(output.shape());
      counter.stack.pop_back();
    }));
  }
  RecorderScope scope(&counter);
  call(sample);
  return table(rows);
}

}  // namespace hone::nn
