#include "server/openapi.h"

namespace atom::server {

Json openapi_description(const ApiOptions& options) {
  return {{"openapi", "3.1.0"}};
}

}  // namespace atom::server
