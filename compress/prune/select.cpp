#include "hone/compress/prune/select.h"

#include <cmath>
#include <map>

#include "hone/core/autograd.h"
#include "hone/core/basic_ops.h"
#include "hone/core/error.h"

namespace hone::compress::detail {
namespace {

/// A weight as a matrix: rows are its first dimension.
struct Matrix {
  int64_t rows, cols;
  explicit Matrix(const Shape& s) : rows(s.ndim() > 0 ? s[0] : 1), cols(rows > 0 ? s.numel() / rows : 0) {}
};

/// What is kept or pruned together.
struct Units {
  std::vector<double> score;
  std::vector<uint8_t> kept;  // whether any weight of it is
  int64_t size() const { return static_cast<int64_t>(score.size()); }
};

/// The unit that each weight belongs to: itself, or its block.
class UnitMap {
 public:
  UnitMap(const Pattern& p, const Shape& shape) : m_(shape), rows_(p.a), cols_(p.b) {
    if (p.kind != Pattern::Kind::block) rows_ = cols_ = 1;
    across_ = parts(m_.cols, cols_);
    count_ = parts(m_.rows, rows_) * across_;
  }
  int64_t count() const { return count_; }
  int64_t of(int64_t i) const { return i / m_.cols / rows_ * across_ + i % m_.cols / cols_; }

