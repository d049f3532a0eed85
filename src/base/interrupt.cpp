#include "base/interrupt.h"

#include <csignal>
#include <cstdint>
#include <sys/mman.h>
#include <unistd.h>

#include "base/error.h"

namespace atom {
namespace {

// A signal handler can reach nothing but a flag of static lifetime.
volatile std::sig_atomic_t interrupt_flag = 0;

void on_signal(int signal) {
  if (interrupt_flag != 0) {
    std::signal(signal, SIG_DFL);
    std::raise(signal);
  }
  interrupt_flag = 1;
}

volatile std::sig_atomic_t file_lost_flag = 0;

void on_bus_error(int, siginfo_t* info, void*) {
  const auto page = static_cast<uintptr_t>(::sysconf(_SC_PAGESIZE));
  const uintptr_t begin = reinterpret_cast<uintptr_t>(info->si_addr) / page * page;
  void* zeros =
      ::mmap(reinterpret_cast<void*>(begin), page, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
  // Without them the same access faults again, and ends the process.
  if (zeros == MAP_FAILED) std::signal(SIGBUS, SIG_DFL);
  file_lost_flag = 1;
}

}  // namespace

void install_interrupt_handler() {
  std::signal(SIGINT, on_signal);
  std::signal(SIGTERM, on_signal);
  // What `nohup` started goes on without its terminal.
  if (std::signal(SIGHUP, on_signal) == SIG_IGN) std::signal(SIGHUP, SIG_IGN);
  // A reader that went away is an error of the write, behind which temporary files are removed.
  std::signal(SIGPIPE, SIG_IGN);
  std::signal(SIGXFSZ, SIG_IGN);
  struct sigaction bus = {};
  bus.sa_sigaction = on_bus_error;
  bus.sa_flags = SA_SIGINFO;
  ::sigaction(SIGBUS, &bus, nullptr);
}

bool interrupted() {
  return interrupt_flag != 0;
}

void throw_if_interrupted() {
  throw_if_file_lost();
  if (interrupted()) throw Interrupted();
}

void throw_if_file_lost() {
  if (file_lost_flag != 0) fail("a file in use was cut short by another process, or cannot be read any more");
}

}  // namespace atom
