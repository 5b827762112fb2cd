"""Drives the web page in headless Chromium.

    python check_page.py                   a server with fixed answers (page/fixed_server.py), then `andiron serve` with small models
    python check_page.py --fixed           the former alone, which needs neither `andiron` nor `transformers`
    python check_page.py BASE_URL          takes a running server and its models, e.g. http://127.0.0.1:8080

`--screenshots FOLDER` keeps a picture of every state. Needs `playwright` (PyPI); the browser is the one that CHROMIUM names, or
/usr/bin/chromium. The program is the one that ANDIRON names, or `andiron` in the release folder of the target directory. Exits with 0
and prints `ok` if everything works by keyboard, wide and narrow, light and dark, in both languages: no error on the console, no request
to another place, nothing wider than the window, every control with a name, every text with contrast.
"""

import argparse
import contextlib
import json
import os
import pathlib
import re
import signal
import subprocess
import sys
import tempfile

try:
    from playwright.sync_api import expect, sync_playwright
except ImportError:
    sys.exit(print("skip: playwright is not installed"))

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE / "page"))

import fixed_server

SIZES = {"wide": (1280, 800), "narrow": (360, 740)}
LOOKS = [("wide", "light", "en-US"), ("narrow", "dark", "en-US"), ("wide", "dark", "ko-KR"), ("narrow", "light", "ko-KR")]
# What a real model may take.
PATIENCE_MS = 60_000
expect.set_options(timeout=20_000)

# Names of controls, widths, and contrast of all texts that can be seen (WCAG 2.2, 1.4.3: 4.5, large texts 3).
AUDIT = r"""() => {
  const problems = [];
  const visible = node => node.checkVisibility({ visibilityProperty: true, opacityProperty: true });
  if (document.documentElement.scrollWidth > innerWidth) {
    const wide = [...document.querySelectorAll("body *")].filter(node => visible(node) && node.getBoundingClientRect().right > innerWidth + 1);
    problems.push(`wider than the window: ${document.documentElement.scrollWidth}, ${wide.slice(0, 4).map(node => node.outerHTML.slice(0, 80))}`);
  }
  for (const node of document.querySelectorAll("button, input, select, textarea, [role=tab], canvas[role=img]")) {
    if (!visible(node)) continue;
    const label = node.labels?.length ? node.labels[0].textContent : "";
    if (!(node.getAttribute("aria-label") ?? label ?? "").trim() && !label.trim() && !node.textContent.trim()) problems.push(`no name: ${node.outerHTML.slice(0, 120)}`);
  }
  const pen = new OffscreenCanvas(1, 1).getContext("2d", { willReadFrequently: true });
  const rgba = colour => {
    pen.clearRect(0, 0, 1, 1);
    pen.fillStyle = colour;
    pen.fillRect(0, 0, 1, 1);
    return [...pen.getImageData(0, 0, 1, 1).data];
  };
  const over = (top, below) => top.slice(0, 3).map((c, i) => c * top[3] / 255 + below[i] * (1 - top[3] / 255));
  const ground = node => {
    const colour = node ? rgba(getComputedStyle(node).backgroundColor) : [255, 255, 255, 255];
    return colour[3] === 255 || !node ? colour.slice(0, 3) : over(colour, ground(node.parentElement));
  };
  const luminance = colour => {
    const [r, g, b] = colour.map(c => (c /= 255) <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4);
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  for (let text; (text = walker.nextNode());) {
    const node = text.parentElement;
    if (!text.data.trim() || node.closest("script, noscript, option, .hidden, .skip, [aria-busy=true]") || !visible(node)) continue;
    const style = getComputedStyle(node);
    const size = Number.parseFloat(style.fontSize);
    const below = ground(node);
    const [a, b] = [luminance(over(rgba(style.color), below)), luminance(below)];
    const contrast = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
    const wanted = size >= 24 || (size >= 18.66 && Number(style.fontWeight) >= 700) ? 3 : 4.5;
    if (contrast < wanted) problems.push(`contrast ${contrast.toFixed(2)}: "${text.data.trim().slice(0, 40)}" in ${node.outerHTML.slice(0, 60)}`);
  }
  return problems;
}"""


