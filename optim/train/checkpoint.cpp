// The file: tensors "PART/ENTRY", "generator/seed" and "generator/next_stream"; metadata "hone.checkpoint": version,
// "part/PART": type, "PART/KEY": what the part's own metadata holds, "require/NAME": value.

#include "hone/optim/train/checkpoint.h"

#include <dirent.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <csignal>
#include <cstdlib>
#include <optional>
#include <set>

#include "hone/core/basic_ops.h"
#include "hone/core/random.h"

namespace hone::train {
namespace {

constexpr const char* kFormat = "hone.checkpoint";
constexpr const char* kVersion = "1";
constexpr const char* kGenerator = "generator";
constexpr const char* kPart = "part";
constexpr const char* kRequire = "require";

template <class T> TensorFile one(const T& value) {
  return {.tensors = {{"value", tensor(std::vector<T>{value}, Shape{})}}, .metadata = {}};
}
template <class T> TensorFile many(const std::vector<T>& values) {
  return {.tensors = {{"values", tensor(values)}}, .metadata = {}};
}

/// The only entry of a part that is a number or a list of them.
const Tensor& only(const TensorFile& file, const char* name, DType dtype, int64_t ndim) {
  const Tensor& t = file.at(name);
  HONE_CHECK(file.tensors.size() == 1 && file.metadata.empty(), FormatError, "it holds more than '", name, "'");
  HONE_CHECK(t.dtype() == dtype && t.ndim() == ndim, FormatError, "'", name, "' is ", t.dtype(), " ", t.shape(),
             ", expected ", dtype, ndim == 0 ? " []" : " [n]");
  return t;
}

int64_t whole(const TensorFile& file, const char* name) {
  const Tensor& t = file.at(name);
  HONE_CHECK(t.dtype() == i64 && t.ndim() == 0, FormatError, "'", name, "' is ", t.dtype(), " ", t.shape(),
             ", expected i64 []");
  return t.item<int64_t>();
}

GeneratorState generator_in(const TensorFile& file) {
  HONE_CHECK(file.tensors.size() == 2 && file.metadata.empty(), FormatError,
             "the generator's part must hold 'seed' and 'next_stream'");
  return {static_cast<uint64_t>(whole(file, "seed")), static_cast<uint64_t>(whole(file, "next_stream"))};
}

/// Whether `name` is that of a temporary of `file` ("file.PID-NUMBER.tmp") whose process is gone.
bool is_left_over(const std::string& name, const std::string& file) {
  const size_t head = file.size() + 1;
  if (name.size() <= head + 4 || name.compare(0, head, file + ".") != 0 || !name.ends_with(".tmp")) return false;
  const char *at = name.data() + head, *end = name.data() + name.size() - 4;
  const auto number = [&](int& v) {
    const auto [stop, error] = std::from_chars(at, end, v);
    const bool good = error == std::errc() && v >= 0 && *at != '-';
    at = stop;
    return good;
  };
  int pid = 0, count = 0;
  if (!number(pid) || pid == 0 || at == end || *at++ != '-' || !number(count) || at != end) return false;
  return ::kill(pid, 0) != 0 && errno == ESRCH;
}

void remove_left_overs(std::string path) {
  if (char* target = ::realpath(path.c_str(), nullptr)) {  // they lie where the file is, not where a link to it is
    path = target;
    std::free(target);
  }
  const size_t slash = path.rfind('/');
  const std::string folder = slash == std::string::npos ? "./" : path.substr(0, slash + 1);
  const std::string file = slash == std::string::npos ? path : path.substr(slash + 1);
  DIR* d = ::opendir(folder.c_str());
  if (!d) return;
  std::vector<std::string> found;
  while (const dirent* e = ::readdir(d))
    if (is_left_over(e->d_name, file)) found.emplace_back(e->d_name);
  ::closedir(d);
  for (const std::string& name : found) ::unlink((folder + name).c_str());
}

std::string quoted(const std::vector<std::string>& names) {
  std::string s;
  for (size_t i = 0; i < names.size() && i < 8; ++i) s += str(i ? ", " : "", "'", names[i], "'");
  return names.size() > 8 ? str(s, " and ", names.size() - 8, " more") : s;
}

}  // namespace

void Checkpoint::check_name(const char* what, const std::string& name) const {
  const bool plain = std::none_of(name.begin(), name.end(),
                                  [](char c) { return c == '/' || static_cast<unsigned char>(c) < 0x20 || c == 0x7f; });
  HONE_CHECK(!name.empty() && plain, ValueError, "train::Checkpoint.", what, ": the name '", name,
             "' must not be empty nor hold '/' or control characters");
}

Checkpoint& Checkpoint::add_part(Part part) {
  check_name("add", part.name);
  HONE_CHECK(part.name != kGenerator && part.name != kPart && part.name != kRequire, ValueError,
             "train::Checkpoint.add: the name '", part.name, "' is reserved");
  for (const Part& p : parts_)
    HONE_CHECK(p.name != part.name, ValueError, "train::Checkpoint.add: there is a part '", part.name, "' already");
  parts_.push_back(std::move(part));
  return *this;
}

Checkpoint& Checkpoint::add_requirement(const std::string& name, std::string value) {
  check_name("require", name);
  HONE_CHECK(required_.emplace(name, std::move(value)).second, ValueError, "train::Checkpoint.require: '", name,
             "' is required already");
  return *this;
}

Checkpoint& Checkpoint::add(const std::string& name, int64_t& value) {
  return add_part({name, "whole number", [&value] { return one(value); },
                   [&value](const TensorFile& f) { value = only(f, "value", i64, 0).item<int64_t>(); }});
}
Checkpoint& Checkpoint::add(const std::string& name, double& value) {
  return add_part({name, "number", [&value] { return one(value); },
                   [&value](const TensorFile& f) { value = only(f, "value", f64, 0).item<double>(); }});
}
Checkpoint& Checkpoint::add(const std::string& name, std::vector<int64_t>& values) {
  return add_part({name, "whole numbers", [&values] { return many(values); },
                   [&values](const TensorFile& f) { values = only(f, "values", i64, 1).to_vector<int64_t>(); }});
}
Checkpoint& Checkpoint::add(const std::string& name, std::vector<double>& values) {
  return add_part({name, "numbers", [&values] { return many(values); },
                   [&values](const TensorFile& f) { values = only(f, "values", f64, 1).to_vector<double>(); }});
}

void Checkpoint::save(const std::string& path) const {
  TensorFile file;
  file.metadata[kFormat] = kVersion;
  for (const auto& [name, value] : required_) file.metadata[str(kRequire, "/", name)] = value;
  for (const Part& part : parts_) {
    file.metadata[str(kPart, "/", part.name)] = part.type;
    TensorFile own = part.save();
    for (auto& [name, t] : own.tensors) file.tensors.emplace_back(str(part.name, "/", name), std::move(t));
    for (const auto& [key, value] : own.metadata) file.metadata[str(part.name, "/", key)] = value;
  }
  const GeneratorState g = generator_state();
  for (const auto& [name, v] : {std::pair("seed", g.seed), std::pair("next_stream", g.next_stream)})
    file.tensors.emplace_back(str(kGenerator, "/", name),
                              tensor(std::vector<int64_t>{static_cast<int64_t>(v)}, Shape{}));
  remove_left_overs(path);
  save_safetensors(path, file);
}

/// One TensorFile for each part, and the generator's last, after all that can be said without asking the parts.
std::vector<TensorFile> Checkpoint::sort_out(TensorFile file) const {
  const auto format = file.metadata.find(kFormat);
  HONE_CHECK(format != file.metadata.end(), FormatError, "it is no checkpoint: the metadata has no '", kFormat, "'");
  HONE_CHECK(format->second == kVersion, FormatError, "it has version '", format->second,
             "', this program reads version ", kVersion);
  std::map<std::string, std::string> types, required;
  std::map<std::string, size_t> index{{kGenerator, parts_.size()}};
  for (size_t i = 0; i < parts_.size(); ++i) index.emplace(parts_[i].name, i);
  std::vector<TensorFile> sorted(parts_.size() + 1);

  const auto owner = [](const std::string& name) { return name.substr(0, std::min(name.find('/'), name.size())); };
  const auto rest = [](const std::string& name) { return name.substr(std::min(name.find('/') + 1, name.size())); };
  for (const auto& [key, value] : file.metadata)
    if (owner(key) == kPart) types.emplace(rest(key), value);
  std::vector<std::string> missing, unexpected;
  for (const auto& [name, type] : types)
    if (!index.contains(name)) unexpected.push_back(name);
  for (const Part& p : parts_)
    if (!types.contains(p.name)) missing.push_back(p.name);
  HONE_CHECK(missing.empty() && unexpected.empty(), FormatError, "its parts are not those of this run",
             missing.empty() ? "" : "; missing: ", quoted(missing),
             unexpected.empty() ? "" : "; unexpected: ", quoted(unexpected));
  for (const Part& p : parts_)
    HONE_CHECK(types[p.name] == p.type, FormatError, "part '", p.name, "' was saved as ", types[p.name],
               ", here it is ", p.type);

  for (auto& [key, value] : file.metadata) {
    if (key == kFormat || owner(key) == kPart) continue;
    if (owner(key) == kRequire && key != kRequire) {
      required.emplace(rest(key), value);
      continue;
    }
    const auto part = index.find(owner(key));
    HONE_CHECK(part != index.end() && key != part->first, FormatError, "the metadata has an unknown entry '", key, "'");
    sorted[part->second].metadata.emplace(rest(key), value);
  }
  for (auto& [name, t] : file.tensors) {
    const auto part = index.find(owner(name));
    HONE_CHECK(part != index.end() && name != part->first, FormatError, "it has an entry of no part: '", name, "'");
    sorted[part->second].tensors.emplace_back(rest(name), std::move(t));
  }

  for (const auto& [name, ours] : required_) {
    const auto theirs = required.find(name);
    HONE_CHECK(theirs != required.end(), FormatError, "it does not say its ", name, ", here ", ours);
    HONE_CHECK(theirs->second == ours, FormatError, name, " was ", theirs->second, ", here it is ", ours);
    required.erase(theirs);
  }
  HONE_CHECK(required.empty(), FormatError, "it requires ", required.begin()->first, " ", required.begin()->second,
             ", of which this run does not speak");
  return sorted;
}

void Checkpoint::load(const std::string& path) {
  TensorFile file = load_safetensors(path);
  const auto refuse = [&](const std::string& why) { return FormatError(str("checkpoint '", path, "': ", why)); };
  std::vector<TensorFile> wanted;
  GeneratorState generator;
  try {
    wanted = sort_out(std::move(file));
    generator = generator_in(wanted.back());
  } catch (const FormatError& e) { throw refuse(e.what()); }

  std::vector<TensorFile> former;
  for (const Part& part : parts_) former.push_back(part.save());
  // In the order of add(), so that the first difference is the one that says most (the model's, not that of the
  // optimizer on it); then backwards, so that the first part has the last word.
  const Part* at = nullptr;
  size_t touched = 0;
  try {
    while (touched < parts_.size()) {
      at = &parts_[touched];
      at->load(wanted[touched++]);
    }
    for (size_t i = parts_.size(); i-- > 0;) (at = &parts_[i])->load(wanted[i]);
  } catch (...) {
    for (size_t i = touched; i-- > 0;) {
      try {
        parts_[i].load(former[i]);
      } catch (...) {}  // a part that cannot take its own state has refused the other one too, and stays as it is
    }
    try {
      throw;
    } catch (const Error& e) { throw refuse(str("part '", at->name, "': ", e.what())); }
  }
  set_generator_state(generator);
}

bool Checkpoint::resume(const std::string& path) {
  struct stat info {};
  if (::stat(path.c_str(), &info) != 0 && errno == ENOENT) return false;
  load(path);
  return true;
}

}  // namespace hone::train
