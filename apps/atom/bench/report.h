#pragma once

#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

#include "../common.h"
#include "limits.h"
#include "timing.h"

namespace atom::cli {

/// What all benchmarks are asked.
struct BenchOptions {
  OutputOptions output;
  DeviceOptions device;
  double seconds = 0.3;
  std::string plot;

  void add_to(CLI::App& command);
};

/// What a result has to say about where it comes from: command, version, commit, time.
Json describe_program(const std::string& what);
/// The same, and device and threads.
Json describe_run(const std::string& what, const Device& device);

/// A curve of a plot.
struct Curve {
  std::string name;
  std::vector<double> x;
  std::vector<double> y;
};

/// Throws Error unless the folder that `path` is to be written to is there; an empty path is fine.
void check_plot(const std::string& path);

/// A diagram with its own axes; x is logarithmic.
struct Panel {
  std::string title;
  std::vector<Curve> curves;
};

/// Adds how many times faster than `baseline` each of `timed` is, at `x`. Nothing where there is no baseline.
void add_points(Panel& panel, double x, const std::vector<Timed>& timed, std::string_view baseline);

/// Panels below each other as an SVG file (written as write_file does). A line at y = 1 marks the baseline.
void write_plot(const std::filesystem::path& path, const std::string& x_label, const std::string& y_label,
                const std::vector<Panel>& panels);

/// Collects what a benchmark measures: prints a table as it goes along, and one JSON object at the end.
class Report {
 public:
  /// Measures the machine's limits. `bandwidth` is the one that shares of bandwidth refer to: "read" or
  /// "copy"; `baselines` are the names whose ratios are reported.
  Report(const BenchOptions& options, const Device& device, std::string what, std::string bandwidth,
         std::vector<std::string> baselines);

  /// Adds one problem: the fields that say what it is, and what was measured.
  void add(const Json& problem, const std::vector<Timed>& timed);
  /// Adds times summed over several problems, such as the layers of a model.
  void add_sum(const Json& problem, const std::vector<Timed>& timed);
  /// Prints the JSON object where it was asked for.
  void finish();

 private:
  Json describe(const Timed& timed, const std::vector<Timed>& all, bool with_rates) const;
  Json ratios(const Timed& timed, const std::vector<Timed>& all) const;
  void print_rows(const Json& problem, const std::vector<Timed>& timed, bool with_rates) const;
  void line(const std::string& text) const;

  bool json_;
  std::string bandwidth_;
  std::vector<std::string> baselines_;
  Limits limits_;
  Json out_;
};

/// `all` of that name; null when there is none.
const Timed* find(const std::vector<Timed>& all, std::string_view name);

}  // namespace atom::cli
