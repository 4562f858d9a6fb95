#pragma once
// Every op of the library, listed: what file loaders look names up in, and what the tests go through.

#include <span>
#include <string_view>

#include "hone/core/op.h"

namespace hone {

/// All of core's and ops' OpDefs. Names are unique.
std::span<const OpDef* const> op_table();
/// The op of that name; nullptr if there is none.
const OpDef* find_op(std::string_view name);

}  // namespace hone
