#include "hone/core/serialize.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <bit>
#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <limits>
#include <set>
#include <string_view>

#include <nlohmann/json.hpp>
#include "hone/core/autograd.h"
#include "hone/core/basic_ops.h"
#include "hone/core/error.h"
#include "hone/core/input_file.h"

namespace hone {
namespace {

static_assert(std::endian::native == std::endian::little, "the format is little-endian, and data is copied as it is");

constexpr uint64_t kLongestHeader = 100'000'000;
constexpr const char* kMetadata = "__metadata__";

struct NamedDType {
  const char* name;
  DType dtype;
};
constexpr NamedDType kDTypes[] = {{"F64", DType::f64}, {"F32", DType::f32},     {"BF16", DType::bf16},
                                  {"I64", DType::i64}, {"I32", DType::i32},     {"I8", DType::i8},
                                  {"U8", DType::u8},   {"BOOL", DType::boolean}};

std::string reason(int error) { return std::strerror(error); }

/// A name from a file, fit for one line.
std::string shown(std::string_view name) {
  std::string s = "'";
  for (const char c : name.substr(0, 60)) s += static_cast<unsigned char>(c) < 0x20 || c == 0x7f ? '?' : c;
  return s + (name.size() > 60 ? "…'" : "'");
}

// ---- Writing ----

/// A file under a temporary name until commit() gives it its own; removed if that is not reached.
class AtomicFile {
 public:
  explicit AtomicFile(const std::string& path) : path_(path) {
    struct stat old {};
    if (::lstat(path.c_str(), &old) == 0 && S_ISLNK(old.st_mode)) {  // replace what the link names, not the link
      if (char* target = ::realpath(path.c_str(), nullptr)) {
        path_ = target;
        std::free(target);
      }
    }
    const bool exists = ::stat(path_.c_str(), &old) == 0;
    if (exists && !S_ISREG(old.st_mode)) throw IoError(str("cannot write '", path, "': it is not a regular file"));
    static std::atomic<unsigned> number{0};
    for (int tries = 0; fd_ < 0 && tries < 100; ++tries) {
      temporary_ = str(path_, ".", ::getpid(), "-", number++, ".tmp");
      fd_ = ::open(temporary_.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
      if (fd_ < 0 && errno != EEXIST) break;
    }
    if (fd_ < 0) fail("create", errno);
    if (exists) static_cast<void>(::fchmod(fd_, old.st_mode & 07777) == 0);  // a matter of comfort, not of content
  }
  ~AtomicFile() {
    if (fd_ >= 0) ::close(fd_);
    if (!committed_ && !temporary_.empty()) ::unlink(temporary_.c_str());
  }
  AtomicFile(const AtomicFile&) = delete;

  void write(const void* data, size_t bytes) {
    const char* p = static_cast<const char*>(data);
    while (bytes > 0) {
      const ssize_t n = ::write(fd_, p, std::min<size_t>(bytes, 1 << 30));
      if (n < 0 && errno == EINTR) continue;
      if (n <= 0) fail("write", n < 0 ? errno : EIO);
      p += n;
      bytes -= static_cast<size_t>(n);
    }
  }

  void commit() {
    if (::fsync(fd_) != 0) fail("sync", errno);
    if (::close(std::exchange(fd_, -1)) != 0) fail("close", errno);
    if (::rename(temporary_.c_str(), path_.c_str()) != 0) fail("rename", errno);
    committed_ = true;
    // The name must survive a power cut too. Some file systems cannot sync a folder: then there is no more to do.
    const size_t slash = path_.rfind('/');
    const std::string folder = slash == std::string::npos ? "." : path_.substr(0, slash + 1);
    if (const int d = ::open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC); d >= 0) {
      const int error = ::fsync(d) == 0 ? 0 : errno;
      ::close(d);
      if (error == EIO) fail("sync the folder of", error);
    }
  }

 private:
  [[noreturn]] void fail(const char* what, int error) const {
    throw IoError(str("cannot ", what, " '", path_, "': ", reason(error)));
  }
  std::string path_, temporary_;
  int fd_ = -1;
  bool committed_ = false;
};

std::string json_string(const std::string& s) {
  try {
    return nlohmann::json(s).dump();
  } catch (const nlohmann::json::exception&) {
    throw FormatError(str("save_safetensors: the text ", shown(s), " is not UTF-8"));
  }
}

// ---- Reading ----

struct Entry {
  std::string name;
  DType dtype = DType::f32;
  Shape shape;
  uint64_t begin = 0, end = 0;
};

/// Reads the header as a stream of events, so that what it can cost is bounded by its length.
class HeaderReader : public nlohmann::json_sax<nlohmann::json> {
 public:
  explicit HeaderReader(const std::string& what) : what_(what) {}
  std::vector<Entry> entries;
  std::map<std::string, std::string> metadata;

