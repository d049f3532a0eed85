"""How the web page of `atom serve` looks, on a desktop and on a phone, light and dark, and how it is used by keyboard and
with assistive technology. ATOM_TEST_SCREENSHOTS names a folder that keeps the pictures that are taken on the way."""

import os
import pathlib
import re

import pytest

from page_browser import (  # noqa: F401 (fixtures)
    DESKTOP, PHONE, RICH, expect, fixture_browser, fixture_mock, fixture_open_page)

CONTRAST = """() => {
  // Text whose contrast with what is behind it is below 4.5. Colours are drawn to be read as sRGB.
  const canvas = new OffscreenCanvas(1, 1).getContext("2d", {willReadFrequently: true});
  const rgba = color => {
    canvas.clearRect(0, 0, 1, 1);
    canvas.fillStyle = color;
    canvas.fillRect(0, 0, 1, 1);
    return [...canvas.getImageData(0, 0, 1, 1).data];
  };
  const light = ([r, g, b]) => [r, g, b].map(v => v / 255)
    .map(v => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4)
    .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
  const behind = element => {
    for (let e = element; e; e = e.parentElement) {
      const color = rgba(getComputedStyle(e).backgroundColor);
      if (color[3] === 255) return color;
    }
    return [255, 255, 255];
  };
  const bad = [];
  let looked = 0;
  for (const element of document.querySelectorAll("body *")) {
    const own = [...element.childNodes].some(n => n.nodeType === 3 && n.data.trim());
    if (!own && !element.matches("input, textarea") || !element.checkVisibility()) continue;
    ++looked;
    const [a, b] = [light(rgba(getComputedStyle(element).color)), light(behind(element))];
    const contrast = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
    if (contrast < 4.5) bad.push([element.outerHTML.slice(0, 80), contrast]);
  }
  return [looked, bad];
}"""

NAMES = """() => [...document.querySelectorAll("button, input, textarea, summary, a, img, [tabindex]")].filter(e => {
  const labels = [...(e.labels ?? [])].map(l => l.textContent).join("") + (e.getAttribute("aria-label") ?? "") +
    e.textContent;
  return e.matches("img") ? !e.hasAttribute("alt") : labels.trim() === "";
}).map(e => e.outerHTML)"""


def talk(opened, mock):
    """A conversation with something of everything in it."""
    mock.metrics.update(running_sequences=3, waiting_sequences=1, cache_tokens_used=23_456, prompt_tokens_total=9000, cached_prompt_tokens_total=3870,
                        preemptions_total=2)
    mock.answers = [RICH]
    opened.say("What keeps accuracy with four bits?")
    expect(opened.page.locator("article.assistant footer")).to_contain_text("written")
    for step in (40, 180, 260, 150):
        mock.metrics["generated_tokens_total"] += step
        opened.page.wait_for_timeout(1050)
    opened.say("And the cache?\nIn one sentence.")
    expect(opened.answers().nth(1)).to_contain_text("The rest follows")
    mock.fail = (429, (("Retry-After", "2"),), "The queue is full (128 requests wait).")
    opened.say("One more")
    expect(opened.page.locator("article .problem")).to_be_visible()
    mock.fail = None


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("size", ["desktop", "phone"])
def test_looks(size, scheme, mock, open_page, tmp_path):
    pictures = pathlib.Path(os.environ.get("ATOM_TEST_SCREENSHOTS", tmp_path))
    pictures.mkdir(parents=True, exist_ok=True)
    opened = open_page(mock.url, viewport=PHONE if size == "phone" else DESKTOP, color_scheme=scheme, has_touch=size == "phone")
    page = opened.page

    def look(name):
        page.screenshot(path=pictures / f"{size}-{scheme}-{name}.png")
        assert page.evaluate("document.scrollingElement.scrollWidth <= innerWidth"), "scrolls sideways"
        assert page.evaluate("document.scrollingElement.scrollHeight <= innerHeight"), "the page itself scrolls"
        looked, bad = page.evaluate(CONTRAST)
        assert looked > 5 and bad == []
        assert page.evaluate(NAMES) == []

    expect(page.locator("#model")).to_have_text("SmolLM2-135M-W4A4KV4")
    look("empty")
    talk(opened, mock)
    assert page.evaluate("(() => { const m = document.getElementById('messages'); return m.scrollWidth <= m.clientWidth; })()")
    look("chat")
    page.evaluate("document.getElementById('messages').scrollTop = 0")
    look("chat-top")
    if size == "phone":
        page.click("#live summary")
        look("live")
    page.click("#open-settings")
    look("settings")
    page.keyboard.press("Escape")
    # The toggle goes to the other theme, and is remembered.
    background = "getComputedStyle(document.body).backgroundColor"
    before = page.evaluate(background)
    page.click("#theme")
    after = page.evaluate(background)
    assert (sum(map(int, re.findall(r"\d+", after))) > sum(map(int, re.findall(r"\d+", before)))) == (scheme == "dark")
    assert page.evaluate(CONTRAST)[1] == []
    page.reload()
    assert page.evaluate(background) == after
    opened.check("429")


