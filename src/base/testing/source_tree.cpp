#include "base/testing/source_tree.h"

namespace atom::test_support {

std::filesystem::path source_root() {
  return ATOM_SOURCE_ROOT;
}

}  // namespace atom::test_support
