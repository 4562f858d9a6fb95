#pragma once
// Reference-counted handle for objects that count themselves (no control block, one pointer wide).

#include <atomic>
#include <cstdint>
#include <utility>

namespace hone {

/// T has `std::atomic<int64_t> references` and a static `release(T*)` called when it reaches zero.
template <class T>
class Handle {
 public:
  Handle() = default;
  explicit Handle(T* p) : p_(p) { retain(); }
  Handle(const Handle& o) : p_(o.p_) { retain(); }
  Handle(Handle&& o) noexcept : p_(std::exchange(o.p_, nullptr)) {}
  Handle& operator=(Handle o) noexcept { std::swap(p_, o.p_); return *this; }
  ~Handle() {
    if (p_ && p_->references.fetch_sub(1, std::memory_order_acq_rel) == 1) T::release(p_);
  }
  T* get() const { return p_; }
  T* operator->() const { return p_; }
  T& operator*() const { return *p_; }
  explicit operator bool() const { return p_ != nullptr; }
  friend bool operator==(const Handle&, const Handle&) = default;
  bool unique() const { return p_ && p_->references.load(std::memory_order_acquire) == 1; }

 private:
  void retain() { if (p_) p_->references.fetch_add(1, std::memory_order_relaxed); }
  T* p_ = nullptr;
};

}  // namespace hone
