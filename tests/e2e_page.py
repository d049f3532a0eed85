"""The web page of `atom serve` in a real, headless Chromium, against a mock of the API and against the binary itself: the
conversation, settings, errors and the live panel. How it looks and is used: e2e_page_looks.py."""

import itertools
import re
import threading
import time

import pytest

from page_browser import (  # noqa: F401 (fixtures)
    RICH, expect, fixture_browser, fixture_mock, fixture_open_page, fixture_real_url, fixture_url)


# --- Against both servers ---------------------------------------------------------------------------------------------


def set_max_tokens(opened, count):
    opened.page.click("#open-settings")
    opened.page.get_by_label("Max tokens").fill(str(count))
    opened.page.get_by_role("button", name="Save").click()


def test_an_answer_streams_in(url, open_page):
    opened = open_page(url)
    page = opened.page
    expect(page.locator("#model")).not_to_have_text(re.compile("connect"))
    set_max_tokens(opened, 12)
    opened.say("Hello")
    expect(page.locator("article.assistant footer .note")).to_contain_text("tokens read")
    expect(page.locator("article.assistant .problem")).to_have_count(0)
    expect(opened.answers()).not_to_have_text("")
    expect(page.locator("article.user .text")).to_have_text("Hello")
    expect(page.locator("#send")).to_have_text("Send")
    expect(page.locator("#live-cache-tokens")).to_have_text(re.compile(r"^[\d,]+ of [1-9][\d,]* tokens$"))
    opened.check()


def test_every_file_has_its_headers(url, open_page):
    opened = open_page(url)
    for path in ("/", "/page.css", "/page.js", "/events.js", "/favicon.svg"):
        headers = opened.page.request.get(url + path).headers
        assert headers["content-security-policy"].startswith("default-src 'self'")
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["cache-control"] == "no-cache"


# --- Conversation -----------------------------------------------------------------------------------------------------


def test_pieces_appear_as_they_come(mock, open_page):
    mock.answers, mock.gate = [["one ", "two ", "three ", "four"]], threading.Semaphore(2)
    opened = open_page(mock.url)
    opened.say("count")
    expect(opened.answers()).to_have_text("one two")
    expect(opened.page.locator("#messages")).to_have_attribute("aria-busy", "true")
    expect(opened.page.locator("#send")).to_have_text("Stop")
    opened.page.wait_for_timeout(1000)
    mock.gate.release(2)
    expect(opened.answers()).to_have_text("one two three four")
    expect(opened.page.locator("#messages")).to_have_attribute("aria-busy", "false")
    note = opened.page.locator("article.assistant .note").inner_text()
    speed = float(re.fullmatch(r"31 tokens read \(16 from the cache\) · 4 written · ([\d.]+) tokens/s", note)[1])
    assert 0.1 < speed < 3.1, "three tokens after the first, in a second or more"
    expect(opened.page.locator("#status")).to_contain_text("Answer complete")
    opened.check()


@pytest.mark.parametrize("cut", [1, 3, 7])
def test_a_stream_cut_anywhere(cut, mock, open_page):
    mock.answers, mock.cut = [["naïve ", "café 你好", " 🙂🙃"]], cut
    opened = open_page(mock.url)
    opened.say("hello")
    expect(opened.answers()).to_have_text("naïve café 你好 🙂🙃")
    opened.check()


def test_the_parser_of_events(mock, open_page):
    """Whatever the line ends and wherever a text is cut into two or three pieces, the events are the same."""
    text = ": comment\n\ndata: a\ndata:b\n\nevent: x\ndata\n\n\ndata:  c\nid: 1\n\ndata: unfinished"
    cuts = [list(c) for c in itertools.combinations(range(len(text) + 6), 2)]
    bad = open_page(mock.url).page.evaluate(
        """async ([text, cuts]) => {
          const {EventParser} = await import("/events.js");
          const bad = [];
          for (const end of ["\\n", "\\r", "\\r\\n"]) {
            const whole = text.replaceAll("\\n", end);
            for (const [a, b] of cuts) {
              const parser = new EventParser();
              const found = [whole.slice(0, a), whole.slice(a, b), "", whole.slice(b)].flatMap(p => parser.push(p));
              if (JSON.stringify(found) !== '["a\\\\nb",""," c"]') bad.push([end, a, b, found]);
            }
          }
          return bad;
        }""", [text, cuts])
    assert bad == []


