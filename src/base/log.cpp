#include "base/log.h"

#include <algorithm>
#include <iterator>
#include <string_view>

#include <spdlog/pattern_formatter.h>
#include <spdlog/sinks/stdout_color_sinks.h>

#include "base/error.h"

namespace atom {
namespace {

/// The text of a message without bytes that a terminal would act on (paths may hold them).
class PrintableText : public spdlog::custom_flag_formatter {
 public:
  void format(const spdlog::details::log_msg& message, const std::tm&, spdlog::memory_buf_t& out) override {
    const std::string text =
        printable({message.payload.data(), message.payload.size()}, message.payload.size());
    out.append(text.data(), text.data() + text.size());
  }
  std::unique_ptr<custom_flag_formatter> clone() const override { return std::make_unique<PrintableText>(); }
};

}  // namespace

void init_log(const std::string& level) {
  // spdlog has other words for some levels, and takes an unknown one for "off".
  constexpr std::string_view kLevels[] = {"trace", "debug", "info", "warn", "error", "off"};
  if (std::find(std::begin(kLevels), std::end(kLevels), level) == std::end(kLevels)) {
    throw UsageError(
        fmt::format("unknown log level '{}' (trace, debug, info, warn, error, off)", printable(level)));
  }
  auto logger =
      std::make_shared<spdlog::logger>("atom", std::make_shared<spdlog::sinks::stderr_color_sink_mt>());
  auto formatter = std::make_unique<spdlog::pattern_formatter>();
  formatter->add_flag<PrintableText>('*').set_pattern("%^%l%$: %*");
  logger->set_formatter(std::move(formatter));
  logger->set_level(spdlog::level::from_str(level));
  spdlog::set_default_logger(std::move(logger));
}

}  // namespace atom
