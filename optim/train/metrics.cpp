#include "hone/optim/train/metrics.h"

#include <cmath>
#include <limits>
#include <map>

#include "hone/core/basic_ops.h"
#include "hone/core/error.h"

namespace hone::train {
namespace {

constexpr double kNaN = std::numeric_limits<double>::quiet_NaN();

void check_integers(const char* op, const char* what, const Tensor& t) {
  HONE_CHECK(t.defined() && t.ndim() == 1, ShapeError, op, ": ", what, " must have shape [N], got ",
             t.defined() ? to_string(t.shape()) : "an undefined tensor");
  HONE_CHECK(is_integer(t.dtype()), DTypeError, op, ": ", what, " must be integer, got ", t.dtype());
}
std::vector<int64_t> read_integers(const char* op, const char* what, const Tensor& t) {
  check_integers(op, what, t);
  return t.to_vector<int64_t>();
}

void check_logits(const char* op, const Tensor& t) {
  HONE_CHECK(t.defined() && t.ndim() == 2 && t.size(1) >= 1, ShapeError, op, ": predictions must be logits [N, C] or ",
             "classes [N], got ", t.defined() ? to_string(t.shape()) : "an undefined tensor");
  HONE_CHECK(is_floating(t.dtype()), DTypeError, op, ": logits must be floating, got ", t.dtype());
}

// Rows as f64: exact for every floating dtype.
std::vector<double> read_logits(const char* op, const Tensor& t) {
  check_logits(op, t);
  std::vector<double> v = t.to_vector<double>();
  for (size_t i = 0; i < v.size(); ++i)
    HONE_CHECK(!std::isnan(v[i]), NumericError, op, ": NaN logit in row ", i / static_cast<size_t>(t.size(1)));
  return v;
}

/// `labels`: Integers, or a vector.
template <class Labels> void check_labels(const char* op, const Labels& labels, int64_t rows, int64_t classes) {
  const auto n = static_cast<int64_t>(labels.size());
  HONE_CHECK(n == rows, ShapeError, op, ": ", rows, " predictions, ", n, " labels");
  for (int64_t i = 0; i < n; ++i) {
    const int64_t label = labels[static_cast<decltype(labels.size())>(i)];
    HONE_CHECK(label >= 0 && label < classes, ValueError, op, ": label ", label, " at ", i, " is outside [0, ", classes,
               ")");
  }
}

// Readers of elements where they lie: an array of them at every step would be asked of the system.
Tensor readable(const Tensor& t) { return contiguous(to(t.detach(), cpu)); }

class Integers {
 public:
  Integers(const char* op, const char* what, const Tensor& t) : t_((check_integers(op, what, t), readable(t))) {}
  int64_t size() const { return t_.numel(); }
  int64_t operator[](int64_t i) const {
    return visit_dtype(t_.dtype(), [&]<class T>() { return static_cast<int64_t>(t_.data<T>()[i]); });
  }

