#pragma once
// What pruning is made of: the parameters that options mean, and which of their weights stay. Private to
// compress/prune.

#include <algorithm>
#include <cstdint>
#include <string>
#include <vector>

#include "hone/compress/prune/prune.h"

namespace hone::compress::detail {

/// Whether `name` is the parameter's or layer's, or that of a module it lies in.
bool is_named(const std::string& parameter, const std::string& name);
/// The parameters that names mean; perhaps none. ValueError naming `what` for a name that is not there.
std::vector<nn::NamedParameter> named(const char* what, nn::Module& module, const std::vector<std::string>& only,
                                      const std::vector<std::string>& except, bool biases);
/// The same, all of a type that can be pruned, at least one.
std::vector<nn::NamedParameter> chosen(const char* what, nn::Module& module, const std::vector<std::string>& only,
                                       const std::vector<std::string>& except, bool biases);
/// The same by PruneOptions, all of whose fields but the schedule are checked.
std::vector<nn::NamedParameter> chosen(const char* what, nn::Module& module, const PruneOptions& options);

/// ValueError naming the first that is a codebook: its weights have no values of their own to be pruned by.
void check_types(const char* what, const std::vector<nn::NamedParameter>& parameters);
PruneReport report_of(const std::vector<nn::NamedParameter>& parameters);
/// A parameter's mask on the cpu, as a copy: all true where it is dense.
Tensor mask_of(const ParameterRef& p);

struct SelectOptions {
  bool revive = false;  ///< what is masked competes too
  double margin = 0;    ///< scores s count as s + margin |s| of what is kept, s − margin |s| of the others
};
/// New masks, on the cpu, for parameters with these scores, at step t of the options' schedule. What competes are n
/// units (weights, or blocks): round(density n) stay, or all candidates where those are fewer; equal scores go to the
/// earlier one. N:M patterns decide in each group instead. NumericError naming the parameter for a block whose scores'
/// sum overflows.
std::vector<Tensor> select(const std::vector<nn::NamedParameter>& parameters, const PruneOptions& options, int64_t t,
                           const std::vector<Tensor>& scores, SelectOptions how = {});

/// Calls chosen(i) for the `count` places i < n with the largest key(i) among those where eligible(i); of equal keys
/// the earlier place wins.
template <class Eligible, class Key, class Chosen>
void choose_largest(int64_t n, int64_t count, const Eligible& eligible, const Key& key, const Chosen& chosen) {
  struct Place {
    double key;
    int64_t at;
  };
  std::vector<Place> places;
  for (int64_t i = 0; i < n; ++i)
    if (eligible(i)) places.push_back({key(i), i});
  const auto end = places.begin() + std::clamp<int64_t>(count, 0, static_cast<int64_t>(places.size()));
  const auto better = [](const Place& a, const Place& b) { return a.key != b.key ? a.key > b.key : a.at < b.at; };
  std::nth_element(places.begin(), end, places.end(), better);
  for (auto p = places.begin(); p != end; ++p) chosen(p->at);
}

}  // namespace hone::compress::detail
