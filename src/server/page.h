#pragma once

#include <optional>
#include <string_view>

#include "server/http.h"

namespace atom::server {

/// Whether a file of the web page lies at this path. They are public: the page itself asks for the API key.
bool is_page_path(std::string_view path);

/// The web page at "/" and the files it consists of ("/page.css", "/page.js", ...), for GET and HEAD; nothing
/// for other paths and methods. 304 when the client has the file already. The answer to HEAD carries the same
/// body, which whoever writes the response leaves out.
std::optional<HttpResponse> page_response(const HttpRequest& request);

}  // namespace atom::server
