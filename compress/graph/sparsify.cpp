#include "hone/compress/graph/sparsify.h"

#include <algorithm>
#include <bit>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <map>
#include <optional>
#include <tuple>
#include <unordered_set>

#include "hone/compress/graph/pass_support.h"
#include "hone/core/basic_ops.h"
#include "hone/core/text_table.h"
#include "hone/ops/fused.h"
#include "hone/ops/matmul.h"
#include "hone/ops/packed/block_sparse.h"
#include "hone/ops/packed/codebook.h"
#include "hone/ops/packed/csr.h"
#include "hone/ops/packed/n_m.h"
#include "hone/ops/packed/panels.h"
#include "hone/ops/packed/sparse_run.h"
#include "hone/ops/simd/codebook_kernels.h"

namespace hone::graph {
namespace {

using Kind = WeightForm::Kind;

constexpr int64_t kMostWeights = int64_t{1} << 26;  // of a layer: forms of it in turn are in memory together
constexpr int64_t kFewestRuns = 5, kWarmup = 3;

std::string fixed(double v, int decimals) {
  char text[64];
  std::snprintf(text, sizeof text, "%.*f", decimals, v);
  return text;
}
std::string time_of(const TimedForm& f) { return fixed(f.microseconds, f.microseconds < 100 ? 2 : 0) + " us"; }

/// A convolution or linear layer, however its weight is stored.
struct Layer {
  size_t node;
  Tensor weight;  ///< dense; undefined where `obstacle` says why it has no other form
  std::optional<FusedConvAttrs> conv = {};
  ActivationAttrs activation = {};  ///< of a linear layer
  bool panels = true;               ///< suit it
  std::string obstacle = {};

  int64_t groups() const { return conv ? conv->conv.groups : 1; }
};

/// The dense weight that a node reads; undefined where it is not constant.
Tensor dense_weight(const Network& net, const Node& n) {
  const Tensor stored = detail::elements(net, n.inputs[1]);
  const auto dim = [&](size_t d) { return net.value(n.inputs[0]).shape[d].fixed; };
  if (!stored.defined()) return {};
  if (n.op == &kPanelLinear) {
    const Dims& x = net.value(n.inputs[0]).shape;
    return PanelMatrix{stored, {n.attributes.as<PanelLinearAttrs>().outs, dim(x.size() - 1)}}.dense();
  }
  if (n.op == &kPanelConv2d) {
    const auto& a = n.attributes.as<PanelConvAttrs>();
    const ConvAttrs& conv = a.fused.conv;
    return PanelMatrix{stored, {a.outs, dim(1) / conv.groups, conv.size_h, conv.size_w}, conv.groups}.dense();
  }
  return contiguous(stored);
}

std::optional<Layer> layer_of(const Network& net, size_t i) {
  const Node& n = net.nodes()[i];
  const Attrs& a = n.attributes.fixed;
  Layer l{i, {}};
  if (n.op == &kConv2d)
    l.conv = FusedConvAttrs{a.as<ConvAttrs>(), {}, {}};
  else if (n.op == &kConv2dFused)
    l.conv = a.as<FusedConvAttrs>();
  else if (n.op == &kPanelConv2d)
    l.conv = a.as<PanelConvAttrs>().fused;
  else if (n.op == &kLinearFused)
    l.activation = a.as<ActivationAttrs>();
  else if (n.op == &kPanelLinear)
    l.activation = a.as<PanelLinearAttrs>().activation;
  else if (n.op != &kLinear)
    return std::nullopt;

  const DType dtype = net.value(n.inputs[0]).dtype;
  if (!detail::same_in_both_modes(n)) {
    l.obstacle = "it differs in training mode";
  } else if (dtype != f32) {
    l.obstacle = str("it computes in ", dtype);
  } else if (const Tensor w = dense_weight(net, n); !w.defined()) {
    l.obstacle = "its weight is computed";
  } else if (const int64_t rows = w.size(0); w.numel() == 0 || w.numel() > kMostWeights ||
                                             std::max(rows, w.numel() / rows) > hone::detail::kMostSparse) {
    l.obstacle = str("a weight of shape ", w.shape(), " is not tried");
  } else {
    l.weight = w;
    if (l.conv) {
      l.conv->conv.size_h = w.size(2), l.conv->conv.size_w = w.size(3);
      l.panels = detail::panels_suit(net, n.inputs[0], w.shape(), *l.conv);
    }
  }
  return l;
}

/// What each layer reads, for this sample.
std::vector<Tensor> inputs_of(const Network& net, const std::vector<Layer>& layers, const Tensor& sample) {
  Network probe = net;
  std::vector<ValueId> read = net.outputs();
  for (const Layer& l : layers) read.push_back(net.nodes()[l.node].inputs[0]);
  probe.set_outputs(read);
  probe.eval();
  std::vector<Tensor> values = probe.run({sample});
  values.erase(values.begin(), values.begin() + static_cast<std::ptrdiff_t>(net.outputs().size()));
  return values;
}

/// One form of a layer: its op, and what stands in the weight's place.
struct Form {
  WeightForm form;
  const OpDef* op;
  Attrs attrs;
  std::vector<std::pair<const char*, Tensor>> arrays;

