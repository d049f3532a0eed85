#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <string>
#include <string_view>

#include "server/request_head.h"
#include "server/request_reader.h"

// Input: what a client sends. It is read as requests one after another, once whole and once in pieces of the
// size that the first byte says; both must come to the same.
namespace {

using atom::server::RequestReader;

struct Seen {
  size_t requests = 0;
  size_t body_bytes = 0;
  unsigned refused = 0;
  /// Whether the last request is cut off.
  bool unfinished = false;
};

/// Pieces may change which fault or limit is found first (the parser counts a chunk again when it comes back
/// to its header), and whether a request that is cut off is refused already or waited for. Nothing else.
bool agree(const Seen& a, const Seen& b) {
  if (a.refused == 431 || b.refused == 431) return true;
  if (a.requests != b.requests || a.body_bytes != b.body_bytes) return false;
  return (a.refused != 0 || a.unfinished) == (b.refused != 0 || b.unfinished);
}

Seen read_all(std::string_view bytes, size_t piece) {
  constexpr int64_t kHeaderBytes = 1 << 12, kBodyBytes = 1 << 14;
  Seen seen;
  RequestReader reader(kHeaderBytes, kBodyBytes);
  std::string waiting;
  while (!bytes.empty()) {
    waiting += bytes.substr(0, piece);
    bytes.remove_prefix(std::min(piece, bytes.size()));
    std::string_view rest = waiting;
    while (true) {
      seen.unfinished = true;
      const RequestReader::Event event = reader.read(rest);
      if (event == RequestReader::Event::need_more) break;
      if (event == RequestReader::Event::head) continue;
      if (event == RequestReader::Event::refused) {
        seen.refused = reader.refusal().status;
        return seen;
      }
      const auto& request = reader.request();
      static_cast<void>(atom::server::bearer_token(request.header("authorization")));
      static_cast<void>(atom::server::is_token_list(request.header("access-control-request-headers")));
      if (request.body.size() > static_cast<size_t>(kBodyBytes)) std::abort();
      ++seen.requests;
      seen.body_bytes += request.body.size();
      seen.unfinished = false;
      reader = RequestReader(kHeaderBytes, kBodyBytes);
      if (rest.empty()) break;
    }
    waiting.erase(0, waiting.size() - rest.size());
  }
  return seen;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size == 0) return 0;
  const std::string_view input(reinterpret_cast<const char*>(data + 1), size - 1);
  const size_t piece = static_cast<size_t>(data[0]) + 1;
  if (!agree(read_all(input, size), read_all(input, piece))) std::abort();
  return 0;
}
