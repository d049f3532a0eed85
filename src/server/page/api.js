// What the page asks of the server.

import {readEvents} from "./events.js";
import {apiKey} from "./settings.js";

export class ServerError extends Error {
  constructor(message, status = 0, retryAfter = "") {
    super(message);
    this.status = status;  // 0: no answer, or an error in the middle of a stream
    this.retryAfter = retryAfter;  // seconds, as text; empty when the server does not say
  }
}

// A response that is not an error. Throws ServerError, or AbortError when `signal` says so.
async function ask(path, options = {}) {
  const headers = {...options.headers};
  if (apiKey()) headers.Authorization = `Bearer ${apiKey()}`;
  let response;
  try {
    response = await fetch(path, {...options, headers});
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new ServerError("The server can't be reached.");
  }
  if (response.ok) return response;
  const text = await response.text();
  let message = text.slice(0, 500) || response.statusText || `Status ${response.status}`;
  try {
    message = JSON.parse(text).error.message ?? message;
  } catch {
    // Not OpenAI's form, as from a proxy: shown as it is.
  }
  throw new ServerError(message, response.status, response.headers.get("Retry-After") ?? "");
}

export async function fetchMetrics() {
  return (await ask("/metrics")).text();
}

export async function fetchModel() {
  const models = await (await ask("/v1/models")).json();
  return models.data[0].id;
}

// Sends a conversation; calls onText with each piece of the answer. Returns {usage, reason}, as far as the
// server told them.
export async function streamAnswer({model, messages, options, signal, onText}) {
  const response = await ask("/v1/chat/completions", {
    method: "POST",
    headers: {"Content-Type": "application/json"},
    body: JSON.stringify({model, messages, ...options, stream: true, stream_options: {include_usage: true}}),
    signal,
  });
  let usage = null, reason = null;
  try {
    for await (const data of readEvents(response.body)) {
      if (data === "[DONE]") return {usage, reason};
      const event = JSON.parse(data);
      if (event.error) throw new ServerError(event.error.message ?? "The server reported an error.");
      usage = event.usage ?? usage;
      const choice = event.choices?.[0];
      reason = choice?.finish_reason ?? reason;
      if (choice?.delta?.content) onText(choice.delta.content);
    }
  } catch (error) {
    if (error.name === "AbortError" || error instanceof ServerError) throw error;
    throw new ServerError("The connection broke off in the middle of the answer.");
  }
  throw new ServerError("The answer ended too early.");
}
