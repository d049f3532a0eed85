#pragma once

#include <span>
#include <string_view>

namespace atom::server {

/// A file that the build has compiled in (cmake/AtomEmbed.cmake).
struct EmbeddedFile {
  std::string_view name;    // "page/page.js"
  std::string_view sha256;  // of the content, in hexadecimal
  std::string_view content;
};

/// The files of the web page.
std::span<const EmbeddedFile> page_files();

}  // namespace atom::server
