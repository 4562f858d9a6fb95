#include <algorithm>
#include <cmath>
#include <limits>

#include "hone/core/error.h"
#include "hone/optim/train/report.h"

namespace hone::train::detail {
namespace {

constexpr double kWidth = 560, kHeight = 330, kLeft = 58, kRight = 16, kTop = 34, kBottom = 48;

int decimals_of(double step) {
  return step >= 1 ? 0 : std::min(8, static_cast<int>(std::ceil(-std::log10(step) - 1e-9)));
}

std::string px(double v) { return format_number(v, 1); }

std::string text(double x, double y, const char* anchor, const std::string& s, const std::string& more = "") {
  return str("<text x=\"", px(x), "\" y=\"", px(y), "\" text-anchor=\"", anchor, "\"", more, ">", escape_html(s),
             "</text>");
}
std::string line(double x1, double y1, double x2, double y2, const std::string& classes) {
  return str("<line x1=\"", px(x1), "\" y1=\"", px(y1), "\" x2=\"", px(x2), "\" y2=\"", px(y2), "\" class=\"", classes,
             "\"/>");
}

// What the picture says, for those who do not see it.
std::string describe(const Chart& chart) {
  std::string s = str(chart.y_label, " against ", chart.x_label, ".");
  for (const Curve& c : chart.curves) {
    if (c.y.empty()) continue;
    s += str(" ", c.name, ": from ", format_number(c.y.front(), 3), " to ", format_number(c.y.back(), 3), " over ",
             c.y.size(), c.y.size() == 1 ? " point." : " points.");
  }
  return s;
}

}  // namespace

std::vector<double> axis_ticks(double low, double high, int about) {
  const double raw = (high - low) / std::max(about, 1);
  if (!std::isfinite(raw) || raw <= 0) return {low};
  const double power = std::pow(10, std::floor(std::log10(raw)));
  double step = power;
  for (double m : {1.0, 2.0, 5.0, 10.0}) {
    step = m * power;
    if (step >= raw * (1 - 1e-9)) break;
  }
  std::vector<double> ticks;
  for (double k = std::ceil(low / step - 1e-9); k * step <= high + step * 1e-9 && ticks.size() < 64; ++k)
    ticks.push_back(k == 0 ? 0 : k * step);
  return ticks;
}

std::string draw_chart(const Chart& chart, int index) {
  double low = std::numeric_limits<double>::infinity(), high = -low;
  size_t points = 1;
  for (const Curve& c : chart.curves) {
    points = std::max(points, c.y.size());
    for (double v : c.y) {
      if (!std::isfinite(v)) continue;
      low = std::min(low, v);
      high = std::max(high, v);
    }
  }
  if (!(low <= high)) low = 0, high = 1;
  const double margin = high > low ? 0.06 * (high - low) : std::max(std::abs(high), 1.0) * 0.05;
  if (low >= 0)
    low = std::max(0.0, low - margin);
  else
    low -= margin;
  high += margin;

  const double last = static_cast<double>(std::max<size_t>(points, 2));
  const auto x_at = [&](double x) { return kLeft + (x - 1) / (last - 1) * (kWidth - kLeft - kRight); };
  const auto y_at = [&](double y) { return kHeight - kBottom - (y - low) / (high - low) * (kHeight - kTop - kBottom); };

  const std::string id = str("chart", index);
  std::string s = str("<svg viewBox=\"0 0 ", px(kWidth), " ", px(kHeight), "\" role=\"img\" aria-labelledby=\"", id,
                      "t ", id, "d\"><title id=\"", id, "t\">", escape_html(chart.title), "</title><desc id=\"", id,
                      "d\">", escape_html(describe(chart)), "</desc>\n");
  const std::vector<double> ys = axis_ticks(low, high, 5);
  const int decimals = ys.size() > 1 ? decimals_of(ys[1] - ys[0]) : 2;
  for (double y : ys) {
    s += line(kLeft, y_at(y), kWidth - kRight, y_at(y), "grid");
    s += text(kLeft - 8, y_at(y) + 4.5, "end", format_number(y, decimals));
  }
  std::vector<double> xs = axis_ticks(1, last, 8);
  std::erase_if(xs, [](double x) { return x != std::floor(x); });
  if (xs.empty() || xs.front() != 1) xs.insert(xs.begin(), 1);
  for (double x : xs) s += text(x_at(x), kHeight - kBottom + 20, "middle", format_number(x, 0));
  s += line(kLeft, kHeight - kBottom, kWidth - kRight, kHeight - kBottom, "axis");
  s += text((kLeft + kWidth - kRight) / 2, kHeight - 8, "middle", chart.x_label);
  const double middle = (kTop + kHeight - kBottom) / 2;
  s += text(13, middle, "middle", chart.y_label, str(" transform=\"rotate(-90 13 ", px(middle), ")\""));
  s += "\n";

  double key_x = kLeft;
  for (size_t k = 0; k < chart.curves.size(); ++k) {
    const Curve& c = chart.curves[k];
    const std::string kind = str("k", k % 4);
    std::string path;
    bool pen_down = false;
    for (size_t i = 0; i < c.y.size(); ++i) {
      if (!std::isfinite(c.y[i])) {
        pen_down = false;
        continue;
      }
      path += str(pen_down ? "L" : "M", px(x_at(static_cast<double>(i + 1))), " ", px(y_at(c.y[i])));
      pen_down = true;
    }
    s += str("<g class=\"", kind, "\"><path class=\"curve\" d=\"", path, "\"/>");
    if (c.y.size() <= 60) {
      for (size_t i = 0; i < c.y.size(); ++i) {
        if (!std::isfinite(c.y[i])) continue;
        s += str("<circle class=\"dot\" r=\"3.5\" cx=\"", px(x_at(static_cast<double>(i + 1))), "\" cy=\"",
                 px(y_at(c.y[i])), "\"><title>", escape_html(c.name), ", ", i + 1, ": ",
                 format_number(c.y[i], decimals + 2), "</title></circle>");
      }
    }
    s += "</g>";
    s += line(key_x, 12, key_x + 26, 12, kind + " key");
    s += text(key_x + 33, 16.5, "start", c.name, " class=\"name\"");
    key_x += 33 + 7.4 * static_cast<double>(c.name.size()) + 24;
    s += "\n";
  }
  return s + "</svg>\n";
}

}  // namespace hone::train::detail
