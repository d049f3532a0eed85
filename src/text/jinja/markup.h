#pragma once

#include "text/jinja/function.h"
#include "text/jinja/value.h"

namespace atom::text::jinja {

/// The value as safe text: what is not Markup yet has & < > " ' escaped.
Value escaped(Evaluator& evaluator, const Value& value);

/// Text made of `origin`: Markup if that is.
inline Value like(const Value& origin, std::string text) {
  return origin.is_markup() ? Value(Markup{std::move(text)}) : Value(std::move(text));
}

/// A method of a Markup: its text arguments are escaped, and the text it gives is Markup again.
Value call_markup_method(Evaluator& evaluator, const Function& method, const Arguments& arguments);

}  // namespace atom::text::jinja
