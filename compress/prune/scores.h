#pragma once
// Scores of classes. Private to compress/prune.

#include <vector>

#include "hone/compress/prune/filters.h"
#include "hone/compress/prune/groups.h"

namespace hone::compress::detail {

/// [class]: as filter_scores() says, for the classes of these groups that can go; others are 0.
std::vector<double> filter_scores(graph::Network& network, const Coupling& coupling, const std::vector<Group>& groups,
                                  FilterCriterion criterion, const Pass& data, const char* who);

}  // namespace hone::compress::detail
