#include <utility>

#include "server/service.h"

namespace atom::server {
namespace {

constexpr size_t kMaxMessages = 4096;

/// The text of a message: a string, or a list of parts that are text.
std::string read_content(Fields& message) {
  constexpr std::string_view kForms = "a string or a list of text parts";
  const Json& content = message.required("content", kForms);
  const std::string path = message.path_of("content");
  if (content.is_string()) return content.get<std::string>();
  if (!content.is_array()) refuse_value(path, kForms, content);
  std::string text;
  for (size_t i = 0; i < content.size(); ++i) {
    Fields part(content[i], fmt::format("{}[{}]", path, i));
    part.required("type", "\"text\"");
    if (const std::string type = part.string("type").value(); type != "text") {
      refuse_field(part.path_of("type"),
                   fmt::format("only \"text\" is supported, found \"{}\"", printable(type, 40)),
                   "unsupported_parameter");
    }
    part.required("text", "a string");
    text += part.string("text").value();
    part.finish();
  }
  return text;
}

Json read_message(const Json& value, const std::string& path) {
  Fields fields(value, path);
  fields.required("role", "\"system\", \"developer\", \"user\" or \"assistant\"");
  std::string role = fields.string("role").value();
  if (role == "tool" || role == "function") {
    refuse_field(fields.path_of("role"), "tools are not supported", "unsupported_parameter");
  }
  if (role != "system" && role != "developer" && role != "user" && role != "assistant") {
    refuse_field(fields.path_of("role"),
                 fmt::format("expected \"system\", \"developer\", \"user\" or \"assistant\", found \"{}\"",
                             printable(role, 40)));
  }
  // Templates know no developer, which is what newer models call the system.
  if (role == "developer") role = "system";
  fields.refuse({"tool_calls", "function_call", "tool_call_id"}, "tools are not supported");
  fields.refuse({"audio"}, "audio is not supported");
  fields.refuse({"refusal"}, "refusals are not supported");
  // Clients send back the messages they got as they are.
  if (const Json* annotations = fields.find("annotations"); annotations && !annotations->empty()) {
    refuse_field(fields.path_of("annotations"), "annotations are not supported", "unsupported_parameter");
  }
  Json message = {{"role", role}, {"content", read_content(fields)}};
  if (const auto name = fields.string("name")) message["name"] = *name;
  fields.finish();
  return message;
}

}  // namespace

std::vector<int32_t> encode_chat(const Service& service, Fields& fields, Length length) {
  const Json& list = fields.required("messages", "a list of messages");
  if (!list.is_array()) refuse_value("messages", "a list of messages", list);
  if (list.empty() || list.size() > kMaxMessages) {
    refuse_field("messages", fmt::format("expected 1 to {} messages, found {}", kMaxMessages, list.size()));
  }
  if (!service.options.chat_template) {
    throw RequestError(400, "messages: this model has no chat template; use /v1/completions", "messages",
                       "unsupported_parameter");
  }
  Json messages = Json::array();
  size_t bytes = 0;
  for (size_t i = 0; i < list.size(); ++i) {
    messages.push_back(read_message(list[i], fmt::format("messages[{}]", i)));
    bytes += messages.back()["content"].get_ref<const std::string&>().size();
  }
  // What can't fit is refused before a template works on it.
  if (bytes / service.max_token_bytes > static_cast<size_t>(service.submitter->context())) {
    throw RequestError(400,
                       fmt::format("messages: this model's context is {} tokens; found {} bytes of text",
                                   service.submitter->context(), bytes),
                       "messages", "context_length_exceeded");
  }
  std::string text;
  try {
    text = service.options.chat_template->render(messages, true, service.options.template_variables);
  } catch (const Error& error) {
    throw RequestError(400, fmt::format("messages: {}", printable(error.what(), 300)), "messages");
  }
  // The template writes the special tokens itself.
  return encode_text(service, text, false, "messages", length);
}

}  // namespace atom::server
