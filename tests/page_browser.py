"""What the tests of the web page share: a headless Chromium, and servers to point it at.

ATOM_TEST_CHROMIUM names the browser (default: chromium of the PATH). Without it or Playwright the tests are skipped.
"""

import os
import re
import shutil
import socket
import subprocess
import time
import urllib.request

import pytest

from atom_cli import BINARY, GOLDEN, run
from page_mock import MockServer

sync_api = pytest.importorskip("playwright.sync_api")
expect = sync_api.expect
expect.set_options(timeout=20_000)
CHROMIUM = os.environ.get("ATOM_TEST_CHROMIUM") or shutil.which("chromium")
if not CHROMIUM:
    pytest.skip("no chromium", allow_module_level=True)

DESKTOP, PHONE = {"width": 1280, "height": 800}, {"width": 360, "height": 740}
# An answer with something of everything in it.
RICH = ["Three things ", "matter – naïve café 你好 🙂:\n\n", "1. **Scales**, one for ", "each group of `128` ", "channels.\n2. Outliers, kept in 8 bits.\n\n",
        "```cpp\n", "float y = fma(float(sum), ", "sx * sw, acc);  // groups in ascending order, outliers last\n",
        "```\n\n", "The rest follows from that."]


@pytest.fixture(scope="module", name="browser")
def fixture_browser():
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture(name="mock")
def fixture_mock():
    server = MockServer()
    yield server
    server.close()


class Opened:
    """A page, and what it complained of."""

    def __init__(self, browser, url, clock=False, **options):
        self.context = browser.new_context(viewport=options.pop("viewport", DESKTOP), **options)
        self.page = self.context.new_page()
        self.url, self.complaints, self.urls = url, [], []
        self.page.set_default_timeout(20_000)
        self.page.on("console", lambda message: self.complaints.append(message.text) if message.type in ("error", "warning") else None)
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.on("request", lambda request: self.urls.append(request.url))
        if clock:
            self.page.clock.install()
        self.page.goto(url)

    def say(self, text):
        self.page.fill("#message", text)
        self.page.press("#message", "Enter")

    def answers(self):
        return self.page.locator("article.assistant .text")

    def check(self, allowed="nothing"):
        """Nothing in the console but what matches `allowed`; nothing from elsewhere."""
        assert [c for c in self.complaints if not re.search(allowed, c)] == []
        assert all(url.startswith(self.url) for url in self.urls), self.urls


@pytest.fixture(name="open_page")
def fixture_open_page(browser):
    opened = []

    def open_page(url, **options):
        opened.append(Opened(browser, url, **options))
        return opened[-1]

    yield open_page
    for one in opened:
        one.context.close()


@pytest.fixture(scope="module", name="real_url")
def fixture_real_url(tmp_path_factory):
    """The address of `atom serve` with a tiny model."""
    if run("serve", "--help").returncode != 0:
        pytest.skip("this binary has no `serve`")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    log = tmp_path_factory.mktemp("serve") / "log"
    with log.open("w") as out, subprocess.Popen(
            [BINARY, "serve", str(GOLDEN / "gqa_tied_f32"), "--port", str(port)], stdin=subprocess.DEVNULL, stdout=out, stderr=out) as process:
        url = f"http://127.0.0.1:{port}"
        try:
            wait_until_ready(url, process, log)
            yield url
        finally:
            process.terminate()
            process.wait(30)


def wait_until_ready(url, process, log):
    for _ in range(300):
        assert process.poll() is None, log.read_text()
        try:
            with urllib.request.urlopen(f"{url}/ready", timeout=5):
                return
        except OSError:
            time.sleep(0.1)
    raise AssertionError(f"not ready in time: {log.read_text()}")


@pytest.fixture(params=["mock", "atom"], name="url")
def fixture_url(request):
    """A server that answers: the mock, and `atom serve`."""
    return request.getfixturevalue("mock").url if request.param == "mock" else request.getfixturevalue("real_url")
