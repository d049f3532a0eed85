#include "server/openapi.h"

#include "server/openapi_requests.h"

namespace atom::server {
namespace {

Json ref(const std::string& name) {
  return {{"$ref", "#/components/schemas/" + name}};
}

/// Answers, as far as a client reads them.
Json reply_schemas() {
  return Json::parse(R"json({
    "Error": {"type": "object", "required": ["error"], "properties": {"error": {
      "type": "object", "required": ["message", "type", "param", "code"], "properties": {
        "message": {"type": "string"}, "type": {"type": "string"},
        "param": {"type": ["string", "null"]}, "code": {"type": ["string", "null"]}}}}},
    "Usage": {"type": "object", "required": ["prompt_tokens", "completion_tokens", "total_tokens"], "properties": {
      "prompt_tokens": {"type": "integer"}, "completion_tokens": {"type": "integer"},
      "total_tokens": {"type": "integer"}, "prompt_tokens_details": {
        "type": "object", "properties": {"cached_tokens": {"type": "integer"}}}}},
    "Completion": {"type": "object", "required": ["id", "object", "created", "model", "choices", "usage"],
      "properties": {
        "id": {"type": "string"}, "object": {"const": "text_completion"}, "created": {"type": "integer"},
        "model": {"type": "string"}, "usage": {"$ref": "#/components/schemas/Usage"},
        "choices": {"type": "array", "items": {"type": "object",
          "required": ["index", "text", "logprobs", "finish_reason"], "properties": {
            "index": {"type": "integer"}, "text": {"type": "string"},
            "finish_reason": {"enum": ["stop", "length"]},
            "token_ids": {"type": "array", "items": {"type": "integer"}},
            "logprobs": {"type": ["object", "null"], "properties": {
              "tokens": {"type": "array", "items": {"type": "string"}},
              "token_logprobs": {"type": "array", "items": {"type": ["number", "null"]}},
              "top_logprobs": {"type": "array", "items": {"type": ["object", "null"],
                "additionalProperties": {"type": "number"}}},
              "text_offset": {"type": "array", "items": {"type": "integer"}}}}}}}}},
    "TokenLogprob": {"type": "object", "required": ["token", "logprob", "bytes"], "properties": {
      "token": {"type": "string"}, "logprob": {"type": "number"},
      "bytes": {"type": "array", "items": {"type": "integer", "minimum": 0, "maximum": 255}},
      "top_logprobs": {"type": "array", "items": {"$ref": "#/components/schemas/TokenLogprob"}}}},
    "ChatCompletion": {"type": "object", "required": ["id", "object", "created", "model", "choices", "usage"],
      "properties": {
        "id": {"type": "string"}, "object": {"const": "chat.completion"}, "created": {"type": "integer"},
        "model": {"type": "string"}, "usage": {"$ref": "#/components/schemas/Usage"},
        "choices": {"type": "array", "items": {"type": "object",
          "required": ["index", "message", "logprobs", "finish_reason"], "properties": {
            "index": {"type": "integer"}, "finish_reason": {"enum": ["stop", "length"]},
            "token_ids": {"type": "array", "items": {"type": "integer"}},
            "message": {"type": "object", "required": ["role", "content"], "properties": {
              "role": {"const": "assistant"}, "content": {"type": "string"}, "refusal": {"type": "null"}}},
            "logprobs": {"type": ["object", "null"], "properties": {
              "content": {"type": "array", "items": {"$ref": "#/components/schemas/TokenLogprob"}},
              "refusal": {"type": "null"}}}}}}}},
    "Model": {"type": "object", "required": ["id", "object", "created", "owned_by"], "properties": {
      "id": {"type": "string"}, "object": {"const": "model"}, "created": {"type": "integer"},
      "owned_by": {"type": "string"}, "max_model_len": {"type": "integer"}}},
    "ModelList": {"type": "object", "required": ["object", "data"], "properties": {
      "object": {"const": "list"}, "data": {"type": "array", "items": {"$ref": "#/components/schemas/Model"}}}},
    "TokenizeReply": {"type": "object", "required": ["tokens", "count", "max_model_len"], "properties": {
      "tokens": {"type": "array", "items": {"type": "integer"}}, "count": {"type": "integer"},
      "max_model_len": {"type": "integer"}}},
    "DetokenizeReply": {"type": "object", "required": ["prompt"], "properties": {"prompt": {"type": "string"}}},
    "Status": {"type": "object", "required": ["status"], "properties": {"status": {"const": "ok"}}},
    "Anything": {"type": "object"}
  })json");
}

const char* reason_of(int status) {
  switch (status) {
    case 400:
      return "The request is not understood, or asks for what the server does not do";
    case 401:
      return "The API key is missing or wrong";
    case 404:
      return "Unknown model or path";
    case 405:
      return "Another method is expected (header Allow)";
    case 408:
      return "The request did not come in time";
    case 413:
      return "The request is too large";
    case 415:
      return "The body is not JSON";
    case 429:
      return "Too many requests wait (header Retry-After)";
    case 431:
      return "The request's headers are too large";
    case 503:
      return "The server shuts down or has failed (header Retry-After)";
    default:
      return "The server could not answer";
  }
}

Json responses(const std::string& reply, const std::vector<int>& errors) {
  Json out = {
      {"200",
       {{"description", "The answer"}, {"content", {{"application/json", {{"schema", ref(reply)}}}}}}}};
  for (const int status : errors) {
    out[std::to_string(status)] = {{"description", reason_of(status)},
                                   {"content", {{"application/json", {{"schema", ref("Error")}}}}}};
  }
  return out;
}

Json post(const char* summary, const std::string& request, const std::string& reply, bool generates) {
  std::vector<int> errors = {400, 401, 404, 405, 408, 413, 415, 431, 500};
  if (generates) errors.insert(errors.end(), {429, 503});
  Json operation = {
      {"summary", summary},
      {"requestBody", {{"required", true}, {"content", {{"application/json", {{"schema", ref(request)}}}}}}},
      {"responses", responses(reply, errors)}};
  if (generates) {
    operation["responses"]["200"]["description"] =
        "The answer; with stream: server-sent events, \"data: JSON\" each, then \"data: [DONE]\"";
    operation["responses"]["200"]["content"]["text/event-stream"] = Json::object();
  }
  return {{"post", std::move(operation)}};
}

Json get(const char* summary, const std::string& reply, const std::vector<int>& errors) {
  return {{"get", {{"summary", summary}, {"responses", responses(reply, errors)}}}};
}

}  // namespace

