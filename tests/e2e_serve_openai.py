"""The openai client, unchanged, against `atom serve`: every parameter that the server takes, synchronous and not."""

import asyncio
import math
import re
import time

import openai
import pytest

from serve_fixture import TINY_MODEL, Server

KEY = "a-key-of-the-test"
PROMPT = "Once upon a time"


@pytest.fixture(scope="module", name="server")
def fixture_server():
    with Server(TINY_MODEL, "--check-blocks", api_key=KEY) as server:
        yield server


def make_client(server, kind=openai.OpenAI, **options):
    return kind(**{"base_url": server.url + "/v1", "api_key": server.api_key or "none", "max_retries": 0, "timeout": 120, **options})


@pytest.fixture(scope="module", name="client")
def fixture_client(server):
    with make_client(server) as client:
        yield client


@pytest.fixture(name="complete")
def fixture_complete(client, server):
    """Greedy /v1/completions of 12 tokens that end_of_text does not cut, unless told otherwise."""

    def complete(prompt=PROMPT, **fields):
        extra = {"ignore_eos": True, **fields.pop("extra_body", {})}
        return client.completions.create(
            **{"model": server.model, "prompt": prompt, "temperature": 0, "max_tokens": 12, "extra_body": extra, **fields})

    return complete


@pytest.fixture(name="chat")
def fixture_chat(client, server):
    def chat(content="Tell me a story.", **fields):
        messages = content if isinstance(content, list) else [{"role": "user", "content": content}]
        extra = {"ignore_eos": True, **fields.pop("extra_body", {})}
        return client.chat.completions.create(
            **{"model": server.model, "messages": messages, "temperature": 0, "max_completion_tokens": 12, "extra_body": extra, **fields})

    return chat


@pytest.fixture(autouse=True)
def nothing_stays(server):
    """After every test the engine is idle and holds no block."""
    yield
    server.assert_idle()


# --- models -----------------------------------------------------------------------------------------------------------


def test_models(client, server):
    models = list(client.models.list())
    assert [m.id for m in models] == [server.model]
    assert models[0].object == "model" and models[0].created > 1.6e9
    assert client.models.retrieve(server.model).id == server.model
    with pytest.raises(openai.NotFoundError):
        client.models.retrieve("another")


# --- completions ------------------------------------------------------------------------------------------------------


def test_completion(complete, server):
    answer = complete()
    assert answer.object == "text_completion" and answer.model == server.model and answer.id.startswith("cmpl-")
    assert abs(answer.created - time.time()) < 60
    (choice,) = answer.choices
    assert choice.index == 0 and choice.finish_reason == "length" and choice.logprobs is None and choice.text
    usage = answer.usage
    assert usage.prompt_tokens == len(server.tokenize(PROMPT)) and usage.completion_tokens == 12
    assert usage.total_tokens == usage.prompt_tokens + 12


def test_max_tokens_is_16_by_default(complete):
    assert complete(max_tokens=openai.omit).usage.completion_tokens == 16


def test_prompt_as_token_ids(complete, server):
    ids = server.tokenize(PROMPT)
    text = complete().choices[0].text
    assert complete(ids).choices[0].text == text
    assert [c.text for c in complete([ids, ids]).choices] == [text, text]


def test_list_of_prompts(complete, server):
    prompts = [PROMPT, "The sea froze", "a"]
    answer = complete(prompts)
    assert [c.index for c in answer.choices] == [0, 1, 2]
    assert [c.text for c in answer.choices] == [complete(p).choices[0].text for p in prompts]
    assert answer.usage.prompt_tokens == sum(len(server.tokenize(p)) for p in prompts)
    assert answer.usage.completion_tokens == 36


