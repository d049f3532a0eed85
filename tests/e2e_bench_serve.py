"""`atom bench serve` against a mock of an OpenAI endpoint with known delays: figures, failures, connections, plots."""

import collections
import http.server
import json
import re
import signal
import socket
import subprocess
import threading
import time
import xml.etree.ElementTree

import pytest

from atom_cli import BINARY, assert_fails, run, run_json, run_ok


class Mock(http.server.ThreadingHTTPServer):
    """Streams `tokens` pieces: the first after `first` seconds, the others `gap` apart. `plan(number)` names a failure."""

    daemon_threads = True
    request_queue_size = 128

    def __init__(self, first=0.0, gap=0.0, plan=lambda number: None, usage=True, close=False, tokens=None, api_key=None):
        self.first, self.gap, self.plan, self.usage, self.close = first, gap, plan, usage, close
        self.tokens, self.api_key = tokens, api_key
        self.bodies, self.times, self.paths = [], [], []
        self.running = self.most_running = 0
        self.lock = threading.Lock()
        super().__init__(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.serve_forever, args=(0.02,), daemon=True).start()

    @property
    def url(self):
        return f"http://127.0.0.1:{self.server_address[1]}"

    def __exit__(self, *exception):
        self.shutdown()
        self.server_close()


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def log_message(self, *arguments):
        pass

    def handle_one_request(self):
        try:
            super().handle_one_request()
        except ConnectionError:
            self.close_connection = True

    def answer(self, status, value):
        body = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_GET(self):
        assert self.path == "/v1/models"
        self.answer(200, {"object": "list", "data": [{"id": "mock-model"}, {"id": "another"}]})

    def do_POST(self):
        mock = self.server
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        with mock.lock:
            number = len(mock.bodies)
            mock.bodies.append(body)
            mock.paths.append(self.path)
            mock.times.append(time.monotonic())
            mock.running += 1
            mock.most_running = max(mock.most_running, mock.running)
        try:
            if mock.api_key and self.headers.get("Authorization") != f"Bearer {mock.api_key}":
                self.answer(401, {"error": {"message": "no such key", "type": "authentication_error"}})
            else:
                self.generate(body, mock.plan(number))
        finally:
            with mock.lock:
                mock.running -= 1

    def generate(self, body, failure):
        mock = self.server
        if failure == "busy":
            return self.answer(429, {"error": {"message": "the queue is full", "type": "rate_limit_error"}})
        if failure == "reset":
            self.close_connection = True
            return
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Transfer-Encoding", "chunked")
        if mock.close:
            self.send_header("Connection", "close")
        self.end_headers()
        chat = self.path.endswith("/chat/completions")
        if chat:
            self.event({"choices": [{"index": 0, "delta": {"role": "assistant", "content": ""}}]})
        tokens = mock.tokens or body["max_tokens"]
        for i in range(tokens):
            time.sleep(mock.first if i == 0 else mock.gap)
            if failure == "cut" and i == 2:
                self.close_connection = True
                self.connection.shutdown(socket.SHUT_RDWR)
                return
            if failure == "error" and i == 2:
                self.event({"error": {"message": "out of blocks"}})
                break
            piece = {"delta": {"content": " w"}} if chat else {"text": " w"}
            self.event({"choices": [{"index": 0, "finish_reason": None, **piece}]})
        else:
            self.event({"choices": [{"index": 0, "finish_reason": "length", **({"delta": {}} if chat else {"text": ""})}]})
            if mock.usage:
                prompt = body.get("prompt") or body["messages"][0]["content"]
                count = len(prompt.split()) if isinstance(prompt, str) else len(prompt)
                self.event({"choices": [], "usage": {"prompt_tokens": count, "completion_tokens": tokens,
                                                     "prompt_tokens_details": {"cached_tokens": 3}}})
            self.chunk(b"data: [DONE]\n\n")
        self.chunk(b"")
        # Whether the connection is kept is what the tests ask about: this one closes without having said so.
        if failure == "drop":
            self.close_connection = True
        if mock.close:
            self.close_connection = True

    def event(self, value):
        self.chunk(b"data: " + json.dumps(value).encode() + b"\r\n\r\n")

    def chunk(self, data):
        self.wfile.write(f"{len(data):x}\r\n".encode() + data + b"\r\n")


