#include "base/thread_pool.h"

#include <algorithm>
#include <cassert>
#include <chrono>
#include <utility>

#include "base/error.h"

namespace atom {
namespace {

constexpr auto kSpin = std::chrono::microseconds(100);

inline void pause_cpu() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#endif
}

}  // namespace

ThreadPool::ThreadPool(int threads) {
  assert(threads >= 1);
  try {
    for (int worker = 1; worker < threads; ++worker) {
      workers_.emplace_back([this, worker] { work(worker); });
    }
  } catch (const std::exception& error) {
    const size_t started = workers_.size() + 1;
    stop();
    fail("cannot start {} threads, only {}: {}", threads, started, error.what());
  }
}

ThreadPool::~ThreadPool() {
  stop();
}

void ThreadPool::stop() {
  {
    const std::lock_guard lock(mutex_);
    stop_ = true;
  }
  wake_.notify_all();
  for (auto& worker : workers_) worker.join();
  workers_.clear();
}

void ThreadPool::parallel_for(int64_t count, int64_t grain,
                              const std::function<void(int64_t, int64_t, int)>& body) {
  assert(grain >= 1);
  if (count <= 0) return;
  if (workers_.empty() || count <= grain) {
    for (int64_t begin = 0; begin < count; begin += grain) body(begin, std::min(begin + grain, count), 0);
    return;
  }
  body_ = &body;
  count_ = count;
  grain_ = grain;
  next_.store(0, std::memory_order_relaxed);
  failed_.store(false, std::memory_order_relaxed);
  error_ = nullptr;
  running_.store(static_cast<int>(workers_.size()), std::memory_order_relaxed);
  generation_.fetch_add(1, std::memory_order_seq_cst);
  if (sleeping_.load(std::memory_order_seq_cst) > 0) {
    const std::lock_guard lock(mutex_);
    wake_.notify_all();
  }
  run_chunks(0);
  // Every worker has to have left the loop before its state may be written again.
  for (int spins = 0; running_.load(std::memory_order_acquire) > 0; ++spins) {
    if (spins < 4096) {
      pause_cpu();
    } else {
      std::this_thread::yield();
    }
  }
  if (error_) std::rethrow_exception(std::exchange(error_, nullptr));
}

void ThreadPool::run_chunks(int worker) {
  while (!failed_.load(std::memory_order_relaxed)) {
    const int64_t begin = next_.fetch_add(grain_, std::memory_order_relaxed);
    if (begin >= count_) return;
    try {
      (*body_)(begin, std::min(begin + grain_, count_), worker);
    } catch (...) {
      const std::lock_guard lock(mutex_);
      if (!error_) error_ = std::current_exception();
      failed_.store(true, std::memory_order_relaxed);
    }
  }
}

void ThreadPool::work(int worker) {
  uint64_t seen = 0;
  while (true) {
    const auto deadline = std::chrono::steady_clock::now() + kSpin;
    int spins = 0;
    while (generation_.load(std::memory_order_acquire) == seen && !stop_.load(std::memory_order_relaxed)) {
      pause_cpu();
      if (++spins % 64 == 0 && std::chrono::steady_clock::now() > deadline) {
        std::unique_lock lock(mutex_);
        sleeping_.fetch_add(1, std::memory_order_seq_cst);
        wake_.wait(lock, [&] { return generation_.load(std::memory_order_seq_cst) != seen || stop_; });
        sleeping_.fetch_sub(1, std::memory_order_relaxed);
      }
    }
    if (stop_) return;
    seen = generation_.load(std::memory_order_acquire);
    run_chunks(worker);
    running_.fetch_sub(1, std::memory_order_release);
  }
}

}  // namespace atom
