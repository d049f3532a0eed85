#include "engine/engine.h"

#include <chrono>
#include <condition_variable>
#include <deque>
#include <exception>
#include <functional>
#include <mutex>
#include <new>
#include <thread>
#include <variant>

#include "base/error.h"
#include "base/log.h"
#include "engine/engine_core.h"
#include "kernels/cuda.h"

namespace atom {
namespace {

using Clock = std::chrono::steady_clock;

constexpr const char* kClosing = "the server is shutting down";

double seconds_between(Clock::time_point from, Clock::time_point to) {
  return std::chrono::duration<double>(to - from).count();
}

/// A thread that computes one thing at a time for another thread.
class Worker {
 public:
  explicit Worker(const DeviceContext& device) : device_(&device), thread_([this] { loop(); }) {}
  ~Worker() {
    {
      const std::lock_guard lock(mutex_);
      closing_ = true;
    }
    changed_.notify_all();
    thread_.join();
  }
  Worker(const Worker&) = delete;
  Worker& operator=(const Worker&) = delete;

  void start(std::function<void()> work) {
    {
      const std::lock_guard lock(mutex_);
      work_ = std::move(work);
      busy_ = true;
    }
    changed_.notify_all();
  }

  /// Until the work is done. Rethrows what it threw. Returns how long it took, seconds.
  double wait() {
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [this] { return !busy_; });
    if (error_) std::rethrow_exception(std::exchange(error_, nullptr));
    return seconds_;
  }

 private:
  void loop() {
    cuda_use_on_this_thread(*device_);
    std::unique_lock lock(mutex_);
    while (true) {
      changed_.wait(lock, [this] { return busy_ || closing_; });
      if (!busy_) return;
      const std::function<void()> work = std::exchange(work_, nullptr);
      lock.unlock();
      std::exception_ptr error;
      const auto begin = Clock::now();
      try {
        work();
      } catch (...) {
        error = std::current_exception();
      }
      const double seconds = seconds_between(begin, Clock::now());
      lock.lock();
      error_ = error;
      seconds_ = seconds;
      busy_ = false;
      changed_.notify_all();
    }
  }

  const DeviceContext* device_;
  std::mutex mutex_;
  std::condition_variable changed_;
  std::function<void()> work_;
  std::exception_ptr error_;
  double seconds_ = 0;
  bool busy_ = false;
  bool closing_ = false;
  std::thread thread_;
};

void require_option(bool condition, const char* name, const std::string& expected, int64_t found) {
  require(condition, "{}: expected {}, found {}", name, expected, found);
}

EngineOptions checked(const Model& model, EngineOptions options) {
  const int64_t limit = model.config().max_positions;
  require_option(options.context >= 2 && options.context <= limit, "context",
                 fmt::format("2 to {} tokens (the model's limit)", limit), options.context);
  require_option(options.block_size >= 1 && options.block_size <= 1024, "block size", "1 to 1024 tokens",
                 options.block_size);
  require_option(options.max_running >= 1 && options.max_running <= 65536, "running sequences", "1 to 65536",
                 options.max_running);
  require_option(
      options.max_step_tokens > options.max_running && options.max_step_tokens <= 1 << 20, "tokens of a step",
      fmt::format("more than the {} running sequences and at most {}", options.max_running, 1 << 20),
      options.max_step_tokens);
  require_option(options.max_waiting >= 1, "waiting requests", "at least 1", options.max_waiting);
  const int64_t least = (options.context + options.block_size - 1) / options.block_size;
  require_option(options.n_blocks >= least && options.n_blocks <= INT32_MAX, "cache",
                 fmt::format("at least {} blocks of {} tokens, for one sequence of {} tokens", least,
                             options.block_size, options.context),
                 options.n_blocks);
  return options;
}

}  // namespace

class Engine::Impl {
 public:
  Impl(const Model& model, const text::Tokenizer& tokenizer, const EngineOptions& options)
      : model_(model), options_(checked(model, options)), core_(model, tokenizer, options_) {
    core_.fill(stats_);
    thread_ = std::thread([this] { loop(); });
  }

