#pragma once

namespace atom {

/// Makes SIGINT, SIGTERM and SIGHUP set a flag instead of ending the process; a second signal ends it at
/// once. SIGPIPE is ignored: writing to a closed pipe is an error like others. SIGBUS, which is how a mapped
/// file that was cut short or cannot be read makes itself known, ends the process with an error message.
void install_interrupt_handler();

/// Whether such a signal has arrived.
bool interrupted();

/// Throws Interrupted when such a signal has arrived. Long loops call it once per step.
void throw_if_interrupted();

}  // namespace atom
