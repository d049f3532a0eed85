#include "load_statistics.h"

#include <algorithm>
#include <numeric>

namespace atom::cli {
namespace {

Json describe_times(const std::vector<double>& sorted) {
  if (sorted.empty()) return nullptr;
  const double sum = std::accumulate(sorted.begin(), sorted.end(), 0.0);
  return {{"count", sorted.size()},          {"mean", sum / static_cast<double>(sorted.size())},
          {"p50", percentile(sorted, 0.5)},  {"p90", percentile(sorted, 0.9)},
          {"p99", percentile(sorted, 0.99)}, {"max", sorted.back()}};
}

}  // namespace

double percentile(const std::vector<double>& sorted, double share) {
  const double place = share * static_cast<double>(sorted.size() - 1);
  const auto below = static_cast<size_t>(place);
  const size_t above = std::min(below + 1, sorted.size() - 1);
  return sorted[below] + (place - static_cast<double>(below)) * (sorted[above] - sorted[below]);
}

void LoadStatistics::add(const LoadResult& result) {
  double begin = 0, end = 0;
  for (const Outcome& outcome : result.outcomes) {
    begin = end == 0 ? outcome.sent : std::min(begin, outcome.sent);
    end = std::max(end, outcome.finished);
    ++statuses_[outcome.status == 0 ? "none" : std::to_string(outcome.status)];
    if (!outcome.completed()) {
      ++failed_;
      ++errors_[outcome.error];
      continue;
    }
    ++completed_;
    ++finish_reasons_[outcome.finish_reason.empty() ? "none" : outcome.finish_reason];
    const int64_t tokens = outcome.output_tokens();
    output_tokens_ += tokens;
    prompt_tokens_ += std::max<int64_t>(outcome.prompt_tokens, 0);
    cached_tokens_ += outcome.cached_tokens;
    counted_by_server_ += outcome.completion_tokens >= 0 ? 1 : 0;
    latencies_.end_to_end.push_back(outcome.finished - outcome.sent);
    double per_token = 0;
    if (!outcome.pieces.empty()) {
      latencies_.first_token.push_back(outcome.pieces.front() - outcome.sent);
      if (tokens > 1) {
        per_token = (outcome.pieces.back() - outcome.pieces.front()) / static_cast<double>(tokens - 1);
        latencies_.output_token.push_back(per_token);
      }
      for (size_t i = 1; i < outcome.pieces.size(); ++i) {
        latencies_.gap.push_back(outcome.pieces[i] - outcome.pieces[i - 1]);
      }
    }
    good_ += meets_targets(outcome, per_token) ? 1 : 0;
  }
  seconds_ += end - begin;
  unfinished_ += result.unfinished;
  connections_.opened += result.connections.opened;
  connections_.reused += result.connections.reused;
  connections_.dropped += result.connections.dropped;
}

bool LoadStatistics::meets_targets(const Outcome& outcome, double per_token) const {
  const double first = outcome.pieces.empty() ? 0 : outcome.pieces.front() - outcome.sent;
  return (targets_.time_to_first_token <= 0 || first <= targets_.time_to_first_token) &&
         (targets_.time_per_output_token <= 0 || per_token <= targets_.time_per_output_token);
}

const Latencies& LoadStatistics::latencies() {
  for (auto* times :
       {&latencies_.first_token, &latencies_.output_token, &latencies_.gap, &latencies_.end_to_end}) {
    std::sort(times->begin(), times->end());
  }
  return latencies_;
}

double LoadStatistics::output_tokens_per_second() const {
  return rate(output_tokens_);
}

std::string LoadStatistics::commonest_error() const {
  const auto most = std::max_element(errors_.begin(), errors_.end(),
                                     [](const auto& a, const auto& b) { return a.second < b.second; });
  return most == errors_.end() ? std::string() : most->first;
}

Json LoadStatistics::describe() {
  const Latencies& times = latencies();
  Json json;
  json["seconds"] = seconds_;
  json["completed"] = completed_;
  json["failed"] = failed_;
  json["unfinished"] = unfinished_;
  json["responses_by_status"] = statuses_;
  json["errors"] = errors_;
  json["finish_reasons"] = finish_reasons_;
  json["prompt_tokens"] = prompt_tokens_;
  json["cached_prompt_tokens"] = cached_tokens_;
  json["completion_tokens"] = output_tokens_;
  json["pieces"] = static_cast<int64_t>(times.gap.size() + times.first_token.size());
  json["requests_with_usage"] = counted_by_server_;
  json["requests_per_second"] = rate(completed_);
  json["output_tokens_per_second"] = output_tokens_per_second();
  json["total_tokens_per_second"] = rate(output_tokens_ + prompt_tokens_);
  if (targets_.any()) json["good_requests_per_second"] = rate(good_);
  json["time_to_first_token_seconds"] = describe_times(times.first_token);
  json["time_per_output_token_seconds"] = describe_times(times.output_token);
  json["inter_token_latency_seconds"] = describe_times(times.gap);
  json["end_to_end_seconds"] = describe_times(times.end_to_end);
  json["connections_opened"] = connections_.opened;
  json["connections_reused"] = connections_.reused;
  json["connections_dropped"] = connections_.dropped;
  return json;
}

}  // namespace atom::cli
