// safetensors files: exact bytes, round trips, hostile headers, failing disks.

#include "hone/hone.h"
#include "support.h"

#include <gtest/gtest.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cstring>
#include <filesystem>
#include <fstream>
#include <random>

namespace hone {
namespace {

using test::read_file;
using test::TempDir;

namespace fs = std::filesystem;

struct Serialize : testing::Test {
  TempDir folder;
  std::string path(const char* name) const { return folder / name; }
};

std::string file_of(const std::string& header, const std::string& data = "") {
  const uint64_t n = header.size();
  return std::string(reinterpret_cast<const char*>(&n), 8) + header + data;
}

TensorFile parse(const std::string& bytes) { return parse_safetensors(bytes.data(), bytes.size(), "test"); }

/// What the FormatError says; empty if it parses.
std::string refusal(const std::string& bytes) {
  try {
    parse(bytes);
    return "";
  } catch (const FormatError& e) {
    EXPECT_EQ(std::string(e.what()).find('\n'), std::string::npos) << e.what();
    return e.what();
  }
}

TEST_F(Serialize, ExactBytes) {
  TensorFile file;
  file.tensors.emplace_back("b", tensor<int32_t>({1, -2}));
  file.tensors.emplace_back("a", tensor<float>({1.5f}, Shape{1, 1}));
  file.metadata["note"] = "x\"y";
  save_safetensors(path("f"), file);
  std::string header = R"({"__metadata__":{"note":"x\"y"},"b":{"dtype":"I32","shape":[2],"data_offsets":[0,8]},)"
                       R"("a":{"dtype":"F32","shape":[1,1],"data_offsets":[8,12]}})";
  while (header.size() % 8) header += ' ';
  EXPECT_EQ(read_file(path("f")), file_of(header, std::string("\1\0\0\0\xfe\xff\xff\xff\0\0\xc0\x3f", 12)));
  EXPECT_EQ(folder.files(), 1u);
}

TEST_F(Serialize, EveryDTypeAndLayout) {
  TensorFile file;
  for (const DType d : {f64, f32, bf16, i64, i32, i8, u8, boolean}) {
    Tensor t = empty({3, 5}, d);
    for (int64_t i = 0; i < t.numel() * size_of(d); ++i)
      static_cast<uint8_t*>(t.raw_data())[i] = static_cast<uint8_t>(d == boolean ? i % 2 : i * 37 % 97);
    file.tensors.emplace_back(name(d), t);
  }
  file.tensors.emplace_back("scalar", scalar(2.5));
  file.tensors.emplace_back("empty", zeros({0, 4}));
  file.tensors.emplace_back("wider than memory, but empty", zeros({int64_t{1} << 40, 3, 0}));
  file.tensors.emplace_back("grad", ones({2}).requires_grad_());
  file.tensors.emplace_back("naïve “name”\n", ones({1}));
  file.metadata = {{"k", ""}, {"ü", "\t"}};
  save_safetensors(path("f"), file);
  const TensorFile back = load_safetensors(path("f"));
  ASSERT_EQ(back.tensors.size(), file.tensors.size());
  for (size_t i = 0; i < file.tensors.size(); ++i) {
    EXPECT_EQ(back.tensors[i].first, file.tensors[i].first);
    EXPECT_TRUE(equal(back.tensors[i].second, file.tensors[i].second.detach())) << file.tensors[i].first;
  }
  EXPECT_EQ(back.metadata, file.metadata);
  EXPECT_FALSE(back.at("grad").requires_grad());
  EXPECT_THROW(back.at("absent"), FormatError);
  save_safetensors(path("g"), back);
  EXPECT_EQ(read_file(path("f")), read_file(path("g")));
  TensorFile none;
  save_safetensors(path("none"), none);
  EXPECT_TRUE(load_safetensors(path("none")).tensors.empty());
}

TEST_F(Serialize, RefusesToWriteNonsense) {
  TensorFile file;
  file.tensors = {{"a", ones({1})}, {"a", ones({1})}};
  EXPECT_THROW(save_safetensors(path("f"), file), FormatError);
  file.tensors = {{"__metadata__", ones({1})}};
  EXPECT_THROW(save_safetensors(path("f"), file), FormatError);
  file.tensors = {{"a\xff", ones({1})}};
  EXPECT_THROW(save_safetensors(path("f"), file), FormatError);
  file.tensors = {{"a", Tensor()}};
  EXPECT_THROW(save_safetensors(path("f"), file), FormatError);
  EXPECT_EQ(folder.files(), 0u);
}

