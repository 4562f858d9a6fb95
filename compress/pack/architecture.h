#pragma once
// A network without its tensors as plain data, and as bits. Internal; docs/format.md.

#include <bit>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <unordered_map>
#include <vector>

#include "hone/compress/graph/network.h"
#include "hone/compress/pack/tensor_coder.h"

namespace hone::compress::detail {

/// An attribute that is not at its default.
struct Field {
  enum class Type : uint8_t { integer, real, boolean, shape, dtype };
  std::string name = {};
  Type type = Type::integer;
  int64_t integer = 0;  ///< of a boolean and a dtype, too
  double real = 0;
  Shape shape = {};
  /// Of the same bits: −0 is not 0.
  friend bool operator==(const Field& a, const Field& b) {
    return a.name == b.name && a.type == b.type && a.integer == b.integer && a.shape == b.shape &&
           std::bit_cast<uint64_t>(a.real) == std::bit_cast<uint64_t>(b.real);
  }
};

struct FieldList {
  std::vector<Field> fields = {};
  std::vector<int64_t> per_batch = {};
  friend bool operator==(const FieldList&, const FieldList&) = default;
};
FieldList fields_of(const graph::Attributes& attributes);
/// FormatError naming the field that the op lacks, or that is of another type.
graph::Attributes attributes_of(const FieldList& list, const OpDef& op);

struct Input {
  std::string name = {};
  DType dtype = DType::f32;
  graph::Dims shape = {};
};

/// A parameter, buffer or constant.
struct Leaf {
  std::string name = {};
  graph::ValueKind kind = graph::ValueKind::parameter;
  DType dtype = DType::f32;
  Shape shape = {};                                             ///< of the tensor stored
  bool frozen = false, masked = false, dense_gradient = false;  // parameters
  bool uniform = false;                                         ///< a constant of one element that stands for
  graph::Dims uniform_shape = {};                               ///< this shape
};

/// Operands by number: inputs, then leaves, then each node's outputs in turn; −1: none.
struct NodeEntry {
  std::string name = {}, op = {};
  std::vector<int64_t> inputs = {};
  int64_t outputs = 1;
  FieldList attributes = {};
  std::optional<FieldList> train = {};
  bool train_only = false;
};

struct Architecture {
  std::vector<Input> inputs = {};
  std::vector<Leaf> leaves = {};
  std::vector<NodeEntry> nodes = {};
  std::vector<int64_t> outputs = {};
};

/// Text, byte by byte; a zero byte ends it. It has read a page of names that networks use before it begins.
class TextModel {
 public:
  TextModel();
  void code(coding::BinaryCoder& coder, std::string& text);

 private:
  uint8_t code_byte(coding::BinaryCoder& coder, uint8_t c);
  std::unordered_map<uint64_t, coding::Counter> counters_;
  coding::Mixer mixer_;
  std::string former_, text_;  // the text before, and this one so far
  uint32_t last_ = 0;          // four bytes, across texts
  size_t total_ = 0;
};

class ArchitectureModel {
 public:
  /// Encodes, or decodes into an empty one; FormatError.
  void code(coding::BinaryCoder& coder, Architecture& a);

 private:
  void code_input(Input& in);
  void code_leaf(Leaf& leaf);
  void code_node(NodeEntry& node);
  void code_operand(int64_t& v);
  void code_fields(FieldList& list);
  void code_dim(int64_t& n, size_t place);
  void code_shape(Shape& shape);
  void code_dims(graph::Dims& dims);
  void code_dtype(DType& d);
  void count_parts(size_t n);
  template <class T> void code_list(std::vector<T>& list, coding::NumberModel& model);
  bool code_flag(bool& flag, coding::Counter& counter) { return flag = counter.code(*coder_, flag); }
  std::string expected_name(const NodeEntry& node);

  coding::BinaryCoder* coder_ = nullptr;
  Architecture* a_ = nullptr;
  size_t parts_ = 0;
  std::set<std::string> names_;
  std::map<std::string, int64_t> suffixes_;          // of a name that is taken, the last one found taken too
  std::vector<std::string> ops_;                     // in the order of their first node
  std::map<std::string, size_t> op_numbers_;         // from 1 on
  std::vector<FieldList> last_fields_, last_train_;  // of each op's last node
  std::vector<int64_t> recent_;                      // sizes, the latest first
  int64_t values_ = 0, unread_leaf_ = 0;             // numbered so far; the first leaf that no node has read

  TextModel text_;
  coding::NumberModel counts_[5], ndim_, recent_dim_[2], new_dim_, operand_kind_, operand_, op_, outputs_, type_;
  coding::NumberModel kind_, dtype_;
  IntegerModel integer_, per_batch_;
  coding::Counter frozen_, masked_, dense_gradient_, uniform_, expected_, same_fields_[2], has_train_, train_only_,
      has_per_batch_;
};

}  // namespace hone::compress::detail
