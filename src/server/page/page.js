// The page: a conversation with the model. Settings, requests and the live panel are modules of their own.

import {fetchMetrics, fetchModel, streamAnswer} from "./api.js";
import {show} from "./format.js";
import {LivePanel} from "./live.js";
import {apiKey, requestOptions, SettingsDialog, systemMessage} from "./settings.js";

const kStoredChat = "atom.chat";  // in sessionStorage: survives a reload
const kStoredTheme = "atom.theme";  // in localStorage; absent: that of the system

const element = id => document.getElementById(id);
const messages = element("messages");
const input = element("message");
const send = element("send");

let model = null;
let conversation = [];  // {role, content, note?}, as requests carry them (without the note)
let running = null;  // AbortController of the answer that is coming in
let retry = null;  // what to do again once the server has its key

function button(label, action) {
  const made = document.createElement("button");
  made.type = "button";
  made.textContent = label;
  made.addEventListener("click", action);
  return made;
}

function say(status) {
  element("status").textContent = status;
}

// --- Messages on the page ---------------------------------------------------------------------------------

function atBottom() {
  return messages.scrollHeight - messages.scrollTop - messages.clientHeight < 40;
}

function scrollDown() {
  messages.scrollTop = messages.scrollHeight;
}

// Adds the element of a message: {article, text, foot}.
function addMessage({role, content, note}) {
  element("welcome").hidden = true;
  const article = document.createElement("article");
  article.className = role;
  const name = document.createElement("h3");
  name.className = "hidden";
  name.textContent = role === "user" ? "You" : "Model";
  const text = document.createElement("div");
  text.className = "text";
  const foot = document.createElement("footer");
  article.append(name, text, foot);
  messages.append(article);
  if (role === "user") {
    text.textContent = content;
  } else if (content) {
    show(text, content);
    finishFoot(foot, content, note);
  }
  return {article, text, foot};
}

// Below an answer: what can be done with it, and what is to be said of it.
function finishFoot(foot, content, note) {
  const copy = button("Copy", async () => {
    try {
      await navigator.clipboard.writeText(content);
      copy.textContent = "Copied";
    } catch {
      copy.textContent = "Can't copy";  // the browser wants https, or a permission
    }
    say(copy.textContent);
    setTimeout(() => { copy.textContent = "Copy"; }, 2000);
  });
  const again = button("Regenerate", regenerate);
  again.className = "regenerate";
  const noted = document.createElement("span");
  noted.className = "note";
  noted.textContent = note ?? "";
  foot.replaceChildren(copy, again, noted);
}

function showError(foot, error) {
  const box = document.createElement("div");
  box.className = "problem";
  const said = document.createElement("p");
  said.textContent = error.message;
  box.append(said);
  if (error.status === 429) {
    const hint = document.createElement("p");
    hint.textContent = error.retryAfter
      ? `The server has more to do than it can. It asks to wait ${error.retryAfter} s.`
      : "The server has more to do than it can. Try again in a while.";
    box.append(hint);
  }
  box.append(button("Try again", regenerate));
  foot.append(box);
  say(error.message);
}

// --- Asking the model -------------------------------------------------------------------------------------

function noteOf(usage, reason, stopped, seconds) {
  const parts = [];
  if (stopped) parts.push("Stopped");
  if (reason === "length") parts.push("Cut off at the limit of tokens");
  if (usage) {
    const {prompt_tokens: read, completion_tokens: written} = usage;
    const cached = usage.prompt_tokens_details?.cached_tokens;
    parts.push(`${read} tokens read${cached ? ` (${cached} from the cache)` : ""}`, `${written} written`);
    // What comes in one piece has no speed.
    if (written > 1 && seconds > 0.02) parts.push(`${((written - 1) / seconds).toFixed(1)} tokens/s`);
  }
  return parts.join(" · ");
}

function setRunning(controller) {
  running = controller;
  send.firstElementChild.textContent = controller ? "Stop" : "Send";
  send.classList.toggle("stop", controller !== null);
  messages.setAttribute("aria-busy", String(controller !== null));  // read aloud when complete
}

