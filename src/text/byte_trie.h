#pragma once

#include <array>
#include <cstdint>
#include <string_view>
#include <vector>

namespace atom::text {

/// A set of texts, each with an index, of which the longest at a place of a text is found.
class ByteTrie {
 public:
  struct Found {
    int32_t index = -1;  ///< -1: none
    size_t length = 0;
  };

  /// Adds a text that is not empty; of equal ones the first stays. `index` is at least 0.
  void add(std::string_view content, int32_t index);
  /// The longest text that `text`, which is not empty, begins with. Takes no more steps than that has bytes.
  Found longest(std::string_view text) const;
  bool empty() const { return nodes_.empty(); }

 private:
  struct Edge {
    uint8_t byte;
    uint32_t node;
  };
  struct Node {
    int32_t index = -1;
    std::vector<Edge> edges;
  };
  std::vector<Node> nodes_;
  std::array<uint32_t, 256> first_{};  // the root's edges, 0 for none
};

}  // namespace atom::text
