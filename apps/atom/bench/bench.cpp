// atom bench: speed of the kernels beside their baselines, and of servers, measured in one run.

#include "bench.h"

namespace atom::cli {

void add_bench(CLI::App& app, Command& chosen) {
  CLI::App* command = app.add_subcommand("bench", "Measure the kernels beside their baselines, or servers");
  command->require_subcommand(1);
  command->footer(
      "`serve` sends traffic to servers, `tokenize` is about text alone. Of the others: all implementations "
      "of a problem take turns in one "
      "run; what is printed are medians. Operands rotate "
      "over "
      "enough copies to come from memory, as far as a limit on their number goes: small ones stay in a "
      "cache. Before anything else the run measures what the machine can do at "
      "most, "
      "which shares refer to.");
  add_bench_gemm(*command, chosen);
  add_bench_attention(*command, chosen);
  add_bench_fused(*command, chosen);
  add_bench_decode(*command, chosen);
  add_bench_engine(*command, chosen);
  add_bench_serve(*command, chosen);
  add_bench_tokenize(*command, chosen);
}

}  // namespace atom::cli
