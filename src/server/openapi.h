#pragma once

#include "server/api.h"
#include "server/request_fields.h"

namespace atom::server {

/// An OpenAPI 3.1 description of the API as it stands: every field that a request may have, every status that
/// an answer may have.
Json openapi_description(const ApiOptions& options);

}  // namespace atom::server
