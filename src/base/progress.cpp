#include "base/progress.h"

#include <algorithm>
#include <cstdio>
#include <unistd.h>

#include <fmt/format.h>

#include "base/interrupt.h"
#include "base/log.h"

namespace atom {
namespace {

using Clock = std::chrono::steady_clock;

std::string clock_text(double seconds) {
  const auto s = static_cast<int64_t>(seconds + 0.5);
  if (s >= 3600) return fmt::format("{}:{:02}:{:02}", s / 3600, s / 60 % 60, s % 60);
  return fmt::format("{}:{:02}", s / 60, s % 60);
}

}  // namespace

Progress::Progress(std::string label, int64_t total, bool quiet)
    : label_(std::move(label)),
      total_(std::max<int64_t>(total, 1)),
      quiet_(quiet || !spdlog::should_log(spdlog::level::info)),
      terminal_(::isatty(STDERR_FILENO) != 0),
      start_(Clock::now()),
      last_draw_(start_ - std::chrono::hours(1)) {}

Progress::~Progress() {
  finish();
}

void Progress::update(int64_t done, const std::string& note) {
  throw_if_interrupted();
  done_ = done;
  const auto interval = terminal_ ? std::chrono::milliseconds(100) : std::chrono::milliseconds(10'000);
  const bool last = done >= total_;
  if (quiet_ || (!last && Clock::now() - last_draw_ < interval)) return;
  draw(done, note, last);
}

void Progress::finish() {
  if (open_) std::fputc('\n', stderr);
  open_ = false;
}

void Progress::draw(int64_t done, const std::string& note, bool last) {
  last_draw_ = Clock::now();
  const double elapsed = std::chrono::duration<double>(last_draw_ - start_).count();
  const double share = std::min(1.0, static_cast<double>(done) / static_cast<double>(total_));
  const std::string left = share > 0 ? clock_text(elapsed * (1 - share) / share) : "?";
  const std::string tail = note.empty() ? "" : "  " + note;
  std::string line = fmt::format("{} {}/{} ({:.0f}%), {} elapsed, {} left{}", label_, done, total_,
                                 100 * share, clock_text(elapsed), left, tail);
  if (!terminal_) {
    std::fputs((line + "\n").c_str(), stderr);
    return;
  }
  constexpr int kWidth = 24;
  const int filled = static_cast<int>(share * kWidth);
  line = fmt::format("{} [{}{}] {}/{}  {} elapsed, {} left{}", label_, std::string(filled, '#'),
                     std::string(kWidth - filled, '.'), done, total_, clock_text(elapsed), left, tail);
  std::fputs(("\r\033[K" + line).c_str(), stderr);
  std::fflush(stderr);
  open_ = true;
  if (last) finish();
}

}  // namespace atom
