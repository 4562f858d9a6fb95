#pragma once
// Reference-counted handle for objects that count themselves (no control block, one pointer wide).

#include <atomic>
#include <cstdint>
#include <utility>

namespace hone {

/// The count itself, as a base.
struct Counted {
  std::atomic<int64_t> references{0};
};

/// For T, which may be incomplete where handles are used, the functions intrusive_retain(T*), intrusive_release(T*)
/// (which destroys at zero) and intrusive_count(const T*) are found beside it.
template <class T> class Handle {
 public:
  Handle() = default;
  explicit Handle(T* p) : p_(p) { retain(); }
  Handle(const Handle& o) : p_(o.p_) { retain(); }
  Handle(Handle&& o) noexcept : p_(std::exchange(o.p_, nullptr)) {}
  Handle& operator=(Handle o) noexcept {
    std::swap(p_, o.p_);
    return *this;
  }
  ~Handle() {
    if (p_) intrusive_release(p_);
  }
  T* get() const { return p_; }
  T* operator->() const { return p_; }
  T& operator*() const { return *p_; }
  explicit operator bool() const { return p_ != nullptr; }
  friend bool operator==(const Handle&, const Handle&) = default;
  bool unique() const { return p_ && intrusive_count(p_) == 1; }

 private:
  void retain() {
    if (p_) intrusive_retain(p_);
  }
  T* p_ = nullptr;
};

}  // namespace hone