 private:
  static int64_t parts(int64_t n, int64_t size) { return n / size + (n % size != 0); }  // of any size: no sum overflows
  Matrix m_;
  int64_t rows_, cols_, across_, count_;
};

Units units_of(const UnitMap& map, const Tensor& scores, const Tensor& mask, bool revive) {
  const auto count = static_cast<size_t>(map.count());
  Units u{std::vector<double>(count), std::vector<uint8_t>(count)};
  std::vector<double> sizes(count);
  for (int64_t i = 0; i < scores.numel(); ++i) {
    const auto unit = static_cast<size_t>(map.of(i));
    const bool kept = mask.data<bool>()[i];
    if (kept || revive) u.score[unit] += scores.data<double>()[i];
    if (kept) u.kept[unit] = 1;
    ++sizes[unit];
  }
  for (size_t i = 0; i < count; ++i) u.score[i] /= sizes[i];
  return u;
}

double key_of(double score, bool kept, double margin) {
  return margin > 0 ? score + (kept ? margin : -margin) * std::abs(score) : score;
}

/// The best n of every m consecutive weights of a row.
Tensor select_n_m(const Pattern& p, const Tensor& scores, const Tensor& mask, SelectOptions options) {
  const Matrix matrix(scores.shape());
  Tensor next = zeros(scores.shape(), DType::boolean);
  for (int64_t row = 0; row < matrix.rows; ++row)
    for (int64_t from = 0; from < matrix.cols; from += p.b) {
      const int64_t first = row * matrix.cols + from;
      const bool* kept = mask.data<bool>() + first;
      choose_largest(
          std::min(p.b, matrix.cols - from), p.a, [&](int64_t i) { return options.revive || kept[i]; },
          [&](int64_t i) { return key_of(scores.data<double>()[first + i], kept[i], options.margin); },
          [&](int64_t i) { next.data<bool>()[first + i] = true; });
    }
  return next;
}

/// Parameters that compete for round(density · units).
struct Pool {
  std::vector<size_t> members;
  double density = 1;
};

void select_pool(const Pool& pool, const std::vector<nn::NamedParameter>& parameters, const PruneOptions& options,
                 const std::vector<Tensor>& scores, SelectOptions how, std::vector<Tensor>& masks) {
  Units all;
  std::vector<UnitMap> maps;
  for (const size_t i : pool.members) {
    maps.emplace_back(options.pattern, scores[i].shape());
    const Units u = units_of(maps.back(), scores[i], masks[i], how.revive);
    for (size_t k = 0; k < u.score.size(); ++k)
      HONE_CHECK(std::isfinite(u.score[k]), NumericError, options.criterion.name, ": the sum of the scores of block ",
                 k, " of parameter '", parameters[i].name, "' is infinite");
    all.score.insert(all.score.end(), u.score.begin(), u.score.end());
    all.kept.insert(all.kept.end(), u.kept.begin(), u.kept.end());
  }
  std::vector<uint8_t> stays(all.score.size());
  const auto at = [](int64_t i) { return static_cast<size_t>(i); };
  choose_largest(
      all.size(), std::llround(pool.density * static_cast<double>(all.size())),
      [&](int64_t i) { return how.revive || all.kept[at(i)]; },
      [&](int64_t i) { return key_of(all.score[at(i)], all.kept[at(i)] != 0, how.margin); },
      [&](int64_t i) { stays[at(i)] = 1; });
  int64_t first = 0;
  for (size_t k = 0; k < pool.members.size(); ++k) {
    Tensor& mask = masks[pool.members[k]];
    for (int64_t i = 0; i < mask.numel(); ++i) {
      bool& keep = mask.data<bool>()[i];
      keep = stays[at(first + maps[k].of(i))] != 0 && (how.revive || keep);
    }
    first += maps[k].count();
  }
}

/// ε (Σ dims / Π dims), at most 1, with the ε that makes them hold `density` of all weights.
std::vector<double> erdos_renyi(const std::vector<Shape>& shapes, double density) {
  std::vector<double> raw, sizes;
  double wanted = 0;
  for (const Shape& s : shapes) {
    double dims = 0;
    for (const int64_t d : s) dims += static_cast<double>(d);
    sizes.push_back(static_cast<double>(s.numel()));
    raw.push_back(s.numel() > 0 ? std::max(dims, 1.0) / sizes.back() : 1);
    wanted += density * sizes.back();
  }
  std::vector<bool> full(shapes.size());
  for (double epsilon = 0;;) {
    double left = wanted, parts = 0;
    for (size_t i = 0; i < raw.size(); ++i) full[i] ? left -= sizes[i] : parts += raw[i] * sizes[i];
    epsilon = parts > 0 ? std::max(left / parts, 0.0) : 0;
    bool changed = false;
    for (size_t i = 0; i < raw.size(); ++i)
      if (!full[i] && epsilon * raw[i] > 1) full[i] = changed = true;
    if (changed) continue;
    for (size_t i = 0; i < raw.size(); ++i) raw[i] = full[i] ? 1 : epsilon * raw[i];
    return raw;
  }
}

/// The density that the options give a parameter of its own: that of the longest name it is meant by.
std::optional<double> own_density(const std::string& parameter, const PruneOptions& options) {
  const std::pair<const std::string, double>* best = nullptr;
  for (const auto& entry : options.densities)
    if (is_named(parameter, entry.first) && (!best || entry.first.size() > best->first.size())) best = &entry;
  return best ? std::optional(best->second) : std::nullopt;
}

std::vector<Pool> pools_of(const std::vector<nn::NamedParameter>& parameters, const PruneOptions& options, int64_t t) {
  const auto now = [&](double density) { return density_at(options.schedule, t, density).value_or(1); };
  std::vector<Pool> pools;
  Pool rest;
  for (size_t i = 0; i < parameters.size(); ++i) {
    if (const auto own = own_density(parameters[i].name, options))
      pools.push_back({{i}, now(*own)});
    else
      rest.members.push_back(i);
  }
  if (rest.members.empty()) return pools;
  rest.density = now(options.density.value());
  if (options.scope == PruneScope::global) {
    pools.push_back(std::move(rest));
    return pools;
  }
  std::vector<double> densities(rest.members.size(), rest.density);
  if (options.scope == PruneScope::erdos_renyi) {
    std::vector<Shape> shapes;
    for (const size_t i : rest.members) shapes.push_back(parameters[i].parameter.raw().shape());
    densities = erdos_renyi(shapes, rest.density);
  }
  for (size_t k = 0; k < rest.members.size(); ++k) pools.push_back({{rest.members[k]}, densities[k]});
  return pools;
}

}  // namespace

Tensor mask_of(const ParameterRef& p) {
  const NoGrad no_grad;
  if (p.mask().defined()) return clone(to(p.mask(), cpu));
  return ones(p.shape(), DType::boolean);
}

std::vector<Tensor> select(const std::vector<nn::NamedParameter>& parameters, const PruneOptions& options, int64_t t,
                           const std::vector<Tensor>& scores, SelectOptions how) {
  std::vector<Tensor> masks;
  for (const auto& named : parameters) masks.push_back(mask_of(named.parameter));
  if (options.pattern.kind == Pattern::Kind::n_m) {
    for (size_t i = 0; i < masks.size(); ++i) masks[i] = select_n_m(options.pattern, scores[i], masks[i], how);
    return masks;
  }
  for (const Pool& pool : pools_of(parameters, options, t)) select_pool(pool, parameters, options, scores, how, masks);
  return masks;
}

}  // namespace hone::compress::detail
