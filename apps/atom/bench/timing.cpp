#include "timing.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <memory>
#include <unistd.h>

#include "base/interrupt.h"
#include "kernels/cuda_bench.h"

namespace atom::cli {
namespace {

using Clock = std::chrono::steady_clock;

constexpr int kMinRounds = 5;
constexpr int kMaxRounds = 50;
/// What a sample should last, so that the clock's steps and a graph's start do not show.
constexpr double kGpuSample = 400e-6;
constexpr double kCpuSample = 1e-3;
constexpr int64_t kMaxLaunches = 4096;

double since(Clock::time_point begin) {
  return std::chrono::duration<double>(Clock::now() - begin).count();
}

/// Takes samples of one piece of work.
class Sampler {
 public:
  Sampler(const DeviceContext& device, const Measured& work) : work_(&work) {
    if (device.cuda != nullptr) {
      // A guess is enough to choose the number of launches: the rates of the largest GPUs.
      const double guess = std::max({work.bytes / 4e12, work.operations / 6e14, 3e-6});
      launches_ = std::max<int64_t>(launches_for(kGpuSample, guess), std::min(work.copies, kMaxLaunches));
      recording_ = std::make_unique<CudaRecording>(device, at_copy(), launches_);
      recording_->seconds_per_launch();
      return;
    }
    work.launch(0);
    const auto begin = Clock::now();
    work.launch(1 % work.copies);
    launches_ = launches_for(kCpuSample, since(begin));
  }

  double seconds() {
    if (recording_ != nullptr) return recording_->seconds_per_launch();
    const auto begin = Clock::now();
    for (int64_t i = 0; i < launches_; ++i, ++next_) work_->launch(next_ % work_->copies);
    return since(begin) / static_cast<double>(launches_);
  }

 private:
  static int64_t launches_for(double sample, double launch) {
    return std::clamp<int64_t>(static_cast<int64_t>(std::ceil(sample / std::max(launch, 1e-7))), 1,
                               kMaxLaunches);
  }
  std::function<void(int64_t)> at_copy() const {
    return [work = work_](int64_t i) { work->launch(i % work->copies); };
  }

  const Measured* work_;
  int64_t launches_ = 1;
  int64_t next_ = 0;
  std::unique_ptr<CudaRecording> recording_;
};

}  // namespace

std::vector<Timed> measure(const DeviceContext& device, std::vector<Measured> work, double seconds) {
  std::vector<Sampler> samplers;
  for (const Measured& w : work) {
    throw_if_interrupted();
    samplers.emplace_back(device, w);
  }
  std::vector<std::vector<double>> samples(work.size());
  const auto begin = Clock::now();
  for (int round = 0; round < kMaxRounds && (round < kMinRounds || since(begin) < seconds); ++round) {
    for (size_t i = 0; i < work.size(); ++i) {
      throw_if_interrupted();
      samples[i].push_back(samplers[i].seconds());
    }
  }
  samplers.clear();
  std::vector<Timed> timed;
  for (size_t i = 0; i < work.size(); ++i) {
    timed.push_back({std::move(work[i]), median(samples[i]), static_cast<int>(samples[i].size())});
    // The operands go with what launches them.
    timed.back().what.launch = {};
  }
  return timed;
}

double median(std::vector<double>& values) {
  const auto middle = values.begin() + static_cast<std::ptrdiff_t>(values.size() / 2);
  std::nth_element(values.begin(), middle, values.end());
  return *middle;
}

double cold_bytes(const DeviceContext& device) {
  if (device.cuda != nullptr) return 2.0 * static_cast<double>(cuda_l2_bytes(device));
#if defined(_SC_LEVEL3_CACHE_SIZE)
  const long last = sysconf(_SC_LEVEL3_CACHE_SIZE);
  // Some virtual machines report the cache of a whole socket, far beyond their share.
  if (last > 0) return std::min(static_cast<double>(last), 64e6);
#endif
  return 32e6;
}

int64_t cold_copies(const DeviceContext& device, double bytes, int64_t limit) {
  const auto copies = static_cast<int64_t>(std::min(cold_bytes(device) / std::max(bytes, 1.0), 1e6)) + 1;
  return std::clamp<int64_t>(copies, 2, std::max<int64_t>(limit, 2));
}

}  // namespace atom::cli