def test_n_of_a_list_of_prompts(complete):
    prompts = [PROMPT, "The sea froze"]
    answer = complete(prompts, n=3, temperature=1, seed=5)
    assert [c.index for c in answer.choices] == list(range(6))
    texts = [c.text for c in answer.choices]
    assert len(set(texts)) == 6
    for i, prompt in enumerate(prompts):
        assert [c.text for c in complete(prompt, n=3, temperature=1, seed=5).choices] == texts[3 * i : 3 * i + 3]


def test_echo(complete):
    text = complete().choices[0].text
    assert complete(echo=True).choices[0].text == PROMPT + text


def test_echo_alone(complete, server):
    answer = complete(echo=True, max_tokens=0)
    assert answer.choices[0].text == PROMPT and answer.usage.completion_tokens == 0
    answer = complete(echo=True, max_tokens=0, logprobs=1)
    assert len(answer.choices[0].logprobs.tokens) == len(server.tokenize(PROMPT))


def check_logprobs(found, count, top, first=0):
    """Of /v1/completions: lists of `count`, every logprob finite but the `first` ones, the chosen token among the top
    ones or beside them."""
    assert len(found.tokens) == len(found.token_logprobs) == len(found.top_logprobs) == len(found.text_offset) == count
    assert found.text_offset == sorted(found.text_offset)
    for i, (token, logprob, most) in enumerate(zip(found.tokens, found.token_logprobs, found.top_logprobs)):
        if i < first:
            assert logprob is None and most is None
            continue
        assert math.isfinite(logprob) and logprob <= 0
        assert 1 <= len(most) <= top + 1 and most[token] == pytest.approx(logprob, abs=1e-6)
        assert sum(math.exp(v) for v in most.values()) <= 1 + 1e-4
        assert logprob <= max(most.values())


@pytest.mark.parametrize("top", [1, 5])
def test_logprobs(complete, top):
    answer = complete(logprobs=top)
    found = answer.choices[0].logprobs
    check_logprobs(found, 12, top)
    for logprob, most in zip(found.token_logprobs, found.top_logprobs):
        assert logprob == max(most.values())  # greedy
    if not any(token.startswith("bytes:") for token in found.tokens):
        assert "".join(found.tokens) == answer.choices[0].text


def test_logprobs_with_echo_go_on_from_the_prompts(complete, server):
    """Logprobs of an answer, and of the same tokens as a prompt: what lm-eval relies on."""
    ids = server.tokenize(PROMPT)
    answer = complete(logprobs=2, echo=True, extra_body={"return_token_ids": True})
    found = answer.choices[0].logprobs
    check_logprobs(found, len(ids) + 12, 2, first=1)
    generated = [int(t) for t in answer.choices[0].token_ids][-12:]
    again = complete(ids + generated, logprobs=2, echo=True, max_tokens=0).choices[0].logprobs
    assert again.token_logprobs[0] is None
    assert again.token_logprobs[1:] == pytest.approx(found.token_logprobs[1:], abs=1e-5)


def test_logprobs_of_a_stop_token(complete, server):
    """The token that ends the text is counted and has its logprob, but no text."""
    ids = complete(extra_body={"return_token_ids": True}).choices[0].token_ids
    at = next(i for i in range(1, 12) if ids[i] not in ids[:i])
    answer = complete(logprobs=1, echo=True, extra_body={"stop_token_ids": [ids[at]]})
    assert answer.choices[0].finish_reason == "stop"
    assert answer.usage.completion_tokens == at + 1
    check_logprobs(answer.choices[0].logprobs, len(server.tokenize(PROMPT)) + at + 1, 1, first=1)


def test_logprobs_are_those_of_the_model_itself(complete):
    """Neither temperature nor bias nor penalties change what they say of a token."""
    plain = complete(max_tokens=1, logprobs=5).choices[0].logprobs
    for fields in ({"logit_bias": {"40": -100}}, {"temperature": 2, "seed": 1}, {"presence_penalty": 2}):
        assert complete(max_tokens=1, logprobs=5, **fields).choices[0].logprobs.top_logprobs[0].items() >= plain.top_logprobs[0].items()


