#include "base/interrupt.h"

#include <csignal>
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

void on_bus_error(int) {
  constexpr char kMessage[] = "error: a file in use was cut short by another process, or cannot be read\n";
  // Nothing but write and _exit is allowed here.
  [[maybe_unused]] const ssize_t written = ::write(STDERR_FILENO, kMessage, sizeof(kMessage) - 1);
  ::_exit(1);
}

}  // namespace

void install_interrupt_handler() {
  std::signal(SIGINT, on_signal);
  std::signal(SIGTERM, on_signal);
  // What `nohup` started goes on without its terminal.
  if (std::signal(SIGHUP, on_signal) == SIG_IGN) std::signal(SIGHUP, SIG_IGN);
  // A reader that went away is an error of the write, behind which temporary files are removed.
  std::signal(SIGPIPE, SIG_IGN);
  std::signal(SIGBUS, on_bus_error);
}

bool interrupted() {
  return interrupt_flag != 0;
}

void throw_if_interrupted() {
  if (interrupted()) throw Interrupted();
}

}  // namespace atom
