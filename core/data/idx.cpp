#include "hone/core/data/idx.h"

#include <zlib.h>

#include <algorithm>
#include <cstring>
#include <vector>

#include "hone/core/error.h"
#include "hone/core/input_file.h"

namespace hone::data {
namespace {

using Bytes = std::vector<uint8_t>;

Bytes read_file(const std::string& path) {
  const hone::detail::InputFile file(path);
  Bytes bytes(static_cast<size_t>(file.size()));
  file.read(0, bytes.data(), file.size());
  return bytes;
}

/// A gzip stream, read piece by piece.
class Inflater {
 public:
  Inflater(const Bytes& from, const std::string& path) : path_(path), size_(from.size()) {
    stream_.next_in = const_cast<Bytef*>(from.data());
    if (inflateInit2(&stream_, 15 + 16) != Z_OK) throw Error(str("zlib cannot start on '", path, "'"));
    rest_ = size_;
  }
  ~Inflater() { inflateEnd(&stream_); }
  Inflater(const Inflater&) = delete;

  /// Up to `n` bytes; fewer only at the end of the stream, which must be the end of the file too.
  size_t read(uint8_t* to, size_t n) {
    size_t got = 0;
    while (got < n && !ended_) {
      const auto room = static_cast<uInt>(std::min<size_t>(n - got, 1 << 30));
      stream_.next_out = to + got;
      stream_.avail_out = room;
      if (stream_.avail_in == 0) {
        stream_.avail_in = static_cast<uInt>(std::min<size_t>(rest_, 1 << 30));
        rest_ -= stream_.avail_in;
      }
      const int status = inflate(&stream_, Z_NO_FLUSH);
      got += room - stream_.avail_out;
      if (status == Z_STREAM_END) {
        ended_ = true;
        if (stream_.avail_in + rest_ > 0) throw FormatError(str("'", path_, "': bytes follow the gzip stream"));
      } else if (status == Z_BUF_ERROR || (status == Z_OK && stream_.avail_in + rest_ == 0 && stream_.avail_out > 0)) {
        throw FormatError(str("'", path_, "': the gzip stream is truncated"));
      } else if (status != Z_OK) {
        throw FormatError(str("'", path_, "': the gzip stream is damaged"));
      }
    }
    return got;
  }

 private:
  const std::string& path_;
  size_t size_, rest_ = 0;
  z_stream stream_{};
  bool ended_ = false;
};

struct Header {
  DType dtype = DType::u8;
  Shape shape;
  size_t bytes = 0;  // of the values
};

/// `more(to, n)` reads exactly n bytes or throws.
template <class F> Header read_header(F more, const std::string& path) {
  uint8_t magic[4];
  more(magic, 4);
  if (magic[0] != 0 || magic[1] != 0)
    throw FormatError(str("'", path, "' is not an IDX file: it must begin with two zero bytes"));
  Header h;
  switch (magic[2]) {
    case 0x08: h.dtype = DType::u8; break;
    case 0x09: h.dtype = DType::i8; break;
    case 0x0C: h.dtype = DType::i32; break;
    case 0x0D: h.dtype = DType::f32; break;
    case 0x0E: h.dtype = DType::f64; break;
    default:
      throw FormatError(
          str("'", path, "': dtype code ", int{magic[2]}, " is none of 8 (u8), 9 (i8), 12 (i32), 13 (f32), 14 (f64)"));
  }
  if (magic[3] < 1 || magic[3] > kMaxDims)
    throw FormatError(str("'", path, "' has ", int{magic[3]}, " dimensions, but 1 to ", kMaxDims, " are supported"));
  for (int i = 0; i < magic[3]; ++i) {
    uint8_t b[4];
    more(b, 4);
    h.shape.push_back(int64_t{b[0]} << 24 | b[1] << 16 | b[2] << 8 | b[3]);
  }
  try {
    h.bytes = static_cast<size_t>(h.shape.numel() * size_of(h.dtype));
  } catch (const ShapeError&) {
    throw FormatError(str("'", path, "': its sizes ", to_string(h.shape), " are beyond any memory"));
  }
  return h;
}

[[noreturn]] void wrong_length(const std::string& path, const Header& h, const char* how) {
  throw FormatError(str("'", path, "': its sizes ", to_string(h.shape), " ", name(h.dtype), " claim ", h.bytes,
                        " bytes, but it holds ", how));
}

Tensor to_tensor(const Header& h, const uint8_t* values) {
  Tensor t = empty(h.shape, h.dtype);
  auto* to = static_cast<uint8_t*>(t.raw_data());
  const auto width = static_cast<size_t>(size_of(h.dtype));
  if (width == 1) {
    if (h.bytes > 0) std::memcpy(to, values, h.bytes);
  } else {  // big-endian in the file
    for (size_t i = 0; i < h.bytes; i += width) std::reverse_copy(values + i, values + i + width, to + i);
  }
  return t;
}

Tensor read_plain(const Bytes& file, const std::string& path) {
  size_t at = 0;
  const Header h = read_header(
      [&](uint8_t* to, size_t n) {
        if (file.size() - at < n) throw FormatError(str("'", path, "' ends inside its header"));
        std::copy_n(file.data() + at, n, to);
        at += n;
      },
      path);
  if (file.size() - at < h.bytes) wrong_length(path, h, "fewer");
  if (file.size() - at > h.bytes) wrong_length(path, h, "more");
  return to_tensor(h, file.data() + at);
}

Tensor read_gzip(const Bytes& file, const std::string& path) {
  Inflater stream(file, path);
  const Header h = read_header(
      [&](uint8_t* to, size_t n) {
        if (stream.read(to, n) < n) throw FormatError(str("'", path, "' ends inside its header"));
      },
      path);
  // Room for what such a file usually holds, doubled as content turns up.
  Bytes values;
  for (size_t got = 0; got < h.bytes;) {
    values.resize(std::min(h.bytes, std::max({size_t{1} << 16, 4 * file.size(), 2 * got})));
    got += stream.read(values.data() + got, values.size() - got);
    if (got < values.size()) wrong_length(path, h, "fewer");
  }
  uint8_t extra;
  if (stream.read(&extra, 1) > 0) wrong_length(path, h, "more");
  return to_tensor(h, values.data());
}

}  // namespace

Tensor read_idx(const std::string& path) {
  const Bytes file = read_file(path);
  const bool gzip = file.size() >= 2 && file[0] == 0x1f && file[1] == 0x8b;
  return gzip ? read_gzip(file, path) : read_plain(file, path);
}

}  // namespace hone::data
