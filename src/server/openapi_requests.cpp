#include "server/openapi_requests.h"

#include <limits>

#include "engine/request.h"
#include "server/generation_fields.h"

namespace atom::server {
namespace {

Json nullable(Json schema) {
  schema["type"] = {schema.at("type"), "null"};
  return schema;
}

Json integer(int64_t min, int64_t max) {
  return nullable({{"type", "integer"}, {"minimum", min}, {"maximum", max}});
}

Json number(double min, double max) {
  return nullable({{"type", "number"}, {"minimum", min}, {"maximum", max}});
}

Json boolean() {
  return {{"type", {"boolean", "null"}}};
}

Json string() {
  return {{"type", {"string", "null"}}};
}

Json token_ids(size_t min, size_t max) {
  Json list = {
      {"type", "array"},
      {"items", {{"type", "integer"}, {"minimum", 0}, {"maximum", std::numeric_limits<int32_t>::max()}}},
      {"minItems", min}};
  if (max > 0) list["maxItems"] = max;
  return list;
}

Json object(Json required, Json properties) {
  return {{"type", "object"},
          {"required", std::move(required)},
          {"properties", std::move(properties)},
          {"additionalProperties", false}};
}

Json model_name(const ApiOptions& options) {
  return {{"type", "string"}, {"enum", {options.model_name}}};
}

/// The members of GenerationFields.
Json generation_properties(const ApiOptions& options) {
  constexpr int64_t kInt64Min = std::numeric_limits<int64_t>::min();
  constexpr int64_t kInt64Max = std::numeric_limits<int64_t>::max();
  const Json stop = {{"type", "string"}, {"minLength", 1}, {"maxLength", kMaxStopBytes}};
  return {
      {"model", model_name(options)},
      {"n", integer(1, options.max_choices)},
      {"temperature", number(0, 100)},
      {"top_p", nullable({{"type", "number"}, {"exclusiveMinimum", 0}, {"maximum", 1}})},
      {"top_k", integer(-1, std::numeric_limits<int32_t>::max())},
      {"min_p", number(0, 1)},
      {"presence_penalty", number(-2, 2)},
      {"frequency_penalty", number(-2, 2)},
      {"repetition_penalty", number(0.01, 100)},
      {"logit_bias",
       {{"type", {"object", "null"}},
        {"description", "Token ids as keys."},
        {"maxProperties", kMaxLogitBias},
        {"propertyNames", {{"pattern", "^[0-9]+$"}}},
        {"additionalProperties", {{"type", "number"}, {"minimum", -100}, {"maximum", 100}}}}},
      {"seed", integer(kInt64Min, kInt64Max)},
      {"stop",
       {{"oneOf",
         {stop, {{"type", "array"}, {"items", stop}, {"maxItems", kMaxStops}}, {{"type", "null"}}}}}},
      {"stop_token_ids", nullable(token_ids(0, kMaxStopIds))},
      {"ignore_eos", boolean()},
      {"skip_special_tokens", boolean()},
      {"return_token_ids", boolean()},
      {"stream", boolean()},
      {"stream_options",
       nullable(object(Json::array(), {{"include_usage", boolean()},
                                       {"include_obfuscation", {{"description", "Ignored."}}}}))},
      {"user", string()},
      {"safety_identifier", string()},
      {"prompt_cache_key", string()},
      {"prompt_cache_retention", string()},
      {"metadata", {{"type", {"object", "null"}}}},
      {"store", {{"enum", {false, nullptr}}}},
      {"service_tier", {{"enum", {"auto", "default", nullptr}}}},
  };
}

Json completion_schema(const ApiOptions& options) {
  Json properties = generation_properties(options);
  const Json text = {{"type", "string"}};
  properties["prompt"] = {
      {"oneOf",
       {text,
        {{"type", "array"}, {"items", text}, {"minItems", 1}, {"maxItems", options.max_choices}},
        token_ids(1, 0),
        {{"type", "array"},
         {"items", token_ids(1, 0)},
         {"minItems", 1},
         {"maxItems", options.max_choices}}}}};
  properties["max_tokens"] = integer(0, std::numeric_limits<int32_t>::max());
  properties["max_tokens"]["default"] = options.default_max_tokens;
  properties["logprobs"] = integer(0, kMaxTopLogprobs);
  properties["echo"] = boolean();
  properties["add_special_tokens"] = boolean();
  properties["best_of"] = integer(1, options.max_choices);
  properties["best_of"]["description"] = "Only the value of n.";
  properties["suffix"] = {{"type", "null"}};
  return object({"model", "prompt"}, std::move(properties));
}

Json chat_schema(const ApiOptions& options) {
  Json properties = generation_properties(options);
  properties["messages"] = {{"$ref", "#/components/schemas/Messages"}};
  properties["max_tokens"] = integer(1, std::numeric_limits<int32_t>::max());
  properties["max_completion_tokens"] = integer(1, std::numeric_limits<int32_t>::max());
  properties["logprobs"] = boolean();
  properties["top_logprobs"] = integer(0, kMaxTopLogprobs);
  properties["response_format"] =
      nullable(object({"type"}, {{"type", {{"type", "string"}, {"enum", {"text"}}}}}));
  properties["tool_choice"] = {{"enum", {"none", nullptr}}};
  properties["modalities"] = {{"enum", {Json::array({"text"}), nullptr}}};
  for (const char* name : {"tools", "functions", "function_call", "parallel_tool_calls", "audio",
                           "prediction", "web_search_options", "reasoning_effort", "verbosity"}) {
    properties[name] = {{"type", "null"}, {"description", "Not supported."}};
  }
  return object({"model", "messages"}, std::move(properties));
}

Json message_schema() {
  const Json part = object(
      {"type", "text"}, {{"type", {{"type", "string"}, {"enum", {"text"}}}}, {"text", {{"type", "string"}}}});
  Json properties = {
      {"role", {{"type", "string"}, {"enum", {"system", "developer", "user", "assistant"}}}},
      {"content", {{"oneOf", {{{"type", "string"}}, {{"type", "array"}, {"items", part}}}}}},
      {"name", string()},
      {"annotations", {{"type", {"array", "null"}}, {"maxItems", 0}}},
  };
  for (const char* name : {"tool_calls", "function_call", "tool_call_id", "audio", "refusal"}) {
    properties[name] = {{"type", "null"}};
  }
  return object({"role", "content"}, std::move(properties));
}

}  // namespace

Json request_schemas(const ApiOptions& options) {
  const Json messages = {{"type", "array"},
                         {"items", {{"$ref", "#/components/schemas/Message"}}},
                         {"minItems", 1},
                         {"maxItems", 4096}};
  const Json tokenize_text = object(
      {"prompt"},
      {{"model", model_name(options)}, {"prompt", {{"type", "string"}}}, {"add_special_tokens", boolean()}});
  const Json tokenize_chat =
      object({"messages"},
             {{"model", model_name(options)}, {"messages", {{"$ref", "#/components/schemas/Messages"}}}});
  return {{"CompletionRequest", completion_schema(options)},
          {"ChatRequest", chat_schema(options)},
          {"Message", message_schema()},
          {"Messages", messages},
          {"TokenizeRequest", {{"oneOf", {tokenize_text, tokenize_chat}}}},
          {"DetokenizeRequest",
           object({"tokens"}, {{"model", model_name(options)}, {"tokens", token_ids(0, 0)}})}};
}

}  // namespace atom::server