def part_of(text):
    """A string to stop at, of whole characters: somewhere in the text, but not at its beginning."""
    return re.findall(r"[!-~]", text[3:])[-1]


def test_stop(complete):
    fields = {"max_tokens": 40, "temperature": 1, "seed": 2}
    text = complete(**fields).choices[0].text
    end = part_of(text)
    answer = complete(**fields, stop=end)
    assert answer.choices[0].finish_reason == "stop" and answer.choices[0].text == text[: text.index(end)]
    assert complete(**fields, stop=["never there", end]).choices[0].text == text[: text.index(end)]
    streamed = "".join(c.choices[0].text for c in complete(**fields, stop=end, stream=True))
    assert streamed == text[: text.index(end)]


def test_seed(complete):
    draw = lambda seed, **more: complete(temperature=1, seed=seed, **more).choices[0].text
    assert draw(1) == draw(1) == draw(1, n=2)
    assert len({draw(seed) for seed in range(6)}) >= 5
    assert len({complete(temperature=1).choices[0].text for _ in range(6)}) >= 5


def test_top_p_top_k_and_min_p_narrow_to_greedy(complete):
    text = complete().choices[0].text
    assert complete(temperature=1, top_p=1e-6, seed=3).choices[0].text == text
    for extra in ({"top_k": 1}, {"min_p": 1.0}):
        assert complete(temperature=1, seed=3, extra_body=extra).choices[0].text == text


def test_logit_bias(complete, server):
    token = server.tokenize("z")[0]
    ids = complete(logit_bias={str(token): 100}, extra_body={"return_token_ids": True}).choices[0].token_ids
    assert ids == [token] * 12
    first = complete(max_tokens=1, extra_body={"return_token_ids": True}).choices[0].token_ids[0]
    banned = complete(max_tokens=1, logit_bias={str(first): -100}, extra_body={"return_token_ids": True}).choices[0].token_ids[0]
    assert banned != first


def test_penalties(complete, server):
    """With a token favoured just so much, presence and frequency penalties end its run."""
    token = server.tokenize("z")[0]
    favour = {"logit_bias": {str(token): 100}, "max_tokens": 24}
    ids = lambda **more: complete(**favour, **more, extra_body={"return_token_ids": True, **more.pop("extra", {})}).choices[0].token_ids
    assert ids() == [token] * 24
    # A frequency penalty of 2 takes 2 * 23 off by the end; of -2 it adds.
    assert ids(frequency_penalty=-2, presence_penalty=-2) == [token] * 24
    plain = complete(max_tokens=48, extra_body={"return_token_ids": True}).choices[0].token_ids
    spread = complete(max_tokens=48, frequency_penalty=2, presence_penalty=2, extra_body={"return_token_ids": True}).choices[0].token_ids
    assert len(set(spread)) > len(set(plain))
    spread = complete(max_tokens=48, extra_body={"return_token_ids": True, "repetition_penalty": 2.0}).choices[0].token_ids
    assert spread != plain


# --- completions, streamed --------------------------------------------------------------------------------------------


def test_stream(complete):
    text = complete().choices[0].text
    chunks = list(complete(stream=True))
    assert len({c.id for c in chunks}) == 1 and all(c.object == "text_completion" for c in chunks)
    assert len(chunks) > 3, "not streamed"
    assert "".join(c.choices[0].text for c in chunks) == text
    reasons = [c.choices[0].finish_reason for c in chunks]
    assert reasons[-1] == "length" and set(reasons[:-1]) == {None}
    assert all(c.usage is None for c in chunks)


def test_stream_with_usage(complete):
    chunks = list(complete(stream=True, stream_options={"include_usage": True}))
    assert chunks[-1].choices == [] and all(c.usage is None for c in chunks[:-1])
    assert chunks[-1].usage == complete().usage.model_copy(update={"prompt_tokens_details": chunks[-1].usage.prompt_tokens_details})


