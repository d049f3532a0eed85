// atom bench serve: traffic for servers that speak OpenAI's protocol, and what comes back how fast.

#include <algorithm>
#include <cmath>
#include <deque>

#include "base/interrupt.h"
#include "bench.h"
#include "load_statistics.h"
#include "report.h"

namespace atom::cli {
namespace {

struct Options {
  OutputOptions output;
  TrafficOptions traffic;
  RequestOptions request;
  std::string url;
  std::vector<std::string> others;
  std::string model;
  Targets targets;
  double target_first_milliseconds = 0;
  double target_token_milliseconds = 0;
  int64_t rounds = 1;
  int64_t warm_up = 0;
  std::string plot;
};

/// A server, and what was measured of it.
struct Subject {
  Endpoint endpoint;
  LoadStatistics all;
  std::deque<LoadStatistics> rounds;
};

/// The columns of the table, of a distribution in JSON.
constexpr const char* kColumns[] = {"mean", "p50", "p90", "p99", "max"};
constexpr std::pair<const char*, const char*> kTimes[] = {
    {"time to first token", "time_to_first_token_seconds"},
    {"time per output token", "time_per_output_token_seconds"},
    {"gap between pieces", "inter_token_latency_seconds"},
    {"end to end", "end_to_end_seconds"}};

std::string spell(const Json& counts) {
  std::string text;
  for (const auto& [name, count] : counts.items()) {
    text += fmt::format("{}{} x {}", text.empty() ? "" : ", ", count.get<int64_t>(), name);
  }
  return text.empty() ? "none" : text;
}

std::string table_of(const Json& json) {
  const auto number = [&](const char* name) { return json[name].get<double>(); };
  std::string text =
      fmt::format("{}, model {}\n", json["url"].get<std::string>(), json["model"].get<std::string>());
  text += fmt::format(
      "  requests: {} completed, {} failed, {} unfinished in {:.2f} s; status {}; finished by {}\n",
      json["completed"].get<int64_t>(), json["failed"].get<int64_t>(), json["unfinished"].get<int64_t>(),
      number("seconds"), spell(json["responses_by_status"]), spell(json["finish_reasons"]));
  if (!json["errors"].empty()) text += fmt::format("  errors: {}\n", spell(json["errors"]));
  text +=
      fmt::format("  tokens: {} in ({} cached), {} out; {:.1f} out/s, {:.1f} in and out/s; {:.3f} requests/s",
                  json["prompt_tokens"].get<int64_t>(), json["cached_prompt_tokens"].get<int64_t>(),
                  json["completion_tokens"].get<int64_t>(), number("output_tokens_per_second"),
                  number("total_tokens_per_second"), number("requests_per_second"));
  if (json.contains("good_requests_per_second")) {
    text += fmt::format(", {:.3f} within the targets", number("good_requests_per_second"));
  }
  text += fmt::format("\n  connections: {} opened, {} requests on kept ones, {} dropped by the server\n",
                      json["connections_opened"].get<int64_t>(), json["connections_reused"].get<int64_t>(),
                      json["connections_dropped"].get<int64_t>());
  text += fmt::format("  {:<24}", "milliseconds");
  for (const char* column : kColumns) text += fmt::format("{:>11}", column);
  text += '\n';
  for (const auto& [title, field] : kTimes) {
    if (json[field].is_null()) continue;
    text += fmt::format("  {:<24}", title);
    for (const char* column : kColumns)
      text += fmt::format("{:>11.2f}", 1e3 * json[field][column].get<double>());
    text += '\n';
  }
  if (json.contains("output_tokens_per_second_ratio")) {
    text += fmt::format("  {:.3f} times the output tokens/s of the first (median of the rounds)\n",
                        number("output_tokens_per_second_ratio"));
  }
  return text;
}

/// The share of `sorted` that is at most x, at values of x evenly spaced on a logarithmic axis.
Curve distribution(const std::string& name, const std::vector<double>& sorted) {
  Curve curve{name, {}, {}};
  if (sorted.empty()) return curve;
  constexpr double kLeast = 1e-5;
  const double low = std::log10(std::max(sorted.front(), kLeast) * 1e3);
  const double high = std::log10(std::max(sorted.back(), kLeast) * 1e3);
  const double a_decade = high - low > 1 ? 10 : 50;
  for (double step = std::floor(low * a_decade); step <= std::ceil(high * a_decade); ++step) {
    const double x = std::pow(10.0, step / a_decade);
    const auto count = std::upper_bound(sorted.begin(), sorted.end(), x * 1e-3) - sorted.begin();
    // Three digits are what the axis has room for.
    const double unit = std::pow(10.0, std::floor(std::log10(x)) - 2);
    curve.x.push_back(std::round(x / unit) * unit);
    curve.y.push_back(static_cast<double>(count) / static_cast<double>(sorted.size()));
  }
  return curve;
}

void plot(const std::string& path, std::deque<Subject>& subjects) {
  std::vector<Panel> panels;
  for (const auto& [title, field] : kTimes) panels.push_back({title, {}});
  for (Subject& subject : subjects) {
    const Latencies& times = subject.all.latencies();
    const std::vector<double>* const all[] = {&times.first_token, &times.output_token, &times.gap,
                                              &times.end_to_end};
    for (size_t i = 0; i < panels.size(); ++i) {
      panels[i].curves.push_back(distribution(subject.endpoint.url.text, *all[i]));
    }
  }
  std::erase_if(panels, [](const Panel& panel) {
    return std::all_of(panel.curves.begin(), panel.curves.end(), [](const Curve& c) { return c.x.empty(); });
  });
  write_plot(path, "milliseconds", "share of those measured", panels);
}

Json describe_traffic(const Options& options) {
  const TrafficOptions& traffic = options.traffic;
  Json json;
  json["requests"] = traffic.requests;
  json["rounds"] = options.rounds;
  json["warm_up_requests"] = options.warm_up;
  if (traffic.rate > 0) {
    json["requests_per_second"] = traffic.rate;
  } else {
    json["concurrency"] = traffic.concurrency;
  }
  json["prompts"] = !traffic.sharegpt.empty()  ? traffic.sharegpt.filename().string()
                    : !traffic.lengths.empty() ? traffic.lengths.filename().string()
                                               : std::to_string(traffic.prompt_tokens) + " tokens";
  json["max_tokens"] = traffic.max_tokens;
  json["shared_prefix"] = traffic.shared_prefix;
  json["chat"] = options.request.chat;
  json["temperature"] = options.request.temperature;
  json["ignore_eos"] = options.request.ignore_eos;
  json["seed"] = traffic.seed;
  return json;
}

/// One round of one server. Returns whether it went to its end.
bool measure_round(Subject& subject, std::vector<PlannedRequest> requests, const Options& options) {
  const auto middle = requests.begin() + static_cast<std::ptrdiff_t>(options.warm_up);
  const std::vector<PlannedRequest> warm_up(requests.begin(), middle);
  requests.erase(requests.begin(), middle);
  if (!warm_up.empty() &&
      run_load(subject.endpoint, warm_up, options.traffic.concurrency, options.request).interrupted) {
    return false;
  }
  const LoadResult result =
      run_load(subject.endpoint, requests, options.traffic.rate > 0 ? 0 : options.traffic.concurrency,
               options.request);
  subject.all.add(result);
  LoadStatistics& round = subject.rounds.emplace_back(options.targets);
  round.add(result);
  if (result.interrupted) return false;
  require(round.completed() > 0, "{}: none of {} requests was answered: {}",
          printable(subject.endpoint.url.text), requests.size(), round.commonest_error());
  return true;
}

Json describe(Subject& subject, std::deque<Subject>& subjects) {
  Json json = {{"url", subject.endpoint.url.text}, {"model", subject.endpoint.model}};
  json.update(subject.all.describe());
  if (&subject != &subjects.front()) {
    std::vector<double> ratios;
    const size_t rounds = std::min(subject.rounds.size(), subjects.front().rounds.size());
    for (size_t i = 0; i < rounds; ++i) {
      const double base = subjects.front().rounds[i].output_tokens_per_second();
      if (base > 0) ratios.push_back(subject.rounds[i].output_tokens_per_second() / base);
    }
    std::sort(ratios.begin(), ratios.end());
    if (!ratios.empty()) json["output_tokens_per_second_ratio"] = percentile(ratios, 0.5);
  }
  json["rounds"] = Json::array();
  for (LoadStatistics& round : subject.rounds) json["rounds"].push_back(round.describe());
  return json;
}

void run_command(Options options) {
  options.output.apply();
  options.traffic.check();
  options.targets = {options.target_first_milliseconds * 1e-3, options.target_token_milliseconds * 1e-3};
  options.request.seed = options.traffic.seed;
  if (options.request.chat && options.traffic.random_ids > 0) {
    throw UsageError("--random-ids: the messages of --chat are text");
  }
  check_plot(options.plot);
  std::vector<std::string> urls = {options.url};
  urls.insert(urls.end(), options.others.begin(), options.others.end());
  std::deque<Subject> subjects;
  for (const std::string& url : urls) {
    subjects.push_back({{parse_url(url), options.model}, LoadStatistics(options.targets), {}});
  }
  const auto plan = plan_traffic(options.traffic, options.rounds, options.warm_up);
  for (Subject& subject : subjects) {
    if (options.model.empty()) find_model(subject.endpoint, options.request);
  }
  bool whole = true;
  for (size_t round = 0; round < plan.size() && whole; ++round) {
    // The order turns round: whoever comes first in one round comes last in the next.
    for (size_t i = 0; i < subjects.size() && whole; ++i) {
      const size_t which = round % 2 == 0 ? i : subjects.size() - 1 - i;
      whole = measure_round(subjects[which], plan[round], options);
    }
  }
  Json json = describe_program("serve");
  json["traffic"] = describe_traffic(options);
  json["interrupted"] = !whole;
  for (Subject& subject : subjects) {
    json["endpoints"].push_back(describe(subject, subjects));
    if (!options.output.json) print(table_of(json["endpoints"].back()));
  }
  if (options.output.json) print_json(json);
  if (!options.plot.empty()) plot(options.plot, subjects);
  throw_if_interrupted();
}

constexpr const char* kFooter =
    "Requests stream, on connections that are kept. A closed loop keeps --concurrency requests in flight; an "
    "open loop (--rate) sends them at random moments whatever the server does. Tokens are those that the "
    "server's `usage` says, or pieces of text where it says nothing. Of a request: time to first token is "
    "from its sending to the first piece of text, time per output token from the first piece to the last for "
    "each token behind the first, a gap is what lies between two pieces. Percentiles are over completed "
    "requests (gaps: over all of theirs). With --compare the servers take turns, round by round, with the "
    "same requests; each round has prompts of its own.\n\n"
    "  atom bench serve http://127.0.0.1:8000 --sharegpt ShareGPT.json --requests 64 --concurrency 32\n"
    "  atom bench serve http://127.0.0.1:8000 --rate 2 --lengths lengths.json --slo-ttft 1000 --slo-tpot "
    "100\n"
    "  atom bench serve http://127.0.0.1:8000 --compare http://127.0.0.1:8080 --rounds 5 --plot latency.svg";

void add_traffic_options(CLI::App& command, TrafficOptions& traffic) {
  constexpr int64_t kMost = 1'000'000;
  command.add_option("--requests", traffic.requests, "Requests of a round")
      ->check(CLI::Range(int64_t{1}, kMost))
      ->capture_default_str();
  CLI::Option* concurrency =
      command.add_option("--concurrency", traffic.concurrency, "Closed loop: requests in flight")
          ->check(CLI::Range(1, 65536))
          ->capture_default_str();
  command.add_option("--rate", traffic.rate, "Open loop: requests a second, a Poisson process")
      ->check(CLI::Range(1e-3, 1e6))
      ->excludes(concurrency);
  command.add_option("--sharegpt", traffic.sharegpt,
                     "Prompts: what the conversations of this JSON file begin with");
  command.add_option("--lengths", traffic.lengths,
                     "Prompts of random words: a JSON array of pairs [prompt tokens, output tokens]");
  command.add_option("--prompt-tokens", traffic.prompt_tokens, "Words of a prompt, without a file")
      ->check(CLI::Range(1, 1 << 20))
      ->capture_default_str();
  command
      .add_option("--max-prompt-bytes", traffic.max_prompt_bytes,
                  "Leave out conversations that begin with more")
      ->check(at_least(1))
      ->capture_default_str();
  command
      .add_option("--random-ids", traffic.random_ids,
                  "Prompts are random token ids below this instead of words")
      ->check(CLI::Range(1, 1 << 30));
  command
      .add_option("--shared-prefix", traffic.shared_prefix, "Words that all prompts of a round begin with")
      ->check(CLI::Range(0, 1 << 20));
  command
      .add_option("--max-tokens", traffic.max_tokens,
                  "Tokens to generate (default: 64; with --lengths what the file says, at most this)")
      ->check(CLI::Range(1, 1 << 20));
  command.add_option("--seed", traffic.seed, "Of words, moments and sampling")
      ->transform(kWholeNumber)
      ->capture_default_str();
}

}  // namespace

void add_bench_serve(CLI::App& bench, Command& chosen) {
  auto options = std::make_shared<Options>();
  CLI::App* command = bench.add_subcommand("serve", "Servers that speak OpenAI's protocol, under load");
  command->footer(kFooter);
  command->add_option("URL", options->url, "http://host:port, and the API's path where it is not /v1")
      ->required();
  command->add_option("--compare", options->others, "Servers to compare with");
  command->add_option("--rounds", options->rounds, "Rounds, in each of which every server has its turn")
      ->check(CLI::Range(1, 1000))
      ->capture_default_str();
  command->add_option("--warmup", options->warm_up, "Requests before each round that do not count")
      ->check(CLI::Range(0, 100000))
      ->capture_default_str();
  command->add_option("--model", options->model,
                      "The model to ask for (default: the first that a server lists)");
  command->add_option("--api-key", options->request.api_key, "Sent as Authorization: Bearer KEY")
      ->envname("OPENAI_API_KEY");
  add_traffic_options(*command, options->traffic);
  command->add_flag("--chat", options->request.chat, "Chat completions instead of completions");
  command->add_option("--temperature", options->request.temperature, "Of sampling; 0: greedy")
      ->check(CLI::Range(0.0, 100.0))
      ->capture_default_str();
  command->add_flag("--ignore-eos", options->request.ignore_eos,
                    "Ask for texts of full length (an extension that not all servers know)");
  command->add_option("--timeout", options->request.timeout, "Seconds that a request may take")
      ->check(CLI::Range(0.001, 86400.0))
      ->capture_default_str();
  command
      ->add_option("--slo-ttft", options->target_first_milliseconds,
                   "Goodput counts requests whose first token came within so many milliseconds")
      ->check(CLI::Range(0.001, 1e9));
  command
      ->add_option("--slo-tpot", options->target_token_milliseconds,
                   "... and whose other tokens took at most so many milliseconds each")
      ->check(CLI::Range(0.001, 1e9));
  command->add_option("--plot", options->plot, "Write a diagram of the latencies to this SVG file");
  options->output.add_to(*command);
  command->callback([options, &chosen] { chosen = [options] { run_command(*options); }; });
}

}  // namespace atom::cli
