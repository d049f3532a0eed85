"""`atom serve` as a process: curl, TLS, CORS, settings from flags, environment and file, the port, SIGTERM."""

import http.client
import json
import os
import re
import signal
import socket
import subprocess
import threading
import time

import pytest

from atom_cli import assert_fails, run, run_ok
from serve_fixture import TINY_MODEL, Server

PROMPT = "Once upon a time"
JSON = ["-H", "Content-Type: application/json"]


@pytest.fixture(scope="module", name="server")
def fixture_server():
    with Server(TINY_MODEL) as server:
        yield server


def curl(*arguments, stdin=None, timeout=60):
    result = subprocess.run(["curl", "--silent", "--show-error", "--noproxy", "*", *map(str, arguments)], input=stdin, capture_output=True,
                            text=True, timeout=timeout, check=False)
    assert result.returncode == 0, result.stderr
    return result


def body(server, **fields):
    return json.dumps({"model": server.model, "prompt": PROMPT, "temperature": 0, "max_tokens": 8, "ignore_eos": True, **fields})


# --- curl -------------------------------------------------------------------------------------------------------------


def test_curl(server):
    answer = json.loads(curl(server.url + "/v1/completions", *JSON, "-d", body(server)).stdout)
    assert answer["choices"][0]["text"] == server.complete(PROMPT, max_tokens=8, ignore_eos=True)["choices"][0]["text"]


def test_curl_streams(server):
    result = curl("-i", "-N", server.url + "/v1/completions", *JSON, "-d", body(server, stream=True))
    head, _, events = result.stdout.replace("\r", "").partition("\n\n")
    assert head.startswith("HTTP/1.1 200") and re.search("(?im)^content-type: text/event-stream", head)
    assert re.search("(?im)^cache-control: .*no-cache|no-store", head)
    lines = [line for line in events.split("\n\n") if line.strip()]
    assert all(line.startswith("data: ") for line in lines) and lines[-1] == "data: [DONE]"
    text = "".join(json.loads(line[6:])["choices"][0]["text"] for line in lines[:-1])
    assert text == server.complete(PROMPT, max_tokens=8, ignore_eos=True)["choices"][0]["text"]


def test_events_come_as_they_are_made(server):
    """The first ones before the last one is computed."""
    with subprocess.Popen(["curl", "-sN", server.url + "/v1/completions", *JSON, "-d", body(server, stream=True, max_tokens=240)],
                          stdout=subprocess.PIPE, text=True) as client:
        first = client.stdout.readline()
        before = server.metrics()["atom_generated_tokens_total"]
        rest = client.stdout.read()
    assert first.startswith("data: ") and rest.rstrip().endswith("data: [DONE]")
    after = server.metrics()["atom_generated_tokens_total"]
    assert rest.count("data: ") > 30 and before < after


def test_keep_alive_over_requests_of_every_kind(server):
    """One connection: GET, POST, a stream, an error, a 404, and again."""
    post = [*JSON, "-w", "\n%{http_code} %{num_connects}\n"]
    url = server.url
    requests = [
        ([url + "/health"], 200), ([url + "/v1/completions", "-d", body(server)], 200),
        ([url + "/v1/completions", "-d", body(server, stream=True)], 200), ([url + "/v1/completions", "-d", "{"], 400),
        ([url + "/no/such/path"], 404), ([url + "/v1/completions"], 405), ([url + "/v1/chat/completions", "-d", body(server)], 400),
        ([url + "/metrics"], 200)]
    arguments = []
    for request, _ in requests:
        arguments += [*(["--next"] if arguments else []), "-s", *request, *post]
    result = curl(*arguments).stdout
    found = re.findall(r"(?m)^(\d{3}) (\d)$", result)
    assert [int(status) for status, _ in found] == [status for _, status in requests]
    assert sum(int(connects) for _, connects in found) == 1


def test_expect_100_continue_with_a_big_body(server):
    """The server asks for the body with 100, or refuses it before it comes."""
    padding = json.dumps({"model": server.model, "prompt": "a", "max_tokens": 1, "user": "x" * (2 << 20)})
    common = ["-v", server.url + "/v1/completions", *JSON, "-H", "Expect: 100-continue", "--expect100-timeout", "30", "-o", "/dev/null",
              "-w", "%{http_code} %{time_total}", "-d", "@-"]
    result = curl(*common, stdin=padding)
    assert "100 Continue" in result.stderr
    status, seconds = result.stdout.split()
    assert int(status) in (200, 400) and float(seconds) < 20
    huge = "x" * (20 << 20)
    result = subprocess.run(["curl", "-s", *common], input=huge, capture_output=True, text=True, timeout=60, check=False)
    assert "413" in result.stdout or result.returncode in (55, 56)
    assert "100 Continue" not in result.stderr
    assert server.get("/health")