def bench(mock, *arguments, **options):
    result = run_json("bench", "serve", mock.url, *arguments, **options)
    assert result["command"] == "bench serve" and result["version"] and result["interrupted"] is False
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", result["time"])
    return result["endpoints"][0]


def test_figures_are_those_of_the_delays():
    with Mock(first=0.2, gap=0.05) as mock:
        one = bench(mock, "--requests", "8", "--concurrency", "4", "--max-tokens", "11", "--prompt-tokens", "20")
        assert mock.most_running == 4
    assert one["url"] == mock.url and one["model"] == "mock-model"
    assert (one["completed"], one["failed"], one["unfinished"]) == (8, 0, 0)
    assert one["responses_by_status"] == {"200": 8} and one["errors"] == {} and one["finish_reasons"] == {"length": 8}
    assert (one["prompt_tokens"], one["completion_tokens"], one["pieces"]) == (160, 88, 88)
    assert one["requests_with_usage"] == 8 and one["cached_prompt_tokens"] == 24
    expected = {"time_to_first_token_seconds": (0.2, 8), "time_per_output_token_seconds": (0.05, 8),
                "inter_token_latency_seconds": (0.05, 80), "end_to_end_seconds": (0.7, 8)}
    for field, (seconds, count) in expected.items():
        times = one[field]
        # Sleeping takes at least so long; how much longer is up to the machine.
        assert times["count"] == count and seconds * 0.9 <= times["p50"] <= seconds * 1.6 + 0.05, (field, times)
        assert times["p50"] <= times["p90"] <= times["p99"] <= times["max"]
    assert 1.39 <= one["seconds"] < 4
    assert one["output_tokens_per_second"] == pytest.approx(88 / one["seconds"])
    assert one["total_tokens_per_second"] == pytest.approx(248 / one["seconds"])
    assert one["requests_per_second"] == pytest.approx(8 / one["seconds"])
    assert (one["connections_opened"], one["connections_reused"], one["connections_dropped"]) == (4, 4, 0)
    assert "good_requests_per_second" not in one
    (only,) = one["rounds"]
    assert only["completed"] == 8 and only["seconds"] == one["seconds"]


def test_what_is_sent():
    with Mock() as mock:
        bench(mock, "--requests", "3", "--max-tokens", "2", "--prompt-tokens", "5", "--ignore-eos", "--seed", "7")
        bodies = mock.bodies
        assert all(path == "/v1/completions" for path in mock.paths)
        for body in bodies:
            assert body["model"] == "mock-model" and body["max_tokens"] == 2 and body["temperature"] == 0
            assert body["stream"] is True and body["stream_options"] == {"include_usage": True}
            assert body["ignore_eos"] is True and "seed" not in body and len(body["prompt"].split()) == 5
        prompts = sorted(body["prompt"] for body in bodies)
        assert len(set(prompts)) == 3
        bench(mock, "--requests", "3", "--max-tokens", "2", "--prompt-tokens", "5", "--seed", "7")
        assert sorted(body["prompt"] for body in mock.bodies[3:]) == prompts, "a seed gives its prompts"
        assert "ignore_eos" not in mock.bodies[3]
        bench(mock, "--requests", "3", "--max-tokens", "2", "--prompt-tokens", "5", "--seed", "8")
        assert not set(prompts) & {body["prompt"] for body in mock.bodies[6:]}