def test_stop(mock, open_page):
    """By the button and by Escape: what was written stays, the server notices, the conversation goes on."""
    mock.pause = 0.1
    opened = open_page(mock.url)
    page = opened.page
    for i, stop in enumerate((lambda: page.click("#send"), lambda: page.keyboard.press("Escape"))):
        mock.answers = [["word "] * 200]
        mock.gone.clear()
        opened.say("go on")
        expect(opened.answers().nth(i)).to_contain_text("word word")
        stop()
        expect(page.locator("article.assistant .note").nth(i)).to_have_text("Stopped")
        assert mock.gone.wait(5), "the server still writes"
        expect(page.locator("#send")).to_have_text("Send")
        expect(page.locator("#status")).to_have_text("Stopped")
    mock.answers, mock.pause = [["done"]], 0
    opened.say("and now")
    expect(opened.answers().nth(2)).to_have_text("done")
    assert [m["role"] for m in mock.chats()[-1]["messages"]] == ["user", "assistant"] * 2 + ["user"]
    assert all(set(m) == {"role", "content"} for m in mock.chats()[-1]["messages"])
    opened.check()


def test_enter_sends_and_shift_enter_does_not(mock, open_page):
    opened = open_page(mock.url)
    page = opened.page
    page.keyboard.press("Enter")
    page.keyboard.type("   ")
    page.keyboard.press("Enter")
    assert mock.chats() == []
    page.fill("#message", "")
    page.keyboard.type("first")
    before = page.locator("#message").bounding_box()["height"]
    page.keyboard.press("Shift+Enter")
    page.keyboard.type("second")
    assert page.locator("#message").bounding_box()["height"] > before
    page.keyboard.press("Enter")
    expect(opened.answers()).to_have_text("Hello there.")
    assert mock.chats()[0]["messages"] == [{"role": "user", "content": "first\nsecond"}]
    assert page.locator("#message").bounding_box()["height"] == before
    expect(page.locator("#message")).to_have_value("")


def test_regenerate_and_new_chat(mock, open_page):
    mock.answers = [["first"], ["second"], ["third"]]
    opened = open_page(mock.url)
    page = opened.page
    opened.say("one")
    expect(opened.answers()).to_have_text("first")
    opened.say("two")
    expect(opened.answers().nth(1)).to_have_text("second")
    expect(page.get_by_role("button", name="Regenerate")).to_have_count(1)
    page.get_by_role("button", name="Regenerate").click()
    expect(opened.answers()).to_have_text(["first", "third"])
    assert mock.chats()[2]["messages"] == mock.chats()[1]["messages"]
    page.reload()
    expect(opened.answers()).to_have_text(["first", "third"])
    page.click("#new-chat")
    expect(page.locator("article")).to_have_count(0)
    expect(page.locator("#welcome")).to_be_visible()
    expect(page.locator("#message")).to_be_focused()
    opened.say("anew")
    expect(opened.answers()).to_have_text(["third"])
    assert [m["content"] for m in mock.chats()[3]["messages"]] == ["anew"]
    opened.check()


def test_new_chat_in_the_middle_of_an_answer(mock, open_page):
    mock.answers, mock.pause = [["word "] * 200, ["short"]], 0.05
    opened = open_page(mock.url)
    opened.say("go on")
    expect(opened.answers()).to_contain_text("word word")
    opened.page.click("#new-chat")
    assert mock.gone.wait(5)
    opened.say("again")
    expect(opened.answers()).to_have_text(["short"])
    expect(opened.page.locator("#send")).to_have_text("Send")
    opened.check()


def test_copy(mock, open_page):
    mock.answers = [RICH]
    opened = open_page(mock.url, permissions=["clipboard-read", "clipboard-write"])
    opened.say("tell")
    opened.page.get_by_role("button", name="Copy").click()
    expect(opened.page.get_by_role("button", name="Copied")).to_be_visible()
    assert opened.page.evaluate("navigator.clipboard.readText()") == "".join(RICH)


