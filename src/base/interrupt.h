#pragma once

namespace atom {

/// Makes SIGINT, SIGTERM and SIGHUP set a flag instead of ending the process; a second signal ends it at
/// once. SIGPIPE and SIGXFSZ are ignored: writing to a closed pipe or beyond the limit of a file's size is an
/// error like others. SIGBUS, which is how a mapped file that was cut short or cannot be read makes itself
/// known, puts zeros in the place of what is lost and sets another flag.
void install_interrupt_handler();

/// Whether such a signal has arrived.
bool interrupted();

/// Throws Interrupted when such a signal has arrived, and Error as throw_if_file_lost does. Long loops call
/// it once per step.
void throw_if_interrupted();

/// Throws Error when a mapped file lost its contents while it was in use: whatever was computed since then is
/// worthless.
void throw_if_file_lost();

}  // namespace atom
