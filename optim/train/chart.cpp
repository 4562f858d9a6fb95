#include <algorithm>
#include <cmath>
#include <limits>

#include "hone/core/error.h"
#include "hone/optim/train/report.h"

namespace hone::train::detail {
namespace {

constexpr double kWidth = 560, kHeight = 330, kLeft = 58, kRight = 16, kBottom = 48, kKeyRow = 20;
constexpr size_t kStyles = 6;  // of lines, in kReportStyle

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

double x_of(const Curve& c, size_t i) { return c.x.empty() ? static_cast<double>(i + 1) : c.x[i]; }

void check(const Chart& chart, const Curve& c) {
  HONE_CHECK(c.x.empty() || c.x.size() == c.y.size(), ValueError, "chart '", chart.title, "': '", c.name, "' has ",
             c.x.size(), " x for ", c.y.size(), " y");
  for (const double x : c.x)
    HONE_CHECK(std::isfinite(x) && (x > 0 || !chart.log_x), ValueError, "chart '", chart.title, "': '", c.name,
               "' has a point at x = ", x);
}

// Round numbers within [low, high] on a scale of factors: 1, 2 and 5 times powers of ten, or these powers alone.
std::vector<double> log_ticks(double low, double high) {
  std::vector<double> ticks;
  const bool many = high / low > 1000;
  for (double power = std::pow(10, std::floor(std::log10(low))); power <= high; power *= 10)
    for (const double m : {1.0, 2.0, 5.0})
      if ((m == 1 || !many) && m * power >= low * (1 - 1e-9) && m * power <= high * (1 + 1e-9))
        ticks.push_back(m * power);
  return ticks;
}

struct KeyPlace {
  double x, row;
};
// Where the names of curves stand: from left to right, as many in a row as there is space for.
std::vector<KeyPlace> key_places(const Chart& chart) {
  std::vector<KeyPlace> places;
  double x = kLeft, row = 0;
  for (const Curve& c : chart.curves) {
    const double width = 33 + 7.4 * static_cast<double>(c.name.size());
    if (x > kLeft && x + width > kWidth) x = kLeft, ++row;
    places.push_back({x, row});
    x += width + 24;
  }
  return places;
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
  constexpr double kInfinity = std::numeric_limits<double>::infinity();
  double low = kInfinity, high = -kInfinity, first = kInfinity, last = -kInfinity;
  bool counted = true;  // points lie at 1, 2, …
  for (const Curve& c : chart.curves) {
    check(chart, c);
    counted = counted && c.x.empty();
    for (size_t i = 0; i < c.y.size(); ++i) {
      first = std::min(first, x_of(c, i));
      last = std::max(last, x_of(c, i));
      if (!std::isfinite(c.y[i])) continue;
      low = std::min(low, c.y[i]);
      high = std::max(high, c.y[i]);
    }
  }
  if (!(low <= high)) low = 0, high = 1;
  if (!(first <= last)) first = last = 1;
  if (first == last) last = chart.log_x ? 2 * first : first + 1;
  const double margin = high > low ? 0.06 * (high - low) : std::max(std::abs(high), 1.0) * 0.05;
  if (low >= 0)
    low = std::max(0.0, low - margin);
  else
    low -= margin;
  high += margin;

  const std::vector<KeyPlace> keys = key_places(chart);
  const double top = 34 + (keys.empty() ? 0 : kKeyRow * keys.back().row), full_height = kHeight + top - 34;
  const double bottom = full_height - kBottom;
  const auto scaled = [&](double x) { return chart.log_x ? std::log(x) : x; };
  const auto x_at = [&](double x) {
    return kLeft + (scaled(x) - scaled(first)) / (scaled(last) - scaled(first)) * (kWidth - kLeft - kRight);
  };
  const auto y_at = [&](double y) { return bottom - (y - low) / (high - low) * (bottom - top); };

  const std::string id = str("chart", index);
  std::string s = str("<svg viewBox=\"0 0 ", px(kWidth), " ", px(full_height), "\" role=\"img\" aria-labelledby=\"", id,
                      "t ", id, "d\"><title id=\"", id, "t\">", escape_html(chart.title), "</title><desc id=\"", id,
                      "d\">", escape_html(describe(chart)), "</desc>\n");
  const std::vector<double> ys = axis_ticks(low, high, 5);
  const int decimals = ys.size() > 1 ? decimals_of(ys[1] - ys[0]) : 2;
  for (double y : ys) {
    s += line(kLeft, y_at(y), kWidth - kRight, y_at(y), "grid");
    s += text(kLeft - 8, y_at(y) + 4.5, "end", format_number(y, decimals));
  }
  std::vector<double> xs = chart.log_x ? log_ticks(first, last) : axis_ticks(first, last, 8);
  if (counted && !chart.log_x) {
    std::erase_if(xs, [](double x) { return x != std::floor(x); });
    if (xs.empty() || xs.front() != 1) xs.insert(xs.begin(), 1);
  }
  const double step = xs.size() > 1 ? xs[1] - xs[0] : 1;
  for (double x : xs)
    s += text(x_at(x), bottom + 20, "middle",
              x >= 1000 ? format_count(std::llround(x)) : format_number(x, decimals_of(chart.log_x ? x : step)));
  s += line(kLeft, bottom, kWidth - kRight, bottom, "axis");
  s += text((kLeft + kWidth - kRight) / 2, full_height - 8, "middle", chart.x_label);
  const double middle = (top + bottom) / 2;
  s += text(13, middle, "middle", chart.y_label, str(" transform=\"rotate(-90 13 ", px(middle), ")\""));
  s += "\n";

  for (size_t k = 0; k < chart.curves.size(); ++k) {
    const Curve& c = chart.curves[k];
    const std::string kind = str("k", k % kStyles);
    std::string path;
    bool pen_down = false;
    for (size_t i = 0; i < c.y.size(); ++i) {
      if (!std::isfinite(c.y[i])) {
        pen_down = false;
        continue;
      }
      path += str(pen_down ? "L" : "M", px(x_at(x_of(c, i))), " ", px(y_at(c.y[i])));
      pen_down = true;
    }
    s += str("<g class=\"", kind, "\"><path class=\"curve\" d=\"", path, "\"/>");
    if (c.y.size() <= 60) {
      for (size_t i = 0; i < c.y.size(); ++i) {
        if (!std::isfinite(c.y[i])) continue;
        s += str("<circle class=\"dot\" r=\"3.5\" cx=\"", px(x_at(x_of(c, i))), "\" cy=\"", px(y_at(c.y[i])),
                 "\"><title>", escape_html(c.name), ", ", x_of(c, i), ": ", format_number(c.y[i], decimals + 2),
                 "</title></circle>");
      }
    }
    s += "</g>";
    const double y = 12 + kKeyRow * keys[k].row;
    s += line(keys[k].x, y, keys[k].x + 26, y, kind + " key");
    s += text(keys[k].x + 33, y + 4.5, "start", c.name, " class=\"name\"");
    s += "\n";
  }
  return s + "</svg>\n";
}

}  // namespace hone::train::detail