def test_answers_are_text(mock, open_page):
    evil = '<img src=x onerror="document.title=1"><script>document.title=2</script> `<b>` **<i>x</i>**\n\n```html\n<b>\n'
    mock.answers = [list(evil)]
    opened = open_page(mock.url)
    opened.say("<b>bold</b>")
    expect(opened.page.locator("article.assistant footer")).to_contain_text("written")
    assert opened.page.locator("article.user .text").inner_text() == "<b>bold</b>"
    tags = opened.answers().evaluate("e => [...e.querySelectorAll('*')].map(x => x.tagName)")
    assert tags == ["P", "CODE", "STRONG", "PRE", "CODE"]
    assert opened.page.locator("pre").inner_text() == "<b>"
    assert "onerror" in opened.answers().inner_text() and "Atom" in opened.page.title()
    opened.check()


# --- Settings and errors ----------------------------------------------------------------------------------------------


def test_settings_are_sent_and_kept(mock, open_page):
    opened = open_page(mock.url)
    page = opened.page
    opened.say("plain")
    expect(opened.answers()).to_have_text("Hello there.")
    first = mock.chats()[0]
    assert set(first) == {"model", "messages", "stream", "stream_options"} and first["model"] == "SmolLM2-135M-W4A4KV4"
    page.click("#open-settings")
    values = {"System message": "Be brief.", "Temperature": "0.7", "Top-p": "0.9", "Max tokens": "64", "Seed": "-5", "API key": "secret"}
    for label, value in values.items():
        page.get_by_label(label).fill(value)
    page.get_by_role("button", name="Save").click()
    for reload in (False, True):
        if reload:
            page.reload()
        page.click("#new-chat")
        opened.say("with settings")
        expect(opened.answers()).to_have_text("Hello there.")
        sent = mock.chats()[-1]
        assert sent["messages"] == [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "with settings"}]
        assert {name: sent[name] for name in ("temperature", "top_p", "max_tokens", "seed")} == {
            "temperature": 0.7, "top_p": 0.9, "max_tokens": 64, "seed": -5}
        assert mock.requests[-1][1].get("Authorization") == "Bearer secret"
    page.click("#open-settings")
    for label, value in values.items():
        expect(page.get_by_label(label)).to_have_value(value)
    assert "secret" not in page.evaluate("JSON.stringify(localStorage)")
    # A value out of range is not taken; Cancel and Escape change nothing.
    page.get_by_label("Temperature").fill("3")
    page.get_by_role("button", name="Save").click()
    expect(page.locator("#settings")).to_be_visible()
    page.keyboard.press("Escape")
    expect(page.locator("#settings")).to_be_hidden()
    page.click("#open-settings")
    expect(page.get_by_label("Temperature")).to_have_value("0.7")
    page.get_by_role("button", name="Clear").click()
    page.get_by_role("button", name="Save").click()
    assert page.evaluate("localStorage.getItem('atom.settings')") == "{}"
    opened.check()


def test_errors_are_shown_in_place(mock, open_page):
    opened = open_page(mock.url)
    page = opened.page
    problem = page.locator("article .problem")
    mock.fail = (400, (), "max_tokens: expected a number above 0")
    opened.say("hello")
    expect(problem).to_contain_text("max_tokens: expected a number above 0")
    mock.fail = (429, (("Retry-After", "3"),), "The queue is full.")
    page.get_by_role("button", name="Try again").click()
    expect(problem).to_contain_text("The queue is full.")
    expect(problem).to_contain_text("wait 3 s")
    expect(page.locator("#status")).to_have_text("The queue is full.")
    mock.fail = None
    page.get_by_role("button", name="Try again").click()
    expect(opened.answers()).to_have_text("Hello there.")
    expect(problem).to_have_count(0)
    assert [len(chat["messages"]) for chat in mock.chats()] == [1, 1, 1]
    # In the middle of a stream: what came stays.
    mock.break_off = True
    opened.say("more")
    expect(problem).to_contain_text("The engine has stopped.")
    expect(opened.answers().nth(1)).to_have_text("Hello there.")
    opened.check("Failed to load resource.*(400|429)")


def test_a_server_that_is_gone(mock, open_page):
    opened = open_page(mock.url)
    expect(opened.page.locator("#live-running")).to_have_text("0")
    opened.context.set_offline(True)
    opened.say("hello")
    expect(opened.page.locator("article .problem")).to_contain_text("can't be reached")
    expect(opened.page.locator("#live-problem")).to_be_visible()
    opened.context.set_offline(False)
    opened.page.get_by_role("button", name="Try again").click()
    expect(opened.answers()).to_have_text("Hello there.")
    expect(opened.page.locator("#live-problem")).to_be_hidden(timeout=8000)
    opened.check("ERR_INTERNET_DISCONNECTED")


