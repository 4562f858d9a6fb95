#pragma once
// Tables of text, for summaries. Internal.

#include <cstdint>
#include <string>
#include <vector>

namespace hone::detail {

/// Lines of cells, columns two spaces apart; the first `left` columns aligned left, the others right. Every line has as
/// many cells as the first.
std::string text_table(const std::vector<std::vector<std::string>>& lines, size_t left);

/// 1234567 as "1,234,567".
std::string grouped(int64_t n);

/// Those of `names` nearest to `name`, quoted, for an error's text: "; the nearest are 'a', 'b'". Empty where there is
/// none.
std::string nearest_names(const std::string& name, const std::vector<std::string>& names);

}  // namespace hone::detail
