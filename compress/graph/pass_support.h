#pragma once
// What passes share. Internal.

#include <optional>
#include <vector>

#include "hone/compress/graph/network.h"
#include "hone/core/autograd.h"
#include "hone/core/parallel.h"
#include "hone/ops/fused.h"

namespace hone::graph::detail {

/// Of the batch it does not depend.
bool is_fixed(const Dims& dims);
/// Neither on the mode nor, in its attributes, on the batch.
bool same_in_both_modes(const Node& n);
/// The elements of a parameter (masked), buffer or constant of fixed shape; undefined for any other value.
Tensor elements(const Network& net, ValueId v);

bool is_output(const Network& net, ValueId v);
/// The node that alone reads v, once; none where v is an output as well.
std::optional<size_t> sole_reader(const Network& net, const std::vector<std::vector<int32_t>>& uses, ValueId v);
/// No output of the node but the first is read.
bool only_first_is_read(const Network& net, const std::vector<std::vector<int32_t>>& uses, const Node& n);

/// Whether pack() packs the weight of a convolution of x: neither where its sizes depend on the batch nor where panels
/// do not suit them.
bool panels_suit(const Network& net, ValueId x, const Shape& weight, const FusedConvAttrs& a);

/// No gradients, and no recorder sees what a pass computes.
struct Quiet {
  NoGrad no_grad;
  RecorderScope unseen{nullptr};
};

struct ThreadScope {
  explicit ThreadScope(int threads) : former(num_threads()) { set_num_threads(threads); }
  ~ThreadScope() { set_num_threads(former); }
  ThreadScope(const ThreadScope&) = delete;
  int former;
};

}  // namespace hone::graph::detail