def test_the_key_is_asked_for(mock, open_page):
    """On arrival, and when a key no longer holds: then the question goes out again with the new one."""
    mock.key = "right"
    opened = open_page(mock.url)
    page = opened.page
    expect(page.locator("#key-wanted")).to_have_text("This server wants an API key.")
    expect(page.get_by_label("API key")).to_be_focused()
    page.get_by_label("API key").fill("right")
    page.keyboard.press("Enter")
    expect(page.locator("#model")).to_have_text("SmolLM2-135M-W4A4KV4")
    expect(page.locator("#live-running")).to_have_text("0")
    mock.key = "newer"
    opened.say("hello")
    expect(page.locator("#key-wanted")).to_have_text("The server does not accept this API key.")
    page.get_by_label("API key").fill("newer")
    page.keyboard.press("Enter")
    expect(opened.answers()).to_have_text("Hello there.")
    expect(page.locator("#key-wanted")).to_be_hidden()
    opened.check("Failed to load resource.*401")


# --- Live panel -------------------------------------------------------------------------------------------------------


def points_of(graph):
    return (graph.get_attribute("points") or "").split()


def test_live_panel(mock, open_page):
    mock.metrics.update(generated_tokens_total=1000, prompt_tokens_total=4000, cached_prompt_tokens_total=1000, preemptions_total=7,
                        running_sequences=3, waiting_sequences=12, cache_tokens_used=16384)
    opened = open_page(mock.url, clock=True)
    page = opened.page
    expected = {"running": "3", "waiting": "12", "cache": "25%", "cache-tokens": "16,384 of 65,536 tokens", "hits": "25%", "preemptions": "7"}
    for name, text in expected.items():
        expect(page.locator(f"#live-{name}")).to_have_text(text)
    gauge = page.locator("#live-gauge")
    assert gauge.evaluate("e => e.offsetWidth / e.parentElement.offsetWidth") == pytest.approx(0.25, abs=0.01)
    # From here on the page's clock moves as the test moves it, once what is under way has come in.
    page.clock.pause_at(page.evaluate("Date.now() + 5000"))
    page.wait_for_timeout(1000)
    graph = page.locator("#graph-line")
    for count, (tokens, speed) in enumerate(((0, "0"), (250, "250"), (7, "7.0"), (1234, "1,234")), len(points_of(graph)) + 1):
        mock.metrics["generated_tokens_total"] += tokens
        page.clock.run_for(1000)
        expect(graph).to_have_attribute("points", re.compile(rf"^\S+( \S+){{{count - 1}}}$"))
        expect(page.locator("#live-speed")).to_have_text(speed)
    expect(page.locator("#live-peak")).to_have_text("peak 1,234")
    highest = [float(point.split(",")[1]) for point in points_of(graph)][-4:]
    assert highest == pytest.approx([34, 34 - 32 * 250 / 1234, 34 - 32 * 7 / 1234, 2], abs=0.1)
    mock.metrics["generated_tokens_total"] = 5  # another server at this address
    page.clock.run_for(1000)
    expect(page.locator("#live-speed")).to_have_text("–")
    opened.check()


def test_live_panel_rests_while_hidden(mock, open_page):
    opened = open_page(mock.url)
    page = opened.page
    expect(page.locator("#live-running")).to_have_text("0")
    hide = """hidden => {
      Object.defineProperty(document, "hidden", {configurable: true, get: () => hidden});
      document.dispatchEvent(new Event("visibilitychange"));
    }"""
    page.evaluate(hide, True)
    page.wait_for_timeout(300)
    looks = len(mock.requests)
    page.wait_for_timeout(2500)
    assert len(mock.requests) == looks
    begin = time.monotonic()
    page.evaluate(hide, False)
    while len(mock.requests) < looks + 3 and time.monotonic() < begin + 20:
        page.wait_for_timeout(50)
    assert 1.9 < time.monotonic() - begin < 20, "once a second"


def test_metrics_text(mock, open_page):
    found = open_page(mock.url).page.evaluate("""async () => {
      const {parseMetrics} = await import("/live.js");
      return [...parseMetrics('# HELP a x\\na{b="c d",e="}"} 1\\na{b="f"} 2.5 1700000000\\nb 1e3\\n\\nbroken\\nc NaN\\nd +Inf')];
    }""")
    assert found[:2] == [["a", 3.5], ["b", 1000]]
