# Writes the C++ of atom_embed (AtomEmbed.cmake): FOLDER, NAMES (separated by "|"), HEADER, FUNCTION, OUTPUT.

string(REPLACE "|" ";" NAMES "${NAMES}")
string(REGEX MATCH "^(.*)::([^:]+)$" matched "${FUNCTION}")
set(namespace ${CMAKE_MATCH_1})
set(function ${CMAKE_MATCH_2})

set(entries)
foreach(name IN LISTS NAMES)
  file(READ ${FOLDER}/${name} bytes HEX)
  file(SIZE ${FOLDER}/${name} size)
  file(SHA256 ${FOLDER}/${name} hash)
  # Lines of 32 bytes, each byte as \xNN.
  string(REGEX REPLACE "([0-9a-f][0-9a-f])" "\\\\x\\1" bytes "${bytes}")
  string(REPEAT "...." 32 line)
  string(REGEX REPLACE "(${line})" "\\1\"\n     \"" bytes "${bytes}")
  string(APPEND entries "    {\"${name}\", \"${hash}\",\n     std::string_view(\"${bytes}\", ${size})},\n")
endforeach()

file(WRITE ${OUTPUT} "// Written by cmake/embed_files.cmake.
#include \"${HEADER}\"

namespace ${namespace} {

std::span<const EmbeddedFile> ${function}() {
  static constexpr EmbeddedFile kFiles[] = {
${entries}  };
  return kFiles;
}

}  // namespace ${namespace}
")
