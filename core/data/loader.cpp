#include "hone/core/data/loader.h"

#include <algorithm>
#include <condition_variable>
#include <exception>
#include <limits>
#include <map>
#include <mutex>
#include <numeric>
#include <thread>

#include "hone/core/basic_ops.h"
#include "hone/core/data/assemble.h"
#include "hone/core/error.h"
#include "hone/core/tensor_impl.h"

namespace hone::data {
namespace {

/// The arrays that batches lie in. One that nobody holds any more is taken again, so that what a pass asks of the
/// allocator does not depend on how far ahead the thread runs; while all are held, new ones are made.
class Buffers {
 public:
  void reserve(size_t count, const Shape& full, DType dtype) {
    dtype_ = dtype;
    bytes_ = static_cast<size_t>(full.numel() * size_of(dtype));
    kept_.resize(count);
  }
  Tensor take(const Shape& shape) {
    for (StoragePtr& s : kept_) {
      if (!s) s = StoragePtr(new Storage(bytes_, cpu));
      if (s.unique()) return make_view(s, shape, contiguous_strides(shape), 0, dtype_);
    }
    return empty(shape, dtype_);
  }
  void fill() {
    for (StoragePtr& s : kept_)
      if (!s) s = StoragePtr(new Storage(bytes_, cpu));
  }

 private:
  DType dtype_ = DType::f32;
  size_t bytes_ = 0;
  std::vector<StoragePtr> kept_;
};

/// Between two batches of one epoch.
struct Place {
  int64_t epoch = 0, consumed = 0;
  uint64_t seed = 0;
  friend bool operator==(const Place&, const Place&) = default;
};

Tensor number(int64_t v) { return tensor(std::vector<int64_t>{v}, Shape{}); }

/// Which rows the samples are, mixed into one number (FNV-1a over whole words): tells one random split from another.
int64_t fingerprint(const Dataset& d) {
  uint64_t h = 0xcbf29ce484222325u;
  for (int64_t i = 0; i < d.size(); ++i) h = (h ^ static_cast<uint64_t>(d.row(i))) * 0x100000001b3u;
  return static_cast<int64_t>(h);
}

}  // namespace

struct Loader::Impl {
  LoaderOptions options;
  uint64_t seed;
  detail::Assembler assembler;
  int64_t samples, batches, epoch = 0;
  std::vector<int64_t> order;
  Buffers inputs, targets;

  Batch current;
  bool ended = true, failed = false;
  std::optional<int64_t> rows;   // fingerprint of the dataset, once it was asked for
  std::optional<Place> pending;  // where load_state_dict() wants the next pass to begin

  // Shared with the thread, under the mutex. `order` and `pass_epoch` change only while it is idle.
  std::mutex mutex;
  std::condition_variable to_worker, to_consumer;
  std::vector<Batch> ring;
  int64_t pass_epoch = 0, made = 0, taken = 0;
  bool running = false, busy = false, stopping = false;
  std::exception_ptr error;
  std::thread worker;

  Impl(Dataset dataset, LoaderOptions o)
      : options(std::move(o)),
        seed(options.seed ? *options.seed : generator_state().seed),
        assembler(std::move(dataset), options.transform, seed) {
    samples = assembler.dataset().size();
    if (options.sampler) {
      HONE_CHECK(!options.shuffle, ValueError,
                 "data::Loader: shuffle and a sampler; the sampler decides the order, leave .shuffle out");
      samples = options.sampler.length();
    }
    HONE_CHECK(options.batch >= 1, ValueError, "data::Loader: batch ", options.batch, " is not positive");
    HONE_CHECK(options.prefetch >= 0 && options.prefetch <= 1024, ValueError, "data::Loader: prefetch ",
               options.prefetch, " is outside [0, 1024]");
    batches = options.drop_last ? samples / options.batch : samples / options.batch + (samples % options.batch != 0);
    HONE_CHECK(batches > 0 || samples == 0, ValueError, "data::Loader: ", samples, " samples make no full batch of ",
               options.batch, ", and drop_last leaves out the rest");
    check_usable(options.device);
    order.resize(static_cast<size_t>(samples));
    ring.resize(static_cast<size_t>(options.prefetch));
    // Those in the ring, one in the making, one with the consumer, one that its last graph still holds; a pass of few
    // batches never holds more than those and the one left over from the pass before.
    const auto count = static_cast<size_t>(std::min(options.prefetch + 3, batches + 1));
    const int64_t rows = std::min(options.batch, samples);
    inputs.reserve(count, assembler.input_shape(rows), assembler.input_dtype());
    targets.reserve(count, assembler.target_shape(rows), assembler.target_dtype());
  }