class Look:
    """A page in one size, colour scheme and language."""

    def __init__(self, browser, base, size, scheme, locale, screenshots):
        width, height = SIZES[size]
        self.context = browser.new_context(viewport={"width": width, "height": height}, color_scheme=scheme, locale=locale,
                                           permissions=["clipboard-read", "clipboard-write"], accept_downloads=True)
        self.page = self.context.new_page()
        self.page.set_default_timeout(PATIENCE_MS)
        self.base, self.name, self.screenshots, self.problems = base, f"{size}-{scheme}-{locale[:2]}", screenshots, []
        self.expected_errors = 0
        self.page.on("console", self.heard)
        self.page.on("pageerror", lambda error: self.problems.append(f"error: {error}"))
        self.page.on("request", self.asked)

    def heard(self, message):
        # Chromium itself reports answers of 4xx and 5xx on the console.
        if message.type in ("error", "warning") and not (self.expected_errors and "Failed to load resource" in message.text):
            self.problems.append(f"{message.type}: {message.text}")

    def asked(self, request):
        if not request.url.startswith((self.base + "/", "data:", "blob:")):
            self.problems.append(f"a request to {request.url}")

    def open(self, path="/"):
        self.page.goto(self.base + path)
        self.page.wait_for_selector(".tab, .error:not([hidden])")

    def audit(self, what):
        # Not in the middle of a movement.
        self.page.wait_for_timeout(250)
        self.problems += [f"{what}: {problem}" for problem in self.page.evaluate(AUDIT)]
        if self.screenshots:
            self.page.screenshot(path=self.screenshots / f"{self.name}-{what}.png")

    def tabs(self):
        return [node.get_attribute("id").removeprefix("tab-") for node in self.page.query_selector_all(".tab")]

    def close(self):
        self.context.close()
        assert not self.problems, f"{self.name}:\n" + "\n".join(self.problems)

    @property
    def focus(self):
        return self.page.evaluate("document.activeElement.id || document.activeElement.className")


def by_keyboard(look):
    """Walks through all tabs without a pointer, and uses each."""
    page, press = look.page, look.page.keyboard.press
    press("Tab")
    assert page.evaluate("document.activeElement.className") == "skip", look.focus
    press("Tab")
    tabs = look.tabs()
    for at, name in enumerate(tabs):
        assert look.focus == f"tab-{name}", (look.focus, name)
        assert page.get_attribute(f"#tab-{name}", "aria-selected") == "true"
        panel = page.locator(f"#panel-{name}")
        expect(panel).to_be_visible()
        look.audit(f"{at}-{name}-empty")
        use(look, name, panel)
        look.audit(f"{at}-{name}-used")
        page.focus(f"#tab-{name}")
        press("ArrowDown")
    assert look.focus == f"tab-{tabs[0]}", "the arrow keys go round"


def use(look, name, panel):
    """Fills in the form of a tab and waits for its result."""
    page = look.page
    if name == "chat":
        panel.locator(".composer textarea").focus()
        page.keyboard.type("Compare tea and coffee.")
        page.keyboard.press("Enter")
        expect(panel.locator(".message.assistant .actions")).to_be_visible(timeout=PATIENCE_MS)
        return
    panel.locator("textarea").first.focus()
    texts = {"fill": "The capital of France is ___.", "search": "A wool blanket.\n\nThe stock market.",
             "answer": "Ada Lovelace was born in London in 1815.", "entities": "Marie Curie was born in Warsaw."}
    page.keyboard.insert_text(texts.get(name, "The cat sat on the mat because it was tired."))
    for selector, text in (("input[type=search]", "How do I keep warm?"), ("input[type=text][spellcheck=true]", "Where was Ada Lovelace born?")):
        if name in ("search", "answer") and panel.locator(selector).count():
            panel.locator(selector).focus()
            page.keyboard.type(text)
    page.keyboard.press("Control+Enter")
    results = {"write": ".written", "search": ".hits", "classify": ".bars", "entities": ".source, .hint", "attention": ".picture canvas"}
    expect(panel.locator(".result").locator(results.get(name, ".card")).first).to_be_visible(timeout=PATIENCE_MS)
    expect(panel.locator(".result")).to_have_attribute("aria-busy", "false", timeout=PATIENCE_MS)
    expect(panel.locator(".error")).to_be_hidden()


def send(page, text):
    page.locator("#panel-chat .composer textarea").fill(text)
    page.keyboard.press("Enter")


def answered(page, count):
    expect(page.locator("#panel-chat .message.assistant .actions")).to_have_count(count)


