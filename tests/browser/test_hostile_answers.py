"""What a model, a document or an error says is shown, never obeyed."""

from typing import Any
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import Page, expect

from tests.browser.fake_backend import FakeBackend
from tests.browser.invented import PASSAGES, Script, citation, saying

pytestmark = pytest.mark.browser

HTML = '<img src=x onerror="window.pwned=1"><script>window.pwned=1</script><b onmouseover=alert(1)>bold</b>'
LINKS = (
    "[one](javascript:window.pwned=1) [two](JaVaScRiPt:window.pwned=1) "
    "[three](data:text/html,<script>1</script>) [four](vbscript:x) [five](//evil.example/x) "
    "[six](/exchanges) ![seven](https://evil.example/pixel.png) "
    '[eight](https://fine.example/a) [nine](java\tscript:window.pwned=1) [ten](https://a"onclick=alert(1))'
)


def shown(page: Page, url: str, backend: FakeBackend, script: Script) -> None:
    backend.scripts["attack"] = script
    page.goto(url)
    page.locator("#question").fill("attack")
    page.keyboard.press("Enter")
    expect(page.locator(".turn .foot")).to_be_visible()


def test_markup_in_an_answer_stays_text(page: Page, fake_url: str, backend: FakeBackend) -> None:
    shown(
        page,
        fake_url,
        backend,
        saying(f"{HTML}\n\n- {HTML}\n\n> {HTML}\n\n`{HTML}`\n\n```{HTML}\n{HTML}\n```"),
    )
    prose = page.locator(".turn .prose")
    assert prose.inner_text().count("<img src=x onerror=") >= 4
    assert prose.locator("img, script, b, iframe, [onerror], [onmouseover], [style]").count() == 0
    assert page.evaluate("window.pwned") is None


def test_only_web_and_mail_links_can_be_followed(page: Page, fake_url: str, backend: FakeBackend) -> None:
    hosts: set[str | None] = set()
    page.on("request", lambda request: hosts.add(urlsplit(request.url).hostname))
    shown(page, fake_url, backend, saying(LINKS))
    links = page.locator(".turn .prose a")
    assert links.all_inner_texts() == ["seven", "eight", "https://a"]
    for link in links.all():
        assert (link.get_attribute("href") or "").startswith("https://")
        assert link.get_attribute("rel") == "noopener noreferrer nofollow"
        assert link.get_attribute("onclick") is None
    assert hosts == {"127.0.0.1"}


def test_a_document_cannot_write_into_the_page(page: Page, fake_url: str, backend: FakeBackend) -> None:
    hostile = {"title": HTML, "document": HTML, "heading": [HTML], "text": HTML, "start": 0, "end": len(HTML)}
    span = citation(1, "The LLM server") | {
        "start": 0,
        "end": 4,
        "quote": HTML[:4],
        "title": HTML,
        "document": HTML,
    }
    shown(
        page,
        fake_url,
        backend,
        Script(deltas=["See.[1]"], passages=[PASSAGES[0] | hostile], citations=[span]),
    )
    page.locator(".marker").click()
    expect(page.locator("#panel .passage")).to_have_text(HTML)
    assert page.locator("#panel img, #panel script, .foot img, .foot script").count() == 0
    assert page.evaluate("window.pwned") is None


def test_an_error_message_cannot_write_into_the_page(page: Page, fake_url: str, backend: FakeBackend) -> None:
    backend.scripts["attack"] = Script(status=400, code=HTML, message=HTML)
    page.goto(fake_url)
    page.locator("#question").fill(HTML)
    page.keyboard.press("Enter")
    page.locator("#question").fill("attack")
    expect(page.get_by_role("button", name="Send")).to_be_enabled()
    page.keyboard.press("Enter")
    expect(page.locator(".card.error")).to_contain_text("<script>")
    assert page.locator("#turns img, #turns script").count() == 0


def test_a_recorded_attack_is_inert_on_the_exchanges_page(
    page: Page, fake_url: str, backend: FakeBackend
) -> None:
    shown(
        page,
        fake_url,
        backend,
        saying(f"{HTML}\n\n{LINKS}", passages=[PASSAGES[0] | {"text": HTML, "title": HTML}]),
    )
    page.goto(f"{fake_url}/exchanges/x-0001")
    expect(page.locator("#exchange .prose")).to_contain_text("<img src=x")
    assert page.locator("main img, main script").count() == 0
    assert page.locator("#exchange .prose a").count() == 3


@pytest.mark.parametrize(
    "stored", ["not json", "[]", '{"turns": 3}', '{"turns": [null, 1, {"question": "q"}]}', "null"]
)
def test_a_spoiled_memory_does_not_break_the_page(page: Page, fake_url: str, stored: str) -> None:
    page.goto(fake_url)
    page.evaluate("stored => localStorage.setItem('tandem.chat', stored)", stored)
    page.evaluate("addEventListener('pagehide', event => event.stopImmediatePropagation(), true)")
    page.goto(fake_url)
    page.locator("#question").fill("hello")
    page.keyboard.press("Enter")
    expect(page.locator(".turn .foot").last).to_be_visible()


def test_nothing_in_an_answer_widens_a_phone(page: Page, fake_url: str, backend: FakeBackend) -> None:
    wide = "x" * 400
    table = "|" + f"{wide[:40]}|" * 12 + "\n" + "|-" * 12 + "|\n"
    nested = "\n".join(f"{'  ' * depth}- {wide[:60]}" for depth in range(5))
    page.set_viewport_size({"width": 360, "height": 740})
    shown(
        page,
        fake_url,
        backend,
        saying(f"{wide}\n\n{table}\n\n```\n{wide}\n```\n\n# {wide}\n\n`{wide}`\n\n{nested}"),
    )
    measured: Any = page.evaluate(
        "[document.documentElement.scrollWidth, document.querySelector('main').scrollWidth]"
    )
    assert max(measured) <= 360