def test_head_and_options(server):
    assert curl("-I", server.url + "/health").stdout.startswith(("HTTP/1.1 200", "HTTP/1.1 405"))
    assert "access-control-allow-origin" not in curl("-i", "-H", "Origin: http://evil.example", server.url + "/v1/models").stdout.lower()
    preflight = curl("-i", "-X", "OPTIONS", "-H", "Origin: http://evil.example", "-H", "Access-Control-Request-Method: POST",
                     server.url + "/v1/completions").stdout.lower()
    assert "access-control-allow" not in preflight


def test_cors_for_the_origins_that_are_named():
    with Server(TINY_MODEL, "--cors-origin", "http://good.example") as server:
        def allowed(origin):
            head = curl("-i", "-X", "OPTIONS", "-H", f"Origin: {origin}", "-H", "Access-Control-Request-Method: POST",
                        server.url + "/v1/completions").stdout.lower()
            return f"access-control-allow-origin: {origin}" in head
        assert allowed("http://good.example") and not allowed("http://evil.example")


# --- TLS --------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module", name="certificate")
def fixture_certificate(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tls")
    subprocess.run(["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=localhost",
                    "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1", "-keyout", folder / "key.pem", "-out", folder / "cert.pem"],
                   check=True, capture_output=True)
    return folder / "cert.pem", folder / "key.pem"


def test_tls(certificate):
    import openai
    import ssl

    cert, key = certificate
    with Server(TINY_MODEL, "--tls-cert", cert, "--tls-key", key) as server:
        assert server.url.startswith("https://")
        models = json.loads(curl("--cacert", cert, server.url + "/v1/models").stdout)
        server._model = models["data"][0]["id"]
        streamed = curl("-N", "--cacert", cert, server.url + "/v1/completions", *JSON, "-d", body(server, stream=True)).stdout
        assert streamed.rstrip().endswith("data: [DONE]")
        assert subprocess.run(["curl", "-s", server.url + "/health"], capture_output=True, check=False).returncode == 60  # not trusted
        with socket.create_connection((server.host, server.port), 10) as plain:
            plain.sendall(b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n")
            assert b"200 OK" not in plain.recv(1000)
        for old in (ssl.TLSVersion.TLSv1, ssl.TLSVersion.TLSv1_1):
            context = ssl.create_default_context(cafile=str(cert))
            context.minimum_version = context.maximum_version = old
            with socket.create_connection((server.host, server.port), 10) as raw, pytest.raises((ssl.SSLError, OSError)):
                context.wrap_socket(raw, server_hostname="localhost").close()
        os.environ["SSL_CERT_FILE"], before = str(cert), os.environ.get("SSL_CERT_FILE")
        try:
            with openai.OpenAI(base_url=server.url + "/v1", api_key="x", max_retries=0) as client:
                assert client.completions.create(model=server.model, prompt="a", max_tokens=2).usage.completion_tokens >= 1
        finally:
            os.environ.pop("SSL_CERT_FILE") if before is None else os.environ.update(SSL_CERT_FILE=before)


def test_tls_files_that_are_wrong(certificate, tmp_path):
    cert, key = certificate
    (tmp_path / "junk.pem").write_text("junk")
    result = run("serve", TINY_MODEL, "--port", 0, "--tls-cert", cert)
    assert result.returncode in (1, 2) and "key" in assert_fails(result, result.returncode)
    assert "junk.pem" in assert_fails(run("serve", TINY_MODEL, "--port", 0, "--tls-cert", tmp_path / "junk.pem", "--tls-key", key), 1)
    assert_fails(run("serve", TINY_MODEL, "--port", 0, "--tls-cert", tmp_path / "none.pem", "--tls-key", key), 1)


# --- settings ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("flags, code", [
    (["--port", "70000"], 2), (["--port", "x"], 2), (["--no-such-flag"], 2), (["--max-running", "0"], 2), (["--max-step-tokens", "0"], 2),
    (["--config", "no/such/file"], None), (["--host", "999.1.1.1"], 1), (["--host", ""], 1), (["--max-waiting", "0"], 2), (["--cache-tokens", "1"], None), (["--context", "100000"], None)])
