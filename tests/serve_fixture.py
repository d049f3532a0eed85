"""A running `atom serve`, and the models that the tests of it run on."""

import contextlib
import fcntl
import hashlib
import http.client
import json
import os
import pathlib
import re
import shutil
import signal
import subprocess
import threading
import time
import urllib.parse

from atom_cli import BINARY, GOLDEN, run_json

MODEL = os.environ.get("ATOM_TEST_MODEL")
SHAREGPT = os.environ.get("ATOM_TEST_SHAREGPT")
TINY_MODEL = GOLDEN / "gqa_tied_f32"  # 256 positions, 320 tokens, a chat template
DOCS = GOLDEN.parents[1] / "docs"


class Server:
    """`atom serve MODEL FLAGS...` in a process of its own; `with Server(...) as server:` stops it by SIGTERM at the
    end, which must end it with exit code 0."""

    def __init__(self, model, *flags, env=None, port=0, binary=BINARY, timeout=60, api_key=None, expect=0):
        self.flags = [*map(str, flags), *(["--api-key", api_key] if api_key else [])]
        port_flags = [] if port is None else ["--port", str(port)]
        self.command = [str(binary), "serve", str(model), *port_flags, *self.flags]
        self.env = {**os.environ, **(env or {})}
        self.timeout = timeout
        self.api_key = api_key
        self.expect = expect
        self.log = []
        self.process = None
        self.url = self.host = self.port = None
        self._model = None
        self._listening = threading.Event()

    def start(self):
        self.process = subprocess.Popen(self.command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                                        stderr=subprocess.PIPE, text=True, errors="replace", env=self.env)
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        if not self._listening.wait(self.timeout) or not self.url:
            self.kill()
            raise AssertionError(f"{self.command} does not listen:\n{self.text()}")
        return self

    def _read(self):
        for line in self.process.stderr:
            self.log.append(line)
            found = re.search(r"listening on (https?://\S+)", line)
            if found:
                self.url = found.group(1).rstrip("/")
                parts = urllib.parse.urlsplit(self.url)
                self.host, self.port = parts.hostname, parts.port
                self._listening.set()
        self._listening.set()

    def text(self):
        """All that it has written on standard error."""
        return "".join(self.log)

    def stop(self, timeout=60):
        """SIGTERM; returns the seconds that it took."""
        begin = time.monotonic()
        self.process.send_signal(signal.SIGTERM)
        return self.wait(timeout, begin)

    def wait(self, timeout=60, begin=None):
        begin = begin or time.monotonic()
        try:
            code = self.process.wait(timeout)
        except subprocess.TimeoutExpired:
            self.kill()
            raise AssertionError(f"still running {timeout} s after SIGTERM:\n{self.text()[-3000:]}") from None
        self._reader.join(10)
        assert code == self.expect, f"exit code {code}\n{self.text()[-3000:]}"
        assert "Sanitizer" not in self.text(), self.text()[-8000:]
        return time.monotonic() - begin

    def kill(self):
        self.process.kill()
        self.process.wait()

    def __enter__(self):
        return self.start()

    def __exit__(self, kind, *_):
        if kind is None and self.process.poll() is not None:
            self.wait()
        elif self.process.poll() is None:
            self.stop() if kind is None else self.kill()

    # --- plain HTTP

    def request(self, method, path, body=None, headers=None, timeout=120):
        """(status, headers in lower case, body bytes) over a connection of its own."""
        connection = http.client.HTTPConnection(self.host, self.port, timeout=timeout)
        headers = dict(headers or {})
        if self.api_key:
            headers.setdefault("Authorization", f"Bearer {self.api_key}")
        if body is not None and not isinstance(body, (bytes, str)):
            body = json.dumps(body)
            headers.setdefault("Content-Type", "application/json")
        with contextlib.closing(connection):
            connection.request(method, path, body, headers)
            response = connection.getresponse()
            return response.status, {k.lower(): v for k, v in response.getheaders()}, response.read()

    def get(self, path, **options):
        status, _, body = self.request("GET", path, **options)
        assert status == 200, (path, status, body[:500])
        return body

    def post(self, path, body, status=200, **options):
        """The JSON that answers a request."""
        found, _, answer = self.request("POST", path, body, **options)
        assert found == status, (path, found, answer[:500])
        return json.loads(answer)

    @property
    def model(self):
        """The name that it serves the model under."""
        if not self._model:
            self._model = json.loads(self.get("/v1/models"))["data"][0]["id"]
        return self._model

    def complete(self, prompt, **fields):
        """/v1/completions, greedy unless `fields` say otherwise."""
        return self.post("/v1/completions", {"model": self.model, "prompt": prompt, "temperature": 0, **fields})

    def tokenize(self, text):
        return self.post("/tokenize", {"prompt": text})["tokens"]

    # --- /metrics

    def metrics(self):
        """Name -> value; series of one name (they differ in labels) are summed."""
        values = {}
        for line in self.get("/metrics").decode().splitlines():
            found = re.fullmatch(r"([a-zA-Z_:][\w:]*)(\{.*\})? (\S+)( \S+)?", line)
            if found and not line.startswith("#"):
                values[found[1]] = values.get(found[1], 0) + float(found[3])
        return values

    def is_idle(self):
        """Nothing runs or waits, and no block is held by a sequence."""
        m = self.metrics()
        return (m["atom_running_sequences"] == 0 and m["atom_waiting_sequences"] == 0
                and m["atom_cache_blocks_used"] == 0)

    def assert_idle(self, within=1.0):
        deadline = time.monotonic() + within
        while not self.is_idle():
            assert time.monotonic() < deadline, {k: v for k, v in self.metrics().items() if "bucket" not in k}
            time.sleep(0.02)

    def wait_for(self, name, wanted, within=30):
        """Until the metric `name` is as `wanted` (a predicate) says."""
        deadline = time.monotonic() + within
        while not wanted(value := self.metrics()[name]):
            assert time.monotonic() < deadline, f"{name} is still {value}"
            time.sleep(0.01)

    def rss(self):
        """Resident bytes."""
        status = pathlib.Path(f"/proc/{self.process.pid}/status").read_text()
        return int(re.search(r"VmRSS:\s+(\d+) kB", status)[1]) * 1024


