#pragma once

#include "../common.h"

/// The measurements of `atom bench`, each a subcommand of it.
namespace atom::cli {

void add_bench_gemm(CLI::App& bench, Command& chosen);
void add_bench_attention(CLI::App& bench, Command& chosen);
void add_bench_fused(CLI::App& bench, Command& chosen);
void add_bench_decode(CLI::App& bench, Command& chosen);
void add_bench_engine(CLI::App& bench, Command& chosen);
void add_bench_serve(CLI::App& bench, Command& chosen);
void add_bench_tokenize(CLI::App& bench, Command& chosen);

}  // namespace atom::cli