def test_stream_of_several_choices(complete):
    whole = complete([PROMPT, "a"], n=2, temperature=1, seed=9, logprobs=2, echo=True)
    texts, logprobs = {}, {}
    for chunk in complete([PROMPT, "a"], n=2, temperature=1, seed=9, logprobs=2, echo=True, stream=True):
        for choice in chunk.choices:
            texts[choice.index] = texts.get(choice.index, "") + choice.text
            if choice.logprobs:
                logprobs.setdefault(choice.index, []).extend(choice.logprobs.token_logprobs)
    assert texts == {c.index: c.text for c in whole.choices}
    for choice in whole.choices:
        assert logprobs[choice.index][0] is None
        assert logprobs[choice.index][1:] == pytest.approx(choice.logprobs.token_logprobs[1:], abs=1e-5)


# --- chat -------------------------------------------------------------------------------------------------------------


def test_chat(chat, server):
    answer = chat()
    assert answer.object == "chat.completion" and answer.id.startswith("chatcmpl-") and answer.model == server.model
    (choice,) = answer.choices
    assert choice.message.role == "assistant" and choice.message.content and choice.finish_reason == "length"
    assert not choice.message.tool_calls
    rendered = "<|im_start|>user\nTell me a story.<|im_end|>\n<|im_start|>assistant\n"
    assert answer.usage.prompt_tokens == len(server.tokenize(rendered)) and answer.usage.completion_tokens == 12


def test_chat_is_the_completion_of_the_rendered_template(chat, complete):
    rendered = "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nHi.<|im_end|>\n<|im_start|>assistant\n"
    answer = chat([{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hi."}])
    assert answer.choices[0].message.content == complete(rendered).choices[0].text


def test_chat_content_parts(chat):
    parts = [{"type": "text", "text": "Tell me "}, {"type": "text", "text": "a story."}]
    answer = chat([{"role": "user", "content": parts}])
    assert answer.choices[0].message.content
    one = chat([{"role": "user", "content": [{"type": "text", "text": "Tell me a story."}]}])
    assert one.choices[0].message.content == chat().choices[0].message.content
    with pytest.raises(openai.BadRequestError):
        chat([{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "data:,"}}]}])


def test_chat_n_and_seed(chat):
    draw = lambda **more: [c.message.content for c in chat(n=3, temperature=1, **more).choices]
    assert len(set(draw(seed=4))) == 3
    assert draw(seed=4) == draw(seed=4) != draw(seed=400)


def test_chat_max_tokens_of_both_names(chat):
    assert chat(max_completion_tokens=3).usage.completion_tokens == 3
    assert chat(max_completion_tokens=openai.omit, max_tokens=4).usage.completion_tokens == 4


def test_chat_goes_on_to_the_context_by_default(chat):
    answer = chat(max_completion_tokens=openai.omit)
    assert answer.choices[0].finish_reason == "length" and answer.usage.total_tokens == 256


def test_chat_stop(chat):
    fields = {"max_completion_tokens": 40, "temperature": 1, "seed": 2}
    text = chat(**fields).choices[0].message.content
    end = part_of(text)
    answer = chat(**fields, stop=[end])
    assert answer.choices[0].message.content == text[: text.index(end)] and answer.choices[0].finish_reason == "stop"


@pytest.mark.parametrize("top", [0, 4])
def test_chat_logprobs(chat, top):
    answer = chat(logprobs=True, top_logprobs=top)
    content = answer.choices[0].logprobs.content
    assert len(content) == 12
    for entry in content:
        assert entry.logprob <= 0 and len(entry.top_logprobs) == top
        if top:
            assert entry.top_logprobs[0].logprob == entry.logprob  # greedy
            values = [t.logprob for t in entry.top_logprobs]
            assert values == sorted(values, reverse=True)
    text = b"".join(bytes(entry.bytes) for entry in content).decode(errors="replace")
    # How many replacement characters malformed bytes make is a matter of taste.
    plain = lambda string: re.sub("\ufffd+", "\ufffd", string).rstrip("\ufffd")
    assert plain(text) == plain(answer.choices[0].message.content)
    assert chat().choices[0].logprobs is None


