#include "hone/core/random.h"

#include <mutex>

namespace hone {
namespace {
std::mutex mutex;
GeneratorState state;
thread_local GeneratorState* scoped = nullptr;
}  // namespace

void manual_seed(uint64_t seed) { set_generator_state({seed, 0}); }

GeneratorState generator_state() {
  const std::lock_guard lock(mutex);
  return state;
}

void set_generator_state(GeneratorState s) {
  const std::lock_guard lock(mutex);
  state = s;
}

Philox next_stream() {
  if (scoped) return {scoped->seed, scoped->next_stream++};
  const std::lock_guard lock(mutex);
  return {state.seed, state.next_stream++};
}

GeneratorScope::GeneratorScope(GeneratorState s) : state_(s), former_(scoped) { scoped = &state_; }
GeneratorScope::~GeneratorScope() { scoped = former_; }

}  // namespace hone
