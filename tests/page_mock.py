"""A stand-in for `atom serve`, for tests of the web page: its files, and an API that says and fails as the test wants."""

import json
import pathlib
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

FOLDER = pathlib.Path(__file__).resolve().parents[1] / "src" / "server" / "page"
TYPES = {".html": "text/html; charset=utf-8", ".css": "text/css; charset=utf-8", ".js": "text/javascript; charset=utf-8",
         ".svg": "image/svg+xml"}
POLICY = "default-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
METRICS = {
    "generated_tokens_total": 0, "prompt_tokens_total": 0, "cached_prompt_tokens_total": 0, "preemptions_total": 0,
    "running_sequences": 0, "waiting_sequences": 0, "cache_tokens_capacity": 65536, "cache_tokens_used": 0}


class MockServer:
    """Serves until close(). `requests` holds (path, headers, JSON or None) of every request for the API; `answers` the
    pieces of text of the answers to come (the last is used again); `pause` seconds between two pieces; `gate` a semaphore that each piece takes one of, or None; `fail` (status,
    headers, message) or None; `key` what requests must bring, or None; `cut` bytes at which writes are cut; `gone`
    is set when a client goes in the middle of an answer."""

    def __init__(self):
        self.requests, self.answers, self.metrics = [], [["Hello", " there", "."]], dict(METRICS)
        self.pause, self.fail, self.key, self.cut, self.gone = 0.0, None, None, None, threading.Event()
        self.gate = None
        self.break_off = False  # the stream ends in an error after its pieces
        handler = type("Handler", (_Handler,), {"mock": self})
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, args=(0.05,), daemon=True).start()

    def chats(self):
        return [body for path, _, body in self.requests if path == "/v1/chat/completions"]

    def close(self):
        self.server.shutdown()
        self.server.server_close()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    mock: MockServer

    def log_message(self, *_):
        pass

    def reply(self, status, body, kind="application/json", headers=()):
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.send_response(status)
        for name, value in (("Content-Type", kind), ("Content-Length", str(len(data))), *headers):
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(data)

    def error(self, status, message, headers=()):
        self.reply(status, {"error": {"message": message, "type": "error", "param": None, "code": None}}, headers=headers)

    def refused(self):
        if self.mock.key is None or self.headers.get("Authorization") == f"Bearer {self.mock.key}":
            return False
        self.error(401, "Incorrect API key provided.")
        return True

    def do_GET(self):  # noqa: N802 (the name that http.server calls)
        name = "index.html" if self.path == "/" else self.path[1:]
        if "/" not in name and (FOLDER / name).is_file():
            headers = [("Content-Security-Policy", POLICY), ("X-Content-Type-Options", "nosniff"), ("Cache-Control", "no-cache")]
            self.reply(200, (FOLDER / name).read_bytes(), TYPES[pathlib.Path(name).suffix], headers)
            return
        self.mock.requests.append((self.path, dict(self.headers), None))
        if self.refused():
            return
        if self.path == "/v1/models":
            self.reply(200, {"object": "list", "data": [{"id": "SmolLM2-135M-W4A4KV4", "object": "model"}]})
        elif self.path == "/metrics":
            text = "".join(f"# TYPE atom_{name} gauge\natom_{name} {value}\n" for name, value in self.mock.metrics.items())
            self.reply(200, text.encode(), "text/plain; version=0.0.4")
        else:
            self.error(404, f"no such path: {self.path}")

    def do_POST(self):  # noqa: N802
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.mock.requests.append((self.path, dict(self.headers), body))
        if self.refused():
            return
        if self.mock.fail is not None:
            status, headers, message = self.mock.fail
            self.error(status, message, headers)
            return
        pieces = self.mock.answers[0]
        if len(self.mock.answers) > 1:
            self.mock.answers.pop(0)
        try:
            self.stream(pieces)
        except (BrokenPipeError, ConnectionResetError):
            self.mock.gone.set()
            self.close_connection = True

    def event(self, choices, **more):
        value = {"id": "1", "object": "chat.completion.chunk", "choices": choices, **more}
        return b"data: " + json.dumps(value, ensure_ascii=False).encode() + b"\n\n"

    def stream(self, pieces):
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        self.chunk(self.event([{"index": 0, "delta": {"role": "assistant", "content": ""}, "finish_reason": None}]))
        for piece in pieces:
            if self.mock.gate is not None:
                self.mock.gate.acquire(timeout=30)
            self.mock.metrics["generated_tokens_total"] += 1
            self.chunk(self.event([{"index": 0, "delta": {"content": piece}, "finish_reason": None}]))
            time.sleep(self.mock.pause)
        if self.mock.break_off:
            self.chunk(b'data: {"error": {"message": "The engine has stopped."}}\n\n')
        else:
            usage = {"prompt_tokens": 31, "completion_tokens": len(pieces), "total_tokens": 31 + len(pieces),
                     "prompt_tokens_details": {"cached_tokens": 16}}
            self.chunk(self.event([{"index": 0, "delta": {}, "finish_reason": "stop"}]))
            self.chunk(self.event([], usage=usage))
            self.chunk(b"data: [DONE]\n\n")
        self.chunk(b"")

    def chunk(self, data):
        step = self.mock.cut or max(1, len(data))
        for begin in range(0, max(1, len(data)), step):
            part = data[begin:begin + step]
            self.wfile.write(b"%x\r\n%s\r\n" % (len(part), part))
            self.wfile.flush()
