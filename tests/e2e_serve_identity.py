"""The same greedy tokens for a prompt however it is computed: alone, in a batch, its prefix cached or not, in chunks or
whole, preempted or not. 200 first messages of real conversations."""

import concurrent.futures

import pytest

from serve_fixture import MODEL, SHAREGPT, Server, conversations, packed_real_model

pytestmark = pytest.mark.skipif(not MODEL or not SHAREGPT, reason="ATOM_TEST_MODEL or ATOM_TEST_SHAREGPT is not set")

COUNT = 200
CONTEXT = ["--context", "256", "--check-blocks"]


@pytest.fixture(scope="module", name="model")
def fixture_model():
    return packed_real_model()[0]


@pytest.fixture(scope="module", name="whole")
def fixture_whole(model):
    """A server with its defaults."""
    with Server(model, *CONTEXT) as server:
        yield server


@pytest.fixture(scope="module", name="work")
def fixture_work(whole):
    """(prompt as token ids, tokens to generate): every fifth prompt up to 200 tokens and with 32 more, the others
    shorter, to be done in time."""
    work = []
    for i, text in enumerate(conversations(COUNT)):
        ids = whole.tokenize(text[:2000])
        work.append((ids[:200], 32) if i % 5 == 0 else (ids[: 24 + i % 64], 8))
    assert len(work) == COUNT
    return work


def answer(server, item):
    prompt, tokens = item
    choice = server.complete(prompt, max_tokens=tokens, ignore_eos=True, return_token_ids=True)["choices"][0]
    assert len(choice["token_ids"]) == tokens
    return choice["token_ids"], choice["text"]


def answers(server, work, concurrency):
    """All of them, and the most sequences that were seen to run at once."""
    most = 0
    with concurrent.futures.ThreadPoolExecutor(concurrency) as pool:
        futures = [pool.submit(answer, server, item) for item in work]
        while concurrent.futures.wait(futures, timeout=0.2).not_done:
            most = max(most, server.metrics()["atom_running_sequences"])
        return [future.result() for future in futures], most


def assert_same(found, expected):
    differing = [i for i, (a, b) in enumerate(zip(found, expected)) if a != b]
    assert len(found) == len(expected) == COUNT
    assert not differing, f"{len(differing)} of {COUNT} differ; the first: {differing[0]}: {found[differing[0]]} != {expected[differing[0]]}"


@pytest.fixture(scope="module", name="alone")
def fixture_alone(whole, work):
    """Each prompt on its own, nothing of it cached but what prompts before began alike."""
    return [answer(whole, item) for item in work]


def test_prefix_hits_in_a_batch_of_32(whole, work, alone):
    """Again on the same server: the prompts are in the cache."""
    before = whole.metrics()["atom_cached_prompt_tokens_total"]
    found, most = answers(whole, work, 32)
    assert whole.metrics()["atom_cached_prompt_tokens_total"] - before > 0.3 * sum(len(prompt) for prompt, _ in work)
    assert_same(found, alone)
    assert most >= 16
    whole.assert_idle()


def test_batch_of_32_without_a_prefix_cache(model, work, alone):
    with Server(model, *CONTEXT, "--no-prefix-cache") as server:
        found, most = answers(server, work, 32)
        assert server.metrics()["atom_cached_prompt_tokens_total"] == 0
        assert most >= 16
        server.assert_idle()
    assert_same(found, alone)


def test_chunked(model, work, alone):
    """Steps of 24 tokens at most: prompts are computed in pieces of odd sizes, beside the decoding of others."""
    with Server(model, *CONTEXT, "--max-step-tokens", 24, "--max-running", 16) as server:
        found, _ = answers(server, work, 32)
        server.assert_idle()
    assert_same(found, alone)


@pytest.mark.parametrize("flags", [[], ["--no-prefix-cache"]])
def test_preempted(model, work, alone, flags):
    """A cache of a few sequences: the answers outgrow it."""
    with Server(model, *CONTEXT, *flags, "--cache-tokens", 512, "--max-waiting", 256) as server:
        found, _ = answers(server, work, 32)
        assert server.metrics()["atom_preemptions_total"] >= 5
        server.assert_idle()
    assert_same(found, alone)
