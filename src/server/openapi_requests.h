#pragma once

#include "server/api.h"
#include "server/request_fields.h"

namespace atom::server {

/// The schemas of request bodies for openapi_description, by name.
Json request_schemas(const ApiOptions& options);

}  // namespace atom::server