TEST_F(Serialize, ReadsWhatOthersWrite) {
  // Any order of fields and of data, any spacing; names in escapes.
  const TensorFile f =
      parse(file_of("{ \"\\u0062\" : {\"data_offsets\":[4,5], \"shape\":[1,1,1], \"dtype\":\"U8\"},\n "
                    "\"a\":{\"dtype\":\"F32\",\"shape\":[],"
                    "\"data_offsets\":[0,4]}}   ",
                    std::string("\0\0\x80\x3f\x07", 5)));
  EXPECT_EQ(f.tensors[0].first, "b");
  EXPECT_EQ(f.at("b").item<int>(), 7);
  EXPECT_EQ(f.at("a").item(), 1.0);
  EXPECT_EQ(f.at("a").ndim(), 0);
}

TEST_F(Serialize, HostileHeaders) {
  const auto one = [](const std::string& fields, size_t data = 4) {
    return file_of("{\"a\":{" + fields + "}}", std::string(data, '\0'));
  };
  const std::string good = R"("dtype":"F32","shape":[1],"data_offsets":[0,4])";
  EXPECT_EQ(refusal(one(good)), "");
  const std::pair<std::string, const char*> cases[] = {
      {"", "too few"},
      {std::string(7, '\0'), "too few"},
      {std::string(8, '\0'), "'{'"},
      {std::string(8, '\xff') + "{}", "claims 18446744073709551615 bytes"},
      {std::string("\3\0\0\0\0\0\0\0{}", 10), "claims 3 bytes"},
      {file_of("[]"), "'{'"},
      {file_of("null"), "'{'"},
      {file_of("{"), "not valid JSON"},
      {file_of("{}x"), "not valid JSON"},
      {file_of("{} {}"), "not valid JSON"},
      {file_of("{\"a\xff\":1}"), "not valid JSON"},
      {file_of("{}", "x"), "end at byte 0 of the data, but the file has 1"},
      {file_of(R"({"a":5})"), "a number where none may be"},
      {file_of(R"({"a":"F32"})"), "text where none may be"},
      {file_of(R"({"a":null})"), "null"},
      {file_of(R"({"a":[]})"), "a list where none may be"},
      {file_of(R"({"a":{"dtype":{}}})"), "an object where none may be"},
      {file_of(R"({"__metadata__":{"k":1}})"), "a number where none may be"},
      {file_of(R"({"__metadata__":{"k":"1","k":"2"}})"), "a repeated key"},
      {file_of(R"({"__metadata__":{},"__metadata__":{}})"), "appears twice"},
      {file_of("{" + std::string(R"("a":{)") + good + R"(},"a":{)" + good + "}}", "abcd"), "appears twice"},
      {file_of("{\"a\\nb\":{}}"), "no dtype, shape or data_offsets"},
      {one(good + R"(,"dtype":"F32")"), "a repeated field"},
      {one(good + R"(,"extra":"F32")"), "an unknown field"},
      {one(R"("dtype":"F32","shape":[1])"), "no dtype, shape or data_offsets"},
      {one(R"("dtype":"F33","shape":[1],"data_offsets":[0,4])"), "none of F64"},
      {one(R"("dtype":"F16","shape":[2],"data_offsets":[0,4])"), "none of F64"},
      {one(R"("dtype":"F32","shape":[-1],"data_offsets":[0,4])"), "a negative number"},
      {one(R"("dtype":"F32","shape":[1.0],"data_offsets":[0,4])"), "not a whole one"},
      {one(R"("dtype":"F32","shape":[1e0],"data_offsets":[0,4])"), "not a whole one"},
      {one(R"("dtype":"F32","shape":[true],"data_offsets":[0,4])"), "true or false"},
      {one(R"("dtype":"F32","shape":["1"],"data_offsets":[0,4])"), "text where none may be"},
      {one(R"("dtype":"F32","shape":[[1]],"data_offsets":[0,4])"), "a list where none may be"},
      {one(R"("dtype":"F32","shape":[1],"data_offsets":[0])"), "two numbers"},
      {one(R"("dtype":"F32","shape":[1],"data_offsets":[0,4,4])"), "two numbers"},
      {one(R"("dtype":"F32","shape":[1],"data_offsets":[4,0])"), "ends before it begins"},
      {one(R"("dtype":"F32","shape":[1],"data_offsets":[0,8])"), "passes the end"},
      {one(R"("dtype":"F32","shape":[2],"data_offsets":[0,4])"), "does not take that many bytes"},
      {one(R"("dtype":"F32","shape":[1],"data_offsets":[0,3])"), "does not take that many bytes"},
      {one(R"("dtype":"F32","shape":[0],"data_offsets":[0,4])"), "does not take that many bytes"},
      {one(R"("dtype":"F32","shape":[1],"data_offsets":[1,5])", 5), "leave holes"},
      {one(R"("dtype":"F32","shape":[1],"data_offsets":[0,4])", 5), "but the file has 5"},
      {one(R"("dtype":"F32","shape":[1,1,1,1,1,1,1,1,1],"data_offsets":[0,4])"), "more dimensions"},
      {one(R"("dtype":"F32","shape":[4294967296,4294967296],"data_offsets":[0,0])", 0), "beyond any memory"},
      {one(R"("dtype":"F32","shape":[4611686018427387905],"data_offsets":[0,4])"), "beyond any memory"},
      {one(R"("dtype":"F32","shape":[0,4294967296,4294967296],"data_offsets":[0,0])", 0), "beyond any memory"},
      {one(R"("dtype":"F32","shape":[9223372036854775808],"data_offsets":[0,4])"), "63 bits"},
      {one(R"("dtype":"F32","shape":[99999999999999999999],"data_offsets":[0,4])"), "not a whole one"},
      {one(R"("dtype":"F32","shape":[1099511627776],"data_offsets":[0,4398046511104])"), "passes the end"},
      {file_of(
           R"({"a":{"dtype":"U8","shape":[3],"data_offsets":[0,3]},"b":{"dtype":"U8","shape":[3],"data_offsets":[2,5]}})",
           "12345"),
       "overlap"},
      {file_of(
           R"({"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},"b":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}})",
           "1"),
       "overlap"},
      {file_of(R"({"a":{"dtype":"BOOL","shape":[2],"data_offsets":[0,2]}})", "\1\2"), "other than 0 and 1"},
      {file_of(std::string(100000, '[')), "'{'"},
      {file_of("{\"a\":" + std::string(100000, '[')), "a list where none may be"},
  };
  for (const auto& [bytes, says] : cases) {
    const std::string got = refusal(bytes);
    EXPECT_NE(got.find(says), std::string::npos)
        << "wanted '" << says << "', got '" << got << "' for " << bytes.substr(0, 200);
  }
  std::string deep;
  for (int i = 0; i < 100000; ++i) deep += "{\"dtype\":";
  EXPECT_NE(refusal(file_of(deep)).find("an object where none may be"), std::string::npos);
}

