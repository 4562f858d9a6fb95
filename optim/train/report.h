#pragma once
// A training run as one HTML file: no network, no scripts; light and dark; readable by screen readers and in print.

#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "hone/core/tensor.h"
#include "hone/optim/train/machine.h"
#include "hone/optim/train/metrics.h"

namespace hone::train {

/// One line of a chart, through the points (x[i], y[i]) in their order. A y of NaN or infinity leaves a gap.
struct Curve {
  std::string name;
  std::vector<double> y;
  std::vector<double> x = {};  ///< finite, one a y; none: 1, 2, …
};

struct Chart {
  std::string title, x_label, y_label;  ///< labels with their units: "accuracy (%)"
  std::vector<Curve> curves;
  bool log_x = false;  ///< equal steps stand for equal factors; every x is above 0
};

struct Mistake {
  Tensor image;  ///< [H, W] or [C, H, W] with 1 or 3 channels; u8 as it is, floating scaled from its own range
  int64_t label = 0, predicted = 0;
  double confidence = 0;  ///< probability given to `predicted`
};

/// A section with a table of text; the first column names the rows.
struct ReportTable {
  std::string title, note;
  std::vector<std::string> columns;
  std::vector<std::vector<std::string>> rows;  ///< each with a cell a column
};

/// What the page shows; empty parts are left out.
struct Report {
  std::string title, summary;
  std::vector<std::pair<std::string, std::string>> figures;   ///< headline: {"Test accuracy", "91.2 %"}
  std::vector<std::pair<std::string, std::string>> settings;  ///< {"optimizer", "Adam"}
  std::optional<Machine> machine;
  std::vector<Chart> charts;
  std::vector<ReportTable> tables;
  std::vector<std::string> classes;  ///< names, one a class of `confusion`; numbers where none are given
  std::optional<ConfusionMatrix> confusion;
  std::vector<Mistake> mistakes;
};

/// The whole page; every text is escaped. ShapeError or DTypeError for an image of another form, ValueError for a
/// confusion matrix whose classes do not fit `classes`, a table whose rows do not fit its columns, and a curve's x of
/// another form than it says.
std::string to_html(const Report& report);
/// Written to a temporary, then renamed. IoError.
void save_report(const std::string& path, const Report& report);

/// The wrong predictions with the highest probability, most confident first, at most `count`; equally confident ones in
/// their order. Infinite largest logits share the probability. images [N, …], logits [N, C], labels [N]. Errors as for
/// accuracy().
std::vector<Mistake> most_confident_mistakes(const Tensor& images, const Tensor& logits, const Tensor& labels,
                                             int64_t count);

/// A PNG file's bytes; `image` as in Mistake.
std::string encode_png(const Tensor& image);

/// "0.50" for (0.5, 2); "–" where not finite.
std::string format_number(double v, int decimals);
/// "10,000".
std::string format_count(int64_t n);

namespace detail {
std::string escape_html(const std::string& text);
std::string base64(const std::string& bytes);                        // RFC 4648, with padding
std::string draw_chart(const Chart& chart, int index);               // an svg element
std::vector<double> axis_ticks(double low, double high, int about);  // round numbers within [low, high]
extern const char* const kReportStyle;
}  // namespace detail

}  // namespace hone::train