  ~Impl() {
    {
      const std::lock_guard lock(mutex);
      stopping = true;
    }
    to_worker.notify_all();
    if (worker.joinable()) worker.join();
  }

  Batch make(int64_t index) {
    const int64_t begin = index * options.batch, n = std::min(options.batch, samples - begin);
    Batch b{inputs.take(assembler.input_shape(n)), targets.take(assembler.target_shape(n))};
    assembler.fill({order.data() + begin, static_cast<size_t>(n)}, pass_epoch, b.inputs.raw_data(),
                   b.targets.raw_data(), options.sampler ? begin : -1);
    return b;
  }

  void sample() {
    options.sampler.fill(order, seed, pass_epoch);
    const int64_t size = assembler.dataset().size();
    for (size_t i = 0; i < order.size(); ++i)
      HONE_CHECK(order[i] >= 0 && order[i] < size, ValueError, "data::Loader: the sampler's position ", order[i],
                 " at place ", i, " is outside [0, ", size, ")");
  }

  void start() {
    current = {};
    {
      std::unique_lock lock(mutex);
      running = false;
      to_consumer.wait(lock, [&] { return !busy; });
      std::fill(ring.begin(), ring.end(), Batch{});
      error = nullptr;
      if (pending) epoch = pending->epoch;
      made = taken = pending ? pending->consumed : 0;
    }
    if (pending) {
      seed = pending->seed;
      assembler.set_seed(seed);
      pending.reset();
    }
    pass_epoch = epoch++;
    failed = false;
    if (options.sampler) {
      sample();
    } else if (options.shuffle) {
      detail::permutation(order, seed, detail::stream_of(detail::kShuffle, pass_epoch));
    } else {
      std::iota(order.begin(), order.end(), 0);
    }
    inputs.fill();
    targets.fill();
    ended = taken == batches;
    if (ended) return;
    if (options.prefetch > 0) {
      {
        const std::lock_guard lock(mutex);
        running = true;
      }
      if (!worker.joinable()) worker = std::thread([this] { work(); });
      to_worker.notify_one();
    }
    next();
  }

  /// What was consumed: after the last step of a pass, the beginning of the next one.
  Place place() const {
    if (pending) return *pending;
    return ended && !failed ? Place{epoch, 0, seed} : Place{pass_epoch, taken, seed};
  }

  void next() {
    current = {};
    if (const auto wanted = std::exchange(pending, std::nullopt); wanted && *wanted != place()) {
      pending = wanted;
      ended = true;
    }
    if (ended) return;
    if (taken == batches) {
      ended = true;
      return;
    }
    Batch b;
    if (options.prefetch == 0) {
      b = make(taken);
      ++taken;
    } else {
      std::unique_lock lock(mutex);
      to_consumer.wait(lock, [&] { return made > taken || error; });
      if (made == taken) {  // the batches before the failure were delivered
        ended = failed = true;
        std::rethrow_exception(std::exchange(error, nullptr));
      }
      b = std::exchange(ring[static_cast<size_t>(taken++ % options.prefetch)], {});
      lock.unlock();
      to_worker.notify_one();
    }
    if (options.device != cpu) b = {to(b.inputs, options.device), to(b.targets, options.device)};
    current = std::move(b);
  }