  bool start_object(std::size_t) override {
    if (depth_ == 0) return enter();
    if (depth_ != 1) bad("an object where none may be");
    has_dtype_ = has_shape_ = has_offsets_ = false;
    return enter();
  }
  bool end_object() override {
    if (depth_-- == 2 && !in_metadata_ && !(has_dtype_ && has_shape_ && has_offsets_))
      bad("no dtype, shape or data_offsets");
    return true;
  }
  bool key(string_t& k) override {
    if (depth_ == 1) {
      if (!names_.insert(k).second) throw FormatError(str(what_, ": the name ", shown(k), " appears twice"));
      in_metadata_ = k == kMetadata;
      if (!in_metadata_) entries.emplace_back().name = k;
    } else if (!in_metadata_) {
      bool* seen = k == "dtype"          ? &has_dtype_
                   : k == "shape"        ? &has_shape_
                   : k == "data_offsets" ? &has_offsets_
                                         : nullptr;
      if (!seen) bad("an unknown field");
      if (std::exchange(*seen, true)) bad("a repeated field");
    } else if (metadata.contains(k)) {
      bad("a repeated key");
    }
    field_ = k;
    return true;
  }
  bool string(string_t& v) override {
    if (depth_ == 2 && in_metadata_) return metadata.emplace(field_, v).second;
    if (depth_ != 2 || field_ != "dtype") bad("text where none may be");
    for (const NamedDType& d : kDTypes)
      if (v == d.name) return entries.back().dtype = d.dtype, true;
    throw FormatError(str(what_, ": tensor ", shown(entries.back().name), " has dtype ", shown(v),
                          ", which is none of F64 F32 BF16 I64 I32 I8 U8 BOOL"));
  }
  bool start_array(std::size_t) override {
    if (depth_ != 2 || in_metadata_ || (field_ != "shape" && field_ != "data_offsets")) bad("a list where none may be");
    offsets_ = 0;
    return enter();
  }
  bool end_array() override {
    --depth_;
    if (field_ == "data_offsets" && offsets_ != 2) bad("data_offsets that are not two numbers");
    return true;
  }
  bool number_unsigned(number_unsigned_t v) override {
    if (depth_ != 3) bad("a number where none may be");
    Entry& e = entries.back();
    if (field_ == "shape") {
      if (v > static_cast<uint64_t>(std::numeric_limits<int64_t>::max())) bad("a size beyond 63 bits");
      if (e.shape.ndim() == kMaxDims) bad("more dimensions than are supported");
      e.shape.push_back(static_cast<int64_t>(v));
    } else {
      if (offsets_ == 2) bad("data_offsets that are not two numbers");
      (offsets_++ == 0 ? e.begin : e.end) = v;
    }
    return true;
  }
  bool number_integer(number_integer_t) override { bad("a negative number"); }
  bool number_float(number_float_t, const string_t&) override { bad("a number that is not a whole one"); }
  bool null() override { bad("null"); }
  bool boolean(bool) override { bad("true or false where none may be"); }
  bool binary(binary_t&) override { bad("binary data"); }
  bool parse_error(std::size_t position, const std::string&, const nlohmann::detail::exception&) override {
    throw FormatError(str(what_, ": the header is not valid JSON at byte ", position));
  }

 private:
  bool enter() { return ++depth_, true; }
  [[noreturn]] void bad(const char* rule) const {
    const bool named = depth_ > 0 && !entries.empty() && !in_metadata_;
    throw FormatError(str(what_, ": ", rule, " in ",
                          named ? "tensor " + shown(entries.back().name) : std::string("the header"),
                          in_metadata_ ? "'s metadata" : ""));
  }