def chat_is_safe_and_can_be_edited(look):
    page = look.page
    look.open()
    send(page, "Compare tea and coffee.")
    answered(page, 1)
    content = page.locator(".message.assistant .content").first
    for selector in ("table tr:nth-child(2) td", "ol > li ul li", "blockquote", ".code pre code", "strong"):
        expect(content.locator(selector).first).to_be_visible()
    assert content.locator("b").count() == 0 and "<b>no HTML</b>" in content.inner_text()
    assert [link.get_attribute("href") for link in content.locator("a").all()] == ["https://example.org/a", "https://example.org/b"]
    assert all("noopener" in link.get_attribute("rel") for link in content.locator("a").all())

    # Reasoning is kept apart, and is not sent back.
    page.get_by_role("button", name="New chat").click()
    send(page, "!think !short")
    answered(page, 1)
    assert page.locator(".reasoning").get_attribute("open") is None
    page.locator(".reasoning summary").click()
    expect(page.locator(".reasoning .content")).to_contain_text("They ask for tea.")
    send(page, "!short")
    answered(page, 2)
    assert "They ask" not in json.dumps(fixed_server.Handler.requests[-1][1])
    page.get_by_role("button", name=re.compile("^Delete:")).first.click()
    page.locator(".item-open").first.click()

    # Stop: what was written stays.
    send(page, "!slow")
    expect(page.locator(".message.assistant .content").nth(1)).to_contain_text("word word word")
    page.keyboard.press("Escape")
    answered(page, 2)
    expect(page.locator(".message.assistant .stats").nth(1)).to_contain_text("stopped")
    assert page.locator(".redo").count() == 1
    # An edit while it answers: the answer to the old question is dropped.
    send(page, "!slow again")
    expect(page.locator(".message.assistant .content").nth(2)).to_contain_text("word")
    page.locator(".message.user").nth(2).get_by_label("Edit").click()
    page.keyboard.press("Control+A")
    page.keyboard.type("!short")
    page.locator(".editing").get_by_role("button", name="Save and send").click()
    answered(page, 3)
    expect(page.locator(".message.assistant .content").nth(2)).to_contain_text("briefly")
    page.locator(".message.user").nth(2).get_by_label("Edit").click()
    page.keyboard.press("Escape")
    assert page.locator(".message").count() == 6
    page.locator(".message.user").nth(1).get_by_label("Edit").click()
    page.locator(".editing").get_by_role("button", name="Save and send").click()
    expect(page.locator(".message.assistant .content").nth(1)).to_contain_text("word word word")
    page.keyboard.press("Escape")
    answered(page, 2)
    # Again, and an edit of the first question, which drops what came after it.
    page.locator(".message.assistant").nth(1).get_by_label("Answer again").click()
    expect(page.locator(".message.assistant .content").nth(1)).to_contain_text("word")
    page.get_by_role("button", name="Stop").click()
    answered(page, 2)
    page.locator(".message.user").first.get_by_label("Edit").click()
    page.keyboard.press("Control+A")
    page.keyboard.type("!short")
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    answered(page, 1)
    expect(page.locator(".message.assistant .content")).to_contain_text("네, 그렇습니다.")
    asked = fixed_server.Handler.requests[-1][1]
    assert [message["role"] for message in asked["messages"]] == ["user"], asked

    # It is there after a reload, and it can be exported, deleted and imported.
    page.reload()
    page.locator(".item-open").first.click()
    expect(page.locator(".message.assistant .content")).to_contain_text("네, 그렇습니다.")
    with page.expect_download() as download:
        page.get_by_role("button", name="Export").click()
    exported = pathlib.Path(download.value.path())
    kept = json.loads(exported.read_text())["conversations"]
    assert len(kept) == 1 and [message["role"] for message in kept[0]["messages"]] == ["user", "assistant"]
    page.get_by_role("button", name=re.compile("^Delete:")).click()
    expect(page.locator(".item-open")).to_have_count(0)
    page.locator("input[type=file]").set_input_files(files=[{"name": "x.json", "mimeType": "application/json", "buffer": b"{}"}])
    expect(page.locator(".conversations [role=status]")).to_contain_text("no conversations")
    page.locator("input[type=file]").set_input_files(exported)
    expect(page.locator(".item-open")).to_have_count(1)