 private:
  Tensor t_;
};

/// f(row, class) for each row's largest logit, the first among equals.
template <class F> void for_each_argmax(const char* op, const Tensor& logits, F&& f) {
  check_logits(op, logits);
  const Tensor plain = readable(logits);
  const int64_t rows = logits.size(0), classes = logits.size(1);
  visit_floating(plain.dtype(), [&]<class T>() {
    const T* row = plain.data<T>();
    for (int64_t r = 0; r < rows; ++r, row += classes) {
      int64_t best = 0;
      for (int64_t c = 0; c < classes; ++c) {
        HONE_CHECK(!std::isnan(static_cast<double>(row[c])), NumericError, op, ": NaN logit in row ", r);
        if (row[c] > row[best]) best = c;
      }
      f(r, best);
    }
  });
}

std::vector<int64_t> argmax_rows(const char* op, const Tensor& logits) {
  std::vector<int64_t> out;
  for_each_argmax(op, logits, [&](int64_t, int64_t best) { out.push_back(best); });
  return out;
}

std::vector<int64_t> read_predictions(const char* op, const Tensor& predictions) {
  if (predictions.defined() && predictions.ndim() == 1) return read_integers(op, "predicted classes", predictions);
  return argmax_rows(op, predictions);
}

double p_log_p(double p) { return p > 0 ? p * std::log(p) : 0; }

double checked_entropy(std::span<const double> p, double tolerance, EntropyUnit unit) {
  double h = 0, sum = 0;
  for (double v : p) {
    HONE_CHECK(std::isfinite(v) && v >= 0, ValueError, "entropy: probability ", v, " is not in [0, 1]");
    sum += v;
    h -= p_log_p(v);
  }
  HONE_CHECK(std::abs(sum - 1) <= tolerance, ValueError, "entropy: probabilities sum to ", sum, ", not 1");
  if (h < 0) h = 0;  // −0 and rounding of a one-point distribution
  return unit == EntropyUnit::bits ? h / std::log(2.0) : h;
}

}  // namespace

std::vector<int64_t> predicted_classes(const Tensor& logits) { return argmax_rows("predicted_classes", logits); }

double accuracy(const Tensor& predictions, const Tensor& labels) {
  const char* op = "accuracy";
  const bool given = predictions.defined() && predictions.ndim() == 1;
  if (!given) check_logits(op, predictions);
  const Integers y(op, "labels", labels);
  const int64_t rows = predictions.size(0), classes = given ? std::numeric_limits<int64_t>::max() : predictions.size(1);
  int64_t right = 0;
  if (given) {
    const Integers p(op, "predicted classes", predictions);
    check_labels(op, y, rows, classes);
    for (int64_t r = 0; r < rows; ++r) right += p[r] == y[r];
  } else {
    check_labels(op, y, rows, classes);
    for_each_argmax(op, predictions, [&](int64_t r, int64_t best) { right += best == y[r]; });
  }
  return rows == 0 ? kNaN : static_cast<double>(right) / static_cast<double>(rows);
}

double top_k_accuracy(const Tensor& logits, const Tensor& labels, int64_t k) {
  const std::vector<double> v = read_logits("top_k_accuracy", logits);
  const std::vector<int64_t> y = read_integers("top_k_accuracy", "labels", labels);
  const int64_t rows = logits.size(0), classes = logits.size(1);
  HONE_CHECK(k >= 1 && k <= classes, ValueError, "top_k_accuracy: k must be in [1, ", classes, "], got ", k);
  check_labels("top_k_accuracy", y, rows, classes);
  int64_t right = 0;
  for (int64_t r = 0; r < rows; ++r) {
    const double* row = v.data() + r * classes;
    const int64_t label = y[static_cast<size_t>(r)];
    int64_t above = 0;
    for (int64_t c = 0; c < classes; ++c) above += row[c] > row[label] || (row[c] == row[label] && c < label);
    right += above < k;
  }
  return rows == 0 ? kNaN : static_cast<double>(right) / static_cast<double>(rows);
}

ConfusionMatrix::ConfusionMatrix(int64_t classes) : classes_(classes) {
  HONE_CHECK(classes >= 1 && classes <= 1 << 15, ValueError, "ConfusionMatrix: classes must be in [1, 32768], got ",
             classes);
  counts_.assign(static_cast<size_t>(classes * classes), 0);
}

ConfusionMatrix ConfusionMatrix::from_counts(std::vector<int64_t> counts) {
  const int64_t classes = std::llround(std::sqrt(static_cast<double>(counts.size())));
  HONE_CHECK(classes * classes == static_cast<int64_t>(counts.size()), ValueError, "ConfusionMatrix: ", counts.size(),
             " counts are no square");
  ConfusionMatrix m(classes);
  for (int64_t c : counts) HONE_CHECK(c >= 0, ValueError, "ConfusionMatrix: a count of ", c);
  m.counts_ = std::move(counts);
  return m;
}

void ConfusionMatrix::update(const Tensor& predictions, const Tensor& labels) {
  const std::vector<int64_t> p = read_predictions("ConfusionMatrix", predictions);
  const std::vector<int64_t> y = read_integers("ConfusionMatrix", "labels", labels);
  HONE_CHECK(predictions.ndim() == 1 || predictions.size(1) == classes_, ShapeError, "ConfusionMatrix: logits ",
             predictions.shape(), " for ", classes_, " classes");
  check_labels("ConfusionMatrix", y, static_cast<int64_t>(p.size()), classes_);
  for (size_t i = 0; i < p.size(); ++i)
    HONE_CHECK(p[i] >= 0 && p[i] < classes_, ValueError, "ConfusionMatrix: predicted class ", p[i], " at ", i,
               " is outside [0, ", classes_, ")");
  for (size_t i = 0; i < p.size(); ++i) ++counts_[static_cast<size_t>(y[i] * classes_ + p[i])];
}

void ConfusionMatrix::reset() { counts_.assign(counts_.size(), 0); }

int64_t ConfusionMatrix::operator()(int64_t label, int64_t predicted) const {
  HONE_CHECK(label >= 0 && label < classes_ && predicted >= 0 && predicted < classes_, ValueError,
             "ConfusionMatrix: cell (", label, ", ", predicted, ") of ", classes_, " classes");
  return counts_[static_cast<size_t>(label * classes_ + predicted)];
}

int64_t ConfusionMatrix::total() const {
  int64_t n = 0;
  for (int64_t c : counts_) n += c;
  return n;
}
int64_t ConfusionMatrix::support(int64_t label) const {
  int64_t n = 0;
  for (int64_t k = 0; k < classes_; ++k) n += (*this)(label, k);
  return n;
}
int64_t ConfusionMatrix::predicted(int64_t predicted) const {
  int64_t n = 0;
  for (int64_t k = 0; k < classes_; ++k) n += (*this)(k, predicted);
  return n;
}

double ConfusionMatrix::accuracy() const {
  int64_t right = 0;
  for (int64_t c = 0; c < classes_; ++c) right += (*this)(c, c);
  const int64_t n = total();
  return n == 0 ? kNaN : static_cast<double>(right) / static_cast<double>(n);
}

ClassScores ConfusionMatrix::scores(int64_t c) const {
  const double right = static_cast<double>((*this)(c, c));
  const int64_t of = support(c), as = predicted(c);
  ClassScores s;
  s.support = of;
  s.precision = as == 0 ? 0 : right / static_cast<double>(as);
  s.recall = of == 0 ? 0 : right / static_cast<double>(of);
  s.f1 = of + as == 0 ? 0 : 2 * right / static_cast<double>(of + as);
  return s;
}

ClassScores ConfusionMatrix::macro() const {
  ClassScores mean;
  for (int64_t c = 0; c < classes_; ++c) {
    const ClassScores s = scores(c);
    mean.precision += s.precision / static_cast<double>(classes_);
    mean.recall += s.recall / static_cast<double>(classes_);
    mean.f1 += s.f1 / static_cast<double>(classes_);
    mean.support += s.support;
  }
  return mean;
}

double ConfusionMatrix::balanced_accuracy() const {
  double sum = 0;
  int64_t present = 0;
  for (int64_t c = 0; c < classes_; ++c) {
    const ClassScores s = scores(c);
    if (s.support == 0) continue;
    sum += s.recall;
    ++present;
  }
  return present == 0 ? kNaN : sum / static_cast<double>(present);
}

double ConfusionMatrix::class_confusion_entropy(int64_t j) const {
  const double both = static_cast<double>(support(j) + predicted(j));
  if (both == 0 || classes_ < 2) return 0;
  double sum = 0;
  for (int64_t k = 0; k < classes_; ++k)
    if (k != j)
      sum += p_log_p(static_cast<double>((*this)(j, k)) / both) + p_log_p(static_cast<double>((*this)(k, j)) / both);
  return sum == 0 ? 0 : -sum / std::log(2.0 * static_cast<double>(classes_ - 1));
}

double ConfusionMatrix::confusion_entropy() const {
  const double n = static_cast<double>(total());
  if (n == 0) return kNaN;
  double cen = 0;
  for (int64_t j = 0; j < classes_; ++j)
    cen += static_cast<double>(support(j) + predicted(j)) / (2 * n) * class_confusion_entropy(j);
  return cen;
}

double entropy(std::span<const double> probabilities, EntropyUnit unit) {
  return checked_entropy(probabilities, 1e-6, unit);
}

double entropy(const Tensor& p, EntropyUnit unit) {
  HONE_CHECK(p.defined() && (p.ndim() == 1 || p.ndim() == 2), ShapeError,
             "entropy: probabilities must be [C] or [N, C], got ",
             p.defined() ? to_string(p.shape()) : "an undefined tensor");
  HONE_CHECK(is_floating(p.dtype()), DTypeError, "entropy: probabilities must be floating, got ", p.dtype());
  const std::vector<double> v = p.to_vector<double>();
  const size_t classes = static_cast<size_t>(p.size(-1)), rows = p.ndim() == 2 ? static_cast<size_t>(p.size(0)) : 1;
  double sum = 0;
  for (size_t r = 0; r < rows; ++r)
    sum += checked_entropy({v.data() + r * classes, classes},
                           p.dtype() == f64   ? 1e-6
                           : p.dtype() == f32 ? 1e-3
                                              : 3e-2,
                           unit);
  return rows == 0 ? kNaN : sum / static_cast<double>(rows);
}

double label_entropy(const Tensor& labels, EntropyUnit unit) {
  const std::vector<int64_t> y = read_integers("label_entropy", "labels", labels);
  if (y.empty()) return 0;
  std::map<int64_t, int64_t> counts;
  for (int64_t label : y) ++counts[label];
  std::vector<double> p;
  for (const auto& [label, count] : counts) p.push_back(static_cast<double>(count) / static_cast<double>(y.size()));
  return entropy(p, unit);
}

}  // namespace hone::train