def test_chat_stream(chat):
    whole = chat(n=2, temperature=1, seed=3, logprobs=True, top_logprobs=2)
    chunks = list(chat(n=2, temperature=1, seed=3, logprobs=True, top_logprobs=2, stream=True, stream_options={"include_usage": True}))
    assert all(c.object == "chat.completion.chunk" for c in chunks)
    assert chunks[-1].usage.completion_tokens == whole.usage.completion_tokens == 24 and chunks[-1].choices == []
    for choice in whole.choices:
        mine = [c for chunk in chunks for c in chunk.choices if c.index == choice.index]
        assert mine[0].delta.role == "assistant"
        assert "".join(c.delta.content or "" for c in mine) == choice.message.content
        assert [c.finish_reason for c in mine if c.finish_reason] == ["length"] and mine[-1].finish_reason
        logprobs = [e.logprob for c in mine if c.logprobs for e in c.logprobs.content]
        assert logprobs == pytest.approx([e.logprob for e in choice.logprobs.content], abs=1e-5)


def test_chat_stream_helper(client, server):
    """The client's own accumulator of chunks."""
    with client.chat.completions.stream(model=server.model, messages=[{"role": "user", "content": "Hi."}], temperature=0,
                                        max_completion_tokens=8) as stream:
        kinds = {event.type for event in stream}
        assert {"chunk", "content.delta", "content.done"} <= kinds
        assert stream.current_completion_snapshot.choices[0].message.role == "assistant"


# --- errors -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("fields, param", [
    ({"tools": [{"type": "function", "function": {"name": "f", "parameters": {}}}]}, "tools"),
    ({"response_format": {"type": "json_schema", "json_schema": {"name": "s", "schema": {}}}}, "response_format"),
    ({"response_format": {"type": "json_object"}}, "response_format"),
    ({"temperature": -1}, "temperature"),
    ({"n": 0}, "n"),
    ({"top_p": 2}, "top_p"),
    ({"max_completion_tokens": -1}, "max_completion_tokens"),
    ({"top_logprobs": 3}, "top_logprobs"),
    ({"logprobs": True, "top_logprobs": 99}, "top_logprobs"),
    ({"logit_bias": {"99999999": 1}}, "logit_bias"),
    ({"stop": [""]}, "stop"),
    ({"messages": []}, "messages"),
    ({"extra_body": {"no_such_field": 1}}, "no_such_field"),
])
def test_bad_requests_name_the_field(chat, fields, param):
    with pytest.raises(openai.BadRequestError) as caught:
        chat(**fields)
    assert caught.value.status_code == 400 and caught.value.type == "invalid_request_error"
    assert caught.value.param.startswith(param) and caught.value.body["message"]


def test_prompts_that_do_not_fit_or_are_nothing(complete):
    for prompt in (list(range(2, 300)), [2] * 256, [320], [-1], "", []):
        with pytest.raises(openai.BadRequestError):
            complete(prompt)
    with pytest.raises(openai.BadRequestError) as caught:
        complete([2] * 250, max_tokens=100)
    assert "256" in caught.value.message
    assert complete([2] * 250, max_tokens=6).choices[0].finish_reason == "length"


def test_wrong_model(client):
    with pytest.raises(openai.NotFoundError) as caught:
        client.completions.create(model="gpt-4o", prompt="a")
    assert "gpt-4o" in caught.value.message


