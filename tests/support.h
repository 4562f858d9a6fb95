#pragma once
// What tests of every topic share: expected errors, comparison with tolerances, a folder that goes away.

#include <gtest/gtest.h>
#include <stdlib.h>  // mkdtemp

#include <cmath>
#include <exception>
#include <filesystem>
#include <fstream>
#include <initializer_list>
#include <iterator>
#include <string>
#include <utility>
#include <vector>

#include "hone/hone.h"

namespace hone::test {

/// f() throws an E whose message is one line and holds every part.
template <class E, class F>
void expect_error(F&& f, std::initializer_list<std::string> parts, const char* file = __builtin_FILE(),
                  int line = __builtin_LINE()) {
  const ::testing::ScopedTrace trace(file, line, "expect_error");
  try {
    f();
    ADD_FAILURE() << "no error; expected one with: " << *parts.begin();
  } catch (const E& e) {
    const std::string text = e.what();
    for (const std::string& part : parts)
      EXPECT_NE(text.find(part), std::string::npos) << "the message is: " << text << "\nwithout: " << part;
    EXPECT_EQ(text.find('\n'), std::string::npos) << text;
  } catch (const std::exception& e) { ADD_FAILURE() << "an error of another type: " << e.what(); }
}
template <class E, class F>
void expect_error(F&& f, const std::string& part, const char* file = __builtin_FILE(), int line = __builtin_LINE()) {
  expect_error<E>(std::forward<F>(f), {part}, file, line);
}

struct Tolerance {
  double rtol, atol;
};

/// |got − want| ≤ atol + rtol |want| for every element; NaN equals NaN, an infinity only itself.
inline void expect_close(const std::vector<double>& got, const std::vector<double>& want, Tolerance t,
                         const std::string& what) {
  ASSERT_EQ(got.size(), want.size()) << what;
  for (size_t i = 0; i < got.size(); ++i) {
    const double a = got[i], b = want[i];
    if (a == b || (std::isnan(a) && std::isnan(b))) continue;
    ASSERT_TRUE(std::isfinite(a) && std::isfinite(b) && std::abs(a - b) <= t.atol + t.rtol * std::abs(b))
        << what << ": element " << i << " is " << str(a) << ", should be " << str(b);
  }
}
inline void expect_close(const Tensor& got, const Tensor& want, Tolerance t, const std::string& what) {
  ASSERT_EQ(to_string(got.shape()), to_string(want.shape())) << what;
  expect_close(got.to_vector<double>(), want.to_vector<double>(), t, what);
}

/// A fresh folder, removed with all that is in it.
class TempDir {
 public:
  TempDir() {
    std::string name = (std::filesystem::temp_directory_path() / "hone-test-XXXXXX").string();
    if (!mkdtemp(name.data())) throw IoError("no temporary folder " + name);
    path_ = name;
  }
  ~TempDir() {
    std::error_code ignored;
    std::filesystem::remove_all(path_, ignored);
  }
  TempDir(const TempDir&) = delete;
  TempDir& operator=(const TempDir&) = delete;

  const std::filesystem::path& path() const { return path_; }
  std::string operator/(const std::string& name) const { return (path_ / name).string(); }
  std::string write(const std::string& name, const std::string& bytes) const {
    std::ofstream(path_ / name, std::ios::binary) << bytes;
    return *this / name;
  }
  size_t files() const { return static_cast<size_t>(std::distance(std::filesystem::directory_iterator(path_), {})); }

 private:
  std::filesystem::path path_;
};

inline std::string read_file(const std::string& path) {
  std::ifstream in(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(in), {}};
}

}  // namespace hone::test