Json openapi_description(const ApiOptions& options) {
  Json schemas = request_schemas(options);
  schemas.update(reply_schemas());
  Json model = get("One model", "Model", {400, 401, 404, 405});
  model["get"]["parameters"] = {{{"name", "model"},
                                 {"in", "path"},
                                 {"required", true},
                                 {"schema", {{"type", "string"}, {"minLength", 1}}}}};
  Json metrics = get("Counts and times, for Prometheus", "Anything", {401, 405});
  metrics["get"]["responses"]["200"]["content"] = {{"text/plain", {{"schema", {{"type", "string"}}}}}};
  return {
      {"openapi", "3.1.0"},
      {"info",
       {{"title", "Atom"}, {"version", "1"}, {"description", "An OpenAI-compatible server of one model."}}},
      {"security", {Json::object(), {{"key", Json::array()}}}},
      {"paths",
       {{"/v1/completions", post("Goes on from prompts", "CompletionRequest", "Completion", true)},
        {"/v1/chat/completions", post("Answers a chat", "ChatRequest", "ChatCompletion", true)},
        {"/v1/models", get("The models", "ModelList", {401, 405})},
        {"/v1/models/{model}", std::move(model)},
        {"/tokenize", post("Text or chat to tokens", "TokenizeRequest", "TokenizeReply", false)},
        {"/detokenize", post("Tokens to text", "DetokenizeRequest", "DetokenizeReply", false)},
        {"/health", get("Whether the server works", "Status", {401, 405, 503})},
        {"/ready", get("Whether it takes requests", "Status", {401, 405, 503})},
        {"/metrics", std::move(metrics)},
        {"/openapi.json", get("This description", "Anything", {401, 405})}}},
      {"components",
       {{"securitySchemes", {{"key", {{"type", "http"}, {"scheme", "bearer"}}}}},
        {"schemas", std::move(schemas)}}},
  };
}

}  // namespace atom::server
