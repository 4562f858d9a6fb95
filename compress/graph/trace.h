#pragma once
// From a module to a Network: forward is run on the sample and what apply() saw is written down.

#include <span>

#include "hone/compress/graph/network.h"

namespace hone::graph {

struct TraceOptions {
  /// Record training mode too (dropout, batch norm), so that the network trains as the module does. Without it a
  /// module whose training mode cannot be traced still can be in eval mode.
  bool training = true;
  std::span<const OpDef* const> ops = {};  ///< ops of the user's own, beside op_table()
};

/// The module's computation as a Network with copies of its parameters (values, masks) and buffers under their names.
/// Each node is named after the module that called it. forward runs several times, with rows of `sample` ([N, …], N ≥
/// 1) at batch sizes 2, 3 and 5, in eval and in training mode: what differs between batch sizes must be an integer
/// linear in the batch (sizes of reshapes, say). Of a module in training mode the parts that are in eval mode (frozen
/// batch norms) are so in both of the network's modes; of one in eval mode all parts train with it. The module, its
/// modes, its buffers and the generator are left as they were. Throws GraphError naming the op or value: a graph,
/// attribute or constant that depends otherwise on batch or call (control flow, random numbers made outside of ops),
/// reading a traced value (item(), data(), to_vector()) or changing one in place, a view made outside of ops, an op in
/// no table, ops of eval mode that training mode lacks.
Network trace(nn::Module& module, const Tensor& sample, TraceOptions options = {});

/// Parameters, masks and buffers of `network` back into the module it was traced from, by name, of whatever shape they
/// have now; gradients go. The module must then compute what the network computes: GraphError, with the module as it
/// was, gradients too, if a name is missing on either side or the graph traced anew with `sample` differs. It is a
/// clone() that is traced: a hook that changes values is not in it.
void write_back(Network& network, nn::Module& module, const Tensor& sample, TraceOptions options = {});

/// The first difference in nodes, attributes, wiring or shapes, in words; empty where there is none. Names and values
/// of parameters do not count.
std::string difference(const Network& a, const Network& b);

}  // namespace hone::graph
