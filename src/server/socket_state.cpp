#include "server/socket_state.h"

#include <algorithm>
#include <linux/sockios.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/ioctl.h>
#include <sys/socket.h>

namespace atom::server {
namespace {

/// Options are set as far as the system has them: without them a client that vanished is only noticed later.
void set_option(int socket, int level, int name, int value) {
  static_cast<void>(::setsockopt(socket, level, name, &value, sizeof(value)));
}

}  // namespace

void set_client_options(int socket, std::chrono::milliseconds write_timeout) {
  constexpr int kSendBuffer = 32 << 10;
  set_option(socket, IPPROTO_TCP, TCP_NODELAY, 1);
  set_option(socket, SOL_SOCKET, SO_SNDBUF, kSendBuffer);
  set_option(socket, IPPROTO_TCP, TCP_USER_TIMEOUT,
             static_cast<int>(std::clamp<int64_t>(write_timeout.count(), 1, int64_t{1} << 30)));
  set_option(socket, IPPROTO_TCP, TCP_KEEPIDLE, 1);
  set_option(socket, IPPROTO_TCP, TCP_KEEPINTVL, 1);
  set_option(socket, IPPROTO_TCP, TCP_KEEPCNT, 2);
}

void set_keepalive_probes(int socket, bool on) {
  set_option(socket, SOL_SOCKET, SO_KEEPALIVE, on ? 1 : 0);
}

int64_t unacknowledged_bytes(int socket) {
  int bytes = 0;
  return ::ioctl(socket, SIOCOUTQ, &bytes) == 0 ? bytes : 0;
}

bool is_broken(int socket) {
  pollfd poll = {socket, 0, 0};
  return ::poll(&poll, 1, 0) > 0 && (poll.revents & (POLLERR | POLLHUP | POLLNVAL)) != 0;
}

}  // namespace atom::server