  int64_t bytes() const {
    int64_t sum = 0;
    for (const auto& [name, t] : arrays) sum += t.numel() * size_of(t.dtype());
    return sum;
  }
};

/// The most nonzeros in m neighbouring columns of a row.
int64_t most_of(const Tensor& weight, int64_t m) {
  const int64_t rows = weight.size(0), cols = weight.numel() / rows;
  const float* w = weight.data<float>();
  int64_t most = 0;
  for (int64_t r = 0; r < rows; ++r)
    for (int64_t g = 0; g < cols; g += m) {
      const float* const begin = w + r * cols + g;
      most =
          std::max<int64_t>(most, std::count_if(begin, begin + std::min(m, cols - g), [](float v) { return v != 0; }));
    }
  return most;
}

/// How many values there are, told apart by their bits; some number above `most` where more are.
int64_t values_of(const Tensor& weight, int64_t most) {
  std::unordered_set<uint32_t> values;
  const float* w = weight.data<float>();
  for (int64_t i = 0; i < weight.numel() && static_cast<int64_t>(values.size()) <= most; ++i)
    values.insert(std::bit_cast<uint32_t>(w[i]));
  return static_cast<int64_t>(values.size());
}

Attrs attrs_of(const Layer& l, int64_t m = 0) {
  const hone::detail::SparseAttrs weight{l.weight.size(0), l.weight.numel() / l.weight.size(0), m};
  if (l.conv) return hone::detail::SparseConvAttrs{*l.conv, weight};
  return hone::detail::SparseLinearAttrs{weight, l.activation};
}
std::optional<Form> codebook_form(const Layer& l) {
  const int64_t most = std::min(hone::simd::kMostCodes, l.weight.numel() / 2), values = values_of(l.weight, most);
  if (!l.panels || values > most) return std::nullopt;
  const CodebookMatrix w = CodebookMatrix::pack(l.weight, l.groups());
  const int64_t outs = l.weight.size(0);
  return Form{{Kind::codebook, values},
              l.conv ? &kCodebookConv2d : &kCodebookLinear,
              l.conv ? Attrs(PanelConvAttrs{outs, *l.conv}) : Attrs(PanelLinearAttrs{outs, l.activation}),
              {{"codes", w.codes}, {"centroids", w.centroids}}};
}
/// Nothing where the form does not suit the layer.
std::optional<Form> form_of(const Layer& l, const WeightForm& f) {
  if (f.kind == Kind::codebook) return codebook_form(l);
  if (f.kind == Kind::csr) {
    const CsrMatrix w = CsrMatrix::pack(l.weight);
    return Form{f,
                l.conv ? &kCsrConv2d : &kCsrLinear,
                attrs_of(l),
                {{"values", w.values}, {"columns", w.columns}, {"row_starts", w.row_starts}}};
  }
  if (f.kind == Kind::blocks) {
    if (l.groups() > 1 && l.weight.size(0) / l.groups() % f.a != 0) return std::nullopt;
    const BlockSparseMatrix w = BlockSparseMatrix::pack(l.weight, f.a, f.b);
    return Form{f,
                l.conv ? &kBlockSparseConv2d : &kBlockSparseLinear,
                attrs_of(l),
                {{"values", w.values}, {"columns", w.columns}, {"row_starts", w.row_starts}}};
  }
  const int64_t n = std::max<int64_t>(most_of(l.weight, f.b), 1);
  if (2 * n > f.b) return std::nullopt;
  const NMMatrix w = NMMatrix::pack(l.weight, n, f.b);
  return Form{{Kind::n_m, n, f.b},
              l.conv ? &kNMConv2d : &kNMLinear,
              attrs_of(l, f.b),
              {{"values", w.values}, {"positions", w.positions}}};
}

/// The layer as it is, its sparse forms where some weight is 0, and its codebook.
std::vector<Form> forms_of(const Network& net, const Layer& l, int64_t kept, const std::vector<WeightForm>& forms) {
  const Node& n = net.nodes()[l.node];
  std::vector<Form> made{{{}, n.op, n.attributes.fixed, {{"", detail::elements(net, n.inputs[1])}}}};
  for (const WeightForm& f : forms) {
    if (kept == l.weight.numel() && f.kind != Kind::codebook) continue;
    if (auto form = form_of(l, f)) made.push_back(std::move(*form));
  }
  return made;
}

/// Runs one form on one input, again and again.
class Runner {
 public:
  Runner(const Form& form, const Tensor& x, const Tensor& bias) : op_(*form.op), attrs_(form.attrs) {
    tensors_.push_back(x);
    for (const auto& [name, t] : form.arrays) tensors_.push_back(t);
    if (bias.defined()) tensors_.push_back(bias);
    for (const Tensor& t : tensors_) in_.push_back(t.view());
    ShapeContext shapes{op_.name, in_, attrs_};
    op_.shapes(shapes);
    tensors_.push_back(empty(shapes.out[0].shape, shapes.out[0].dtype));
    out_ = tensors_.back().view();
  }
  double microseconds() {
    const auto start = std::chrono::steady_clock::now();
    workspace_->reuse(&kept_);  // as an Executor does
    RunContext context{op_.name, in_, {&out_, 1}, attrs_, *workspace_};
    op_.run(context);
    return std::chrono::duration<double, std::micro>(std::chrono::steady_clock::now() - start).count();
  }