def test_bad_flags(flags, code):
    result = run("serve", TINY_MODEL, *([] if "--port" in flags else ["--port", 0]), *flags, timeout=30)
    assert_fails(result, code if code is not None else result.returncode)
    assert result.returncode in (1, 2)


def test_no_model():
    assert "no/such" in assert_fails(run("serve", "no/such/model", "--port", 0), 1)


def test_help():
    text = run_ok("serve", "--help")
    for flag in ("--port", "--host", "--api-key", "--tls-cert", "--tls-key", "--cors-origin", "--max-body-bytes", "--max-connections",
                 "--max-running", "--max-waiting", "--max-step-tokens", "--cache-tokens", "--no-prefix-cache", "--config"):
        assert flag in text, flag


def test_settings_of_environment_and_file_and_their_order(tmp_path):
    """A flag goes before the environment, which goes before the file."""
    config = tmp_path / "serve.toml"
    config.write_text("max-running = 3\nmax-waiting = 7\nmax-step-tokens = 99\n")
    with Server(TINY_MODEL, "--config", config, "--max-step-tokens", 101, env={"ATOM_SERVE_MAX_WAITING": "8"}) as server:
        text = server.text()
    for name, value in (("max-running", 3), ("max-waiting", 8), ("max-step-tokens", 101)):
        assert re.search(rf"(?m)\b{name}\b\W+{value}\b", text), (name, value, text)


def test_config_files_that_are_wrong(tmp_path):
    for text in ("no-such-setting = 1\n", "max-running = many\n", "[[[\n"):
        (tmp_path / "serve.toml").write_text(text)
        assert run("serve", TINY_MODEL, "--port", 0, "--config", tmp_path / "serve.toml", timeout=30).returncode in (1, 2)
    (tmp_path / "serve.toml").write_text("cache-tokens = 4096\n")
    result = run("serve", TINY_MODEL, "--port", 0, "--cache-memory", "1MB", "--config", tmp_path / "serve.toml", timeout=30)
    assert "excludes --cache-memory" in assert_fails(result, 2)
    result = run("serve", TINY_MODEL, env={"ATOM_SERVE_PORT": "many"}, timeout=30)
    assert result.returncode in (1, 2) and result.stderr.count("error: ") == 1


def test_keys_are_not_printed_and_can_come_from_the_environment():
    with Server(TINY_MODEL, env={"ATOM_SERVE_API_KEY": "very-secret"}) as server:
        assert server.request("GET", "/v1/models")[0] == 401
        server.api_key = "very-secret"
        assert server.request("GET", "/v1/models")[0] == 200
        text = server.text()
    assert "very-secret" not in text


def test_loopback_only_by_default(server):
    assert server.host in ("127.0.0.1", "localhost", "::1")


# --- port, signals ----------------------------------------------------------------------------------------------------


def test_second_process_on_the_port(server):
    error = assert_fails(run("serve", TINY_MODEL, "--port", server.port, timeout=30), 1)
    assert str(server.port) in error and "in use" in error.lower()
    assert server.get("/health")


def test_the_port_is_free_again_at_once():
    with Server(TINY_MODEL) as server:
        port = server.port
        server.complete("a", max_tokens=1)
    with Server(TINY_MODEL, port=port) as server:
        assert server.port == port


def stream_in_background(server, **fields):
    """(thread, list of lines that fills)."""
    lines = []

    def work():
        with subprocess.Popen(["curl", "-sN", server.url + "/v1/completions", *JSON, "-d", body(server, stream=True, **fields)],
                              stdout=subprocess.PIPE, text=True) as client:
            lines.extend(line.strip() for line in client.stdout if line.strip())

    thread = threading.Thread(target=work)
    thread.start()
    return thread, lines


