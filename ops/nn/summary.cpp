#include <algorithm>
#include <array>

#include "hone/core/autograd.h"
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
    count += p.raw().numel();
  }
  void member(const std::string&, Buffer&) override {}
  void member(const std::string&, Module&) override {}
  std::vector<const ParameterState*> seen;
  int64_t count = 0;
};

/// Restores the modes and removes the hooks, also when forward throws.
struct Restore {
  ~Restore() {
    for (auto& h : handles) h.remove();
    for (auto& [m, on] : modes) detail::Caller::set_mode(*m, on);
  }
  std::vector<HookHandle> handles;
  std::vector<std::pair<Module*, bool>> modes;
};

/// 1234567 as "1,234,567".
std::string grouped(int64_t n) {
  std::string s = std::to_string(n);
  for (int64_t at = static_cast<int64_t>(s.size()) - 3; at > 0; at -= 3) s.insert(static_cast<size_t>(at), 1, ',');
  return s;
}

std::string table(const std::vector<Row>& rows) {
  using Cells = std::array<std::string, 5>;
  std::vector<Cells> lines{{"name", "type", "output", "parameters", "multiply-adds"}};
  int64_t parameters = 0, macs = 0;
  for (const Row& r : rows) {
    lines.push_back({r.name.empty() ? "(whole)" : r.name, r.type, r.shape, grouped(r.parameters), grouped(r.macs)});
    parameters += r.parameters;
    macs += r.macs;
  }
  lines.push_back({"total", "", "", grouped(parameters), grouped(macs)});
  std::array<size_t, 5> width{};
  for (const Cells& line : lines)
    for (size_t i = 0; i < 5; ++i) width[i] = std::max(width[i], line[i].size());
  std::string text;
  for (size_t l = 0; l < lines.size(); ++l) {
    for (size_t i = 0; i < 5; ++i) {
      const std::string gap(width[i] - lines[l][i].size(), ' ');
      text += i < 3 ? lines[l][i] + gap : gap + lines[l][i];  // text to the left, numbers to the right
      text += i < 4 ? "  " : "\n";
    }
  }
  return text;
}

}  // namespace

std::string Module::summary(const Tensor& sample) {
  NoGrad no_grad;
  std::vector<Row> rows;
  MacCounter counter(rows);
  OwnParameters own;
  Restore restore;
  for (const auto& [name, m] : named_modules()) {
    own.count = 0;
    m->visit(own);
    const size_t row = rows.size();
    rows.push_back({.name = name, .type = m->type_name(), .parameters = own.count});
    restore.modes.emplace_back(m, m->training());
    restore.handles.push_back(
        m->register_forward_pre_hook([&counter, row](Module&, Tensor&) { counter.stack.push_back(row); }));
    restore.handles.push_back(m->register_forward_hook([&counter, row](Module&, const Tensor&, Tensor& output) {
      if (output.defined()) counter.rows[row].shape = to_string(output.shape());
      counter.stack.pop_back();
    }));
  }
  eval();
  RecorderScope scope(&counter);
  call(sample);
  return table(rows);
}

}  // namespace hone::nn