def test_chat_with_sampling_and_a_key():
    with Mock(api_key="secret") as mock:
        one = bench(mock, "--requests", "2", "--max-tokens", "3", "--chat", "--temperature", "0.5", "--seed", "3",
                    "--api-key", "secret", "--model", "another")
        assert one["model"] == "another" and one["pieces"] == 6
        assert set(mock.paths) == {"/v1/chat/completions"}
        for body in mock.bodies:
            assert body["messages"][0]["role"] == "user" and body["temperature"] == 0.5 and body["seed"] >= 3
        error = assert_fails(run("bench", "serve", mock.url, "--requests", "2", "--json"), 1)
        assert "401" in error and "no such key" in error


def test_prompts_of_token_ids_behind_a_prefix():
    with Mock() as mock:
        bench(mock, "--requests", "4", "--max-tokens", "1", "--prompt-tokens", "6", "--random-ids", "100",
              "--shared-prefix", "10")
        prompts = [body["prompt"] for body in mock.bodies]
        assert all(len(p) == 16 and all(0 <= t < 100 for t in p) for p in prompts)
        assert len({tuple(p[:10]) for p in prompts}) == 1 and len({tuple(p) for p in prompts}) == 4


def test_lengths_of_a_file(tmp_path):
    (tmp_path / "lengths.json").write_text("[[5, 3], [9, 40], [2, 1]]")
    with Mock() as mock:
        bench(mock, "--lengths", tmp_path / "lengths.json", "--requests", "4", "--concurrency", "1", "--max-tokens", "20")
        sent = [(len(body["prompt"].split()), body["max_tokens"]) for body in mock.bodies]
        assert sent == [(5, 3), (9, 20), (2, 1), (5, 3)]


def test_conversations_with_warm_up_and_rounds(tmp_path):
    turns = [[("human", f"question {i}"), ("gpt", "no")] for i in range(12)]
    turns[1] = [("gpt", "nobody asked")]
    turns[2] = [("human", "long " * 100), ("gpt", "no")]
    records = [{"id": str(i), "conversations": [{"from": f, "value": v} for f, v in t]} for i, t in enumerate(turns)]
    # Cut off in the middle, as the published file is.
    (tmp_path / "talk.json").write_text(json.dumps(records)[:-30])
    arguments = ["--sharegpt", tmp_path / "talk.json", "--concurrency", "1", "--max-tokens", "2", "--max-prompt-bytes", "100"]
    with Mock() as mock:
        one = bench(mock, *arguments, "--requests", "2", "--warmup", "1", "--rounds", "3")
        assert one["completed"] == 6 and [r["completed"] for r in one["rounds"]] == [2, 2, 2]
        asked = [body["prompt"] for body in mock.bodies]
        assert asked == [f"question {i}" for i in (0, 3, 4, 5, 6, 7, 8, 9, 10)]
        error = assert_fails(run("bench", "serve", mock.url, *arguments, "--requests", "11"), 1)
        assert "talk.json" in error and "11 are needed" in error