def settings_tools_and_probabilities(look):
    page = look.page
    look.open()
    page.get_by_role("button", name="Settings").click()
    dialog = page.locator("dialog[open]")
    dialog.get_by_label("System prompt").fill("Be brief.")
    dialog.get_by_label("Temperature").fill("0.5")
    dialog.get_by_label("Stop at").fill("END|\\n\\n")
    dialog.get_by_role("switch").check()
    look.audit("settings")
    page.keyboard.press("Escape")
    send(page, "!short")
    answered(page, 1)
    asked = fixed_server.Handler.requests[-1][1]
    assert asked["messages"][0] == {"role": "system", "content": "Be brief."}
    assert (asked["temperature"], asked["stop"], asked["logprobs"], asked["top_logprobs"]) == (0.5, ["END", "\n\n"], True, 5), asked
    assert "top_p" not in asked and "seed" not in asked
    page.get_by_label("Show token probabilities").click()
    page.locator(".tok").nth(1).focus()
    expect(page.locator(".tip")).to_contain_text("다른")
    page.keyboard.press("ArrowRight")
    assert "35 %" in page.evaluate("document.activeElement.getAttribute('aria-label')")
    page.locator(".tok").first.hover()
    expect(page.locator(".tip .bar").first).to_contain_text("97 %")
    look.audit("probabilities")

    page.get_by_role("button", name="Settings").click()
    dialog.get_by_text("Tools", exact=True).click()
    dialog.get_by_label("Tools, as JSON").fill("{")
    dialog.get_by_role("button", name="Apply").click()
    expect(dialog.locator(".field-error")).to_be_visible()
    dialog.get_by_label("Tools, as JSON").fill('[{"type": "function", "function": {"name": "get_weather"}}]')
    dialog.get_by_role("button", name="Apply").click()
    send(page, "What is the weather in Seoul?")
    expect(page.locator(".tool pre")).to_contain_text('"city": "Seoul"')
    look.audit("tool-call")
    page.locator(".tool-results textarea").fill("18 degrees !short")
    page.get_by_role("button", name="Send results").click()
    answered(page, 3)
    asked = fixed_server.Handler.requests[-1][1]["messages"]
    assert asked[-2]["tool_calls"][0]["function"]["name"] == "get_weather"
    assert asked[-1] == {"role": "tool", "tool_call_id": "call_1", "content": "18 degrees !short"}, asked[-1]


def failures_are_told(look):
    page = look.page
    look.expected_errors = 1
    look.open()
    error = page.locator("#panel-chat .error")
    for text, told in (("!busy", "Try again in 3 s."), ("!loading", "not ready"), ("!long", "too long for the model"),
                       ("!break", "cannot be reached"), ("!fail", "The server failed.")):
        send(page, text)
        expect(error).to_contain_text(told)
        look.audit(f"error-{text[1:]}")
        page.get_by_role("button", name="New chat").click()
        expect(error).to_be_hidden()
    send(page, "!key !short")
    dialog = page.locator("dialog[open]")
    look.audit("key")
    dialog.get_by_label("Key of this server").fill("sesame")
    page.keyboard.press("Enter")
    expect(dialog).to_have_count(0)
    page.wait_for_selector(".tab")
    send(page, "!key !short")
    answered(page, 1)
    assert page.evaluate("sessionStorage.getItem('andiron.key')") == "sesame"
    assert page.evaluate("JSON.stringify(localStorage)").find("sesame") < 0


def languages_and_colours(look):
    page = look.page
    look.open()
    page.locator("#tab-classify").click()
    page.get_by_label("Language").select_option("ko")
    expect(page.locator("#panel-classify h2")).to_have_text("분류")
    assert page.title() == "분류 · Andiron"
    assert page.evaluate("document.documentElement.lang") == "ko"
    before = page.evaluate("getComputedStyle(document.body).backgroundColor")
    page.get_by_label("화면 색").select_option("dark")
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") != before
    page.reload()
    page.wait_for_selector(".tab")
    expect(page.locator("#panel-classify h2")).to_have_text("분류")
    assert page.evaluate("document.documentElement.dataset.theme") == "dark"


def enter_belongs_to_the_input_method_while_it_composes(look):
    page = look.page
    look.open()
    page.locator("#panel-chat .composer textarea").fill("안녕")
    page.evaluate("""() => document.querySelector("#panel-chat .composer textarea")
        .dispatchEvent(new KeyboardEvent("keydown", { key: "Enter", isComposing: true, bubbles: true, cancelable: true }))""")
    page.wait_for_timeout(100)
    assert page.locator(".message").count() == 0