@pytest.mark.parametrize("kind", [signal.SIGTERM, signal.SIGINT])
def test_signals_drain(kind):
    """What streams goes on to its end; new connections are refused; then the process ends with 0."""
    with Server(TINY_MODEL, "--max-running", 4) as server:
        before = server.complete(PROMPT, max_tokens=240, ignore_eos=True)["choices"][0]["text"]
        streams = [stream_in_background(server, max_tokens=240) for _ in range(16)]
        server.wait_for("atom_running_sequences", lambda n: n >= 1)
        begin = time.monotonic()
        server.process.send_signal(kind)
        seconds = server.wait(60, begin)
    for thread, lines in streams:
        thread.join(10)
        if lines:  # it had been accepted
            assert lines[-1] == "data: [DONE]", lines[-1]
            assert "".join(json.loads(line[6:])["choices"][0]["text"] for line in lines[:-1]) == before
    assert any(lines for _, lines in streams)
    assert seconds < 40


def test_ready_while_draining():
    """New connections are refused; one that is kept alive hears that the server is not ready, or is closed."""
    with Server(TINY_MODEL) as server:
        kept = http.client.HTTPConnection(server.host, server.port, timeout=30)
        kept.request("GET", "/ready")
        assert kept.getresponse().read() and server.request("GET", "/health")[0] == 200
        thread, lines = stream_in_background(server, max_tokens=230, n=16, temperature=1)
        server.wait_for("atom_running_sequences", lambda n: n >= 1)
        server.process.send_signal(signal.SIGTERM)
        time.sleep(0.1)
        try:
            kept.request("GET", "/ready")
            assert kept.getresponse().status == 503
        except (ConnectionError, http.client.HTTPException):
            pass
        with pytest.raises(OSError):
            server.request("GET", "/health")
        server.wait(60)
    thread.join(10)
    assert lines[-1] == "data: [DONE]"


def test_sigterm_ends_within_the_time_set():
    """A stream that would go on for longer is cut."""
    with Server(TINY_MODEL, "--drain-timeout", "1") as server:
        streams = [stream_in_background(server, max_tokens=230, n=32, temperature=1) for _ in range(8)]
        server.wait_for("atom_running_sequences", lambda n: n >= 1)
        assert server.stop() < 5
    for thread, _ in streams:
        thread.join(10)


def test_sigterm_amid_steps():
    """The engine is still at work on requests that are cut: what it says of them must find who hears it."""
    for _ in range(20):
        with Server(TINY_MODEL, "--drain-timeout", "0.01") as server:
            clients = [socket.create_connection((server.host, server.port), 10) for _ in range(8)]
            for i, client in enumerate(clients):
                text = json.dumps({"model": "gqa_tied_f32", "prompt": [1, 2, 3], "max_tokens": 230, "n": 8, "stream": i % 2 == 0, "ignore_eos": True})
                client.sendall(f"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Length: {len(text)}\r\n\r\n{text}".encode())
            time.sleep(0.05)
            server.stop()
        for client in clients:
            client.close()


def test_sigterm_while_idle_ends_at_once():
    with Server(TINY_MODEL) as server:
        assert server.stop() < 3


def test_half_open_and_slow_connections(server):
    """Connections that send nothing, half a request or half a body neither block others nor keep blocks."""
    connections = []
    for piece in (b"", b"GET /health HT", b"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n{"):
        for _ in range(20):
            connection = socket.create_connection((server.host, server.port), 10)
            connection.sendall(piece)
            connections.append(connection)
    assert server.complete("a", max_tokens=2)["usage"]["completion_tokens"] >= 1
    for connection in connections:
        connection.close()
    server.assert_idle()


def test_a_client_that_vanishes_frees_its_blocks(server):
    for fields in ({"stream": True}, {}):
        for linger in (True, False):
            connection = socket.create_connection((server.host, server.port), 10)
            text = body(server, max_tokens=230, n=16, temperature=1, **fields)
            connection.sendall(f"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: {len(text)}\r\n\r\n{text}".encode())
            server.wait_for("atom_running_sequences", lambda n: n >= 1)
            if linger:  # RST instead of FIN
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
            connection.close()
            server.assert_idle(within=1.0)


def test_a_reader_that_reads_nothing_frees_its_blocks(server):
    """Its socket buffers fill up; it is dropped while others go on."""
    connection = socket.socket()
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    connection.connect((server.host, server.port))
    text = body(server, max_tokens=230, n=64, temperature=1, stream=True, logprobs=5)
    connection.sendall(f"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: {len(text)}\r\n\r\n{text}".encode())
    server.wait_for("atom_running_sequences", lambda n: n >= 1)
    server.wait_for("atom_running_sequences", lambda n: n == 0, within=60)
    server.assert_idle()
    connection.close()
