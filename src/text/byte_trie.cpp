#include "text/byte_trie.h"

#include <algorithm>

namespace atom::text {

void ByteTrie::add(std::string_view content, int32_t index) {
  if (nodes_.empty()) nodes_.emplace_back();
  uint32_t node = 0;
  for (const char c : content) {
    const auto byte = static_cast<uint8_t>(c);
    const auto& edges = nodes_[node].edges;
    const auto edge = std::find_if(edges.begin(), edges.end(), [&](const Edge& e) { return e.byte == byte; });
    if (edge != edges.end()) {
      node = edge->node;
      continue;
    }
    const auto next = static_cast<uint32_t>(nodes_.size());
    nodes_.emplace_back();
    nodes_[node].edges.push_back({byte, next});
    if (node == 0) first_[byte] = next;
    node = next;
  }
  if (nodes_[node].index < 0) nodes_[node].index = index;
}

ByteTrie::Found ByteTrie::longest(std::string_view text) const {
  uint32_t node = first_[static_cast<uint8_t>(text[0])];
  Found found;
  for (size_t i = 1; node != 0; ++i) {
    if (nodes_[node].index >= 0) found = {nodes_[node].index, i};
    if (i == text.size()) break;
    const auto byte = static_cast<uint8_t>(text[i]);
    uint32_t next = 0;
    for (const Edge& edge : nodes_[node].edges) {
      if (edge.byte == byte) next = edge.node;
    }
    node = next;
  }
  return found;
}

}  // namespace atom::text
