#include "hone/compress/pack/architecture.h"

#include <algorithm>
#include <bit>

namespace hone::compress::detail {

using coding::BinaryCoder;
using coding::Counter;
using graph::ValueKind;

namespace {

constexpr size_t kMostParts = 1 << 16, kLongestText = 255, kMostText = 1 << 16;
constexpr int64_t kLargestSize = int64_t{1} << 40;

/// What the model of texts has read before the first. Part of the format.
constexpr char kPrimer[] =
    "x\0conv1.weight\0conv1.bias\0conv2.weight\0conv2.bias\0conv3.weight\0conv3.bias\0fc1.weight\0fc1.bias\0"
    "fc2.weight\0fc2.bias\0fc3.weight\0fc3.bias\0bn1.weight\0bn1.bias\0bn1.running_mean\0bn1.running_var\0"
    "stage1.0.conv1.weight\0stage1.0.bn1.weight\0stage1.0.relu\0shortcut.weight\0head.weight\0"
    "conv2d\0stride_h\0stride_w\0pad_h\0pad_w\0groups\0relu\0max_pool2d\0kernel_h\0kernel_w\0stride_h\0stride_w\0"
    "tiles\0avg_pool2d\0adaptive_avg_pool2d\0size_h\0size_w\0flatten\0start\0end\0reshape\0shape\0linear\0batch_norm\0"
    "training\0momentum\0eps\0need_x\0need_affine\0dropout\0add\0mul\0sub\0cast\0dtype\0clamp\0low\0high\0softmax\0"
    "log_softmax\0dim\0mean\0dims\0keepdim\0permute\0concat\0conv2d_fused\0linear_fused\0activation\0pool_kernel_h\0"
    "pool_kernel_w\0pool_stride_h\0pool_stride_w\0panel_linear\0panel_conv2d\0";

/// Coding that goes nowhere: for models that learn beforehand.
struct Nowhere : BinaryCoder {
  bool code(bool bit, uint32_t) override { return bit; }
};

struct ToFields : FieldVisitor {
  explicit ToFields(const AttrType* type) : defaults(type) {}
  void operator()(const char* n, int64_t& v) override { add({.name = n, .type = Field::Type::integer, .integer = v}); }
  void operator()(const char* n, double& v) override { add({.name = n, .type = Field::Type::real, .real = v}); }
  void operator()(const char* n, bool& v) override { add({.name = n, .type = Field::Type::boolean, .integer = v}); }
  void operator()(const char* n, Shape& v) override { add({.name = n, .type = Field::Type::shape, .shape = v}); }
  void operator()(const char* n, DType& v) override {
    add({.name = n, .type = Field::Type::dtype, .integer = static_cast<int64_t>(v)});
  }
  void add(Field f) { fields.push_back(std::move(f)); }
  std::vector<Field> fields = {};
  Attrs defaults;
};

std::vector<Field> all_fields(Attrs attrs) {
  ToFields v(attrs.type());
  attrs.visit(v);
  return std::move(v.fields);
}

struct FromFields : FieldVisitor {
  explicit FromFields(const std::vector<Field>& f) : fields(f) {}
  void operator()(const char* n, int64_t& v) override {
    if (const Field* f = find(n, Field::Type::integer)) v = f->integer;
  }
  void operator()(const char* n, double& v) override {
    if (const Field* f = find(n, Field::Type::real)) v = f->real;
  }
  void operator()(const char* n, bool& v) override {
    if (const Field* f = find(n, Field::Type::boolean)) v = f->integer != 0;
  }
  void operator()(const char* n, Shape& v) override {
    if (const Field* f = find(n, Field::Type::shape)) v = f->shape;
  }
  void operator()(const char* n, DType& v) override {
    if (const Field* f = find(n, Field::Type::dtype)) v = static_cast<DType>(f->integer);
  }
  const Field* find(const char* name, Field::Type type) {
    for (const Field& f : fields) {
      if (f.name != name) continue;
      HONE_CHECK(f.type == type, FormatError, "attribute '", name, "' is of another type");
      ++found;
      return &f;
    }
    return nullptr;
  }
  const std::vector<Field>& fields;
  size_t found = 0;
};

}  // namespace

FieldList fields_of(const graph::Attributes& attributes) {
  FieldList list{.per_batch = attributes.per_batch};
  const std::vector<Field> defaults = all_fields(Attrs(attributes.fixed.type()));
  std::vector<Field> fields = all_fields(attributes.fixed);
  for (size_t i = 0; i < fields.size(); ++i)
    if (!(fields[i] == defaults[i])) list.fields.push_back(std::move(fields[i]));
  return list;
}

graph::Attributes attributes_of(const FieldList& list, const OpDef& op) {
  graph::Attributes a{.fixed = Attrs(op.attributes), .per_batch = list.per_batch};
  FromFields v(list.fields);
  a.fixed.visit(v);
  HONE_CHECK(v.found == list.fields.size(), FormatError, "op ", op.name, " lacks ", list.fields.size() - v.found,
             " of ", list.fields.size(), " attributes given, '", list.fields.front().name, "' the first of them");
  return a;
}

// ---- text ----

TextModel::TextModel() : mixer_{26214, 26214, 39322, 39322} {
  Nowhere nowhere;
  std::string text;
  for (const char* p = kPrimer; p < kPrimer + sizeof(kPrimer) - 1; p += text.size() + 1) code(nowhere, text = p);
  total_ = 0;
}

uint8_t TextModel::code_byte(BinaryCoder& coder, uint8_t c) {
  const uint64_t above = text_.size() < former_.size() ? static_cast<uint8_t>(former_[text_.size()]) : 0u;
  const uint64_t contexts[] = {last_ & 0xffu, last_ & 0xffffu, last_, above << 8 | (last_ & 0xffu)};
  uint64_t node = 1;
  for (int b = 7; b >= 0; --b) {
    mixer_.begin();
    for (uint64_t k = 0; k < 4; ++k) mixer_.add(counters_[k << 40 | contexts[k] << 8 | node]);
    node = node * 2 + mixer_.code(coder, c >> b & 1);
  }
  c = static_cast<uint8_t>(node);
  last_ = last_ << 8 | c;
  return c;
}

void TextModel::code(BinaryCoder& coder, std::string& text) {
  text_.clear();
  for (size_t i = 0;; ++i) {
    const uint8_t c = code_byte(coder, coder.decodes() || i == text.size() ? 0 : static_cast<uint8_t>(text[i]));
    if (c == 0) break;
    HONE_CHECK(i < kLongestText && ++total_ <= kMostText, FormatError, "a name of more than ", kLongestText,
               " bytes, or 64 KiB of names");
    text_ += static_cast<char>(c);
  }
  text = former_ = text_;
}

// ---- the graph ----

/// All lists together have a most, so that what a file's graph takes is bounded however its bytes read.
void ArchitectureModel::count_parts(size_t n) {
  parts_ += std::min(n, kMostParts + 1);
  HONE_CHECK(parts_ <= kMostParts, FormatError, "a graph of more than ", kMostParts,
             " values, nodes, operands and attributes");
}

template <class T> void ArchitectureModel::code_list(std::vector<T>& list, coding::NumberModel& model) {
  const size_t n = model.code(*coder_, list.size());
  count_parts(n);
  list.resize(n);
}

/// One of the sizes met last, by how long ago, or a new one.
void ArchitectureModel::code_dim(int64_t& n, size_t place) {
  constexpr size_t kRecent = 8;
  const auto it = std::find(recent_.begin(), recent_.end(), n);
  size_t at = recent_dim_[place == 0 ? 0 : 1].code(*coder_, static_cast<size_t>(it - recent_.begin()));
  HONE_CHECK(at <= recent_.size(), FormatError, "a size met ", at, " sizes ago, of ", recent_.size());
  if (at < recent_.size()) {
    n = recent_[at];
  } else {
    n = static_cast<int64_t>(new_dim_.code(*coder_, static_cast<uint64_t>(n)));
    HONE_CHECK(n >= 0 && n <= kLargestSize, FormatError, "a size of ", n);
    if (recent_.size() < kRecent) recent_.push_back(0);
    at = recent_.size() - 1;
  }
  std::move_backward(recent_.begin(), recent_.begin() + static_cast<long>(at),
                     recent_.begin() + static_cast<long>(at) + 1);
  recent_.front() = n;
}

void ArchitectureModel::code_shape(Shape& shape) {
  const auto n = ndim_.code(*coder_, static_cast<uint64_t>(shape.ndim()));
  HONE_CHECK(n <= kMaxDims, FormatError, "a shape of ", n, " dims");
  if (coder_->decodes())
    for (uint64_t d = 0; d < n; ++d) shape.push_back(0);
  for (int d = 0; d < shape.ndim(); ++d) code_dim(shape[d], static_cast<size_t>(d));
}

void ArchitectureModel::code_dims(graph::Dims& dims) {
  const auto n = ndim_.code(*coder_, dims.size());
  HONE_CHECK(n <= kMaxDims, FormatError, "a shape of ", n, " dims");
  dims.resize(n);
  for (graph::Dim& d : dims) {
    d.fixed = integer_.code(*coder_, d.fixed), d.per_batch = per_batch_.code(*coder_, d.per_batch);
    for (const int64_t v : {d.fixed, d.per_batch})
      HONE_CHECK(v >= -kLargestSize && v <= kLargestSize, FormatError, "a size of ", v);
  }
}

void ArchitectureModel::code_dtype(DType& d) {
  const uint64_t v = dtype_.code(*coder_, static_cast<uint64_t>(d));
  HONE_CHECK(v <= static_cast<uint64_t>(DType::boolean), FormatError, "dtype ", v);
  d = static_cast<DType>(v);
}

void ArchitectureModel::code_fields(FieldList& list) {
  code_list(list.fields, counts_[3]);
  for (Field& f : list.fields) {
    text_.code(*coder_, f.name);
    const uint64_t type = type_.code(*coder_, static_cast<uint64_t>(f.type));
    HONE_CHECK(type <= static_cast<uint64_t>(Field::Type::dtype), FormatError, "an attribute of type ", type);
    f.type = static_cast<Field::Type>(type);
    switch (f.type) {
      case Field::Type::integer: f.integer = integer_.code(*coder_, f.integer); break;
      case Field::Type::boolean: f.integer = coder_->code(f.integer != 0, 32768); break;
      case Field::Type::real:
        f.real = std::bit_cast<double>(coder_->code_bits(std::bit_cast<uint64_t>(f.real), 64));
        break;
      case Field::Type::shape: {
        const auto n = ndim_.code(*coder_, static_cast<uint64_t>(f.shape.ndim()));
        HONE_CHECK(n <= kMaxDims, FormatError, "a shape of ", n, " dims");
        if (coder_->decodes())
          for (uint64_t d = 0; d < n; ++d) f.shape.push_back(0);
        for (int64_t& v : f.shape) v = integer_.code(*coder_, v);
        break;
      }
      case Field::Type::dtype: {
        auto d = static_cast<DType>(f.integer);
        code_dtype(d);
        f.integer = static_cast<int64_t>(d);
      }
    }
  }
  bool any = !list.per_batch.empty();
  if (!code_flag(any, has_per_batch_)) return;
  code_list(list.per_batch, counts_[4]);
  for (int64_t& v : list.per_batch) {
    v = per_batch_.code(*coder_, v);
    HONE_CHECK(v >= -kLargestSize && v <= kLargestSize, FormatError, "a batch factor of ", v);
  }
}

void ArchitectureModel::code_input(Input& in) {
  text_.code(*coder_, in.name);
  code_dtype(in.dtype);
  code_dims(in.shape);
  names_.insert(in.name);
  ++values_;
}

void ArchitectureModel::code_leaf(Leaf& leaf) {
  const uint64_t kind =
      kind_.code(*coder_, static_cast<uint64_t>(leaf.kind) - static_cast<uint64_t>(ValueKind::parameter));
  HONE_CHECK(kind <= 2, FormatError, "a value of kind ", kind);
  leaf.kind = static_cast<ValueKind>(kind + static_cast<uint64_t>(ValueKind::parameter));
  text_.code(*coder_, leaf.name);
  code_dtype(leaf.dtype);
  code_shape(leaf.shape);
  if (leaf.kind == ValueKind::parameter) {
    code_flag(leaf.frozen, frozen_);
    if (code_flag(leaf.masked, masked_)) code_flag(leaf.dense_gradient, dense_gradient_);
  }
  if (leaf.kind == ValueKind::constant && code_flag(leaf.uniform, uniform_)) code_dims(leaf.uniform_shape);
  names_.insert(leaf.name);
  ++values_;
}

/// 0: the value made last; 1: the first leaf that was not read yet; 2: none; 3: any, by how long ago it was made.
void ArchitectureModel::code_operand(int64_t& v) {
  const auto inputs = static_cast<int64_t>(a_->inputs.size()), end = inputs + static_cast<int64_t>(a_->leaves.size());
  const int64_t last = values_ == end ? inputs - 1 : values_ - 1;  // before the first node: the last input
  const int64_t leaf = inputs + unread_leaf_ < end ? inputs + unread_leaf_ : -2;
  const uint64_t way = operand_kind_.code(*coder_, v == -1 ? 2 : v == last ? 0 : v == leaf ? 1 : 3);
  HONE_CHECK(way <= 3, FormatError, "an operand of kind ", way);
  if (way == 3) {
    const uint64_t ago = operand_.code(*coder_, static_cast<uint64_t>(values_ - 1 - v));
    HONE_CHECK(ago < static_cast<uint64_t>(values_), FormatError, "an operand made ", ago, " values ago, of ", values_);
    v = values_ - 1 - static_cast<int64_t>(ago);
  } else {
    v = way == 0 ? last : way == 1 ? leaf : -1;
    HONE_CHECK(way == 2 || v >= 0, FormatError, "an operand that is not there");
  }
  if (v >= inputs && v < end) unread_leaf_ = std::max(unread_leaf_, v - inputs + 1);
}

/// Of the module whose parameter it reads first, or of its op.
std::string ArchitectureModel::expected_name(const NodeEntry& node) {
  std::string name = node.op;
  const auto inputs = static_cast<int64_t>(a_->inputs.size());
  for (const int64_t v : node.inputs) {
    if (v < inputs || v >= inputs + static_cast<int64_t>(a_->leaves.size())) continue;
    const std::string& leaf = a_->leaves[static_cast<size_t>(v - inputs)].name;
    if (const size_t dot = leaf.rfind('.'); dot != std::string::npos) {
      name = leaf.substr(0, dot);
      break;
    }
  }
  if (names_.count(name) == 0) return name;
  int64_t& taken = suffixes_[name];
  for (;; ++taken)
    if (std::string next = str(name, "_", taken + 1); names_.count(next) == 0) return next;
}

void ArchitectureModel::code_node(NodeEntry& node) {
  const auto it = op_numbers_.find(node.op);
  size_t op = op_.code(*coder_, it == op_numbers_.end() ? 0 : it->second);
  HONE_CHECK(op <= ops_.size(), FormatError, "op number ", op, " of ", ops_.size());
  if (op == 0) {
    text_.code(*coder_, node.op);
    ops_.push_back(node.op), last_fields_.emplace_back(), last_train_.emplace_back();
    op = ops_.size();
    op_numbers_.try_emplace(node.op, op);
  }
  node.op = ops_[--op];
  code_list(node.inputs, counts_[2]);
  for (int64_t& v : node.inputs) code_operand(v);

  std::string expected = expected_name(node);
  bool as_expected = node.name == expected;
  if (code_flag(as_expected, expected_))
    node.name = std::move(expected);
  else
    text_.code(*coder_, node.name);

  const auto code_like_last = [&](FieldList& list, FieldList& last, Counter& same) {
    bool equal = list == last;
    if (code_flag(equal, same))
      count_parts(last.fields.size() + last.per_batch.size()), list = last;
    else
      code_fields(list), last = list;
  };
  code_like_last(node.attributes, last_fields_[op], same_fields_[0]);
  bool trains = node.train.has_value();
  if (code_flag(trains, has_train_)) {
    if (!node.train) node.train.emplace();
    code_like_last(*node.train, last_train_[op], same_fields_[1]);
  }
  code_flag(node.train_only, train_only_);
  node.outputs = static_cast<int64_t>(outputs_.code(*coder_, static_cast<uint64_t>(node.outputs)));
  HONE_CHECK(node.outputs >= 0 && node.outputs <= kMaxOutputs, FormatError, "a node of ", node.outputs, " outputs");
  names_.insert(node.name);
  values_ += node.outputs;
}

void ArchitectureModel::code(BinaryCoder& coder, Architecture& a) {
  coder_ = &coder, a_ = &a;
  code_list(a.inputs, counts_[0]);
  for (Input& in : a.inputs) code_input(in);
  code_list(a.leaves, counts_[0]);
  for (Leaf& leaf : a.leaves) code_leaf(leaf);
  code_list(a.nodes, counts_[0]);
  for (NodeEntry& node : a.nodes) code_node(node);
  code_list(a.outputs, counts_[1]);
  for (int64_t& v : a.outputs) {
    code_operand(v);
    HONE_CHECK(v >= 0, FormatError, "an output that is none");
  }
}

}  // namespace hone::compress::detail
