#pragma once
// for (auto& [images, labels] : train::progress(batches, "epoch", epoch)) …
// On a terminal: a bar with rate and time left, redrawn at most ten times a second. Piped: one plain line at the end.

#include <cstdint>
#include <cstdio>
#include <iterator>
#include <string>
#include <type_traits>
#include <utility>

#include "hone/core/error.h"

namespace hone::train {

/// The bar itself; progress() drives one. Writes to `out` (stderr), never to a closed or absent stream.
class ProgressBar {
 public:
  ProgressBar(std::string label, int64_t total, std::FILE* out = stderr);
  ~ProgressBar();  ///< finishes; while an exception unwinds, only ends the line of a bar on a terminal
  ProgressBar(const ProgressBar&) = delete;
  ProgressBar& operator=(const ProgressBar&) = delete;

  void advance() {
    ++done_;
    if (terminal_) refresh();
  }
  /// Shown after the figures, e.g. "loss 0.312".
  void note(std::string text) { note_ = std::move(text); }
  void finish();
  int64_t done() const { return done_; }

 private:
  void refresh();
  void draw(bool last);
  std::string label_, note_;
  int64_t total_, done_ = 0;
  std::FILE* out_;
  bool terminal_, finished_ = false;
  int columns_ = 80, exceptions_;  // in flight when it was made
  double start_, next_draw_;       // seconds of the steady clock: <chrono> is slow to compile
};

/// Seconds as people read them: "0.8 s", "12 s", "3:05", "1:02:07".
std::string format_seconds(double seconds);
/// Columns of a bar line, without the newline. `seconds`: elapsed. `total` < 0: unknown.
std::string format_bar(const std::string& label, int64_t done, int64_t total, double seconds, const std::string& note,
                       int columns);
/// The line printed once when the output is no terminal.
std::string format_plain(const std::string& label, int64_t done, int64_t total, double seconds,
                         const std::string& note);

/// A range that yields what `Range` yields and shows how far it is.
template <class Range> class Progress {
 public:
  Progress(Range&& range, std::string label, int64_t total, std::FILE* out)
      : range_(std::forward<Range>(range)), bar_(std::move(label), total, out) {}

  using Inner = decltype(std::declval<std::remove_reference_t<Range>&>().begin());
  using InnerEnd = decltype(std::declval<std::remove_reference_t<Range>&>().end());
  struct Sentinel {
    InnerEnd end;
  };
  class Iterator {
   public:
    Iterator(Inner inner, ProgressBar& bar) : inner_(std::move(inner)), bar_(bar) {}
    decltype(auto) operator*() { return *inner_; }
    Iterator& operator++() {
      ++inner_;
      bar_.advance();
      return *this;
    }
    bool operator!=(const Sentinel& s) {
      if (inner_ != s.end) return true;
      bar_.finish();
      return false;
    }

   private:
    Inner inner_;
    ProgressBar& bar_;
  };
  Iterator begin() { return {range_.begin(), bar_}; }
  Sentinel end() { return {range_.end()}; }
  ProgressBar& bar() { return bar_; }

 private:
  Range range_;
  ProgressBar bar_;
};

/// Wraps a range. The label is the concatenation of the arguments: ("epoch", 3) reads "epoch 3".
template <class Range, class... Label> Progress<Range> progress(Range&& range, const Label&... label) {
  std::string text;
  ((text += (text.empty() ? "" : " ") + str(label)), ...);
  int64_t total = -1;
  if constexpr (requires { range.remaining(); })
    total = range.remaining();  // a loader that goes on inside an epoch
  else if constexpr (requires { range.size(); })
    total = static_cast<int64_t>(range.size());
  return Progress<Range>(std::forward<Range>(range), std::move(text), total, stderr);
}

}  // namespace hone::train
