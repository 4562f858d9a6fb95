#pragma once
// Checkpoint: everything that a run needs in order to go on as if it had never stopped, in one safetensors file.

#include <concepts>
#include <cstdint>
#include <functional>
#include <map>
#include <string>
#include <vector>

#include "hone/core/error.h"
#include "hone/core/serialize.h"

namespace hone::train {

/// What can be a part: modules, optimizers, schedules, averages, Lookahead, loaders. load_state_dict() throws a
/// hone::Error for a state that is not its own.
template <class T>
concept Stateful = requires(T& x, const TensorFile& file) {
  { x.state_dict() } -> std::convertible_to<TensorFile>;
  x.load_state_dict(file);
};

/// A list of live parts and numbers by name; the process's generator (manual_seed) is always among them. Parts are held
/// by reference and must outlive it.
///
///   train::Checkpoint checkpoint;
///   checkpoint.add("model", net).add("optimizer", adam).add("schedule", schedule).add("loader", batches);
///   checkpoint.add("best", best).add("losses", losses);              // double, int64_t, or a vector of them
///   checkpoint.require("learning rate", 4e-3);                       // refused where it differs
///   checkpoint.resume("run.safetensors");                            // false: no such file yet
///   while (batches.epoch() < 20) {
///     for (auto& [x, y] : batches) {                                 // what the epoch has left
///       …; adam.step(); schedule.step(); losses.push_back(loss);
///       checkpoint.save("run.safetensors");                          // last in the body: the step is whole
///     }
///     checkpoint.save("run.safetensors");                            // the next epoch's beginning
///   }
///
/// Gradients are no part: save after a step (with gradient accumulation: when nothing is pending).
class Checkpoint {
 public:
  /// ValueError for a name that is empty, holds '/' or control characters, stands already, or is "generator", "part" or
  /// "require".
  template <Stateful T> Checkpoint& add(const std::string& name, T& part) {
    return add_part({name, type_of(part), [&part] { return TensorFile(part.state_dict()); },
                     [&part](const TensorFile& file) { part.load_state_dict(file); }});
  }
  Checkpoint& add(const std::string& name, int64_t& value);
  Checkpoint& add(const std::string& name, double& value);
  Checkpoint& add(const std::string& name, std::vector<int64_t>& values);  ///< of any length, in the file too
  Checkpoint& add(const std::string& name, std::vector<double>& values);

  /// What a checkpoint must share with this run, as text: a setting that no part knows of. ValueError as add().
  template <class T> Checkpoint& require(const std::string& name, const T& value) {
    return add_requirement(name, str(value));
  }

  /// Writes all parts to a temporary beside `path`, syncs it and renames it: whatever happens, `path` is a whole
  /// checkpoint, the former or the new one. The same state gives the same bytes; there is no time in it. What killed
  /// runs left of their temporaries is removed. IoError, with the former file as it was.
  void save(const std::string& path) const;
  /// Sets all parts and the generator to what the file holds. FormatError naming the difference: damage, another
  /// version, missing or unexpected parts, another model, optimizer or loader, a requirement that differs. IoError if
  /// it cannot be read. On any error nothing has changed. Where parts write into one another (a schedule sets its
  /// optimizer's rates), the one that was added first has the last word.
  void load(const std::string& path);
  /// load(), if there is such a file; false: there is none.
  bool resume(const std::string& path);

 private:
  struct Part {
    std::string name, type;
    std::function<TensorFile()> save;
    std::function<void(const TensorFile&)> load;
  };
  template <class T> static std::string type_of(const T& part) {
    if constexpr (requires { part.type_name(); }) {
      return part.type_name();
    } else if constexpr (requires {
                           { part.name() } -> std::convertible_to<std::string>;
                         }) {
      return part.name();
    } else {
      return "state";
    }
  }
  void check_name(const char* what, const std::string& name) const;
  Checkpoint& add_part(Part part);
  Checkpoint& add_requirement(const std::string& name, std::string value);
  std::vector<TensorFile> sort_out(TensorFile file) const;

  std::vector<Part> parts_;
  std::map<std::string, std::string> required_;
};

}  // namespace hone::train
