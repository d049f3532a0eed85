"""Requests that nobody should send: schemathesis over the description that the server publishes, and bytes that are not
HTTP. Nothing gets a status of 5xx, the server lives, and its engine holds nothing afterwards.

ATOM_TEST_REQUESTS says how many (default 300; the full run 10,000).
"""

import collections
import json
import os
import random
import subprocess
import sys

import pytest

from malformed_requests import GET, MALFORMED, exchange, post, statuses
from serve_fixture import TINY_MODEL, Server

COUNT = int(os.environ.get("ATOM_TEST_REQUESTS", "300"))
SECONDS = max(300, COUNT)

# A generated request may ask for much; the server's own limits keep that short.
LIMITS = ["--check-blocks", "--max-body-bytes", "100000", "--max-header-bytes", "8000", "--request-timeout", "2"]


@pytest.fixture(scope="module", name="server")
def fixture_server():
    with Server(TINY_MODEL, *LIMITS) as server:
        yield server


@pytest.fixture(autouse=True)
def it_lives(server):
    yield
    assert server.process.poll() is None, server.text()[-3000:]
    assert server.get("/health")
    server.assert_idle(within=30)
    assert server.complete("a", max_tokens=2)["usage"]["prompt_tokens"] == 1


def operations(server):
    paths = json.loads(server.get("/openapi.json"))["paths"]
    return [(method, path) for path, item in paths.items() for method in item if method in ("get", "post", "put", "delete")]


def test_the_description_names_what_there_is(server):
    found = set(operations(server))
    assert {("post", "/v1/completions"), ("post", "/v1/chat/completions"), ("get", "/v1/models"), ("post", "/tokenize"),
            ("post", "/detokenize"), ("get", "/health"), ("get", "/ready"), ("get", "/metrics")} <= found
    for method, path in found:
        if method == "get" and "{" not in path:
            assert server.request("GET", path)[0] == 200, path


def test_schemathesis(server, tmp_path):
    """Valid and invalid requests; answers keep to the description (statuses, content types, schemas), and
    nothing is the server's fault."""
    each = max(10, COUNT // len(operations(server)))
    checks = ["not_a_server_error", "status_code_conformance", "content_type_conformance", "response_schema_conformance"]
    command = [sys.executable, "-m", "schemathesis.cli", "run", server.url + "/openapi.json", "--phases",
               "examples,coverage,fuzzing", "--max-examples", each, "--checks", ",".join(checks), "--request-timeout", "60",
               "--generation-database", "none", "--seed", "1", "--no-color", "--workers", "2", "--suppress-health-check", "all"]
    env = {**os.environ, "NO_PROXY": "*", "no_proxy": "*", "PYTHONUTF8": "1"}
    before = requests_by_status(server)
    result = subprocess.run(list(map(str, command)), capture_output=True, text=True, timeout=SECONDS, env=env, cwd=tmp_path, check=False)
    assert result.returncode == 0, result.stdout[-6000:] + result.stderr[-3000:]
    new = {status: n - before.get(status, 0) for status, n in requests_by_status(server).items()}
    assert sum(n for status, n in new.items() if 400 <= status < 500) >= COUNT / 4, new
    assert sum(n for status, n in new.items() if status >= 500) == 0, new


def requests_by_status(server):
    """Status -> responses so far, from /metrics."""
    counts = {}
    server.get("/health")  # so that there is one
    for line in server.get("/metrics").decode().splitlines():
        if line.startswith("atom_http_responses_total{"):
            labels, _, value = line.rpartition(" ")
            status = int(labels.split('status="')[1].split('"')[0])
            counts[status] = counts.get(status, 0) + int(float(value))
    assert counts, "no atom_http_responses_total{...status=...} in /metrics"
    return counts


# --- not HTTP, or not quite -------------------------------------------------------------------------------------------

def test_malformed(server):
    for data in MALFORMED:
        for pieces in (1, 7):
            found = statuses(exchange(server, data, pieces))
            assert all(400 <= status < 500 or status in (501, 505) for status in found), (data[:200], found)


def test_a_body_that_declares_its_size_wrong(server):
    """Longer than it says: the rest is another request, and a bad one. Shorter: nothing comes of it."""
    assert all(s < 500 for s in statuses(exchange(server, post(b"{}") + b"garbage")))
    assert all(400 <= s < 500 for s in statuses(exchange(server, post(b"{}x" * 10)[:-5])))


def test_mutated_requests(server):
    """Good requests with bytes changed, dropped, repeated."""
    draw = random.Random(1)
    model = server.model.encode()
    seeds = [
        GET, post(b'{"model":"%s","prompt":"Hello","max_tokens":3,"temperature":0.5,"logprobs":2,"stop":["x"]}' % model),
        post(b'{"model":"%s","messages":[{"role":"user","content":"Hi"}],"max_tokens":3,"stream":true}' % model, b"/v1/chat/completions"),
        post(b'{"model":"%s","prompt":[[2,3],[4]],"echo":true,"logit_bias":{"5":1},"n":2,"max_tokens":2}' % model),
        post(b'{"tokens":[2,3]}', b"/detokenize")]
    seen = collections.Counter()
    before = sum(requests_by_status(server).values())
    for _ in range(COUNT):
        data = bytearray(draw.choice(seeds))
        for _ in range(draw.randint(1, 6)):
            at = draw.randrange(max(1, len(data)))
            kind = draw.randrange(5)
            if kind == 0:
                data[at : at + 1] = bytes([draw.randrange(256)])
            elif kind == 1:
                del data[at : at + draw.randint(1, 8)]
            elif kind == 2:
                data[at:at] = data[at : at + draw.randint(1, 30)]
            elif kind == 3:
                data[at:at] = draw.choice([b"\r\n", b"\x00", b'"', b"{", b"-", b"9" * 30, b"\xff", b": "])
            else:
                data = data[: at + 1]
        found = statuses(exchange(server, bytes(data)))
        # 501 and 505 say that a method, coding or version is not there.
        assert all(s < 500 or s in (501, 505) for s in found), (bytes(data), found)
        seen.update(found)
    # Not all of them get a response: what is cut short is closed without a word.
    assert seen[200] >= COUNT / 200 and seen[400] >= COUNT / 4, seen
    assert sum(requests_by_status(server).values()) - before >= sum(seen.values())