  void work() {
    std::unique_lock lock(mutex);
    for (;;) {
      to_worker.wait(lock, [&] { return stopping || (running && made < batches && made - taken < options.prefetch); });
      if (stopping) return;
      const int64_t index = made;
      busy = true;
      lock.unlock();
      Batch b;
      std::exception_ptr failure;
      try {
        b = make(index);
      } catch (...) { failure = std::current_exception(); }
      lock.lock();
      busy = false;
      if (running && failure) {
        error = failure;
        running = false;
      } else if (running) {
        ring[static_cast<size_t>(made++ % options.prefetch)] = std::move(b);
      }
      to_consumer.notify_one();
    }
  }
};

Loader::Loader(Dataset dataset, LoaderOptions options)
    : impl_(std::make_unique<Impl>(std::move(dataset), std::move(options))) {}
Loader::~Loader() = default;
Loader::Loader(Loader&&) noexcept = default;
Loader& Loader::operator=(Loader&&) noexcept = default;

int64_t Loader::size() const { return impl_->batches; }
const Dataset& Loader::dataset() const { return impl_->assembler.dataset(); }
const LoaderOptions& Loader::options() const { return impl_->options; }
int64_t Loader::epoch() const { return impl_->pending ? impl_->pending->epoch : impl_->epoch; }
int64_t Loader::remaining() const { return impl_->batches - (impl_->pending ? impl_->pending->consumed : 0); }

void Loader::set_epoch(int64_t epoch) {
  HONE_CHECK(epoch >= 0, ValueError, "data::Loader: epoch ", epoch, " is negative");
  impl_->pending.reset();
  impl_->failed = false;
  impl_->epoch = epoch;
}

std::vector<std::pair<std::string, int64_t>> Loader::identity() const {
  Impl& m = *impl_;
  if (!m.rows) m.rows = fingerprint(dataset());
  std::vector<std::pair<std::string, int64_t>> list{{"samples", m.samples},
                                                    {"rows", *m.rows},
                                                    {"batch", m.options.batch},
                                                    {"shuffle", m.options.shuffle},
                                                    {"drop_last", m.options.drop_last},
                                                    {"sampler", static_cast<bool>(m.options.sampler)}};
  const Shape x = dataset().input_shape();
  for (int i = 0; i < x.ndim(); ++i) list.emplace_back(str("input.", i), x[i]);
  return list;
}

TensorFile Loader::state_dict() const {
  const Place place = impl_->place();
  TensorFile file;
  file.metadata["loader"] = "1";
  file.tensors = {{"epoch", number(place.epoch)},
                  {"consumed", number(place.consumed)},
                  {"seed", number(static_cast<int64_t>(place.seed))}};
  for (const auto& [name, value] : identity()) file.tensors.emplace_back(name, number(value));
  return file;
}

void Loader::load_state_dict(const TensorFile& file) {
  constexpr const char* kWhat = "data::Loader.load_state_dict: ";
  const auto version = file.metadata.find("loader");
  HONE_CHECK(version != file.metadata.end() && version->second == "1", FormatError, kWhat,
             "the state is not that of a loader, version 1");
  std::map<std::string, int64_t> values;
  for (const auto& [name, t] : file.tensors) {
    HONE_CHECK(t.defined() && t.dtype() == i64 && t.ndim() == 0 && t.device() == cpu, FormatError, kWhat, "entry '",
               name, "' is not one whole number");
    HONE_CHECK(values.emplace(name, t.item<int64_t>()).second, FormatError, kWhat, "entry '", name, "' appears twice");
  }
  const auto take = [&](const std::string& name) {
    const auto node = values.extract(name);
    HONE_CHECK(!node.empty(), FormatError, kWhat, "the state has no entry '", name, "'");
    return node.mapped();
  };
  Place place;
  place.epoch = take("epoch");
  place.consumed = take("consumed");
  place.seed = static_cast<uint64_t>(take("seed"));
  for (const auto& [name, ours] : identity()) {
    const int64_t theirs = take(name);
    HONE_CHECK(theirs == ours || name != "rows", FormatError, kWhat,
               "the state is of other samples: as many, but other rows (another split or order?)");
    HONE_CHECK(theirs == ours, FormatError, kWhat, "the state is of a loader with ", name, " ", theirs,
               ", this one has ", ours);
  }
  HONE_CHECK(values.empty(), FormatError, kWhat, "the state has an entry that this loader does not know: '",
             values.begin()->first, "'");
  HONE_CHECK(place.epoch >= 0 && place.epoch < std::numeric_limits<int64_t>::max(), FormatError, kWhat, "epoch ",
             place.epoch, " is outside the range");
  HONE_CHECK(place.consumed >= 0 && place.consumed <= size(), FormatError, kWhat, place.consumed, " batches of ",
             size(), " were consumed");
  const auto& seed = impl_->options.seed;
  HONE_CHECK(!seed || *seed == place.seed, FormatError, kWhat, "the state has seed ", place.seed,
             ", the options of this loader give ", *seed);
  impl_->pending = place;
}

Loader::Iterator Loader::begin() {
  impl_->start();
  Iterator i;
  i.impl_ = impl_.get();
  return i;
}

Batch& Loader::Iterator::operator*() const { return impl_->current; }
Loader::Iterator& Loader::Iterator::operator++() {
  impl_->next();
  return *this;
}
bool Loader::Iterator::ended() const { return impl_->ended; }

}  // namespace hone::data