def test_wrong_key(server):
    for key in ("wrong", KEY + "x", KEY[:-1], "x"):
        with make_client(server, api_key=key) as client, pytest.raises(openai.AuthenticationError):
            client.models.list()
    status, headers, _ = server.request("GET", "/v1/models", headers={"Authorization": "Basic x"})
    assert status == 401 and headers["content-type"].startswith("application/json")
    status, _, _ = server.request("GET", "/v1/models", headers={"Authorization": ""})
    assert status == 401


def test_full_queue():
    """One runs, one waits: the next are refused and told when to come again; the client's own retries get through."""
    slow = {"prompt": PROMPT, "max_tokens": 240, "temperature": 0, "extra_body": {"ignore_eos": True}}
    with Server(TINY_MODEL, "--max-running", 1, "--max-waiting", 1) as server, make_client(server) as client:
        slow["model"] = server.model

        async def flood(count, retries):
            async with make_client(server, openai.AsyncOpenAI, max_retries=retries) as many:
                return await asyncio.gather(*(many.completions.create(**slow) for _ in range(count)), return_exceptions=True)

        answers = asyncio.run(flood(24, 0))
        refused = [a for a in answers if isinstance(a, Exception)]
        assert refused and all(isinstance(a, openai.RateLimitError) for a in refused), refused[:3]
        assert all(int(a.response.headers["retry-after"]) >= 1 for a in refused)
        texts = {a.choices[0].text for a in answers if not isinstance(a, Exception)}
        assert len(texts) == 1
        assert all(not isinstance(a, Exception) for a in asyncio.run(flood(4, 20)))
        server.assert_idle()


# --- many at a time ---------------------------------------------------------------------------------------------------


def test_async_client_and_32_requests_at_a_time(server, complete):
    prompts = [f"{i}: {PROMPT}"[: 4 + i] for i in range(32)]
    alone = [complete(p).choices[0].text for p in prompts]
    seeds = [complete(p, temperature=1, seed=i).choices[0].text for i, p in enumerate(prompts)]

    async def all_at_once():
        async with make_client(server, openai.AsyncOpenAI) as client:

            async def one(i, temperature, stream):
                answer = await client.completions.create(model=server.model, prompt=prompts[i], temperature=temperature, seed=i,
                                                         max_tokens=12, stream=stream, extra_body={"ignore_eos": True})
                if not stream:
                    return answer.choices[0].text
                return "".join([chunk.choices[0].text async for chunk in answer])

            results = []
            for temperature, stream in ((0, False), (0, True), (1, True)):
                results.append(await asyncio.gather(*(one(i, temperature, stream) for i in range(32))))
            return results

    whole, streamed, drawn = asyncio.run(all_at_once())
    assert whole == alone and streamed == alone and drawn == seeds


def test_async_chat(server):
    async def talk():
        async with make_client(server, openai.AsyncOpenAI) as client:
            stream = await client.chat.completions.create(model=server.model, messages=[{"role": "user", "content": "Hi."}],
                                                          max_completion_tokens=8, stream=True)
            return [chunk.choices[0].finish_reason async for chunk in stream][-1]

    assert asyncio.run(talk()) in ("length", "stop")


def test_closing_a_stream_cancels(server, client):
    """Many long streams, closed after their first tokens: their blocks are free within a second."""
    streams = [client.completions.create(model=server.model, prompt=[2 + i, 3], max_tokens=250, n=4, temperature=1, stream=True,
                                         extra_body={"ignore_eos": True}) for i in range(6)]
    for stream in streams:
        next(iter(stream))
        stream.close()
    server.assert_idle(within=1.0)


def test_async_cancel(server):
    async def begin_and_drop():
        async with make_client(server, openai.AsyncOpenAI) as client:
            tasks = [asyncio.create_task(client.completions.create(model=server.model, prompt=[2 + i], max_tokens=250, n=8))
                     for i in range(8)]
            await asyncio.sleep(0.02)
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    asyncio.run(begin_and_drop())
    server.assert_idle(within=1.0)