  ~Impl() {
    {
      const std::lock_guard lock(mutex_);
      closing_ = true;
    }
    wake_.notify_all();
    thread_.join();
  }

  std::vector<uint64_t> submit(std::vector<Submission> submissions) {
    for (const Submission& submission : submissions) validate(submission.request);
    const auto count = static_cast<int64_t>(submissions.size());
    require(count <= options_.max_waiting + options_.max_running,
            "{} requests at once: at most {} may wait and {} run", count, options_.max_waiting,
            options_.max_running);
    std::vector<uint64_t> ids;
    ids.reserve(submissions.size());
    {
      const std::lock_guard lock(mutex_);
      if (!failure_.empty()) throw Unavailable("the engine has failed: " + failure_);
      if (draining_ || closing_) throw Unavailable(kClosing);
      // Those that can run at once do not have to wait.
      const int64_t room = options_.max_waiting + std::max<int64_t>(options_.max_running - stats_.running, 0);
      const int64_t waiting = queued_ + inbox_requests_;
      if (waiting + count > room) {
        refused_ += static_cast<uint64_t>(count);
        throw Overloaded(
            fmt::format("the queue is full: {} requests are in it, and {} more do not fit", waiting, count));
      }
      for (Submission& submission : submissions) {
        ids.push_back(++last_id_);
        inbox_.push_back(Added{last_id_, std::move(submission.request), std::move(submission.listener)});
      }
      inbox_requests_ += count;
    }
    wake_.notify_all();
    return ids;
  }

  void cancel(uint64_t id) {
    {
      const std::lock_guard lock(mutex_);
      inbox_.push_back(Cancelled{id});
    }
    wake_.notify_all();
  }

  void drain() {
    const std::lock_guard lock(mutex_);
    draining_ = true;
  }

  bool idle() const {
    const std::lock_guard lock(mutex_);
    return inbox_.empty() && !busy_;
  }

  EngineStats stats() const {
    const std::lock_guard lock(mutex_);
    EngineStats stats = stats_;
    stats.waiting += inbox_requests_;
    stats.requests = last_id_;
    stats.refused = refused_;
    stats.failed = !failure_.empty();
    return stats;
  }

  std::string failure() const {
    const std::lock_guard lock(mutex_);
    return failure_;
  }

  const EngineOptions& options() const { return options_; }

 private:
  struct Added {
    uint64_t id;
    Request request;
    std::shared_ptr<RequestListener> listener;
  };
  struct Cancelled {
    uint64_t id;
  };
  using Message = std::variant<Added, Cancelled>;

  void validate(const Request& request) const {
    const int64_t vocab = model_.config().vocab;
    const auto prompt = static_cast<int64_t>(request.prompt.size());
    require(prompt > 0, "the prompt is empty");
    const int64_t answer = request.max_tokens == 0 ? 0 : 1;
    if (prompt + answer > options_.context) {
      throw ContextExceeded(
          fmt::format("the prompt has {} tokens, which leaves no room for an answer in a context of {}",
                      prompt, options_.context));
    }
    for (const int32_t token : request.prompt) {
      require(token >= 0 && token < vocab, "prompt: token id {} is outside of the vocabulary of {}", token,
              vocab);
    }
    require(request.max_tokens.value_or(0) >= 0, "max_tokens: expected a number of at least 0, found {}",
            request.max_tokens.value_or(0));
    require(request.n >= 1 && request.n <= options_.max_running, "n: expected 1 to {}, found {}",
            options_.max_running, request.n);
    for (const auto& wanted : {request.logprobs, request.prompt_logprobs}) {
      require(wanted.value_or(0) >= 0 && wanted.value_or(0) <= kMaxTopLogprobs,
              "logprobs: expected 0 to {}, found {}", kMaxTopLogprobs, wanted.value_or(0));
    }
    request.sampling.validate(vocab);
  }

