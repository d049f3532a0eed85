#pragma once

#include <vector>

#include "text/decoder.h"
#include "text/json_field.h"
#include "text/normalizer.h"
#include "text/pre_tokenizer.h"

namespace atom::text {

// Readers of the parts of a tokenizer.json. They throw Error naming the field for what is malformed and for
// what is not supported.

std::vector<NormalizerStep> read_normalizer(const Field& field);
std::vector<PreTokenizerStep> read_pre_tokenizer(const Field& field);
TokenDecoder read_decoder(const Field& field);

/// Where Metaspace puts a mark in front: the members prepend_scheme and add_prefix_space.
MetaspaceStep::Prepend read_prepend_scheme(const Field& field);

/// Whether the steps turn words into bytes.
bool is_byte_level(const std::vector<PreTokenizerStep>& steps);

/// The members pattern (a `String`, or a `Regex` in Oniguruma's dialect) and content.
ReplaceStep read_replace(const Field& field);

/// A pattern alone, as a regular expression.
Regex read_pattern(const Field& field);

/// A member that has to be one character.
std::string read_character(const Field& field);

}  // namespace atom::text
