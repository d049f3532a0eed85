#pragma once

#include <chrono>
#include <cstdint>
#include <string>

namespace atom {

/// Progress of long work on standard error: a bar with an estimate of the time left on a terminal, a plain
/// line about every ten seconds elsewhere; nothing when `quiet` or where the log leaves out `info`.
class Progress {
 public:
  Progress(std::string label, int64_t total, bool quiet = false);
  ~Progress();
  Progress(const Progress&) = delete;
  Progress& operator=(const Progress&) = delete;

  /// Sets what is done so far, with a short note shown behind the bar. Throws Interrupted after Ctrl-C.
  void update(int64_t done, const std::string& note = "");

  /// Ends the bar's line. Called by the destructor.
  void finish();

 private:
  void draw(int64_t done, const std::string& note, bool last);

  std::string label_;
  int64_t total_;
  int64_t done_ = 0;
  bool quiet_;
  bool terminal_;
  bool open_ = false;
  std::chrono::steady_clock::time_point start_;
  std::chrono::steady_clock::time_point last_draw_;
};

}  // namespace atom
