#include "report.h"

#include <chrono>
#include <cstdio>
#include <ctime>

namespace atom::cli {
namespace {

std::string now() {
  const std::time_t time = std::chrono::system_clock::to_time_t(std::chrono::system_clock::now());
  std::tm utc = {};
  gmtime_r(&time, &utc);
  char text[32];
  std::strftime(text, sizeof text, "%Y-%m-%dT%H:%M:%SZ", &utc);
  return text;
}

/// "model llama-2-7b, tokens 16".
std::string spell(const Json& problem) {
  std::string text;
  for (const auto& [name, value] : problem.items()) {
    text += fmt::format("{}{} {}", text.empty() ? "" : ", ", name,
                        value.is_string() ? value.get<std::string>() : value.dump());
  }
  return text;
}

}  // namespace

void BenchOptions::add_to(CLI::App& command) {
  device.add_to(command, false);
  output.add_to(command);
  command.add_option("--seconds", seconds, "Time to spend on each problem, at least 5 rounds")
      ->check(CLI::Range(0.0, 3600.0))
      ->capture_default_str();
  command.add_option("--plot", plot, "Write a diagram of the ratios to this SVG file");
}

const Timed* find(const std::vector<Timed>& all, std::string_view name) {
  for (const Timed& timed : all) {
    if (timed.what.name == name) return &timed;
  }
  return nullptr;
}

Json describe_program(const std::string& what) {
  Json json;
  json["command"] = "bench " + what;
  json["version"] = ATOM_VERSION;
  json["commit"] = ATOM_COMMIT;
  json["time"] = now();
  return json;
}

Json describe_run(const std::string& what, const Device& device) {
  Json json = describe_program(what);
  json["device"] = device.description();
  json["threads"] = device.threads();
  return json;
}

void check_plot(const std::string& path) {
  const std::filesystem::path folder = std::filesystem::path(path).parent_path();
  require(folder.empty() || std::filesystem::is_directory(folder), "{}: cannot write: no such folder {}",
          path, folder.string());
}

Report::Report(const BenchOptions& options, const Device& device, std::string what, std::string bandwidth,
               std::vector<std::string> baselines)
    : json_(options.output.json),
      bandwidth_(std::move(bandwidth)),
      baselines_(std::move(baselines)),
      limits_(measure_limits(device.context())) {
  check_plot(options.plot);
  out_ = describe_run(what, device);
  out_["bandwidth"] = bandwidth_;
  out_["limits"] = {{"read_bytes_per_second", limits_.read}, {"copy_bytes_per_second", limits_.copy}};
  std::string rates;
  for (const auto& [name, rate] : limits_.rates) {
    out_["limits"][name + "_operations_per_second"] = rate;
    rates += fmt::format(", {} {:.4g} TFLOPS", name, rate * 1e-12);
  }
  out_["results"] = Json::array();
  out_["sums"] = Json::array();
  line(fmt::format("{}\nlimits measured: read {:.3g} TB/s, copy {:.3g} TB/s{}", device.description(),
                   limits_.read * 1e-12, limits_.copy * 1e-12, rates));
}

void Report::line(const std::string& text) const {
  if (json_) {
    std::fputs((text + "\n").c_str(), stderr);
  } else {
    print(text + "\n");
  }
}

Json Report::ratios(const Timed& timed, const std::vector<Timed>& all) const {
  Json ratios = Json::object();
  for (const std::string& name : baselines_) {
    if (const Timed* baseline = find(all, name)) ratios[name] = baseline->seconds / timed.seconds;
  }
  return ratios;
}

Json Report::describe(const Timed& timed, const std::vector<Timed>& all, bool with_rates) const {
  Json json;
  json["name"] = timed.what.name;
  if (with_rates) json["implementation"] = timed.what.implementation;
  json["seconds"] = timed.seconds;
  if (with_rates) {
    json["rounds"] = timed.rounds;
    json["bytes"] = timed.what.bytes;
    json["bytes_per_second"] = timed.what.bytes / timed.seconds;
    json["share_of_bandwidth"] =
        timed.what.bytes / timed.seconds / (bandwidth_ == "read" ? limits_.read : limits_.copy);
    if (timed.what.operations > 0) {
      json["operations"] = timed.what.operations;
      json["operations_per_second"] = timed.what.operations / timed.seconds;
    }
    if (const auto rate = limits_.rates.find(timed.what.rate); rate != limits_.rates.end()) {
      json["rate"] = timed.what.rate;
      json["share_of_rate"] = timed.what.operations / timed.seconds / rate->second;
    }
  }
  json["speedup_over"] = ratios(timed, all);
  return json;
}

void Report::print_rows(const Json& problem, const std::vector<Timed>& timed, bool with_rates) const {
  line("\n" + spell(problem));
  for (const Timed& t : timed) {
    const Json json = describe(t, timed, with_rates);
    std::string text = fmt::format("  {:<22} {:>11.2f} us", t.what.name, t.seconds * 1e6);
    if (with_rates) {
      text += fmt::format(" {:>8.4f} TB/s {:>4.0f}%", t.what.bytes / t.seconds * 1e-12,
                          100 * json["share_of_bandwidth"].get<double>());
      text += t.what.operations > 0 ? fmt::format(" {:>9.3f} TFLOPS", t.what.operations / t.seconds * 1e-12)
                                    : std::string(17, ' ');
      text += json.contains("share_of_rate")
                  ? fmt::format(" {:>4.0f}% of {:<4}", 100 * json["share_of_rate"].get<double>(), t.what.rate)
                  : std::string(14, ' ');
    }
    for (const auto& [name, ratio] : json["speedup_over"].items()) {
      text += fmt::format("  {:>6.2f}x {}", ratio.get<double>(), name);
    }
    if (with_rates) text += "  " + t.what.implementation;
    while (text.back() == ' ') text.pop_back();
    line(text);
  }
}

void Report::add(const Json& problem, const std::vector<Timed>& timed) {
  print_rows(problem, timed, true);
  Json entry = problem;
  for (const Timed& t : timed) entry["implementations"].push_back(describe(t, timed, true));
  out_["results"].push_back(std::move(entry));
}

void Report::add_sum(const Json& problem, const std::vector<Timed>& timed) {
  print_rows(problem, timed, false);
  Json entry = problem;
  for (const Timed& t : timed) entry["implementations"].push_back(describe(t, timed, false));
  out_["sums"].push_back(std::move(entry));
}

void Report::finish() {
  if (json_) print_json(out_);
}

}  // namespace atom::cli
