#include "text/normalizer.h"

#include "base/error.h"
#include "text/unicode.h"

namespace atom::text {
namespace {

/// Where a text stands, and how long it may become.
struct Place {
  TextPart part;
  size_t limit;
  bool was_empty;
};

std::string apply(const UnicodeStep& step, const std::string& text, Place) {
  return normalize_unicode(text, step.form);
}
std::string apply(const LowercaseStep&, const std::string& text, Place) {
  return lower_case(text);
}
std::string apply(const StripMarksStep&, const std::string& text, Place) {
  return strip_marks(text);
}
std::string apply(const PrependStep& step, const std::string& text, Place place) {
  const bool spared = place.part == TextPart::kAddedToken ? step.of_pieces
                                                          : step.first_only && place.part != TextPart::kBegin;
  const bool nothing = step.of_pieces ? place.was_empty : text.empty();
  return nothing || spared ? text : step.text + text;
}
std::string apply(const ReplaceStep& step, const std::string& text, Place place) {
  return replace_all(step, text, place.limit);
}
std::string apply(const StripStep& step, const std::string& text, Place) {
  const size_t begin = step.left ? white_space_at_start(text) : 0;
  const size_t end = step.right ? white_space_begin_at_end(text) : text.size();
  return begin < end ? text.substr(begin, end - begin) : "";
}
std::string apply(const CharsmapStep& step, const std::string& text, Place place) {
  return step.kept == nullptr
             ? step.map->apply(text, place.limit)
             : step.map->apply_around(*step.kept, step.remove_extra_spaces, text, place.limit);
}

}  // namespace

std::string replace_all(const ReplaceStep& step, std::string_view text, size_t limit) {
  std::string out;
  out.reserve(text.size() + text.size() / 2);
  size_t done = 0;
  const auto replace = [&](size_t begin, size_t end) {
    out.append(text.substr(done, begin - done)).append(step.content);
    require(out.size() <= limit, "text: normalization makes more than {} bytes of it", limit);
    done = end;
  };
  if (step.pattern == nullptr) {
    for (size_t i = text.find(step.text); i != std::string_view::npos; i = text.find(step.text, done))
      replace(i, i + step.text.size());
  } else if (!text.empty()) {
    std::vector<Regex::Match> matches;
    step.pattern->find_all(text, matches);
    for (const Regex::Match& match : matches) replace(match.begin, match.end);
  }
  out.append(text.substr(done));
  return out;
}

std::string normalize(const std::vector<NormalizerStep>& steps, std::string_view text, TextPart part) {
  const Place place{part, text.size() * 64 + (size_t{1} << 20), text.empty()};
  std::string result(text);
  for (const NormalizerStep& step : steps) {
    result = std::visit([&](const auto& kind) { return apply(kind, result, place); }, step);
    require(result.size() <= place.limit, "text: normalization makes more than {} bytes of it", place.limit);
  }
  return result;
}

}  // namespace atom::text
