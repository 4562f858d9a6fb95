#include "hone/optim/train/report.h"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstring>

#include "hone/core/basic_ops.h"
#include "hone/core/error.h"
#include "hone/core/serialize.h"

namespace hone::train {
namespace {

using detail::base64;
using detail::escape_html;

std::string percent(double share, int decimals = 1) {
  return std::isfinite(share) ? format_number(100 * share, decimals) + "\u00a0%" : "–";
}

std::string class_name(const Report& r, int64_t c) {
  return c >= 0 && c < static_cast<int64_t>(r.classes.size()) ? r.classes[static_cast<size_t>(c)] : str(c);
}

std::string facts(const std::string& caption, const std::vector<std::pair<std::string, std::string>>& rows) {
  if (rows.empty()) return "";
  std::string s = str("<table class=\"plain\"><caption>", escape_html(caption), "</caption><tbody>\n");
  for (const auto& [name, value] : rows)
    s += str("<tr><th scope=\"row\">", escape_html(name), "</th><td>", escape_html(value), "</td></tr>\n");
  return s + "</tbody></table>\n";
}

std::string scrolled(const std::string& label, const std::string& kind) {
  return str("<div class=\"scroll\" tabindex=\"0\" role=\"group\" aria-label=\"", escape_html(label),
             "\"><table class=\"", kind, "\">");
}

std::string text_table(const ReportTable& t) {
  std::string s = str("<section><h2>", escape_html(t.title), "</h2>\n");
  if (!t.note.empty()) s += str("<p class=\"hint\">", escape_html(t.note), "</p>\n");
  s += scrolled(t.title, "plain") + "<thead><tr>";
  for (const std::string& name : t.columns) s += str("<th scope=\"col\">", escape_html(name), "</th>");
  s += "</tr></thead>\n<tbody>\n";
  for (const std::vector<std::string>& row : t.rows) {
    HONE_CHECK(row.size() == t.columns.size(), ValueError, "report: '", t.title, "' has ", t.columns.size(),
               " columns and a row of ", row.size());
    s += "<tr>";
    for (size_t i = 0; i < row.size(); ++i)
      s += i == 0 ? str("<th scope=\"row\">", escape_html(row[i]), "</th>") : str("<td>", escape_html(row[i]), "</td>");
    s += "</tr>\n";
  }
  return s + "</tbody></table></div></section>\n";
}

std::string confusion_table(const Report& r) {
  const ConfusionMatrix& m = *r.confusion;
  std::string s =
      "<section><h2>Confusion matrix</h2>\n<p class=\"hint\">Rows: what the image is. Columns: what the network said. "
      "Blue "
      "on the diagonal is right, orange is wrong; the stronger, the larger its share of the row.</p>\n";
  s += scrolled("Confusion matrix", "matrix") + "\n<thead><tr><th class=\"axis\" scope=\"col\">label \\ predicted</th>";
  for (int64_t c = 0; c < m.classes(); ++c)
    s += str("<th scope=\"col\"><div class=\"upright\">", escape_html(class_name(r, c)), "</div></th>");
  s += "</tr></thead>\n<tbody>\n";
  for (int64_t i = 0; i < m.classes(); ++i) {
    s += str("<tr><th scope=\"row\">", escape_html(class_name(r, i)), "</th>");
    const double row = static_cast<double>(std::max<int64_t>(m.support(i), 1));
    for (int64_t j = 0; j < m.classes(); ++j) {
      const double share = static_cast<double>(m(i, j)) / row;
      // Roots make the rare mistakes visible; the ceiling keeps the figures readable.
      const double alpha = m(i, j) == 0 ? 0 : 0.06 + 0.5 * (i == j ? share : std::sqrt(share));
      s += str("<td class=\"",
               m(i, j) == 0 ? "none"
               : i == j     ? "hit"
                            : "miss",
               "\" style=\"--a:", format_number(alpha, 3), "\" title=\"", escape_html(class_name(r, i)),
               " predicted as ", escape_html(class_name(r, j)), ": ", m(i, j), " of ", m.support(i), " (",
               percent(share), ")\">", m(i, j), "</td>");
    }
    s += "</tr>\n";
  }
  return s + "</tbody></table></div></section>\n";
}

std::string score_cells(const ClassScores& c) {
  std::string s;
  for (double v : {c.precision, c.recall, c.f1})
    s += str("<td class=\"bar\" style=\"--v:", format_number(100 * v, 1), "%\">", percent(v), "</td>");
  return str(s, "<td>", format_count(c.support), "</td>");
}

std::string class_table(const Report& r) {
  const ConfusionMatrix& m = *r.confusion;
  std::string s = str("<section><h2>By class</h2>\n<p class=\"hint\">Balanced accuracy ",
                      percent(m.balanced_accuracy()), ", confusion entropy ", format_number(m.confusion_entropy(), 4),
                      " (0: no error; 1: every answer wrong, evenly).</p>\n", scrolled("Scores by class", "plain"),
                      "<thead><tr><th scope=\"col\">Class</th>",
                      "<th scope=\"col\">Precision</th><th scope=\"col\">Recall</th><th scope=\"col\">F1</th><th "
                      "scope=\"col\">Support ",
                      "(images)</th></tr></thead>\n<tbody>\n");
  for (int64_t c = 0; c < m.classes(); ++c)
    s += str("<tr><th scope=\"row\">", escape_html(class_name(r, c)), "</th>", score_cells(m.scores(c)), "</tr>\n");
  return str(s, "</tbody>\n<tfoot><tr><th scope=\"row\">Mean over classes</th>", score_cells(m.macro()),
             "</tr></tfoot></table></div></section>\n");
}

std::string mistake_grid(const Report& r) {
  std::string s =
      "<section><h2>Most confident mistakes</h2>\n<p class=\"hint\">Wrong answers that the network gave with the "
      "highest "
      "probability.</p>\n<ul class=\"mistakes\">\n";
  for (const Mistake& m : r.mistakes) {
    const std::string label = escape_html(class_name(r, m.label)), predicted = escape_html(class_name(r, m.predicted));
    s += str("<li><img src=\"data:image/png;base64,", base64(encode_png(m.image)), "\" alt=\"", label,
             ", predicted as ", predicted, "\"><p><span class=\"as\">", predicted, "</span><br><span class=\"sure\">",
             percent(m.confidence), "</span><br>is ", label, "</p></li>\n");
  }
  return s + "</ul></section>\n";
}

}  // namespace

namespace detail {

std::string escape_html(const std::string& text) {
  std::string s;
  for (char c : text) {
    switch (c) {
      case '&': s += "&amp;"; break;
      case '<': s += "&lt;"; break;
      case '>': s += "&gt;"; break;
      case '"': s += "&quot;"; break;
      case '\'': s += "&#39;"; break;
      default:
        // Control characters have no place in HTML.
        s += static_cast<unsigned char>(c) < 0x20 && c != '\n' && c != '\t' ? ' ' : c;
    }
  }
  return s;
}

std::string base64(const std::string& bytes) {
  static constexpr char kDigits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
  std::string out;
  out.reserve((bytes.size() + 2) / 3 * 4);
  for (size_t i = 0; i < bytes.size(); i += 3) {
    const size_t n = std::min<size_t>(3, bytes.size() - i);
    uint32_t group = 0;
    for (size_t k = 0; k < 3; ++k) group = group << 8 | (k < n ? static_cast<unsigned char>(bytes[i + k]) : 0u);
    for (size_t k = 0; k < 4; ++k) out += k <= n ? kDigits[group >> (18 - 6 * k) & 63] : '=';
  }
  return out;
}

}  // namespace detail

std::string format_number(double v, int decimals) {
  if (!std::isfinite(v)) return "–";
  char text[400];
  std::snprintf(text, sizeof text, "%.*f", decimals, v == 0 ? 0.0 : v);
  return text;
}

std::string format_count(int64_t n) {
  std::string s = str(n);
  for (int64_t at = static_cast<int64_t>(s.size()) - 3; at > (n < 0 ? 1 : 0); at -= 3)
    s.insert(static_cast<size_t>(at), ",");
  return s;
}

std::string to_html(const Report& r) {
  if (r.confusion)
    HONE_CHECK(r.classes.empty() || static_cast<int64_t>(r.classes.size()) == r.confusion->classes(), ValueError,
               "report: ", r.classes.size(), " class names for ", r.confusion->classes(), " classes");
  std::string s =
      str("<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n<meta name=\"viewport\" ",
          "content=\"width=device-width, initial-scale=1\">\n<title>", escape_html(r.title), "</title>\n<style>",
          detail::kReportStyle, "</style>\n</head>\n<body>\n<main>\n<header><h1>", escape_html(r.title), "</h1>\n");
  if (!r.summary.empty()) s += str("<p class=\"lead\">", escape_html(r.summary), "</p>\n");
  s += "</header>\n";
  if (!r.figures.empty()) {
    s += "<dl class=\"tiles\">\n";
    for (const auto& [name, value] : r.figures)
      s += str("<div><dt>", escape_html(name), "</dt><dd>", escape_html(value), "</dd></div>\n");
    s += "</dl>\n";
  }
  if (!r.charts.empty()) {
    s += "<div class=\"charts\">\n";
    for (size_t i = 0; i < r.charts.size(); ++i)
      s += str("<figure><figcaption>", escape_html(r.charts[i].title), "</figcaption>\n",
               detail::draw_chart(r.charts[i], static_cast<int>(i)), "</figure>\n");
    s += "</div>\n";
  }
  for (const ReportTable& t : r.tables) s += text_table(t);
  if (r.confusion) s += confusion_table(r) + class_table(r);
  if (!r.mistakes.empty()) s += mistake_grid(r);
  if (!r.settings.empty() || r.machine) {
    s += "<section><h2>How it was made</h2>\n<div class=\"facts\">\n";
    s += facts("Settings", r.settings);
    if (r.machine) {
      std::vector<std::pair<std::string, std::string>> rows = {
          {"processor", r.machine->processor}, {"cores", str(r.machine->cores)}, {"SIMD", r.machine->simd}};
      rows.insert(rows.end(), r.machine->versions.begin(), r.machine->versions.end());
      s += facts("Machine", rows);
    }
    s += "</div></section>\n";
  }
  return s + "<footer>Written by Hone.</footer>\n</main>\n</body>\n</html>\n";
}

std::vector<Mistake> most_confident_mistakes(const Tensor& images, const Tensor& logits, const Tensor& labels,
                                             int64_t count) {
  accuracy(logits, labels);  // for its checks
  HONE_CHECK(logits.ndim() == 2, ShapeError, "most_confident_mistakes: logits must be [N, C], got ", logits.shape());
  HONE_CHECK(images.defined() && images.ndim() >= 1 && images.size(0) == logits.size(0), ShapeError,
             "most_confident_mistakes: images for ", logits.size(0), " rows of logits needed, got ",
             images.defined() ? to_string(images.shape()) : "an undefined tensor");
  const std::vector<double> x = logits.to_vector<double>();
  const std::vector<int64_t> y = labels.to_vector<int64_t>(), p = predicted_classes(logits);
  const size_t classes = static_cast<size_t>(logits.size(1));
  std::vector<std::pair<double, size_t>> wrong;  // confidence, row
  for (size_t r = 0; r < y.size(); ++r) {
    if (p[r] == y[r]) continue;
    const double* row = x.data() + r * classes;
    double sum = 0;
    const double top = row[p[r]];
    for (size_t c = 0; c < classes; ++c) sum += row[c] == top ? 1 : std::exp(row[c] - top);  // ∞ − ∞ is no number
    wrong.emplace_back(1 / sum, r);
  }
  std::sort(wrong.begin(), wrong.end(),
            [](const auto& a, const auto& b) { return a.first != b.first ? a.first > b.first : a.second < b.second; });
  if (static_cast<int64_t>(wrong.size()) > count) wrong.resize(static_cast<size_t>(std::max<int64_t>(count, 0)));

  const Tensor rows = contiguous(images.detach());
  Shape one = rows.shape();
  one.erase(0);
  const size_t bytes = static_cast<size_t>(one.numel() * size_of(rows.dtype()));
  std::vector<Mistake> found;
  for (const auto& [confidence, r] : wrong) {
    Tensor image = empty(one, rows.dtype());
    if (bytes > 0) std::memcpy(image.raw_data(), static_cast<const std::byte*>(rows.raw_data()) + r * bytes, bytes);
    found.push_back({image, y[r], p[r], confidence});
  }
  return found;
}

void save_report(const std::string& path, const Report& report) {
  const std::string page = to_html(report);
  write_file_atomically(path, page.data(), page.size());
}

}  // namespace hone::train
