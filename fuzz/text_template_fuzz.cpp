#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

#include "base/error.h"
#include "text/chat_template.h"
#include "text/json.h"

// Input: a template, and behind a zero byte (which may be left out) the messages as JSON.
extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string_view input(reinterpret_cast<const char*>(data), size);
  const size_t split = input.find('\0');
  try {
    const atom::text::ChatTemplate chat_template(std::string(input.substr(0, split)), "fuzz");
    nlohmann::ordered_json messages = {{{"role", "system"}, {"content", "Be kind."}},
                                       {{"role", "user"}, {"content", "H\xC3\xA9llo"}}};
    if (split != std::string_view::npos) {
      messages = atom::text::parse_ordered_json(input.substr(split + 1), "messages");
    }
    chat_template.render(messages, true,
                         {{"bos_token", "<s>"}, {"n", 3}, {"f", 0.5}, {"d", {{"k", {1, 2}}}}});
  } catch (const atom::Error&) {
  }
  return 0;
}