// Answers the conversation, which ends with what the user said.
async function answer() {
  const controller = new AbortController();
  setRunning(controller);
  say("The model is answering");
  const {article, text, foot} = addMessage({role: "assistant"});
  article.classList.add("running");
  scrollDown();

  let content = "", first = 0, last = 0, frame = 0;
  const draw = () => {
    frame = 0;
    const follow = atBottom();
    show(text, content);
    if (follow) scrollDown();
  };
  let outcome = {}, error = null;
  try {
    model ??= await fetchModel();
    const system = systemMessage();
    outcome = await streamAnswer({
      model,
      messages: [...(system ? [{role: "system", content: system}] : []),
                 ...conversation.map(({role, content}) => ({role, content}))],
      options: requestOptions(),
      signal: controller.signal,
      onText: piece => {
        last = performance.now();
        first ||= last;
        content += piece;
        frame ||= requestAnimationFrame(draw);
      },
    });
  } catch (caught) {
    error = caught;
  }
  cancelAnimationFrame(frame);
  if (!article.isConnected) return;  // a new chat was begun meanwhile
  draw();
  article.classList.remove("running");
  setRunning(null);

  const stopped = error?.name === "AbortError";
  if (content || !error) {
    const note = noteOf(outcome.usage, outcome.reason, stopped, (last - first) / 1000);
    conversation.push({role: "assistant", content, note});
    finishFoot(foot, content, note);
    if (!content) foot.lastElementChild.textContent = `The answer is empty. ${note}`;
    say(stopped ? "Stopped" : `Answer complete. ${note}`);
  } else if (stopped) {
    foot.append(button("Try again", regenerate));
    say("Stopped");
  }
  if (error && !stopped) showError(foot, error);
  scrollDown();
  store();
  if (error?.status === 401) askForKey(regenerate);
}

// Answers once more what was said last.
function regenerate() {
  if (running || conversation.length === 0) return;
  if (conversation.at(-1).role === "assistant") conversation.pop();
  messages.lastElementChild.remove();
  input.focus();  // what had the focus is gone
  answer();
}

function submit() {
  const content = input.value.trim();
  if (running || !content) return;
  // A question that got no answer is not repeated with the next one.
  if (conversation.at(-1)?.role === "user") {
    conversation.pop();
    messages.lastElementChild.remove();
    messages.lastElementChild.remove();
  }
  input.value = "";
  fitInput();
  conversation.push({role: "user", content});
  addMessage({role: "user", content});
  answer();
}

function newChat() {
  running?.abort();
  setRunning(null);
  conversation = [];
  for (const article of messages.querySelectorAll("article")) article.remove();
  element("welcome").hidden = false;
  say("New chat");
  store();
  input.focus();
}

function store() {
  try {
    sessionStorage.setItem(kStoredChat, JSON.stringify(conversation));
  } catch {
    // Full: this chat will not survive a reload.
  }
}

function restore() {
  try {
    conversation = JSON.parse(sessionStorage.getItem(kStoredChat)) ?? [];
  } catch {
    conversation = [];
  }
  if (conversation.at(-1)?.role === "user") input.value = conversation.pop().content;
  conversation.forEach(addMessage);
  scrollDown();
}

// --- The rest of the page ---------------------------------------------------------------------------------

function askForKey(then) {
  retry = then;
  settings.open(apiKey() ? "The server does not accept this API key." : "This server wants an API key.");
}

async function greet() {
  try {
    model = await fetchModel();
    element("model").textContent = model;
    document.title = `${model} – Atom`;
  } catch (error) {
    element("model").textContent = error.status === 401 ? "API key wanted" : "not connected";
    if (error.status === 401) askForKey(null);
  }
}

function fitInput() {
  input.style.height = "auto";
  input.style.height = `${input.scrollHeight}px`;
}

function setUpTheme() {
  const root = document.documentElement;
  const system = matchMedia("(prefers-color-scheme: dark)");
  const dark = () => (root.dataset.theme ?? (system.matches ? "dark" : "light")) === "dark";
  const apply = theme => {
    if (theme) root.dataset.theme = theme; else delete root.dataset.theme;
    const label = dark() ? "Light theme" : "Dark theme";
    element("theme").setAttribute("aria-label", label);
    element("theme").title = label;
  };
  apply(localStorage.getItem(kStoredTheme));
  system.addEventListener("change", () => apply(root.dataset.theme));
  element("theme").addEventListener("click", () => {
    const theme = dark() ? "light" : "dark";
    localStorage.setItem(kStoredTheme, theme);
    apply(theme);
  });
}

setUpTheme();
const panel = new LivePanel(fetchMetrics);
const settings = new SettingsDialog(({keyChanged}) => {
  const then = retry;
  retry = null;
  if (keyChanged) {
    panel.start();
    greet();
    then?.();
  }
});
element("settings").addEventListener("close", () => { retry = null; });

element("composer").addEventListener("submit", event => {
  event.preventDefault();
  if (running) running.abort(); else submit();
});
send.addEventListener("click", event => {
  if (event.detail > 1) event.preventDefault();  // a double click shall not send and stop at once
});
input.addEventListener("keydown", event => {
  if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
  event.preventDefault();
  submit();
});
input.addEventListener("input", fitInput);
document.addEventListener("keydown", event => {
  if (event.key === "Escape" && running && !element("settings").open) running.abort();
});
element("new-chat").addEventListener("click", newChat);

restore();
fitInput();
greet();
