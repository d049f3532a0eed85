# atom_embed(TARGET HEADER FUNCTION file...): compiles files of this folder into a library. HEADER (as in #include)
# declares `struct EmbeddedFile { std::string_view name, sha256, content; };` and FUNCTION, with its namespace:
# `std::span<const EmbeddedFile> FUNCTION();` gives the files in this order, with their names as they are given here and
# their hashes in hexadecimal. Compiled again when a file changes. One call a folder.
function(atom_embed target header function)
  set(output ${CMAKE_CURRENT_BINARY_DIR}/embedded_files.cpp)
  set(script ${PROJECT_SOURCE_DIR}/cmake/embed_files.cmake)
  set(files ${ARGN})
  list(TRANSFORM files PREPEND ${CMAKE_CURRENT_SOURCE_DIR}/ OUTPUT_VARIABLE paths)
  list(JOIN files "|" names)  # a list would not survive the command line
  add_custom_command(OUTPUT ${output}
    COMMAND ${CMAKE_COMMAND} -D FOLDER=${CMAKE_CURRENT_SOURCE_DIR} -D NAMES=${names} -D HEADER=${header}
            -D FUNCTION=${function} -D OUTPUT=${output} -P ${script}
    DEPENDS ${paths} ${script} COMMENT "Embedding files of ${target}" VERBATIM)
  target_sources(${target} PRIVATE ${output})
endfunction()
