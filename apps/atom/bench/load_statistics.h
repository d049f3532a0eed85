#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "../common.h"
#include "load_client.h"

/// Figures of traffic that has been sent.
namespace atom::cli {

/// Targets of goodput, in seconds; 0: none.
struct Targets {
  double time_to_first_token = 0;
  double time_per_output_token = 0;
  bool any() const { return time_to_first_token > 0 || time_per_output_token > 0; }
};

/// Times that were measured, in seconds, each in ascending order.
struct Latencies {
  /// From the sending of a request to its first piece of text.
  std::vector<double> first_token;
  /// From the first piece to the last, for each token behind the first.
  std::vector<double> output_token;
  /// Between two pieces of a stream.
  std::vector<double> gap;
  /// From the sending of a request to the end of its response.
  std::vector<double> end_to_end;
};

/// The value that a share of `sorted` (ascending, not empty) is at most, interpolated between the two
/// nearest.
double percentile(const std::vector<double>& sorted, double share);

/// Collects outcomes of one or more rounds. Latencies and tokens are those of completed requests.
class LoadStatistics {
 public:
  explicit LoadStatistics(Targets targets) : targets_(targets) {}

  void add(const LoadResult& result);
  /// Once everything has been added: sorts.
  const Latencies& latencies();

  int64_t completed() const { return completed_; }
  int64_t failed() const { return failed_; }
  double output_tokens_per_second() const;
  /// The error that came most often; empty: none.
  std::string commonest_error() const;
  /// All of it, with the field names of the documentation.
  Json describe();

 private:
  bool meets_targets(const Outcome& outcome, double per_token) const;
  double rate(int64_t count) const { return seconds_ > 0 ? static_cast<double>(count) / seconds_ : 0; }

  Targets targets_;
  Latencies latencies_;
  double seconds_ = 0;
  int64_t completed_ = 0;
  int64_t failed_ = 0;
  int64_t unfinished_ = 0;
  int64_t good_ = 0;
  int64_t output_tokens_ = 0;
  int64_t prompt_tokens_ = 0;
  int64_t cached_tokens_ = 0;
  int64_t counted_by_server_ = 0;
  ConnectionCounts connections_;
  std::map<std::string, int64_t> statuses_;
  std::map<std::string, int64_t> errors_;
  std::map<std::string, int64_t> finish_reasons_;
};

}  // namespace atom::cli