def test_by_keyboard_alone(mock, open_page):
    opened = open_page(mock.url)
    page = opened.page
    expect(page.locator("#message")).to_be_focused()
    page.keyboard.type("hello")
    page.keyboard.press("Enter")
    expect(opened.answers()).to_have_text("Hello there.")

    page.reload()
    page.evaluate("document.activeElement.blur()")
    page.locator("body").evaluate("e => { e.tabIndex = -1; e.focus(); e.removeAttribute('tabindex'); }")
    visited = []
    for _ in range(12):
        page.keyboard.press("Tab")
        name, outlined = page.evaluate("""() => {
          const e = document.activeElement, box = e.closest(".composer") ?? e;
          const seen = getComputedStyle(e).outlineStyle !== "none" || getComputedStyle(box).boxShadow !== "none";
          return [e.id || e.className || e.tagName.toLowerCase(), seen];
        }""")
        visited.append(name)
        assert outlined, f"focus can't be seen on {name}"
        if name == "send":
            break
    assert visited == ["skip", "new-chat", "open-settings", "theme", "summary", "messages", "button", "regenerate", "message", "send"]

    # The skip link leads to the message box.
    page.locator(".skip").focus()
    page.keyboard.press("Enter")
    expect(page.locator("#message")).to_be_focused()
    # Settings by keyboard: the focus stays inside and comes back.
    page.focus("#open-settings")
    page.keyboard.press("Enter")
    expect(page.get_by_label("System message")).to_be_focused()
    page.keyboard.press("Tab")
    page.keyboard.type("0.5")
    page.keyboard.press("Enter")
    expect(page.locator("#settings")).to_be_hidden()
    expect(page.locator("#open-settings")).to_be_focused()
    assert page.evaluate("JSON.parse(localStorage.getItem('atom.settings'))") == {"temperature": 0.5}
    opened.check()


def test_for_assistive_technology(mock, open_page):
    page = open_page(mock.url, reduced_motion="reduce").page
    assert page.locator("html").get_attribute("lang") == "en"
    assert page.locator("h1").count() == 1 and page.locator("main").count() == 1
    expect(page.get_by_role("log")).to_have_attribute("aria-live", "polite")
    assert page.get_by_role("status").count() == 1
    ids = page.evaluate("[...document.querySelectorAll('[id]')].map(e => e.id)")
    assert len(ids) == len(set(ids))
    wanted = page.evaluate("""[...document.querySelectorAll('[for], [aria-labelledby], [aria-describedby]')].flatMap(e =>
      ["for", "aria-labelledby", "aria-describedby"].map(n => e.getAttribute(n)).filter(Boolean))""")
    assert set(wanted) <= set(ids) and wanted
    mock.answers, mock.pause = [["slow "] * 200], 0.1
    page.fill("#message", "hello")
    page.keyboard.press("Enter")
    page.wait_for_selector("article.running .text > p")
    assert page.evaluate("document.getAnimations().length") == 0