def test_open_loop_keeps_its_rate():
    with Mock(first=0.5) as mock:
        one = bench(mock, "--rate", "40", "--requests", "80", "--max-tokens", "1")
        times = sorted(mock.times)
    assert one["completed"] == 80
    # 79 gaps of a Poisson process: their sum is within 30% nearly always, and this seed's is.
    assert 79 / (times[-1] - times[0]) == pytest.approx(40, rel=0.35)
    gaps = [b - a for a, b in zip(times, times[1:])]
    assert max(gaps) > 3 * sorted(gaps)[len(gaps) // 2], "moments are random, not evenly spaced"
    assert mock.most_running > 8, "an open loop does not wait for answers"


def test_goodput_counts_what_meets_the_targets():
    def slow(number):
        time.sleep(0.6 if number % 2 else 0)

    with Mock(gap=0.01, plan=slow) as mock:
        one = bench(mock, "--requests", "8", "--concurrency", "8", "--max-tokens", "3", "--slo-ttft", "400")
        assert one["good_requests_per_second"] == pytest.approx(4 / one["seconds"])
        one = bench(mock, "--requests", "4", "--concurrency", "4", "--max-tokens", "3", "--slo-tpot", "0.5")
        assert one["good_requests_per_second"] == 0


def test_without_usage_pieces_are_counted():
    with Mock(usage=False) as mock:
        one = bench(mock, "--requests", "3", "--max-tokens", "5")
    assert (one["completion_tokens"], one["prompt_tokens"], one["requests_with_usage"]) == (15, 0, 0)


def test_failures_are_counted():
    failures = collections.defaultdict(lambda: None, {1: "busy", 3: "cut", 5: "error", 6: "reset"})
    with Mock(plan=lambda number: failures[number]) as mock:
        one = bench(mock, "--requests", "10", "--concurrency", "2", "--max-tokens", "4")
    # A kept connection that is closed before anything came is tried again on a new one.
    assert (one["completed"], one["failed"]) == (7, 3)
    assert one["errors"] == {"status 429: the queue is full": 1, "connection lost": 1, "out of blocks": 1}
    assert one["responses_by_status"] == {"200": 9, "429": 1}
    assert one["completion_tokens"] == 28 and one["end_to_end_seconds"]["count"] == 7
    assert one["connections_dropped"] >= 1


@pytest.mark.parametrize("close", [True, False])
def test_connections_that_the_server_drops(close):
    with Mock(close=close, plan=lambda number: "drop") as mock:
        one = bench(mock, "--requests", "6", "--concurrency", "1", "--max-tokens", "2")
    assert (one["completed"], one["failed"]) == (6, 0)
    assert (one["connections_opened"], one["connections_reused"]) == (6, 0)
    assert one["connections_dropped"] in (5, 6)


def test_timeout():
    with Mock(first=5, plan=lambda number: None) as mock:
        error = assert_fails(run("bench", "serve", mock.url, "--requests", "2", "--timeout", "0.3", "--json"), 1)
    assert "timeout" in error and "none of 2 requests" in error


def test_compared_servers_take_turns(tmp_path):
    with Mock(gap=0.04) as slow, Mock(gap=0.01) as fast:
        arguments = ["bench", "serve", slow.url, "--compare", fast.url, "--rounds", "3", "--requests", "4",
                     "--concurrency", "4", "--max-tokens", "11"]
        result = run_json(*arguments, "--plot", tmp_path / "plot.svg")
        first, second = result["endpoints"]
        prompts = sorted(body["prompt"] for body in slow.bodies)
        assert prompts == sorted(body["prompt"] for body in fast.bodies) and len(set(prompts)) == 12
        assert slow.times[0] < fast.times[0] < fast.times[4] < slow.times[4] < slow.times[8] < fast.times[8]
    assert "output_tokens_per_second_ratio" not in first and len(second["rounds"]) == 3
    ratios = sorted(b["output_tokens_per_second"] / a["output_tokens_per_second"]
                    for a, b in zip(first["rounds"], second["rounds"]))
    assert second["output_tokens_per_second_ratio"] == pytest.approx(ratios[1]) and ratios[1] > 1.5
    svg = xml.etree.ElementTree.parse(tmp_path / "plot.svg").getroot()
    texts = ["".join(t.itertext()) for t in svg.iter("{http://www.w3.org/2000/svg}text")]
    assert {"time to first token", "end to end", "milliseconds", slow.url, fast.url} <= set(texts)


def test_table():
    with Mock() as mock:
        text = run_ok("bench", "serve", mock.url, "--requests", "2", "--max-tokens", "3", "--slo-ttft", "1000")
    for word in ("2 completed, 0 failed", "time to first token", "gap between pieces", "p99", "within the targets"):
        assert word in text


def test_interrupted_prints_what_was_measured():
    with Mock(first=0.05, gap=0.05) as mock:
        process = subprocess.Popen([BINARY, "bench", "serve", mock.url, "--requests", "1000", "--concurrency", "2",
                                    "--max-tokens", "2", "--json"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        deadline = time.monotonic() + 20
        while len(mock.bodies) < 6 and time.monotonic() < deadline:
            time.sleep(0.02)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=20)
    assert process.returncode == 130 and "interrupted" in err
    result = json.loads(out)
    (one,) = result["endpoints"]
    assert result["interrupted"] is True and one["completed"] >= 4 and one["failed"] == 0 and one["unfinished"] >= 1


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def test_nobody_listens():
    url = f"http://127.0.0.1:{free_port()}"
    for model in ([], ["--model", "m"]):
        error = assert_fails(run("bench", "serve", url, *model, "--json"), 1)
        assert url in error and "connection refused" in error


def serve_bytes(answer):
    """A server that answers one request on every connection with these bytes."""
    listener = socket.create_server(("127.0.0.1", 0))

    def loop():
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            with connection:
                connection.recv(65536)
                connection.sendall(answer)

    threading.Thread(target=loop, daemon=True).start()
    return listener, f"http://127.0.0.1:{listener.getsockname()[1]}"


@pytest.mark.parametrize("answer, word", [
    (b"SSH-2.0-OpenSSH_9.2\r\n\r\n", ""),
    (b"", "connection lost"),
    (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}", "no stream of events"),
    (b"HTTP/1.1 200 OK\r\nContent-Length: 12\r\n\r\ndata: [1,\n\n\n", "not a JSON object"),
    (b"HTTP/1.1 200 OK\r\n\r\ndata: {\"choices\": [3, {\"delta\": 4}], \"usage\": 5}\n\n", "before [DONE]"),
    (b"HTTP/1.1 404 Not Found\r\nContent-Length: 5\r\n\r\nNope!", "status 404"),
    (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", ""),
])  # fmt: skip
def test_servers_that_speak_something_else(answer, word):
    listener, url = serve_bytes(answer)
    with listener:
        error = assert_fails(run("bench", "serve", url, "--model", "m", "--requests", "2", "--json"), 1)
        assert "none of 2 requests" in error and word in error
        assert "models" in assert_fails(run("bench", "serve", url), 1)


@pytest.mark.parametrize("arguments, word", [
    (["localhost"], "localhost"),
    (["https://localhost"], "TLS"),
    (["http://"], "http://"),
    (["http://localhost:99999"], "port"),
    (["http://localhost:http"], "port"),
    (["http://x", "--requests", "0"], "--requests"),
    (["http://x", "--concurrency", "0"], "--concurrency"),
    (["http://x", "--rate", "2", "--concurrency", "2"], "--rate"),
    (["http://x", "--rate", "0"], "--rate"),
    (["http://x", "--temperature", "-1"], "--temperature"),
    (["http://x", "--sharegpt", "a", "--lengths", "b"], "--lengths"),
    (["http://x", "--random-ids", "5", "--chat"], "--random-ids"),
    (["http://x", "--seed", "-1"], "--seed"),
    ([], "URL"),
])  # fmt: skip
def test_wrong_usage(arguments, word):
    assert word in assert_fails(run("bench", "serve", *arguments), 2)


@pytest.mark.parametrize("content", ["", "[]", "{}", "[[1]]", "[[1, 0]]", "[[1, 2.5]]", "[[-1, 2]]", "[[1, 99999999]]", '[["1", 2]]'])
def test_bad_lengths(tmp_path, content):
    (tmp_path / "lengths.json").write_text(content)
    assert "lengths.json" in assert_fails(run("bench", "serve", "http://127.0.0.1:1", "--lengths", tmp_path / "lengths.json"), 1)


def test_a_plot_that_cannot_be_written(tmp_path):
    plot = tmp_path / "no" / "folder.svg"
    assert "folder.svg" in assert_fails(run("bench", "serve", "http://127.0.0.1:1", "--plot", plot), 1)
