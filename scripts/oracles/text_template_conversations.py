"""Conversations as clients send them, and as they should not: what text_template.py renders templates with."""
import json

WORDS = [
    "hello", "world", "What is", "é", "日本", "🙂", "\n", "  ", "it's", '"quoted"', "{{x}}", "<|im_end|>", "\t", "1+1=2",
    "<think>", "</think>", "\\n", "[INST]", "e\u0301", "\u00a0", "мир", "a, b", "# Tools", "<b>&amp;</b>", "{\"a\": 1}",
]


def text(rng):
    return " ".join(rng.choice(WORDS) for _ in range(rng.randrange(0, 8)))


def schema(rng, depth):
    kind = rng.choice(["string", "integer", "number", "boolean", "array", "object"] if depth < 3 else ["string", "integer"])
    made = {"type": kind if rng.random() < 0.9 else [kind, "null"]}
    if rng.random() < 0.6:
        made["description"] = text(rng)
    if kind == "string" and rng.random() < 0.3:
        made["enum"] = ["a", "é", "it's"][: rng.randrange(1, 4)]
    if kind == "array" and rng.random() < 0.9:
        made["items"] = schema(rng, depth + 1)
    if kind == "object":
        made["properties"] = {name: schema(rng, depth + 1) for name in rng.sample(["q", "unit", "größe", "n"], rng.randrange(0, 4))}
        if rng.random() < 0.5:
            made["required"] = list(made["properties"])[:1]
    if rng.random() < 0.1:
        made["default"] = rng.choice([None, 1, 0.5, "x", [], True])
    if rng.random() < 0.05:
        made = {"anyOf": [made, {"type": "null"}]}
    return made


def tool(rng, name):
    function = {"name": name}
    if rng.random() < 0.85:
        function["description"] = "Finds “things” & more: " + text(rng)
    if rng.random() < 0.9:
        function["parameters"] = {
            "type": "object",
            "properties": {key: schema(rng, 0) for key in rng.sample(["q", "limit", "where", "deep"], rng.randrange(0, 4))},
        }
        if rng.random() < 0.7:
            function["parameters"]["required"] = list(function["parameters"]["properties"])[:2]
    if rng.random() < 0.2:
        function["return"] = {"type": "string", "description": "what was found"}
    if rng.random() < 0.1:
        function["strict"] = True
    return {"type": "function", "function": function} if rng.random() < 0.93 else function


def arguments(rng):
    made = {}
    for key in rng.sample(["q", "n", "f", "none", "list", "map", "on"], rng.randrange(0, 5)):
        made[key] = {
            "q": text(rng), "n": rng.randrange(-9, 10**6), "f": rng.choice([0.5, 1e20, 1e-7, 3.0]), "none": None,
            "list": [1, "zwei", None, {"a": []}], "map": {"é": {"x": True}, "y": []}, "on": rng.random() < 0.5,
        }[key]
    return made


def identifier(rng):
    length = 9 if rng.random() < 0.85 else rng.choice([0, 3, 14])
    return "".join(rng.choice("abcdefghijkLMNOP0123456789") for _ in range(length))


def tool_call(rng, name, call_id):
    given = arguments(rng)
    function = {"name": name, "arguments": json.dumps(given) if rng.random() < 0.25 else given}
    call = {"id": call_id, "type": "function", "function": function}
    for key in ("id", "type"):
        if rng.random() < 0.1:
            del call[key]
    if rng.random() < 0.05:
        call = function
    return call


def content(rng, parted):
    """A string, or parts now and then where the conversation has such."""
    if not parted or rng.random() < 0.5:
        return text(rng)
    parts = [{"type": "text", "text": text(rng)} for _ in range(rng.randrange(0, 3))]
    if rng.random() < 0.3:
        parts.insert(0, rng.choice([{"type": "image"}, {"type": "image_url", "image_url": {"url": "x"}}, {"type": "video"}]))
    return parts


def assistant(rng, with_reasoning, parted):
    message = {"role": "assistant", "content": content(rng, parted)}
    if with_reasoning and rng.random() < 0.5:
        if rng.random() < 0.5:
            message["reasoning_content"] = text(rng)
        elif isinstance(message["content"], str):
            message["content"] = "<think>\n" + text(rng) + "\n</think>\n\n" + message["content"]
    if rng.random() < 0.05:
        message["tool_calls"] = rng.choice([None, []])
    return message


