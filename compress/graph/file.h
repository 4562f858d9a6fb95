#pragma once
// Networks in files: safetensors, with the graph as JSON under metadata "hone.graph".

#include <span>
#include <string>

#include "hone/compress/graph/network.h"

namespace hone::graph {

/// Parameters, buffers and constants under their names. A masked parameter is stored without what it masks: "w.kept",
/// the kept raw values in order, and the smaller of "w.bits" (u8, a bit an element, the lowest first) and "w.gaps" (u8:
/// how many masked elements precede each kept one; 255 stands for 255 masked ones and no kept one; the last number is
/// what follows the last kept one). Of a codebook these are the codes, beside "w.centroids"; a fake-quantized parameter
/// has "w.scale", "w.points" and perhaps "w.levels" beside its raw values. Written as save_safetensors does: the same
/// network gives the same bytes. IoError.
void save(const Network& network, const std::string& path);

/// FormatError naming the file and what is wrong: not a graph, another version, an op in no table, damage of any kind;
/// nothing of an absurd size is allocated. `ops`: a user's own, beside op_table().
Network load(const std::string& path, std::span<const OpDef* const> ops = {});
Network from_tensor_file(const TensorFile& file, std::span<const OpDef* const> ops = {});
TensorFile to_tensor_file(const Network& network);

}  // namespace hone::graph
