#include "server/metrics.h"

#include <prometheus/counter.h>
#include <prometheus/histogram.h>
#include <prometheus/registry.h>
#include <prometheus/text_serializer.h>

namespace atom::server {
namespace {

using prometheus::Histogram;
using prometheus::MetricFamily;
using prometheus::MetricType;

/// From 1 ms to 2 minutes, three bounds for every factor of ten.
Histogram::BucketBoundaries seconds_buckets() {
  return {0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 60, 120};
}

Histogram::BucketBoundaries token_buckets() {
  return {1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096, 8192, 16384, 32768, 65536, 131072};
}

/// The engine counts by itself; its counts become metrics when they are asked for.
class StatsFamilies {
 public:
  void counter(const char* name, const char* help, double value) {
    add(name, help, MetricType::Counter).counter.value = value;
  }
  void gauge(const char* name, const char* help, double value) {
    add(name, help, MetricType::Gauge).gauge.value = value;
  }
  std::vector<MetricFamily> take() { return std::move(families_); }

 private:
  prometheus::ClientMetric& add(const char* name, const char* help, MetricType type) {
    families_.push_back({name, help, type, std::vector<prometheus::ClientMetric>(1)});
    return families_.back().metric.front();
  }

  std::vector<MetricFamily> families_;
};

double as_double(auto count) {
  return static_cast<double>(count);
}

std::vector<MetricFamily> families_of(const EngineStats& stats) {
  StatsFamilies out;
  out.gauge("atom_requests_running", "Sequences in the batch.", as_double(stats.running));
  out.gauge("atom_requests_waiting", "Sequences that wait for room in the batch.", as_double(stats.waiting));
  out.counter("atom_requests_accepted_total", "Requests that the engine has taken.",
              as_double(stats.requests));
  out.counter("atom_requests_refused_total", "Requests refused because the queue was full.",
              as_double(stats.refused));
  out.counter("atom_requests_cancelled_total", "Requests that were cancelled.", as_double(stats.cancelled));
  out.counter("atom_prompt_tokens_total", "Tokens of prompts that have been computed or found in the cache.",
              as_double(stats.prompt_tokens));
  out.counter("atom_generated_tokens_total", "Tokens generated.", as_double(stats.generated_tokens));
  out.counter("atom_prefix_cache_queries_total", "Tokens of prompts looked up in the prefix cache.",
              as_double(stats.prompt_tokens));
  out.counter("atom_prefix_cache_hits_total", "Tokens of prompts found in the prefix cache.",
              as_double(stats.cached_prompt_tokens));
  out.counter("atom_preemptions_total", "Sequences that gave up their blocks and are computed again.",
              as_double(stats.preemptions));
  out.counter("atom_engine_steps_total", "Steps of the engine.", as_double(stats.steps));
  out.counter("atom_engine_step_tokens_total", "Tokens computed in all steps.", as_double(stats.step_tokens));
  out.counter("atom_engine_step_seconds_total", "Seconds spent in steps.", stats.step_seconds);
  out.counter("atom_engine_forward_seconds_total", "Of these, seconds in forward pass and sampling.",
              stats.forward_seconds);

  const int64_t used = stats.blocks - stats.free_blocks;
  const auto share = [&](double part) { return stats.blocks > 0 ? part / as_double(stats.blocks) : 0.0; };
  out.gauge("atom_kv_cache_blocks", "Blocks of the KV cache.", as_double(stats.blocks));
  out.gauge("atom_kv_cache_blocks_used", "Blocks that sequences own.", as_double(used));
  out.gauge("atom_kv_cache_blocks_cached", "Free blocks that the prefix cache can find.",
            as_double(stats.cached_blocks));
  out.gauge("atom_kv_cache_usage_ratio", "Share of the blocks that sequences own, 0 to 1.",
            share(as_double(used)));
  out.gauge("atom_kv_cache_bytes", "Bytes of the KV cache.", as_double(stats.cache_bytes));
  out.gauge("atom_kv_cache_capacity_tokens", "Tokens that the KV cache holds.",
            stats.bytes_per_token > 0 ? as_double(stats.cache_bytes / stats.bytes_per_token) : 0);
  out.gauge("atom_kv_cache_bytes_per_token", "Bytes of the KV cache for a token.",
            as_double(stats.bytes_per_token));
  out.gauge("atom_kv_cache_fp16_bytes_per_token", "Bytes for a token if the cache were FP16.",
            as_double(stats.bytes_per_token_f16));
  out.gauge("atom_kv_cache_fp16_ratio", "Tokens for each that an FP16 cache of the same bytes would hold.",
            stats.bytes_per_token > 0
                ? as_double(stats.bytes_per_token_f16) / as_double(stats.bytes_per_token)
                : 0);
  return out.take();
}

}  // namespace

class Metrics::Impl {
 public:
  Histogram& histogram(const char* name, const char* help, Histogram::BucketBoundaries buckets) {
    return prometheus::BuildHistogram().Name(name).Help(help).Register(registry).Add({}, std::move(buckets));
  }

  prometheus::Registry registry;
  prometheus::Family<prometheus::Counter>& responses = prometheus::BuildCounter()
                                                           .Name("atom_http_responses_total")
                                                           .Help("Responses sent, by path and status.")
                                                           .Register(registry);
  Histogram& first_token = histogram("atom_time_to_first_token_seconds",
                                     "From a request's arrival to its first token.", seconds_buckets());
  Histogram& token_time =
      histogram("atom_time_per_output_token_seconds",
                "Between two tokens of a text, on average over the text.", seconds_buckets());
  Histogram& request_seconds =
      histogram("atom_request_seconds", "From a request's arrival to its last token.", seconds_buckets());
  Histogram& prompt_tokens =
      histogram("atom_request_prompt_tokens", "Tokens of a request's prompt.", token_buckets());
  Histogram& generated_tokens =
      histogram("atom_request_generated_tokens", "Tokens generated for a request.", token_buckets());
};

Metrics::Metrics() : impl_(std::make_unique<Impl>()) {}
Metrics::~Metrics() = default;

void Metrics::count_response(std::string_view route, unsigned status) {
  const std::string code = status >= 100 && status <= 599 ? std::to_string(status) : "other";
  impl_->responses.Add({{"path", std::string(route)}, {"status", code}}).Increment();
}

void Metrics::first_token(double seconds) {
  impl_->first_token.Observe(seconds);
}

void Metrics::token_time(double seconds) {
  impl_->token_time.Observe(seconds);
}

void Metrics::finished(double seconds, int64_t prompt_tokens, int64_t generated_tokens) {
  impl_->request_seconds.Observe(seconds);
  impl_->prompt_tokens.Observe(static_cast<double>(prompt_tokens));
  impl_->generated_tokens.Observe(static_cast<double>(generated_tokens));
}

std::string Metrics::text(const EngineStats& stats) const {
  std::vector<MetricFamily> families = families_of(stats);
  for (MetricFamily& family : impl_->registry.Collect()) families.push_back(std::move(family));
  return prometheus::TextSerializer().Serialize(families);
}

}  // namespace atom::server
