#pragma once

#include <chrono>
#include <cstdint>

/// What the kernel knows of a TCP connection and Asio does not ask it for.
namespace atom::server {

/// Options of a connection that has just been accepted: little is kept in the kernel for a client that does
/// not read (SO_SNDBUF), and what no client acknowledges for `write_timeout` breaks the connection
/// (TCP_USER_TIMEOUT).
void set_client_options(int socket, std::chrono::milliseconds write_timeout);

/// Probes whether a client that waits for its response is there (SO_KEEPALIVE, every second).
void set_keepalive_probes(int socket, bool on);

/// Bytes that have been written and that the client's system has not acknowledged.
int64_t unacknowledged_bytes(int socket);

/// Whether both directions are closed, or the connection has been reset.
bool is_broken(int socket);

}  // namespace atom::server
