#include "hone/core/data/loader.h"

#include <algorithm>
#include <condition_variable>
#include <exception>
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

}  // namespace

struct Loader::Impl {
  LoaderOptions options;
  uint64_t seed;
  detail::Assembler assembler;
  int64_t samples, batches, epoch = 0;
  std::vector<int64_t> order;
  Buffers inputs, targets;

  Batch current;
  bool ended = true;

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
      HONE_CHECK(!options.shuffle, ValueError, "data::Loader: shuffle and a sampler; the sampler decides the order");
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
      made = taken = 0;
    }
    pass_epoch = epoch++;
    if (options.sampler) {
      sample();
    } else if (options.shuffle) {
      detail::permutation(order, seed, detail::stream_of(detail::kShuffle, pass_epoch));
    } else {
      std::iota(order.begin(), order.end(), 0);
    }
    inputs.fill();
    targets.fill();
    ended = batches == 0;
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

  void next() {
    current = {};
    if (ended) return;
    if (taken == batches) {
      ended = true;
      return;
    }
    Batch b;
    if (options.prefetch == 0) {
      b = make(taken++);
    } else {
      std::unique_lock lock(mutex);
      to_consumer.wait(lock, [&] { return made > taken || error; });
      if (made == taken) {  // the batches before the failure were delivered
        ended = true;
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
int64_t Loader::epoch() const { return impl_->epoch; }

void Loader::set_epoch(int64_t epoch) {
  HONE_CHECK(epoch >= 0, ValueError, "data::Loader: epoch ", epoch, " is negative");
  impl_->epoch = epoch;
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
