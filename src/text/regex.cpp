#include "text/regex.h"

#include <algorithm>
#include <ctime>

#include "base/error.h"
#include "base/utf8.h"

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

namespace atom::text {
namespace {

struct CompileContextDeleter {
  void operator()(pcre2_compile_context* p) const { pcre2_compile_context_free(p); }
};
struct MatchContextDeleter {
  void operator()(pcre2_match_context* p) const { pcre2_match_context_free(p); }
};
struct MatchDataDeleter {
  void operator()(pcre2_match_data* p) const { pcre2_match_data_free(p); }
};

/// Steps of one match, in proportion to the text: patterns in use take a few for each byte.
constexpr size_t kStepsPerByte = 100;
constexpr size_t kLeastSteps = 1000;
constexpr size_t kMostSteps = 20'000'000;
/// Time for all matches in a text. Patterns in use take about 50 ns for each byte.
constexpr double kSecondsPerByte = 2e-6;
constexpr double kLeastSeconds = 0.1;
constexpr int kMatchesBetweenLooks = 16;

/// Processor time of this thread, in seconds: another process that takes the processor does not count.
double thread_seconds() {
  timespec now{};
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
  return static_cast<double>(now.tv_sec) + 1e-9 * static_cast<double>(now.tv_nsec);
}

constexpr uint32_t kHeapLimitKiB = 64 * 1024;
constexpr size_t kMaxPatternBytes = 64 * 1024;

std::string error_text(int code) {
  PCRE2_UCHAR buffer[256];
  pcre2_get_error_message(code, buffer, sizeof(buffer));
  return reinterpret_cast<const char*>(buffer);
}

}  // namespace

struct Regex::Code {
  pcre2_code* code = nullptr;
  std::string field;
  ~Code() { pcre2_code_free(code); }
};

Regex::Regex(std::string_view pattern, std::string field) : code_(std::make_unique<Code>()) {
  code_->field = std::move(field);
  require(pattern.size() <= kMaxPatternBytes, "{}: expected a pattern of at most {} bytes, found {}",
          code_->field, kMaxPatternBytes, pattern.size());
  const std::unique_ptr<pcre2_compile_context, CompileContextDeleter> context(
      pcre2_compile_context_create(nullptr));
  if (context == nullptr) throw std::bad_alloc();
  pcre2_set_newline(context.get(), PCRE2_NEWLINE_LF);
  pcre2_set_parens_nest_limit(context.get(), 100);
  int error = 0;
  PCRE2_SIZE offset = 0;
  const uint32_t options = PCRE2_UTF | PCRE2_UCP | PCRE2_MULTILINE | PCRE2_NEVER_BACKSLASH_C;
  code_->code = pcre2_compile(reinterpret_cast<PCRE2_SPTR>(pattern.data()), pattern.size(), options, &error,
                              &offset, context.get());
  require(code_->code != nullptr, "{}: pattern \"{}\" does not compile at byte {}: {}", code_->field,
          printable(pattern), offset, error_text(error));
  // Without a JIT (another processor, or no executable memory) pcre2_match interprets: slower, same matches.
  pcre2_jit_compile(code_->code, PCRE2_JIT_COMPLETE);
}

Regex::~Regex() = default;
Regex::Regex(Regex&&) noexcept = default;
Regex& Regex::operator=(Regex&&) noexcept = default;

void Regex::find_all(std::string_view text, std::vector<Match>& out) const {
  const std::unique_ptr<pcre2_match_data, MatchDataDeleter> data(
      pcre2_match_data_create_from_pattern(code_->code, nullptr));
  const std::unique_ptr<pcre2_match_context, MatchContextDeleter> context(
      pcre2_match_context_create(nullptr));
  if (data == nullptr || context == nullptr) throw std::bad_alloc();
  pcre2_set_match_limit(
      context.get(), static_cast<uint32_t>(std::min(kLeastSteps + kStepsPerByte * text.size(), kMostSteps)));
  pcre2_set_heap_limit(context.get(), kHeapLimitKiB);

  const auto* subject = reinterpret_cast<PCRE2_SPTR>(text.data());
  size_t start = 0;
  size_t last_end = std::string_view::npos;
  double deadline = 0;  // set at the first look: most texts end before it
  int matches = 0;
  while (start <= text.size()) {
    if (++matches % kMatchesBetweenLooks == 0) {
      const double now = thread_seconds();
      if (deadline == 0) deadline = now + kLeastSeconds + kSecondsPerByte * static_cast<double>(text.size());
      require(now < deadline, "{}: pattern takes too long for a text of {} bytes", code_->field, text.size());
    }
    int rc =
        pcre2_match(code_->code, subject, text.size(), start, PCRE2_NO_UTF_CHECK, data.get(), context.get());
    if (rc == PCRE2_ERROR_JIT_STACKLIMIT) {
      rc = pcre2_match(code_->code, subject, text.size(), start, PCRE2_NO_UTF_CHECK | PCRE2_NO_JIT,
                       data.get(), context.get());
    }
    if (rc == PCRE2_ERROR_NOMATCH) return;
    require(rc >= 0, "{}: pattern cannot be matched against a text of {} bytes: {}", code_->field,
            text.size(), error_text(rc));
    const PCRE2_SIZE* ovector = pcre2_get_ovector_pointer(data.get());
    const Match match{ovector[0], ovector[1]};
    require(match.begin <= match.end && match.begin >= start,
            "{}: pattern ends a match before it begins (\\K)", code_->field);
    if (match.begin == match.end && match.end == last_end) {
      start += start < text.size() ? decode_utf8(text.substr(start)).length : 1;
      continue;
    }
    out.push_back(match);
    start = last_end = match.end;
  }
}

std::string escape_regex(std::string_view text) {
  std::string out;
  for (const char c : text) {
    if (std::string_view("\\.+*?()|[]{}^$#&-~ \t\n").find(c) != std::string_view::npos) out += '\\';
    out += c;
  }
  return out;
}

}  // namespace atom::text
