#include "hone/optim/train/progress.h"

#include <sys/ioctl.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <exception>

namespace hone::train {
namespace {

constexpr double kRedraw = 0.1;  // seconds

double now_seconds() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

bool is_terminal(std::FILE* f) {
  const int fd = f ? fileno(f) : -1;
  const char* term = std::getenv("TERM");
  return fd >= 0 && isatty(fd) && term && std::strcmp(term, "dumb") != 0;
}

int terminal_columns(std::FILE* f) {
  winsize w{};
  if (ioctl(fileno(f), TIOCGWINSZ, &w) == 0 && w.ws_col > 0) return w.ws_col;
  return 80;
}

std::string number(double v) {
  char text[32];
  std::snprintf(text, sizeof text, v >= 100 ? "%.0f" : v >= 10 ? "%.1f" : "%.2f", v);
  return text;
}

std::string rate(int64_t done, double seconds) {
  return seconds > 0 && done > 0 ? number(static_cast<double>(done) / seconds) + "/s" : "–/s";
}

// Characters, not bytes: labels are UTF-8.
size_t width(const std::string& s) {
  return static_cast<size_t>(std::count_if(s.begin(), s.end(), [](char c) { return (c & 0xC0) != 0x80; }));
}
std::string cut(const std::string& s, size_t columns) {
  size_t i = 0;
  for (size_t n = 0; i < s.size(); ++i)
    if ((s[i] & 0xC0) != 0x80 && n++ == columns) break;
  return s.substr(0, i);
}

}  // namespace

std::string format_seconds(double s) {
  char text[48];
  if (!std::isfinite(s) || s < 0) return "?";
  if (s < 9.95) {
    std::snprintf(text, sizeof text, "%.1f s", s);
  } else if (s < 59.5) {
    std::snprintf(text, sizeof text, "%.0f s", s);
  } else {
    const long long t = std::llround(std::min(s, 1e9));
    if (t < 3600)
      std::snprintf(text, sizeof text, "%lld:%02lld", t / 60, t % 60);
    else
      std::snprintf(text, sizeof text, "%lld:%02lld:%02lld", t / 3600, t / 60 % 60, t % 60);
  }
  return text;
}

std::string format_bar(const std::string& label, int64_t done, int64_t total, double seconds, const std::string& note,
                       int columns) {
  std::string left = label.empty() ? "" : label + " ", right;
  if (total >= 0) {
    right = str(" ", done, "/", total, " · ", rate(done, seconds), " · ");
    if (done >= total)
      right += format_seconds(seconds);
    else
      right += done > 0
                   ? format_seconds(seconds / static_cast<double>(done) * static_cast<double>(total - done)) + " left"
                   : "? left";
  } else {
    right = str(" ", done, " · ", rate(done, seconds), " · ", format_seconds(seconds));
  }
  if (!note.empty()) right += str(" · ", note);
  const int64_t room = columns - 1 - static_cast<int64_t>(width(left) + width(right));
  std::string bar;
  if (total > 0 && room >= 4) {
    static constexpr const char* kEighths[] = {"", "▏", "▎", "▍", "▌", "▋", "▊", "▉"};
    const int64_t cells = std::min<int64_t>(room, 32);
    const int64_t eighths = cells * 8 * std::clamp<int64_t>(done, 0, total) / total;
    for (int64_t i = 0; i < eighths / 8; ++i) bar += "█";
    bar += kEighths[eighths % 8];
    for (int64_t i = eighths / 8 + (eighths % 8 != 0); i < cells; ++i) bar += "░";
  }
  return cut(left + bar + right, static_cast<size_t>(std::max(columns - 1, 1)));
}

std::string format_plain(const std::string& label, int64_t done, int64_t total, double seconds,
                         const std::string& note) {
  std::string s = label.empty() ? "" : label + ": ";
  s += total >= 0 && total != done ? str(done, "/", total) : str(done);
  s += str(" in ", format_seconds(seconds), ", ", rate(done, seconds));
  return note.empty() ? s : str(s, ", ", note);
}

ProgressBar::ProgressBar(std::string label, int64_t total, std::FILE* out)
    : label_(std::move(label)),
      total_(total),
      out_(out),
      terminal_(is_terminal(out)),
      exceptions_(std::uncaught_exceptions()),
      start_(now_seconds()),
      next_draw_(start_ + kRedraw) {
  if (terminal_) columns_ = terminal_columns(out);
}

ProgressBar::~ProgressBar() {
  if (finished_) return;
  try {
    if (std::uncaught_exceptions() == exceptions_)
      finish();
    else if (terminal_)
      std::fputs("\n", out_);
  } catch (...) {}  // no memory for a line: nothing to tell
}

void ProgressBar::refresh() {
  const double now = now_seconds();
  if (now < next_draw_) return;
  next_draw_ = now + kRedraw;
  draw(false);
}

void ProgressBar::draw(bool last) {
  if (!out_) return;
  const double seconds = now_seconds() - start_;
  const std::string line = terminal_ ? str("\r", format_bar(label_, done_, total_, seconds, note_, columns_), "\x1b[K")
                                     : format_plain(label_, done_, total_, seconds, note_);
  std::fputs(line.c_str(), out_);
  if (last) std::fputc('\n', out_);
  std::fflush(out_);
}

void ProgressBar::finish() {
  if (std::exchange(finished_, true)) return;
  draw(true);
}

}  // namespace hone::train
