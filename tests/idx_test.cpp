// IDX files and the two image sets made of them: good, damaged, missing.

#include <gtest/gtest.h>
#include <zlib.h>

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <random>

#include "hone/hone.h"
#include "support.h"

namespace hone::data {
namespace {

using test::TempDir;

namespace fs = std::filesystem;

std::string idx(uint8_t code, std::initializer_list<uint32_t> sizes, const std::string& values) {
  std::string s{'\0', '\0', static_cast<char>(code), static_cast<char>(sizes.size())};
  for (const uint32_t n : sizes)
    for (int shift = 24; shift >= 0; shift -= 8) s += static_cast<char>(n >> shift);
  return s + values;
}

std::string gzip(const std::string& plain) {
  z_stream z{};
  deflateInit2(&z, 6, Z_DEFLATED, 15 + 16, 8, Z_DEFAULT_STRATEGY);
  std::string out(compressBound(plain.size()) + 64, '\0');
  z.next_in = reinterpret_cast<Bytef*>(const_cast<char*>(plain.data()));
  z.avail_in = static_cast<uInt>(plain.size());
  z.next_out = reinterpret_cast<Bytef*>(out.data());
  z.avail_out = static_cast<uInt>(out.size());
  EXPECT_EQ(deflate(&z, Z_FINISH), Z_STREAM_END);
  out.resize(out.size() - z.avail_out);
  deflateEnd(&z);
  return out;
}

struct Files : testing::Test {
  TempDir folder;
  std::string write(const char* name, const std::string& bytes) { return folder.write(name, bytes); }
  std::string refusal(const std::string& bytes) {
    try {
      read_idx(write("f", bytes));
      return "";
    } catch (const FormatError& e) { return e.what(); }
  }
};

TEST_F(Files, IdxReadsEveryCode) {
  for (const bool packed : {false, true}) {
    const auto read = [&](const std::string& s) { return read_idx(write("f", packed ? gzip(s) : s)); };
    EXPECT_TRUE(
        equal(read(idx(8, {2, 3}, std::string("\0\1\2\3\4\xff", 6))), tensor<uint8_t>({0, 1, 2, 3, 4, 255}, {2, 3})));
    EXPECT_TRUE(equal(read(idx(9, {2}, "\x7f\x80")), tensor<int8_t>({127, -128})));
    EXPECT_TRUE(equal(read(idx(12, {2}, std::string("\0\0\1\2\xff\xff\xff\xfe", 8))), tensor<int32_t>({258, -2})));
    EXPECT_TRUE(equal(read(idx(13, {1}, std::string("\x3f\xc0\0\0", 4))), tensor<float>({1.5f})));
    EXPECT_TRUE(equal(read(idx(14, {1}, std::string("\xc0\x04\0\0\0\0\0\0", 8))), tensor<double>({-2.5})));
    EXPECT_EQ(read(idx(8, {0, 7}, "")).shape(), (Shape{0, 7}));
  }
  // Larger than any of the reader's pieces, both well and badly compressible.
  std::mt19937 random(3);
  std::string noise(300000, '\0'), flat(5000000, 'x');
  for (char& c : noise) c = static_cast<char>(random());
  for (const std::string& s : {noise, flat}) {
    const Tensor t = read_idx(write("f", gzip(idx(8, {static_cast<uint32_t>(s.size())}, s))));
    EXPECT_TRUE(std::equal(s.begin(), s.end(), t.data<uint8_t>(),
                           [](char a, uint8_t b) { return static_cast<uint8_t>(a) == b; }));
  }
}

TEST_F(Files, IdxRefuses) {
  const std::string good = idx(8, {2, 2}, "abcd"), packed = gzip(good);
  EXPECT_EQ(refusal(good), "");
  const std::pair<std::string, const char*> cases[] = {
      {"", "ends inside its header"},
      {good.substr(0, 3), "ends inside its header"},
      {good.substr(0, 9), "ends inside its header"},
      {"\1" + good.substr(1), "two zero bytes"},
      {idx(7, {1}, "a"), "dtype code 7"},
      {idx(11, {1}, "ab"), "dtype code 11"},
      {idx(8, {}, "a"), "0 dimensions"},
      {idx(8, {1, 1, 1, 1, 1, 1, 1, 1, 1}, "a"), "9 dimensions"},
      {idx(8, {2, 3}, "abcd"), "fewer"},
      {idx(8, {2, 1}, "abcd"), "more"},
      {idx(8, {0xffffffff, 0xffffffff, 0xffffffff}, ""), "beyond any memory"},
      {idx(8, {0, 0xffffffff, 0xffffffff}, ""), "beyond any memory"},
      {idx(8, {0xffffffff}, "abc"), "fewer"},
      {gzip(idx(8, {0xffffffff}, "abc")), "fewer"},
      {gzip(idx(8, {2, 3}, "abcd")), "fewer"},
      {gzip(idx(8, {2, 1}, "abcd")), "more"},
      {gzip("abc"), "ends inside its header"},
      {packed.substr(0, packed.size() - 1), "truncated"},
      {packed.substr(0, packed.size() - 12), "truncated"},
      {packed.substr(0, 12), "truncated"},
      {packed.substr(0, 2), "truncated"},
      {packed + "x", "bytes follow"},
  };
  for (const auto& [bytes, says] : cases)
    EXPECT_NE(refusal(bytes).find(says), std::string::npos) << says << ": " << refusal(bytes);
  std::string damaged = packed;
  damaged[damaged.size() - 6] ^= 0x40;  // in the checksum
  EXPECT_NE(refusal(damaged).find("damaged"), std::string::npos) << refusal(damaged);
  EXPECT_THROW(read_idx(folder / "absent"), IoError);
  EXPECT_THROW(read_idx(folder.path().string()), IoError);
}

TEST_F(Files, IdxMutated) {
  std::mt19937 random(12);
  const std::string plain = idx(8, {3, 5}, "abcdefghijklmno");
  for (const std::string& good : {plain, gzip(plain)}) {
    int refused = 0;
    for (int round = 0; round < 1000; ++round) {
      std::string bytes = good;
      bytes[random() % bytes.size()] = static_cast<char>(random());
      if (random() % 2) bytes.resize(random() % (bytes.size() + 1));
      if (random() % 4 == 0) bytes.insert(random() % (bytes.size() + 1), std::string(random() % 5, '\1'));
      try {
        read_idx(write("f", bytes));
      } catch (const FormatError&) { ++refused; }
    }
    EXPECT_GT(refused, 300);
  }
}

struct Environment {
  std::string name, former;
  bool had;
  Environment(const char* n, const char* value) : name(n), had(std::getenv(n)) {
    if (had) former = std::getenv(n);
    value ? setenv(n, value, 1) : unsetenv(n);
  }
  ~Environment() { had ? setenv(name.c_str(), former.c_str(), 1) : unsetenv(name.c_str()); }
};

TEST_F(Files, FashionFromAFolder) {
  const auto lay = [&](uint32_t images, const std::string& labels) {
    write("train-images-idx3-ubyte", idx(8, {images, 28, 28}, std::string(images * 784, '\x33')));
    write("train-labels-idx1-ubyte.gz", gzip(idx(8, {static_cast<uint32_t>(labels.size())}, labels)));
    write("t10k-images-idx3-ubyte.gz", gzip(idx(8, {1, 28, 28}, std::string(784, '\1'))));
    write("t10k-labels-idx1-ubyte", idx(8, {1}, "\5"));
  };
  const auto refusal = [&] {
    try {
      FashionMNIST::open(folder.path().string());
      return std::string();
    } catch (const FormatError& e) { return std::string(e.what()); }
  };
  lay(3, std::string("\0\7\x09", 3));
  const FashionMNIST f = FashionMNIST::open(folder.path().string());
  EXPECT_EQ(f.train.size(), 3);
  EXPECT_EQ(f.test.size(), 1);
  EXPECT_EQ(f.train.input_shape(), (Shape{1, 28, 28}));
  EXPECT_TRUE(equal(f.train.all_targets(), tensor<int64_t>({0, 7, 9})));
  EXPECT_EQ(f.class_names.size(), 10u);
  {
    Environment data("HONE_DATA", folder.path().c_str());
    EXPECT_EQ(FashionMNIST::open().train.size(), 3);
    EXPECT_EQ(MNIST::open().class_names[9], "9");
    fs::create_directory(folder / "fashion-mnist");
    EXPECT_THROW(FashionMNIST::open(), IoError);  // the inner folder is the one meant
    EXPECT_EQ(MNIST::open().train.size(), 3);
    fs::remove(folder / "fashion-mnist");
  }
  lay(2, std::string("\0\7\x09", 3));
  EXPECT_NE(refusal().find("2 train images, but 3 labels"), std::string::npos) << refusal();
  lay(3, std::string("\0\x0a\x09", 3));
  EXPECT_NE(refusal().find("label 10 of item 1 is not below 10"), std::string::npos) << refusal();
  lay(3, std::string("\0\1\x09", 3));
  write("t10k-images-idx3-ubyte.gz", gzip(idx(8, {1, 27, 28}, std::string(27 * 28, '\1'))));
  EXPECT_NE(refusal().find("not u8 images of 28 by 28"), std::string::npos) << refusal();
  write("t10k-images-idx3-ubyte.gz", gzip(idx(8, {1, 28, 28}, std::string(784, '\1'))));
  write("t10k-labels-idx1-ubyte", idx(8, {1, 1}, "\5"));
  EXPECT_NE(refusal().find("not a list of u8 labels"), std::string::npos) << refusal();
  fs::remove(folder / "t10k-labels-idx1-ubyte");
  try {
    FashionMNIST::open(folder.path().string());
    FAIL();
  } catch (const IoError& e) {
    const std::string said = e.what();
    for (const char* part : {"t10k-labels-idx1-ubyte", "dataset-fashion-mnist", "HONE_DATA"})
      EXPECT_NE(said.find(part), std::string::npos) << said;
  }
}

TEST(Fashion, TheRealFiles) {
  if (!std::getenv("HONE_DATA") && !fs::exists("/usr/share/datasets/fashion-mnist"))
    GTEST_SKIP() << "needs Debian's dataset-fashion-mnist, which scripts/setup installs, or HONE_DATA";
  const FashionMNIST f = FashionMNIST::open();
  ASSERT_EQ(f.train.size(), 60000);
  ASSERT_EQ(f.test.size(), 10000);
  for (const Dataset& d : {f.train, f.test}) {  // 10 classes of equal size
    int64_t counts[10] = {};
    const auto* y = d.all_targets().data<int64_t>();
    for (int64_t i = 0; i < d.size(); ++i) ++counts[y[i]];
    for (const int64_t c : counts) EXPECT_EQ(c, d.size() / 10);
  }
  const std::vector<int64_t> first(f.train.all_targets().data<int64_t>(), f.train.all_targets().data<int64_t>() + 8);
  EXPECT_EQ(first, (std::vector<int64_t>{9, 0, 0, 3, 0, 2, 7, 2}));
  uint32_t sum = 1;
  for (int64_t i = 0; i < 60000; ++i) sum = sum * 31 + static_cast<uint32_t>(f.train.all_targets().data<int64_t>()[i]);
  EXPECT_EQ(sum, 0xb282e31fu);
  double total = 0, squares = 0;
  const auto* p = f.train.all_inputs().data<uint8_t>();
  for (int64_t i = 0; i < f.train.all_inputs().numel(); ++i) total += p[i], squares += static_cast<double>(p[i]) * p[i];
  const double n = static_cast<double>(f.train.all_inputs().numel()), mean = total / n / 255;
  EXPECT_NEAR(mean, FashionMNIST::kMean, 1e-4);
  EXPECT_NEAR(std::sqrt(squares / n / 255 / 255 - mean * mean), FashionMNIST::kStd, 1e-4);
}

}  // namespace
}  // namespace hone::data
