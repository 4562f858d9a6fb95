// Any bytes as a checkpoint: loaded, or refused with a FormatError and nothing changed. What loads, saves.

#include <sys/mman.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <string>

#include "hone/hone.h"

namespace {

struct Run {
  hone::nn::Linear net{{.in = 1, .out = 1}};
  hone::optim::Adam adam{net.parameters(), {.lr = 0.1}};
  hone::optim::StepLR schedule{adam, {.steps = 3}};
  hone::data::Loader batches{{hone::ones({4, 1}), hone::ones({4, 1})}, {.batch = 2, .prefetch = 0}};
  int64_t step = 0;
  std::vector<double> losses;
  hone::train::Checkpoint checkpoint;
  Run() {
    checkpoint.add("m", net).add("o", adam).add("s", schedule).add("l", batches).add("n", step).add("v", losses);
    checkpoint.require("r", 1);
    for (auto& [x, y] : batches) {
      hone::mse_loss(net(x), y).backward();
      adam.step();
      schedule.step();
      losses.push_back(static_cast<double>(++step));
      break;
    }
  }
};

int file_of(const void* data, size_t size) {
  const int fd = memfd_create("checkpoint", 0);
  if (fd < 0 || write(fd, data, size) != static_cast<ssize_t>(size)) std::abort();
  return fd;
}

std::string state(const Run& run) {
  std::string name = (std::filesystem::temp_directory_path() / "hone-fuzz-XXXXXX").string();
  const int fd = mkstemp(name.data());
  if (fd < 0) std::abort();
  close(fd);
  run.checkpoint.save(name);
  const hone::TensorFile file = hone::load_safetensors(name);
  unlink(name.c_str());
  std::string bytes;
  for (const auto& [entry, t] : file.tensors)
    bytes.append(entry).append(static_cast<const char*>(t.raw_data()),
                               static_cast<size_t>(t.numel() * size_of(t.dtype())));
  return bytes;
}

}  // namespace

/// HONE_FUZZ_SEED=FILE: writes a checkpoint there to begin with, and no more.
extern "C" int LLVMFuzzerInitialize(int*, char***) {
  if (const char* path = std::getenv("HONE_FUZZ_SEED")) {
    Run().checkpoint.save(path);
    std::_Exit(0);
  }
  return 0;
}

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  static Run run;
  static uint64_t count = 0;
  const int fd = file_of(data, size);
  const bool compare = ++count % 64 == 0;  // a save has two syncs
  const std::string before = compare ? state(run) : "";
  try {
    run.checkpoint.load("/proc/self/fd/" + std::to_string(fd));
    if (compare) state(run);
  } catch (const hone::FormatError&) {
    if (compare && state(run) != before) std::abort();
  }
  close(fd);
  return 0;
}
