#pragma once
// Batches of a dataset, made ahead by a thread of their own.

#include <cstddef>
#include <cstdint>
#include <iterator>
#include <memory>
#include <optional>

#include "hone/core/data/dataset.h"
#include "hone/core/data/sampler.h"
#include "hone/core/serialize.h"

namespace hone::data {

struct LoaderOptions {
  int64_t batch = 64;
  bool shuffle = false;
  Sampler sampler = {};                         ///< decides length and order of a pass; an error beside shuffle
  std::optional<uint64_t> seed = std::nullopt;  ///< of order and random transforms; else that of manual_seed()
  bool drop_last = false;                       ///< leave out a last batch that is not full
  int64_t prefetch = 2;                         ///< batches made ahead; 0: made when asked for, on the caller's thread
  Transforms transform = {};
  Device device = cpu;  ///< where batches are delivered
};

/// A range of batches. Every pass is one epoch: its order is a function of (seed, epoch), a random transform one of
/// (seed, epoch, position in the dataset), or with a sampler (seed, epoch, place in the pass), so that what is shown
/// twice looks different; whatever the thread timing. u8 inputs arrive as f32 in [0, 1].
///
///   data::Loader batches(fashion.train, {.batch = 64, .shuffle = true});
///   for (auto& [images, labels] : batches) …
///
/// One pass at a time: begin() ends the one before. What fails while a batch is made is thrown where it is asked for.
class Loader {
  struct Impl;

 public:
  /// ValueError, ShapeError or DTypeError for options or transforms that do not fit the dataset. A sampler's position
  /// outside the dataset is a ValueError of begin().
  explicit Loader(Dataset dataset, LoaderOptions options = {});
  ~Loader();
  Loader(Loader&&) noexcept;
  Loader& operator=(Loader&&) noexcept;

  int64_t size() const;  ///< batches in a pass
  const Dataset& dataset() const;
  const LoaderOptions& options() const;
  int64_t epoch() const;          ///< of the next pass, from 0; begin() advances it
  void set_epoch(int64_t epoch);  ///< ValueError if negative
  int64_t remaining() const;      ///< batches that the next pass delivers: size(), less those that were consumed before

  /// The place in the data: the epoch, how many of its batches were consumed (delivered by the iterator, whatever was
  /// made ahead), the seed; and what tells this loader from others: samples, shapes, batch, shuffle, drop_last.
  TensorFile state_dict() const;
  /// The next pass goes on there: it delivers what its epoch had left, in the same order with the same random
  /// transforms; a pass that goes on ends at its next step. A state saved while the last batch was in use leaves an
  /// empty pass; one saved after the pass leaves the next epoch. So the same loop serves a new run and a resumed one:
  ///
  ///   while (batches.epoch() < epochs) {
  ///     for (auto& [x, y] : batches) { …; if (++step % 100 == 0) checkpoint.save(path); }
  ///     …; checkpoint.save(path);
  ///   }
  ///
  /// A pass left by `break` counts as going on until begin(). The seed is taken over unless the options give one.
  /// FormatError naming what differs; on error nothing has changed. prefetch, device and transforms may differ.
  void load_state_dict(const TensorFile& file);

  class Iterator {
   public:
    using iterator_category = std::input_iterator_tag;
    using value_type = Batch;
    using difference_type = std::ptrdiff_t;
    using pointer = Batch*;
    using reference = Batch&;
    Batch& operator*() const;
    Batch* operator->() const { return &**this; }
    Iterator& operator++();
    void operator++(int) { ++*this; }
    friend bool operator==(const Iterator& i, std::default_sentinel_t) { return i.ended(); }

   private:
    friend class Loader;
    bool ended() const;
    Impl* impl_ = nullptr;
  };
  Iterator begin();
  std::default_sentinel_t end() const { return {}; }

 private:
  std::vector<std::pair<std::string, int64_t>> identity() const;  // what a state must share with this loader
  std::unique_ptr<Impl> impl_;
};

}  // namespace hone::data