  const std::string& what_;
  std::set<std::string> names_;
  std::string field_;
  int depth_ = 0, offsets_ = 0;
  bool in_metadata_ = false, has_dtype_ = false, has_shape_ = false, has_offsets_ = false;
};

void check_layout(const std::vector<Entry>& entries, uint64_t bytes, const std::string& what) {
  std::vector<const Entry*> order;
  for (const Entry& e : entries) {
    const auto bad = [&](const char* rule) {
      throw FormatError(str(what, ": tensor ", shown(e.name), " ", to_string(e.shape), " ", name(e.dtype), " at bytes ",
                            e.begin, " to ", e.end, " of ", bytes, ": ", rule));
    };
    if (e.begin > e.end) bad("it ends before it begins");
    if (e.end > bytes) bad("it passes the end of the file");
    int64_t elements = -1;
    try {
      elements = e.shape.numel();
    } catch (const ShapeError&) { bad("its shape is beyond any memory"); }
    if (static_cast<uint64_t>(elements * size_of(e.dtype)) != e.end - e.begin)
      bad("its shape does not take that many bytes");
    order.push_back(&e);
  }
  std::sort(order.begin(), order.end(), [](const Entry* a, const Entry* b) {
    return a->begin != b->begin ? a->begin < b->begin : a->end < b->end;
  });
  uint64_t at = 0;
  for (const Entry* e : order) {
    if (e->begin != at)
      throw FormatError(str(what, ": tensor ", shown(e->name), " begins at byte ", e->begin,
                            ", but the data before it ends at ", at, ": tensors may neither overlap nor leave holes"));
    at = e->end;
  }
  if (at != bytes)
    throw FormatError(str(what, ": the tensors end at byte ", at, " of the data, but the file has ", bytes));
}

using ReadAt = std::function<void(uint64_t offset, void* to, uint64_t bytes)>;

TensorFile read(uint64_t size, const ReadAt& read_at, const std::string& what) {
  if (size < 8) throw FormatError(str(what, ": ", size, " bytes are too few for a safetensors file"));
  uint64_t length = 0;
  read_at(0, &length, 8);
  if (length > size - 8)
    throw FormatError(
        str(what, ": the header claims ", length, " bytes, but the file has ", size - 8, " after its length"));
  if (length > kLongestHeader)
    throw FormatError(str(what, ": the header claims ", length, " bytes, above the limit of 100 MB"));
  std::string text(static_cast<size_t>(length), '\0');
  read_at(8, text.data(), length);
  if (text.empty() || text[0] != '{') throw FormatError(str(what, ": the header does not begin with '{'"));
  HeaderReader header(what);
  if (!nlohmann::json::sax_parse(text, &header)) throw FormatError(str(what, ": the header is not of the format"));
  const uint64_t data = 8 + length;
  check_layout(header.entries, size - data, what);

  TensorFile file;
  file.source = what;
  file.metadata = std::move(header.metadata);
  file.tensors.reserve(header.entries.size());
  for (Entry& e : header.entries) {
    Tensor t = empty(e.shape, e.dtype);
    const uint64_t bytes = e.end - e.begin;
    if (bytes > 0) read_at(data + e.begin, t.raw_data(), bytes);
    if (e.dtype == DType::boolean) {
      const auto* p = static_cast<const uint8_t*>(t.raw_data());
      if (std::any_of(p, p + bytes, [](uint8_t b) { return b > 1; }))
        throw FormatError(str(what, ": tensor ", shown(e.name), " is BOOL, but holds bytes other than 0 and 1"));
    }
    file.tensors.emplace_back(std::move(e.name), std::move(t));
  }
  return file;
}

}  // namespace

const Tensor& TensorFile::at(const std::string& name) const {
  for (const auto& [n, t] : tensors)
    if (n == name) return t;
  throw FormatError(str(source.empty() ? "the file" : source, " has no tensor ", shown(name)));
}

void write_file_atomically(const std::string& path, const void* data, size_t bytes) {
  AtomicFile file(path);
  file.write(data, bytes);
  file.commit();
}

void save_safetensors(const std::string& path, const TensorFile& file) {
  std::string header = "{";
  if (!file.metadata.empty()) {
    header += str('"', kMetadata, "\":{");
    bool first = true;
    for (const auto& [key, value] : file.metadata) {
      header += str(std::exchange(first, false) ? "" : ",", json_string(key), ":", json_string(value));
    }
    header += "},";
  }
  std::set<std::string_view> names;
  uint64_t at = 0;
  for (const auto& [name, t] : file.tensors) {
    HONE_CHECK(name != kMetadata, FormatError, "save_safetensors: the name '__metadata__' is reserved");
    HONE_CHECK(names.insert(name).second, FormatError, "save_safetensors: the name ", shown(name), " appears twice");
    HONE_CHECK(t.defined(), FormatError, "save_safetensors: tensor ", shown(name), " is undefined");
    const char* dtype = "";
    for (const NamedDType& d : kDTypes)
      if (d.dtype == t.dtype()) dtype = d.name;
    header += str(json_string(name), ":{\"dtype\":\"", dtype, "\",\"shape\":[");
    for (int i = 0; i < t.shape().ndim(); ++i) header += str(i ? "," : "", t.shape()[i]);
    const uint64_t bytes = static_cast<uint64_t>(t.numel()) * static_cast<uint64_t>(size_of(t.dtype()));
    header += str("],\"data_offsets\":[", at, ",", at + bytes, "]},");
    at += bytes;
  }
  if (header.back() == ',') header.pop_back();
  header += '}';
  header.resize((header.size() + 7) / 8 * 8, ' ');
  const uint64_t length = header.size();
  HONE_CHECK(length <= kLongestHeader, FormatError, "save_safetensors: the header takes ", length,
             " bytes, above the limit of 100 MB");

  AtomicFile out(path);
  out.write(&length, 8);
  out.write(header.data(), header.size());
  for (const auto& [name, t] : file.tensors) {
    if (t.numel() == 0) continue;
    const Tensor plain = contiguous(to(t.detach(), cpu));
    out.write(plain.raw_data(), static_cast<size_t>(plain.numel() * size_of(plain.dtype())));
  }
  out.commit();
}

TensorFile load_safetensors(const std::string& path) {
  const detail::InputFile file(path);
  return read(
      file.size(), [&file](uint64_t offset, void* to, uint64_t bytes) { file.read(offset, to, bytes); },
      "'" + path + "'");
}

TensorFile parse_safetensors(const void* data, size_t bytes, const std::string& what) {
  return read(
      bytes,
      [data](uint64_t offset, void* to, uint64_t n) {
        if (n > 0) std::memcpy(to, static_cast<const char*>(data) + offset, static_cast<size_t>(n));
      },
      what);
}

}  // namespace hone
