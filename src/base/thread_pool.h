#pragma once

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <exception>
#include <functional>
#include <mutex>
#include <thread>
#include <vector>

namespace atom {

/// A fixed set of threads for data-parallel loops. One loop runs at a time; the calling thread takes part.
/// Workers spin for some microseconds between loops before they sleep, because a decode step issues hundreds
/// of short loops.
class ThreadPool {
 public:
  /// `threads` >= 1, the caller included. Throws Error when the system refuses that many.
  explicit ThreadPool(int threads);
  ~ThreadPool();
  ThreadPool(const ThreadPool&) = delete;
  ThreadPool& operator=(const ThreadPool&) = delete;

  int size() const { return static_cast<int>(workers_.size()) + 1; }

  /// Calls body(begin, end, worker) over disjoint chunks that cover [0, count), each of at most `grain`
  /// elements (the last may be shorter), in any order; `worker` is in [0, size()). Chunks are handed out
  /// dynamically. Returns when all are done; rethrows the first exception. Must not be nested.
  void parallel_for(int64_t count, int64_t grain, const std::function<void(int64_t, int64_t, int)>& body);

 private:
  void stop();
  void work(int worker);
  void run_chunks(int worker);

  std::vector<std::thread> workers_;
  std::mutex mutex_;
  std::condition_variable wake_;
  std::atomic<uint64_t> generation_{0};
  std::atomic<int> running_{0};
  std::atomic<bool> stop_{false};
  std::atomic<int> sleeping_{0};

  // The loop in progress; written before generation_ is raised, read after it was seen.
  const std::function<void(int64_t, int64_t, int)>* body_ = nullptr;
  int64_t count_ = 0;
  int64_t grain_ = 1;
  std::atomic<int64_t> next_{0};
  std::atomic<bool> failed_{false};
  std::exception_ptr error_;
};

}  // namespace atom
