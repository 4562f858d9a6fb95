#pragma once
// What all examples share: their common options, and errors told in one line.

#include <hone/hone.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <functional>
#include <string>
#include <vector>

/// A file that is to be written: its folder must be there, before work begins rather than after it.
inline CLI::Validator writable() {
  return {[](std::string& text) {
            const std::filesystem::path folder = std::filesystem::path(text).parent_path();
            std::error_code error;
            const bool good = !text.empty() && (folder.empty() || std::filesystem::is_directory(folder, error)) &&
                              !std::filesystem::is_directory(text, error);
            return good ? std::string() : "cannot be written: " + text;
          },
          "FILE"};
}

struct CommonOptions {
  std::string json, data;
  uint64_t seed = 7;
  int threads = hone::num_threads();

  /// `data_help`: null where no data is read.
  void add_to(CLI::App& app, const char* data_help = nullptr) {
    app.add_option("--json", json, "Write what was measured to this file, as one JSON object")->check(writable());
    if (data_help) app.add_option("--data", data, data_help);
    app.add_option("--seed", seed, "Seed of all random numbers")->capture_default_str();
    app.add_option("--threads", threads, "Threads to use")->check(CLI::Range(1, 1024))->capture_default_str();
  }
  void apply() const {
    hone::set_num_threads(threads);
    hone::manual_seed(seed);
  }
};

/// Refuses numbers, NaN too, that do not hold; `rule` ends "must be …".
template <class Holds> CLI::Validator number(Holds holds, const std::string& rule, const std::string& shown) {
  return {[=](std::string& text) {
            char* end = nullptr;
            const double v = std::strtod(text.c_str(), &end);
            const bool good = !text.empty() && *end == '\0' && holds(v);
            return good ? std::string() : "must be " + rule + ", got " + text;
          },
          shown};
}
inline CLI::Validator positive() {
  return number([](double v) { return std::isfinite(v) && v > 0; }, "a finite number above 0", "> 0");
}
/// [low, high]; CLI::Range lets NaN pass.
inline CLI::Validator between(double low, double high) {
  return number([=](double v) { return v >= low && v <= high; }, hone::str("a number in [", low, ", ", high, "]"),
                hone::str("in [", low, " - ", high, "]"));
}

/// Those of `all` that --only names, or all where it names none, in their own order; name: a member or a function.
/// ValueError for a name that is not there.
template <class T, class Name>
std::vector<T> named_only(const std::vector<std::string>& only, const std::vector<T>& all, const Name& name) {
  std::string names;
  for (const T& t : all)
    if (const std::string quoted = "'" + std::string(std::invoke(name, t)) + "'"; names.find(quoted) == names.npos)
      names += (names.empty() ? "" : ", ") + quoted;
  for (const std::string& o : only)
    HONE_CHECK(std::any_of(all.begin(), all.end(), [&](const T& t) { return std::invoke(name, t) == o; }),
               hone::ValueError, "--only: there is no '", o, "' among ", names);
  std::vector<T> chosen;
  for (const T& t : all)
    if (only.empty() || std::find(only.begin(), only.end(), std::invoke(name, t)) != only.end()) chosen.push_back(t);
  return chosen;
}

/// Seconds since it was made.
struct Stopwatch {
  std::chrono::steady_clock::time_point start = std::chrono::steady_clock::now();
  double seconds() const { return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count(); }
};

/// What several seeds gave.
struct Figures {
  std::vector<double> values;
  double mean() const {
    double sum = 0;
    for (const double v : values) sum += v;
    return sum / static_cast<double>(values.size());
  }
  double sd() const {  // of the sample; of one value there is none: NaN
    double sum = 0;
    for (const double v : values) sum += (v - mean()) * (v - mean());
    return values.size() < 2 ? std::nan("") : std::sqrt(sum / static_cast<double>(values.size() - 1));
  }
};
/// The mean and, of several seeds, the standard deviation of shares, in hundredths: "90.43 +- 0.12".
inline std::string points(const Figures& f, int decimals = 2) {
  if (f.values.empty()) return "";
  return hone::train::format_number(100 * f.mean(), decimals) +
         (f.values.size() > 1 ? " +- " + hone::train::format_number(100 * f.sd(), decimals) : "");
}

/// Parses the command line, runs the body; 0, or an error in one line and a status that is not 0.
template <class Body> int run_example(CLI::App& app, int argc, char** argv, const CommonOptions& common, Body&& body) {
  try {
    for (CLI::Option* option : app.get_options([](CLI::Option*) { return true; }))
      if (option->get_expected_max() == 1) option->take_last();  // so that a script's choices can be overridden
    app.parse(argc, argv);
    common.apply();
    body();
    return 0;
  } catch (const CLI::ParseError& e) { return app.exit(e); } catch (const std::exception& e) {
    std::fprintf(stderr, "%s: %s\n", app.get_name().c_str(), e.what());
    return 1;
  }
}