def packed_real_model():
    """(directory, what `quantize` said) of the real model quantized to W4A4KV4 with a small calibration. Made once for
    a build of the binary, beside it, and shared by test files, which may run at the same time."""
    folder = pathlib.Path(BINARY).resolve().parent / "test-models"
    folder.mkdir(exist_ok=True)
    stat = os.stat(BINARY)
    key = repr((stat.st_mtime_ns, stat.st_size, MODEL, SHAREGPT))
    made = folder / hashlib.sha256(key.encode()).hexdigest()[:16]
    with open(folder / "lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (made / "said.json").exists():
            for old in folder.iterdir():
                if old.is_dir():
                    shutil.rmtree(old)
            made.mkdir()
            said = run_json("quantize", MODEL, "-o", made / "smollm2", "--recipe", "atom", "--calib", SHAREGPT,
                            "--samples", "4", "--sample-length", "512", "--eval-text", real_text(made / "text.txt"),
                            "--eval-windows", "1", timeout=600)
            (made / "said.json").write_text(json.dumps(said))
    return made / "smollm2", json.loads((made / "said.json").read_text())


def real_text(path):
    """A text of more than one window of 2,048 tokens, from the repository."""
    path.write_text("\n".join(file.read_text() for file in sorted(DOCS.glob("*.md"))))
    return path


def conversations(count):
    """First messages of people in ShareGPT, in the file's order, with something in them. Reads no more of the file than
    it takes: it is large, and that of the PyPI package ends in the middle of a conversation."""
    found = []
    with open(SHAREGPT, encoding="utf-8") as file:
        text = file.read(1 << 20).lstrip().removeprefix("[")
        decoder = json.JSONDecoder()
        while len(found) < count:
            text = text.lstrip(" \t\r\n,")
            try:
                conversation, end = decoder.raw_decode(text)
            except ValueError:
                more = file.read(1 << 20)
                assert more, f"{SHAREGPT} has {len(found)} conversations that begin with a person, not {count}"
                text += more
                continue
            text = text[end:]
            turns = conversation.get("conversations") or []
            if turns and turns[0].get("from") == "human" and len(turns[0].get("value", "").strip()) >= 8:
                found.append(turns[0]["value"])
    return found