 private:
  const OpDef& op_;
  Attrs attrs_;
  std::vector<Tensor> tensors_;
  std::vector<View> in_;
  View out_;
  Workspace::Kept kept_;
  std::unique_ptr<Workspace> workspace_ = std::make_unique<Workspace>();
};

/// In turn, so that a disturbance of the machine meets all of them.
std::vector<double> medians(std::vector<Runner> runners, const SparsifyOptions& o) {
  using Clock = std::chrono::steady_clock;
  std::vector<std::vector<double>> times(runners.size());
  for (int64_t k = 0; k < kWarmup; ++k)
    for (Runner& r : runners) r.microseconds();
  const auto begin = Clock::now();
  const auto more = [&](int64_t done) {
    if (o.runs > 0) return done < o.runs;
    return done < kFewestRuns || std::chrono::duration<double>(Clock::now() - begin).count() < o.seconds;
  };
  for (int64_t done = 0; more(done); ++done)
    for (size_t i = 0; i < runners.size(); ++i) times[i].push_back(runners[i].microseconds());
  std::vector<double> found;
  for (auto& t : times) {
    const auto middle = t.begin() + static_cast<std::ptrdiff_t>(t.size() / 2);
    std::nth_element(t.begin(), middle, t.end());
    found.push_back(*middle);
  }
  return found;
}

SparseLayer time_layer(const Network& net, const Layer& l, const std::vector<Form>& forms, const Tensor& x,
                       const SparsifyOptions& o) {
  const Node& n = net.nodes()[l.node];
  const bool biased = n.inputs.size() > 2 && n.inputs[2] != kNone;
  const Tensor bias = biased ? zeros({l.weight.size(0)}) : Tensor();
  std::vector<Runner> runners;
  for (const Form& f : forms) runners.emplace_back(f, x, bias);
  const std::vector<double> times = medians(std::move(runners), o);
  SparseLayer row{.name = n.name, .weight = l.weight.shape(), .forms = {}, .reason = {}};
  for (size_t i = 0; i < forms.size(); ++i) row.forms.push_back({forms[i].form, forms[i].bytes(), times[i]});
  return row;
}

/// Constants of the forms in use: tied weights share them.
using Stored = std::map<std::tuple<ValueId, Kind, int64_t, int64_t, int64_t>, std::vector<ValueId>>;

void replace(Network& net, const Layer& l, const Form& f, Stored& stored) {
  const ValueId w = net.nodes()[l.node].inputs[1];
  auto [it, fresh] = stored.try_emplace({w, f.form.kind, f.form.a, f.form.b, l.groups()});
  if (fresh) {
    std::string name = net.value(w).name;
    if (name.ends_with(".panels")) name.resize(name.size() - std::string(".panels").size());
    for (const auto& [part, t] : f.arrays) it->second.push_back(net.add_constant(str(name, ".", part), t));
  }
  Node& n = net.node(l.node);
  n.op = f.op;
  n.attributes = {f.attrs, {}};
  n.inputs.erase(n.inputs.begin() + 1);
  n.inputs.insert(n.inputs.begin() + 1, it->second.begin(), it->second.end());
}

void check(const SparsifyOptions& o) {
  HONE_CHECK(o.runs >= 0, ValueError, "sparsify: runs ", o.runs, " must not be negative");
  HONE_CHECK(o.runs > 0 || (o.seconds >= 0 && std::isfinite(o.seconds)), ValueError, "sparsify: seconds ", o.seconds,
             " must be a finite number, at least 0");
  HONE_CHECK(std::isfinite(o.margin) && o.margin < 1, ValueError, "sparsify: margin ", o.margin, " must be below 1");
  const auto is_side = [](int64_t n) { return n == 1 || n == 2 || n == 4 || n == 8 || n == 16; };
  for (const WeightForm& f : o.forms) {
    HONE_CHECK(f.kind != Kind::dense, ValueError, "sparsify: forms are other ones; dense always takes part");
    HONE_CHECK(f.kind != Kind::blocks || (is_side(f.a) && is_side(f.b)), ValueError, "sparsify: ", to_string(f),
               ": sides must be 1, 2, 4, 8 or 16");
    HONE_CHECK(f.kind != Kind::n_m || f.b == 2 || f.b == 4 || f.b == 8, ValueError, "sparsify: n of every ", f.b,
               ": m must be 2, 4 or 8");
  }
}

}  // namespace

std::string to_string(const WeightForm& f) {
  switch (f.kind) {
    case Kind::csr: return "CSR";
    case Kind::blocks: return str(f.a, "x", f.b, " blocks");
    case Kind::n_m: return str(f.a, ":", f.b);
    case Kind::codebook: return f.a > 0 ? str("codebook of ", f.a) : "codebook";
    default: return "dense";
  }
}

size_t SparseLayer::fastest_sparse() const {
  size_t best = 0;
  for (size_t i = 1; i < forms.size(); ++i)
    if (best == 0 || forms[i].microseconds < forms[best].microseconds) best = i;
  return best;
}

namespace detail {

void choose(SparseLayer& l, double margin) {
  l.chosen = 0;
  if (l.forms.empty()) return;
  const size_t best = l.fastest_sparse();
  if (best == 0) {
    l.reason = l.kept == l.total() ? "stays dense: no weight is 0" : "stays dense: no sparse form was tried";
    return;
  }
  const TimedForm &dense = l.forms[0], &sparse = l.forms[best];
  const double density = static_cast<double>(l.kept) / static_cast<double>(l.total());
  const bool is_codebook = sparse.form.kind == Kind::codebook;
  const std::string form = to_string(sparse.form), kept = str(" with ", fixed(100 * density, 1), " % kept");
  const std::string bytes = str(", with ", hone::detail::grouped(sparse.bytes), " bytes to read, ",
                                hone::detail::grouped(dense.bytes), " dense");
  if (sparse.microseconds < (1 - margin) * dense.microseconds) {
    l.chosen = best;
    l.reason = str(form, ": ", time_of(sparse), ", ", time_of(dense), " dense", is_codebook ? bytes : "," + kept);
    return;
  }
  l.reason = str("stays dense: ", time_of(dense), ", ", time_of(sparse), " by ", form, is_codebook ? "" : kept);
  if (sparse.microseconds < dense.microseconds)
    l.reason += str(", which saves less than ", fixed(100 * margin, 0), " %");
  else if (is_codebook || sparse.bytes >= dense.bytes)
    l.reason += bytes;
  else
    l.reason +=
        str("; in proportion it pays below ", fixed(100 * density * dense.microseconds / sparse.microseconds, 1), " %");
}

}  // namespace detail

std::string SparseReport::table() const {
  using hone::detail::grouped;
  std::vector<std::vector<std::string>> lines{{"layer", "weight", "kept", "of", "dense bytes", "dense us",
                                               "fastest sparse", "bytes", "us", "chosen", "bytes", "us"}};
  TimedForm dense, chosen;
  int64_t kept = 0, total = 0;
  const auto add = [](TimedForm& sum, const TimedForm& f) { sum.bytes += f.bytes, sum.microseconds += f.microseconds; };
  const auto cells = [](std::vector<std::string>& line, const TimedForm& f) {
    line.push_back(grouped(f.bytes));
    line.push_back(fixed(f.microseconds, 2));
  };
  for (const SparseLayer& l : layers) {
    std::vector<std::string> line{l.name, hone::to_string(l.weight), grouped(l.kept), grouped(l.total())};
    kept += l.kept, total += l.total();
    if (!l.forms.empty()) {
      const size_t best = l.fastest_sparse();
      add(dense, l.forms[0]), add(chosen, l.forms[l.chosen]);
      cells(line, l.forms[0]);
      line.push_back(best > 0 ? to_string(l.forms[best].form) : "");
      best > 0 ? cells(line, l.forms[best]) : void(line.resize(line.size() + 2));
      line.push_back(to_string(l.forms[l.chosen].form));
      cells(line, l.forms[l.chosen]);
    }
    line.resize(lines[0].size());
    lines.push_back(std::move(line));
  }
  std::vector<std::string> all{"all", "", grouped(kept), grouped(total)};
  cells(all, dense);
  all.resize(all.size() + 4);
  cells(all, chosen);
  lines.push_back(std::move(all));
  std::string text = hone::detail::text_table(lines, 2);
  text += str("medians at batch ", batch, ", ", threads, threads == 1 ? " thread\n" : " threads\n");
  for (const SparseLayer& l : layers) text += str(l.name, ": ", l.reason, "\n");
  return text;
}

SparseReport sparsify(Network& net, const Tensor& sample, const SparsifyOptions& options) {
  check(options);
  HONE_CHECK(sample.defined(), ValueError, "sparsify: the sample is an undefined tensor");
  const detail::Quiet quiet;
  const detail::ThreadScope threads(options.threads);
  std::vector<Layer> layers;
  for (size_t i = 0; i < net.nodes().size(); ++i)
    if (auto l = layer_of(net, i)) layers.push_back(std::move(*l));
  const std::vector<Tensor> inputs = inputs_of(net, layers, sample);

  SparseReport report{.layers = {}, .batch = net.batch_of({sample.shape()}), .threads = options.threads};
  std::vector<std::optional<Form>> chosen;
  for (size_t i = 0; i < layers.size(); ++i) {
    const Layer& l = layers[i];
    SparseLayer& row = report.layers.emplace_back();
    chosen.emplace_back();
    if (!l.weight.defined()) {
      row.name = net.nodes()[l.node].name;
      row.weight = at(net.value(net.nodes()[l.node].inputs[1]).shape, 0);
      row.kept = row.total();
      row.reason = "stays dense: " + l.obstacle;
      continue;
    }
    const float* w = l.weight.data<float>();
    const int64_t kept = std::count_if(w, w + l.weight.numel(), [](float v) { return v != 0; });
    std::vector<Form> forms = forms_of(net, l, kept, options.forms);
    row = time_layer(net, l, forms, inputs[i], options);
    row.kept = kept;
    detail::choose(row, options.margin);
    if (row.chosen > 0) chosen[i] = std::move(forms[row.chosen]);
  }
  Stored stored;
  for (size_t i = 0; i < layers.size(); ++i)
    if (chosen[i]) replace(net, layers[i], *chosen[i], stored);
  net.remove_dead();
  net.refresh();
  return report;
}

}  // namespace hone::graph
