// The `atom` binary: parses the command line, runs one subcommand, turns exceptions into one line and an exit
// code.

#include <cstdio>
#include <exception>
#include <fcntl.h>
#include <malloc.h>
#include <new>
#include <string>
#include <unistd.h>

#include "base/error.h"
#include "base/interrupt.h"
#include "common.h"
#include "tensor/memory.h"

namespace {

constexpr int kFailure = 1;
constexpr int kUsage = 2;
constexpr int kInterrupted = 130;

int report(const std::string& message, int code) {
  atom::cli::print_error(message);
  return code;
}

/// Opens /dev/null in place of standard streams that are closed: a file opened later would take their
/// numbers, and get what is printed.
void open_standard_streams() {
  int fd = 0;
  do {
    fd = ::open("/dev/null", O_RDWR);
  } while (fd >= 0 && fd <= STDERR_FILENO);
  if (fd >= 0) ::close(fd);
}

int parse_and_run(int argc, char** argv) {
  CLI::App app(
      "Atom quantizes language models to 4-bit weights, activations and KV cache, measures them and runs "
      "them.");
  app.name("atom");
  app.set_version_flag("--version", std::string("atom ") + ATOM_VERSION);
  app.require_subcommand(1);
  app.get_formatter()->column_width(34);
  app.footer(
      "Results go to standard output, everything else to standard error. Exit codes: 0 done, 1 failed, 2 "
      "wrong "
      "usage, 130 interrupted.\n`atom COMMAND --help` describes a command.");
  atom::cli::Command chosen;
  atom::cli::add_quantize(app, chosen);
  atom::cli::add_eval(app, chosen);
  atom::cli::add_generate(app, chosen);
  atom::cli::add_chat(app, chosen);
  atom::cli::add_serve(app, chosen);
  atom::cli::add_tokenize(app, chosen);
  atom::cli::add_inspect(app, chosen);
  atom::cli::add_bench(app, chosen);
  try {
    app.parse(argc, argv);
  } catch (const CLI::Success& help) {
    return app.exit(help);
  } catch (const CLI::ParseError& error) {
    // CLI11 says only that there is no command when there is one that it does not know.
    if (app.get_subcommands().empty() && argc > 1) {
      return report(fmt::format("unknown command or option '{}' (see atom --help)", atom::printable(argv[1])),
                    kUsage);
    }
    for (const char* name : {"eval", "bench"}) {
      const CLI::App* command = app.get_subcommand(name);
      if (!command->parsed() || !command->get_subcommands().empty() || argc <= 2) continue;
      return report(
          fmt::format("unknown measurement '{}' (see atom {} --help)", atom::printable(argv[2]), name),
          kUsage);
    }
    return report(error.what(), kUsage);
  }
  try {
    chosen();
  } catch (const std::exception&) {
    // Weights that read as zeros may have made for this error.
    atom::throw_if_file_lost();
    throw;
  }
  atom::throw_if_file_lost();
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  // Large buffers come from the system and go back to it. By default glibc keeps them in its heap once some
  // have been freed, where they leave holes: a tenth of the memory of `quantize`.
  mallopt(M_MMAP_THRESHOLD, 1 << 20);
  open_standard_streams();
  atom::install_interrupt_handler();
  try {
    return parse_and_run(argc, argv);
  } catch (const atom::UsageError& error) {
    return report(error.what(), kUsage);
  } catch (const atom::Interrupted& error) {
    return report(error.what(), kInterrupted);
  } catch (const atom::OutOfDeviceMemory& error) {
    return report(error.what(), kFailure);
  } catch (const std::bad_alloc&) {
    return report("out of memory", kFailure);
  } catch (const std::exception& error) {
    return report(error.what(), kFailure);
  }
}