def tool_turn(rng, plain):
    """An assistant's calls and what came of them; a `plain` one has all that a template may ask for."""
    names = ["find", "get_weather", "größe"]
    ids = [identifier(rng) for _ in range(1 if plain or rng.random() < 0.7 else rng.randrange(2, 4))]
    call = {"role": "assistant", "content": rng.choice(["", "" if plain else None, text(rng)])}
    if not plain and rng.random() < 0.2:
        del call["content"]
    called = [rng.choice(names) for _ in ids]
    call["tool_calls"] = [tool_call(rng, name, i) for name, i in zip(called, ids)]
    results = []
    for name, call_id in zip(called, ids):
        result = {"role": "ipython" if rng.random() < 0.05 else "tool", "content": text(rng)}
        if not plain and rng.random() < 0.4:
            result["content"] = rng.choice([json.dumps({"t": 21.5, "é": [1]}), {"t": 21.5}, [{"type": "text", "text": "ok"}], 7])
        if rng.random() < 0.9:
            result["tool_call_id"] = call_id
        if rng.random() < 0.6:
            result["name"] = name
        results.append(result)
    return [call, *results]


def well_formed(rng, with_tools, with_reasoning):
    messages = []
    parted = rng.random() < 0.1
    plain = rng.random() < 0.5
    if rng.random() < 0.4:
        messages.append({"role": "system", "content": content(rng, parted)})
    for _ in range(rng.randrange(1, 5)):
        messages.append({"role": "user", "content": content(rng, parted)})
        if with_tools and rng.random() < 0.6:
            messages += tool_turn(rng, plain)
        messages.append(assistant(rng, with_reasoning, parted))
    if rng.random() < 0.6:
        messages.append({"role": "user", "content": content(rng, parted)})
    return messages


def conversation(rng, number):
    """Of every five: two plain, one with tools, one with reasoning and tools, one that is broken somewhere."""
    kind = number % 5
    messages = well_formed(rng, kind == 2 or (kind > 2 and rng.random() < 0.4), kind == 3)
    if kind != 4:
        return messages
    for _ in range(rng.randrange(1, 3)):
        damage = rng.randrange(7)
        message = rng.choice(messages) if messages else {}
        if damage == 0 and messages:
            messages.remove(message)
        elif damage == 1:
            message["role"] = rng.choice(["user", "assistant", "tool", "system", "developer", "unheard of", "", 3, None])
        elif damage == 2:
            message.pop(rng.choice(["content", "content", "role", "tool_calls", "tool_call_id"]), None)
        elif damage == 3:
            message["content"] = rng.choice([None, {"a": 1}, 3, 2.5, True, [], [None], ["text"], [{"text": "x"}]])
        elif damage == 4:
            message["tool_calls"] = rng.choice([{}, [], "x", 3, [{"function": None}], [{"function": {"name": "f"}}]])
        elif damage == 5:
            rng.shuffle(messages)
        else:
            messages = []
    return messages


def variables(rng, number):
    made = {"bos_token": "<s>", "eos_token": "</s>"}
    if number % 5 > 1 and rng.random() < 0.75:
        made["tools"] = [tool(rng, name) for name in ["find", "get_weather", "größe"][: rng.randrange(1, 4)]]
    elif rng.random() < 0.1:
        made["tools"] = []
    if rng.random() < 0.1:
        made["documents"] = [{"title": text(rng), "text": text(rng)} for _ in range(rng.randrange(0, 3))]
    optional = {
        "date_string": "1 Jan 2025", "enable_thinking": rng.random() < 0.5, "tools_in_user_message": rng.random() < 0.5,
        "add_default_system_prompt": True, "system_message": text(rng), "builtin_tools": ["code_interpreter", "search"],
        "custom_tools": [tool(rng, "own")], "preserve_thinking": True, "reasoning_effort": "high",
    }
    for name in optional:
        if rng.random() < 0.15:
            made[name] = optional[name]
    if rng.random() < 0.05:
        del made["bos_token"]
    return made