def attention_follows_layer_head_and_word(look):
    page = look.page
    look.open("/#attention")
    panel = page.locator("#panel-attention")
    expect(panel).to_be_visible()
    panel.locator(".chip").click()
    expect(panel.locator("canvas[role=img]")).to_have_attribute("aria-label", re.compile("tired"))
    slider = panel.get_by_label("Layer")
    slider.focus()
    page.keyboard.press("ArrowLeft")
    expect(panel.locator("output")).to_have_text("3 of 4")
    expect(panel.locator("canvas[role=img]")).to_be_visible()
    assert fixed_server.Handler.requests[-1][1]["layer"] == 2
    before = panel.locator(".bars").inner_text()
    panel.locator(".head").nth(2).click()
    assert panel.locator(".bars").inner_text() != before
    panel.locator(".word.chosen").focus()
    page.keyboard.press("Home")
    expect(panel.locator(".word").first).to_have_class(re.compile("chosen"))
    panel.get_by_label("Model", exact=True).select_option("marian-ko-en")
    panel.get_by_label("Target text").fill("The cat sat")
    page.keyboard.press("Control+Enter")
    expect(panel.locator(".segments .segment")).to_have_count(3)
    assert fixed_server.Handler.requests[-1][1]["target"] == "The cat sat"
    look.audit("attention-pair")
    panel.get_by_role("button", name="Source", exact=True).click()
    expect(panel.locator(".line")).to_have_count(1)


def probabilities_are_those_of_the_model(look):
    page = look.page
    look.open("/#write")
    panel = page.locator("#panel-write")
    panel.locator("textarea").first.fill("The cat")
    panel.get_by_role("switch").check()
    panel.locator("textarea").first.press("Control+Enter")
    expect(panel.locator(".tok").nth(2)).to_be_visible(timeout=PATIENCE_MS)
    expect(panel.locator(".result")).to_have_attribute("aria-busy", "false", timeout=PATIENCE_MS)
    panel.locator(".tok").nth(2).focus()
    assert panel.locator(".tip .bar").count() >= 5
    look.audit("probabilities-of-the-model")


ROOT = HERE.parents[2]


@contextlib.contextmanager
def own_server():
    """`andiron serve` with a small model for each tab."""
    import small_models

    target = pathlib.Path(os.environ.get("CARGO_TARGET_DIR") or ROOT / "target")
    program = os.environ.get("ANDIRON") or str(target / "release" / "andiron")
    with tempfile.TemporaryDirectory() as folder:
        models = small_models.make(folder)
        serve = [program, "--log", "warn", "serve", "--port", "0", *(flag for name in models for flag in ("--model", f"{folder}/{name}"))]
        with subprocess.Popen(serve, stdout=subprocess.PIPE, text=True) as server:
            try:
                line = server.stdout.readline()
                assert line.startswith("listening on http://127.0.0.1:"), line
                yield line.split()[-1]
                server.send_signal(signal.SIGTERM)
                assert server.wait(timeout=60) == 0, server.returncode
            finally:
                server.kill()


def main():
    arguments = argparse.ArgumentParser()
    arguments.add_argument("base", nargs="?")
    arguments.add_argument("--fixed", action="store_true")
    arguments.add_argument("--screenshots", type=pathlib.Path)
    given = arguments.parse_args()
    chromium = os.environ.get("CHROMIUM", "/usr/bin/chromium")
    if not pathlib.Path(chromium).is_file():
        print(f"skipped: there is no Chromium at {chromium}")
        return
    if given.screenshots:
        given.screenshots.mkdir(parents=True, exist_ok=True)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])

        def run(base, looks, checks=()):
            for look in looks:
                look = Look(browser, base, *look, given.screenshots)
                look.open()
                by_keyboard(look)
                look.close()
            for check in checks:
                look = Look(browser, base, "wide", "light", "en-US", given.screenshots)
                check(look)
                look.close()

        if given.base:
            run(given.base.rstrip("/"), LOOKS)
        else:
            run(fixed_server.start()[0], LOOKS, (
                chat_is_safe_and_can_be_edited, settings_tools_and_probabilities, failures_are_told, languages_and_colours,
                enter_belongs_to_the_input_method_while_it_composes, attention_follows_layer_head_and_word))
            if not given.fixed:
                with own_server() as base:
                    run(base, LOOKS[:2], (probabilities_are_those_of_the_model,))
        browser.close()
    print("ok")


if __name__ == "__main__":
    main()