  void loop() {
    cuda_use_on_this_thread(model_.device());
    Worker worker(model_.device());
    auto last_begin = Clock::now();
    bool was_busy = false;
    while (wait_for_work()) {
      try {
        take_messages();
        const auto begin = Clock::now();
        if (was_busy) step_seconds_ += seconds_between(last_begin, begin);
        last_begin = begin;
        was_busy = core_.prepare();
        if (was_busy) worker.start([this] { core_.compute(); });
        core_.publish();
        if (was_busy) {
          take_messages();
          core_.plan_ahead();
          report();
          forward_seconds_ += worker.wait();
          core_.apply();
        }
      } catch (const std::exception& error) {
        fail(worker, error.what());
      }
      report();
    }
    take_messages();
    core_.fail_all(kClosing);
  }

  /// Sleeps while there is nothing to do. False when the engine is to end.
  bool wait_for_work() {
    std::unique_lock lock(mutex_);
    if (!core_.has_work()) {
      busy_ = false;
      wake_.wait(lock, [this] { return closing_ || !inbox_.empty(); });
    }
    busy_ = true;
    return !closing_;
  }

  void take_messages() {
    std::deque<Message> messages;
    std::string refusal;
    {
      const std::lock_guard lock(mutex_);
      messages.swap(inbox_);
      queued_ += inbox_requests_;
      stats_.waiting += inbox_requests_;
      inbox_requests_ = 0;
      if (!failure_.empty()) refusal = "the engine has failed: " + failure_;
      if (closing_) refusal = kClosing;
    }
    for (Message& message : messages) {
      if (const auto* cancelled = std::get_if<Cancelled>(&message)) {
        core_.cancel(cancelled->id);
        continue;
      }
      auto& added = std::get<Added>(message);
      if (!refusal.empty()) {
        added.listener->on_error(refusal);
        continue;
      }
      try {
        core_.add(added.id, std::move(added.request), added.listener);
      } catch (const std::bad_alloc&) {
        added.listener->on_error("no memory for the request");
      }
    }
  }

  /// Nothing can be computed any more: everyone hears why, and newcomers are refused.
  void fail(Worker& worker, const std::string& reason) {
    spdlog::error("the engine has failed: {}", reason);
    {
      const std::lock_guard lock(mutex_);
      failure_ = reason;
    }
    try {
      worker.wait();
    } catch (const std::exception&) {
      // It is what failed, or fails for the same reason.
    }
    core_.fail_all(reason);
  }

  void report() {
    EngineStats stats;
    core_.fill(stats);
    stats.step_seconds = step_seconds_;
    stats.forward_seconds = forward_seconds_;
    const std::lock_guard lock(mutex_);
    stats_ = stats;
    queued_ = core_.queued();
  }

  const Model& model_;
  const EngineOptions options_;

  mutable std::mutex mutex_;
  std::condition_variable wake_;
  std::deque<Message> inbox_;
  int64_t inbox_requests_ = 0;  // requests in inbox_
  int64_t queued_ = 0;          // requests that the core has, and has never run
  uint64_t last_id_ = 0;
  uint64_t refused_ = 0;
  bool draining_ = false;
  bool closing_ = false;
  bool busy_ = false;
  std::string failure_;
  EngineStats stats_;

  // The engine's thread alone.
  double step_seconds_ = 0;
  double forward_seconds_ = 0;
  EngineCore core_;

  std::thread thread_;
};

Engine::Engine(const Model& model, const text::Tokenizer& tokenizer, const EngineOptions& options)
    : impl_(std::make_unique<Impl>(model, tokenizer, options)) {}
Engine::~Engine() = default;

std::vector<uint64_t> Engine::submit(std::vector<Submission> requests) {
  return impl_->submit(std::move(requests));
}
uint64_t Engine::submit(Request request, std::shared_ptr<RequestListener> listener) {
  std::vector<Submission> one;
  one.push_back({std::move(request), std::move(listener)});
  return impl_->submit(std::move(one)).front();
}
void Engine::cancel(uint64_t id) {
  impl_->cancel(id);
}
void Engine::drain() {
  impl_->drain();
}
bool Engine::idle() const {
  return impl_->idle();
}
EngineStats Engine::stats() const {
  return impl_->stats();
}
std::string Engine::failure() const {
  return impl_->failure();
}
const EngineOptions& Engine::options() const {
  return impl_->options();
}

}  // namespace atom