TEST_F(Serialize, ClaimsAreNotAllocated) {
  std::ofstream(path("f"), std::ios::binary)
      << file_of(R"({"a":{"dtype":"F64","shape":[1073741824],"data_offsets":[0,8589934592]}})");
  reset_peak_memory();
  const int64_t before = memory_stats().peak_bytes;
  EXPECT_THROW(load_safetensors(path("f")), FormatError);
  EXPECT_EQ(memory_stats().peak_bytes, before);
  // A sparse file of the header's claimed 200 MB: refused for the header's limit.
  const uint64_t length = 200'000'000;
  std::ofstream(path("g"), std::ios::binary).write(reinterpret_cast<const char*>(&length), 8);
  fs::resize_file(path("g"), 8 + length);
  EXPECT_THROW(load_safetensors(path("g")), FormatError);
}

// Every change to a valid file either still is a valid file, or a FormatError; never anything else.
TEST_F(Serialize, MutatedFiles) {
  TensorFile file;
  file.tensors.emplace_back("conv.weight", ones({2, 3}));
  file.tensors.emplace_back("steps", tensor<int64_t>({1, 2, 3}));
  file.tensors.emplace_back("mask", full({5}, 1, boolean));
  file.metadata["format"] = "hone";
  save_safetensors(path("f"), file);
  const std::string good = read_file(path("f"));
  std::mt19937 random(99);
  const std::string bits[] = {"{",
                              "}",
                              "[",
                              "]",
                              ",",
                              ":",
                              "\"",
                              "0",
                              "9",
                              "-1",
                              "1e9",
                              "18446744073709551615",
                              "null",
                              "\\u0000",
                              "dtype",
                              "shape",
                              "\"F64\"",
                              "\xff",
                              "__metadata__",
                              "[0,4]",
                              std::string(1, '\0')};
  int refused = 0;
  constexpr int kRounds = 20000;
  for (int round = 0; round < kRounds; ++round) {
    std::string bytes = good;
    for (int edits = 1 + static_cast<int>(random() % 3); edits > 0; --edits) {
      const size_t at = random() % (bytes.size() + 1);
      const std::string& bit = bits[random() % std::size(bits)];
      switch (random() % 6) {
        case 0:
          if (at < bytes.size()) bytes[at] = static_cast<char>(random());
          break;
        case 1: bytes.insert(at, bit); break;
        case 2: bytes.erase(at, random() % 9); break;
        case 3: bytes.resize(at); break;
        case 4: bytes.replace(at, std::min(bit.size(), bytes.size() - at), bit); break;
        default: bytes.insert(at, bytes.substr(random() % (bytes.size() + 1), random() % 40));
      }
      if (random() % 2 && bytes.size() >= 8) {  // keep the length true, so that the JSON is reached
        const uint64_t n = std::min<uint64_t>(
            bytes.size() - 8, static_cast<unsigned char>(good[0]) | static_cast<unsigned char>(good[1]) << 8);
        std::memcpy(bytes.data(), &n, 8);
      }
    }
    try {
      parse(bytes);
    } catch (const FormatError&) { ++refused; }
  }
  EXPECT_GT(refused, kRounds / 2);
  EXPECT_LT(refused, kRounds);
}

