#include "base/thread_pool.h"

#include <chrono>
#include <numeric>
#include <stdexcept>

#include <gtest/gtest.h>

#include "base/error.h"
#include "base/random.h"

namespace atom {
namespace {

TEST(ThreadPool, CoversEveryElementOnceInChunksOfTheGrain) {
  for (const int threads : {1, 2, 3, 8}) {
    ThreadPool pool(threads);
    EXPECT_EQ(pool.size(), threads);
    for (const int64_t count : {0, 1, 2, 7, 64, 1000}) {
      for (const int64_t grain : {1, 2, 3, 64, 2000}) {
        std::vector<std::atomic<int>> visits(static_cast<size_t>(count));
        std::atomic<bool> sound{true};
        pool.parallel_for(count, grain, [&](int64_t begin, int64_t end, int worker) {
          if (begin >= end || end - begin > grain || begin % grain != 0) sound = false;
          if (worker < 0 || worker >= threads) sound = false;
          for (int64_t i = begin; i < end; ++i) ++visits[static_cast<size_t>(i)];
        });
        EXPECT_TRUE(sound);
        for (const auto& n : visits) ASSERT_EQ(n, 1) << threads << ' ' << count << ' ' << grain;
      }
    }
  }
}

TEST(ThreadPool, AWorkerNumberIsNeverUsedByTwoThreadsAtOnce) {
  ThreadPool pool(4);
  std::vector<std::atomic<int>> inside(4);
  std::atomic<bool> shared{false};
  for (int round = 0; round < 50; ++round) {
    pool.parallel_for(64, 1, [&](int64_t, int64_t, int worker) {
      if (inside[static_cast<size_t>(worker)].fetch_add(1) != 0) shared = true;
      std::this_thread::yield();
      inside[static_cast<size_t>(worker)].fetch_sub(1);
    });
  }
  EXPECT_FALSE(shared);
}

TEST(ThreadPool, PlainWritesOfOneLoopAreSeenByTheNext) {
  // No atomics: the thread sanitizer would report a missing happens-before edge.
  ThreadPool pool(4);
  std::vector<int64_t> data(997);
  for (int round = 0; round < 2000; ++round) {
    pool.parallel_for(static_cast<int64_t>(data.size()), 1 + round % 300,
                      [&](int64_t begin, int64_t end, int) {
                        for (int64_t i = begin; i < end; ++i) data[static_cast<size_t>(i)] += i;
                      });
  }
  for (size_t i = 0; i < data.size(); ++i) ASSERT_EQ(data[i], static_cast<int64_t>(2000 * i));
}

TEST(ThreadPool, WakesWorkersThatWentToSleep) {
  ThreadPool pool(3);
  Random random(1);
  std::atomic<int64_t> sum{0};
  for (int round = 0; round < 120; ++round) {
    // Around the spinning time, so that workers are met spinning, falling asleep and asleep.
    std::this_thread::sleep_for(std::chrono::microseconds(random.below(400)));
    pool.parallel_for(10, 1, [&](int64_t begin, int64_t, int) { sum += begin; });
  }
  EXPECT_EQ(sum, 120 * 45);
}

TEST(ThreadPool, RethrowsTheFirstExceptionAndStaysUsable) {
  for (const int threads : {1, 4}) {
    ThreadPool pool(threads);
    for (int round = 0; round < 50; ++round) {
      EXPECT_THROW(pool.parallel_for(100, 1,
                                     [](int64_t begin, int64_t, int) {
                                       if (begin % 10 == 7) throw std::runtime_error("seven");
                                     }),
                   std::runtime_error);
      std::atomic<int> visits{0};
      pool.parallel_for(100, 3,
                        [&](int64_t begin, int64_t end, int) { visits += static_cast<int>(end - begin); });
      EXPECT_EQ(visits, 100);
    }
  }
}

TEST(ThreadPool, UsesSeveralThreads) {
  ThreadPool pool(2);
  std::atomic<int> arrived{0};
  // Each of the two chunks waits for the other: one thread alone could not finish.
  pool.parallel_for(2, 1, [&](int64_t, int64_t, int) {
    ++arrived;
    const auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds(20);
    while (arrived < 2 && std::chrono::steady_clock::now() < deadline) std::this_thread::yield();
  });
  EXPECT_EQ(arrived, 2);
}

TEST(ThreadPool, CanBeMadeAndDestroyedWithoutWork) {
  for (int round = 0; round < 100; ++round) {
    ThreadPool pool(1 + round % 5);
    if (round % 2 == 0) std::this_thread::sleep_for(std::chrono::microseconds(10 * (round % 30)));
  }
}

}  // namespace
}  // namespace atom
