#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace atom::text::jinja {

/// Python's str methods over UTF-8 text. Positions and lengths count code points, as in Python.

/// Bytes of white space (str.isspace) at the start.
size_t white_space_prefix(std::string_view text);
std::string_view strip_white_space_left(std::string_view text);
std::string_view strip_white_space_right(std::string_view text);
/// Strips characters of `set` instead of white space.
std::string_view strip_left(std::string_view text, std::string_view set);
std::string_view strip_right(std::string_view text, std::string_view set);

/// Where `part` begins, first or last; npos when it does not occur. Takes linear time whatever the texts,
/// which std::string_view::find does not.
size_t find_part(std::string_view text, std::string_view part);
size_t find_last_part(std::string_view text, std::string_view part);

size_t char_count(std::string_view text);
std::vector<std::string_view> chars(std::string_view text);

/// Full case mapping for ASCII; beyond it Unicode's simple mapping, the sharp s, ligatures, dotted I and
/// final sigma.
std::string upper(std::string_view text);
std::string lower(std::string_view text);
/// First character in upper case, the rest in lower case.
std::string capitalize(std::string_view text);
/// str.title(): every run of letters capitalized.
std::string title(std::string_view text);

/// str.split(): at white space.
std::vector<std::string_view> split_white_space(std::string_view text, int64_t limit);
std::vector<std::string_view> split_white_space_right(std::string_view text, int64_t limit);
/// str.split(separator), which must not be empty. `limit` below 0 is none.
std::vector<std::string_view> split(std::string_view text, std::string_view separator, int64_t limit);
std::vector<std::string_view> split_right(std::string_view text, std::string_view separator, int64_t limit);
std::vector<std::string_view> split_lines(std::string_view text, bool keep_ends);

/// str.replace(); `limit` below 0 is none. The result must stay below `max_bytes`, or Error is thrown.
std::string replace(std::string_view text, std::string_view from, std::string_view to, int64_t limit,
                    size_t max_bytes);

}  // namespace atom::text::jinja
