#include "text/regex.h"

#include <algorithm>
#include <chrono>
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

// Steps of backtracking in one search, in proportion to the text: patterns in use take a few for each byte.
constexpr size_t kStepsPerByte = 100;
constexpr size_t kLeastSteps = 1000;
constexpr size_t kMostSteps = 20'000'000;
/// Of patterns whose steps are counted one by one.
constexpr size_t kMostCountedSteps = 300'000;
constexpr uint32_t kHeapLimitKiB = 64 * 1024;
constexpr size_t kMaxPatternBytes = 64 * 1024;
// Places that one search tries before the time is looked at.
constexpr size_t kStretch = 256;
constexpr size_t kCountedStretch = 8;

/// Stops patterns that look far ahead, or back, from every place of a text: a search of its own is within the
/// limits there, but all of them take the square of the text. Time is the thread's own, so that a busy
/// machine does not count.
class TimeLimit {
 public:
  explicit TimeLimit(size_t bytes) : seconds_(kSeconds + kSecondsPerByte * static_cast<double>(bytes)) {}

  bool is_over() {
    if ((++calls_ & 3) != 0) return false;
    const auto now = std::chrono::steady_clock::now();
    if (now - looked_ < std::chrono::milliseconds(50)) return false;
    looked_ = now;
    return thread_seconds() - begin_ > seconds_;
  }

 private:
  // Far more than any pre-tokenizer in use takes: some 50 ns for each byte.
  static constexpr double kSeconds = 0.2;
  static constexpr double kSecondsPerByte = 2e-6;

  static double thread_seconds() {
    timespec time{};
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &time);
    return static_cast<double>(time.tv_sec) + 1e-9 * static_cast<double>(time.tv_nsec);
  }

  double seconds_;
  double begin_ = thread_seconds();
  std::chrono::steady_clock::time_point looked_ = std::chrono::steady_clock::now();
  uint32_t calls_ = 0;
};

/// Whether a repeat takes as little as it can (`*?`). The JIT goes round such a repeat without counting.
bool has_lazy_repeat(std::string_view pattern) {
  bool in_class = false;
  for (size_t i = 0; i + 1 < pattern.size(); ++i) {
    const char c = pattern[i];
    if (c == '\\') {
      ++i;
    } else if (in_class) {
      in_class = c != ']';
    } else if (c == '[') {
      in_class = true;
    } else if ((c == '*' || c == '+' || c == '?' || c == '}') && pattern[i + 1] == '?') {
      return true;
    }
  }
  return false;
}

std::string error_text(int code) {
  PCRE2_UCHAR buffer[256];
  pcre2_get_error_message(code, buffer, sizeof(buffer));
  return reinterpret_cast<const char*>(buffer);
}

}  // namespace

struct Regex::Code {
  pcre2_code* code = nullptr;
  std::string field;
  bool counted = false;
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
  const uint32_t options =
      PCRE2_UTF | PCRE2_UCP | PCRE2_MULTILINE | PCRE2_NEVER_BACKSLASH_C | PCRE2_USE_OFFSET_LIMIT;
  code_->code = pcre2_compile(reinterpret_cast<PCRE2_SPTR>(pattern.data()), pattern.size(), options, &error,
                              &offset, context.get());
  require(code_->code != nullptr, "{}: pattern \"{}\" does not compile at byte {}: {}", code_->field,
          printable(pattern), offset, error_text(error));
  // Without a JIT (another processor, or no executable memory) pcre2_match interprets: slower, same matches.
  code_->counted = has_lazy_repeat(pattern);
  if (!code_->counted) pcre2_jit_compile(code_->code, PCRE2_JIT_COMPLETE);
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
  const size_t most_steps = code_->counted ? kMostCountedSteps : kMostSteps;
  const size_t stretch = code_->counted ? kCountedStretch : kStretch;
  pcre2_set_match_limit(
      context.get(), static_cast<uint32_t>(std::min(kLeastSteps + kStepsPerByte * text.size(), most_steps)));
  pcre2_set_heap_limit(context.get(), kHeapLimitKiB);

  const auto* subject = reinterpret_cast<PCRE2_SPTR>(text.data());
  size_t start = 0;
  size_t last_end = std::string_view::npos;
  TimeLimit limit(text.size());
  while (start <= text.size()) {
    require(!limit.is_over(), "{}: pattern takes too long on a text of {} bytes", code_->field, text.size());
    const size_t last_start = std::min(start + stretch, text.size());
    pcre2_set_offset_limit(context.get(), last_start);
    int rc =
        pcre2_match(code_->code, subject, text.size(), start, PCRE2_NO_UTF_CHECK, data.get(), context.get());
    if (rc == PCRE2_ERROR_JIT_STACKLIMIT) {
      rc = pcre2_match(code_->code, subject, text.size(), start, PCRE2_NO_UTF_CHECK | PCRE2_NO_JIT,
                       data.get(), context.get());
    }
    if (rc == PCRE2_ERROR_NOMATCH) {
      start = last_start + 1;
      while (start < text.size() && (static_cast<uint8_t>(text[start]) & 0xC0) == 0x80) ++start;
      continue;
    }
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