TEST_F(Serialize, FilesThatCannotBeRead) {
  EXPECT_THROW(load_safetensors(path("absent")), IoError);
  EXPECT_THROW(load_safetensors(folder.path().string()), IoError);
  EXPECT_THROW(load_safetensors("/dev/null"), IoError);
}

TEST_F(Serialize, FilesThatCannotBeWritten) {
  EXPECT_THROW(write_file_atomically(folder / "no/folder", "x", 1), IoError);
  EXPECT_THROW(write_file_atomically(folder.path().string(), "x", 1), IoError);
  EXPECT_THROW(write_file_atomically("/dev/null", "x", 1), IoError);
  EXPECT_TRUE(fs::is_character_file("/dev/null"));
  EXPECT_EQ(folder.files(), 0u);
}

TEST_F(Serialize, FullDiskLeavesTheOldFile) {
  write_file_atomically(path("f"), "old", 3);
  // A limit on file size stands for a full disk: write() fails part-way.
  rlimit former{};
  ASSERT_EQ(getrlimit(RLIMIT_FSIZE, &former), 0);
  const auto handler = signal(SIGXFSZ, SIG_IGN);
  rlimit small = former;
  small.rlim_cur = 4096;
  ASSERT_EQ(setrlimit(RLIMIT_FSIZE, &small), 0);
  std::string said;
  try {
    write_file_atomically(path("f"), std::string(10000, 'n').data(), 10000);
  } catch (const IoError& e) { said = e.what(); }
  TensorFile big;
  big.tensors.emplace_back("a", ones({5000}));
  EXPECT_THROW(save_safetensors(path("f"), big), IoError);
  setrlimit(RLIMIT_FSIZE, &former);
  signal(SIGXFSZ, handler);
  EXPECT_NE(said.find("cannot write"), std::string::npos) << said;
  EXPECT_EQ(read_file(path("f")), "old");
  EXPECT_EQ(folder.files(), 1u) << "a temporary was left behind";
  write_file_atomically(path("f"), "new", 3);
  EXPECT_EQ(read_file(path("f")), "new");
}

TEST_F(Serialize, KeepsModeAndLinks) {
  write_file_atomically(path("f"), "1", 1);
  ASSERT_EQ(chmod(path("f").c_str(), 0640), 0);
  fs::create_symlink(path("f"), path("link"));
  write_file_atomically(path("link"), "22", 2);
  EXPECT_TRUE(fs::is_symlink(path("link")));
  EXPECT_EQ(read_file(path("f")), "22");
  EXPECT_EQ(static_cast<unsigned>(fs::status(path("f")).permissions()), 0640u);
  EXPECT_EQ(folder.files(), 2u);
}

}  // namespace
}  // namespace hone
