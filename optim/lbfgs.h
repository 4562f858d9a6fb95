#pragma once
// L-BFGS (Liu and Nocedal, "On the limited memory BFGS method for large scale optimization", 1989), with the line
// search of Nocedal and Wright, "Numerical optimization", 2006, algorithms 3.5 and 3.6.

#include "hone/optim/optimizer.h"

namespace hone::optim {

struct LBFGSOptions {
  double lr = 1;                     ///< η ≥ 0: first step length tried after the first iteration
  int64_t max_iterations = 20;       ///< ≥ 1: of one step()
  int64_t max_evaluations = 0;       ///< of one step(); 0: 5/4 of max_iterations
  double tolerance_gradient = 1e-7;  ///< ≥ 0: ends when max |g| is not above it
  double tolerance_change = 1e-9;    ///< ≥ 0: ends when the loss or the step changes by less
  int64_t history = 100;             ///< ≥ 1: pairs (s, y) kept, two vectors each
  bool strong_wolfe = true;          ///< false: steps of length η along the direction, no search
  double weight_decay = 0;           ///< λ ≥ 0: adds λ/2 ‖w‖² to the loss
  bool maximize = false;             ///< climb: of −loss
  void fields(FieldVisitor& v);
};

/// Minimizes a deterministic loss: step(closure) runs up to max_iterations of d = −H g, where H is the inverse
/// Hessian's estimate from the last `history` changes of w and g; w ← w + t d, with t from a search for the strong
/// Wolfe conditions. Computed in f64 whatever the parameters' dtype; a parameter without a gradient counts as one with
/// gradient 0. A loss that is NaN or infinite inside the search is a longer step than is allowed; at the start of a
/// step a loss or gradient that is not finite is a NumericError, and NonFinite::skip and clip leave that step out,
/// since a search needs both. One group of parameters; step() without a closure is a ValueError.
class LBFGS : public GroupedOptimizer<LBFGS, LBFGSOptions> {
 public:
  static constexpr const char* kName = "LBFGS";
  explicit LBFGS(const std::vector<ParameterRef>& parameters, LBFGSOptions options = {});
  static void check(const LBFGSOptions& o);

  void step() override;
  /// Returns the loss at the beginning of the step. What the closure throws leaves the parameters as they were.
  double step(const Closure& closure) override;
  std::vector<std::string> state_names() const override { return {}; }
  int64_t evaluations() const { return evaluations_; }  ///< of the closure, in all steps
  int64_t iterations() const { return iterations_; }
  int64_t state_bytes() const override;

  TensorFile state_dict() const override;
  void load_state_dict(const TensorFile& file) override;
  /// Pairs (s, y) keep what is kept; one whose curvature y·s lay in the rest is dropped.
  void apply(const Shrink& shrink) override;

 protected:
  int slots(int) const override { return 0; }

 private:
  struct Point {
    double loss = 0;
    std::vector<double> gradient;
  };
  std::vector<double> values() const;
  void set_values(const std::vector<double>& w);
  double minimize(const Closure& closure);
  Point evaluate(const Closure& closure);
  Point evaluate_at(const Closure& closure, const std::vector<double>& w, double t);
  void update_direction(const std::vector<double>& gradient);
  void add_pair(std::vector<double> s, std::vector<double> y);
  void set_pairs(std::vector<std::pair<std::vector<double>, std::vector<double>>> pairs);
  Point search(const Closure& closure, const std::vector<double>& w, const Point& start, double slope, double& t);

  int64_t iterations_ = 0, evaluations_ = 0;
  double length_ = 0, scale_ = 1;  // the last step length; H's first diagonal
  std::vector<double> direction_, former_gradient_;
  std::vector<std::vector<double>> s_, y_;  // changes of w and of g, oldest first
  std::vector<double> inverse_ys_;          // 1 / (y·s)
};

}  // namespace hone::optim
