"""The story of the pages, in a real browser: on the fake backend, or on the stack that TANDEM_URL names."""

import re
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

pytestmark = pytest.mark.browser

LENGTHS = """() => {
    window.lengths = [];
    new MutationObserver(() => {
        const prose = document.querySelector(".turn .prose");
        if (prose) window.lengths.push(prose.textContent.length);
    }).observe(document.getElementById("turns"), {subtree: true, childList: true, characterData: true});
}"""


def ask_first_suggestion(page: Page, url: str) -> None:
    page.goto(url)
    page.locator(".suggestion").first.click()
    expect(page.locator(".turn .foot")).to_be_visible(timeout=120_000)


def overflows(page: Page) -> bool:
    wide = "e => e.scrollWidth > e.clientWidth"
    return any(bool(page.locator(part).evaluate(wide)) for part in ("html", "body", "main"))


def test_the_answer_is_seen_to_grow(page: Page, stack_url: str) -> None:
    page.goto(stack_url)
    page.evaluate(LENGTHS)
    page.locator(".suggestion").first.click()
    expect(page.locator(".turn .foot")).to_be_visible(timeout=120_000)
    seen = sorted(set(page.evaluate("window.lengths")))
    assert len(seen) >= 3, seen
    expect(page.locator(".turn .timing")).to_contain_text("total")


def test_a_marker_opens_its_passage_with_the_quote_highlighted(page: Page, stack_url: str) -> None:
    ask_first_suggestion(page, stack_url)
    page.locator(".marker").first.click()
    quote = page.locator("#panel mark.chosen").first
    expect(quote).to_be_in_viewport()
    passage = page.locator("#panel .passage").inner_text()
    assert quote.inner_text().strip() in passage
    expect(page.locator("#panel .source")).to_contain_text(".")


def test_a_reload_keeps_the_conversation(page: Page, stack_url: str) -> None:
    ask_first_suggestion(page, stack_url)
    before = page.locator(".turn .prose").inner_text()
    page.reload()
    expect(page.locator(".turn .prose")).to_have_text(before, use_inner_text=True)
    page.locator(".marker").first.click()
    expect(page.locator("#panel mark.chosen").first).to_be_visible()


def test_the_answer_leads_to_its_exchange(page: Page, stack_url: str) -> None:
    ask_first_suggestion(page, stack_url)
    question = page.locator(".question p").inner_text()
    page.get_by_role("button", name="Details").click()
    expect(page.locator(".details .facts")).to_contain_text(re.compile(r"servers.* answered"))
    expect(page.locator(".details .facts a")).to_be_in_viewport()
    page.locator(".details .facts a").click()
    expect(page.locator(".opened-head h2")).to_have_text(question)
    expect(page.locator("#exchange .waterfall")).to_be_visible()
    expect(page.locator("#exchange .facts")).to_contain_text(re.compile(r"servers.* answered"))
    expect(page.locator("#list a[aria-current]")).to_contain_text(question)


@pytest.mark.parametrize(
    ("name", "size"),
    [("desktop", (1280, 860)), ("phone", (360, 740)), ("dark", (1280, 860)), ("dark_phone", (390, 844))],
)
def test_every_view_fits_its_screen(  # and is photographed for people to look at
    page: Page, stack_url: str, screenshots: Path, name: str, size: tuple[int, int]
) -> None:
    page.set_viewport_size({"width": size[0], "height": size[1]})
    page.emulate_media(color_scheme="dark" if "dark" in name else "light", reduced_motion="reduce")
    page.goto(stack_url)
    expect(page.locator(".suggestion").first).to_be_visible()
    page.screenshot(path=screenshots / f"{name}_welcome.png")
    assert not overflows(page)
    ask_first_suggestion(page, stack_url)
    page.screenshot(path=screenshots / f"{name}.png")
    assert not overflows(page)
    page.locator(".marker").first.click()
    expect(page.locator("#panel mark.chosen").first).to_be_visible()
    page.screenshot(path=screenshots / f"{name}_passage.png")
    assert not overflows(page)
    page.keyboard.press("Escape")
    page.goto(f"{stack_url}/exchanges")
    page.locator("#list a").first.click()
    expect(page.locator(".opened-head")).to_be_visible()
    page.screenshot(path=screenshots / f"{name}_exchange.png")
    assert not overflows(page)
