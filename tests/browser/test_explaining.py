"""Why an answer rests on its passages, which are in doubt, and what stands where there is no answer."""

from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Page, expect

from tests.browser.fake_backend import FakeBackend
from tests.browser.invented import CITATIONS, PASSAGES, QUESTION, saying
from tests.browser.invented_search import ABSTAINED, CANDIDATES, DOUBTFUL, EXPLAINED, searched_record

pytestmark = pytest.mark.browser

NOTES = {
    "condense_failed": "What was said before could not be worked into the question",
    "rewording_failed": "in its own words only",
    "narrowing_failed": "all were searched",
    "rerank_timeout": "ranking them again took too long",
    "rerank_unavailable": "could not be ranked again",
    "low_confidence": "may not answer this question",
    "extractive_answer": "word for word",
    "resumed": "in the middle of this answer",
    "fallback_model": "Another one wrote this answer",
    "unsupported_citation": "do not support every sentence",
}


def ask(page: Page, question: str = QUESTION) -> None:
    page.locator("#question").fill(question)
    page.keyboard.press("Enter")
    expect(page.locator(".turn .foot")).to_have_count(1)


def overflows(page: Page) -> bool:
    """Whether anything but the inner panes would scroll, to the side or down."""
    wide = "e => e.scrollWidth > e.clientWidth"
    tall = page.locator("html").evaluate("e => e.scrollHeight > e.clientHeight")
    return tall or any(bool(page.locator(part).evaluate(wide)) for part in ("html", "body", "main"))


def explain_switch(page: Page) -> Any:
    return page.get_by_role("switch", name="Explain")


def test_an_answer_is_explained_on_demand_and_the_wish_is_remembered(
    page: Page, fake_url: str, backend: FakeBackend
) -> None:
    backend.scripts[QUESTION] = EXPLAINED
    page.goto(fake_url)
    ask(page)
    page.get_by_role("button", name="Explain", exact=True).click()
    page.get_by_role("button", name="Ask again and explain").click()
    expect(page.locator(".candidates tbody tr:visible")).to_have_count(8)
    expect(explain_switch(page)).to_have_attribute("aria-checked", "true")
    page.reload()
    expect(explain_switch(page)).to_have_attribute("aria-checked", "true")
    page.get_by_role("button", name="New chat").click()
    ask(page)
    expect(page.locator(".candidates")).to_have_count(0)
    explain_switch(page).click()
    page.get_by_role("button", name="New chat").click()
    ask(page)
    assert [asked.get("tandem") for asked in backend.asked] == [None, *[{"explain": True}] * 2, None]


def test_the_table_shows_each_candidates_way_and_marks_what_was_kept(
    page: Page, fake_url: str, backend: FakeBackend
) -> None:
    backend.scripts[QUESTION] = EXPLAINED
    page.goto(fake_url)
    explain_switch(page).click()
    ask(page)
    page.get_by_role("button", name="Explain", exact=True).click()
    rows = page.locator(".candidates tbody tr")
    expect(rows.first.locator("td")).to_have_text(["20.712", "111.8", "11.53", "14.25", "Passage 1"])
    expect(rows.nth(2).locator("td").last).to_have_text("Same text as no. 1")
    expect(rows.nth(3).locator("td").nth(1).locator(".absent")).to_be_visible()
    expect(rows.nth(4).locator("td").last).to_have_text("Too far down")
    expect(page.locator(".candidates tr.kept")).to_have_count(3)
    expect(page.locator(".searched dd")).to_have_text(
        [
            "Which port does the LLM server listen on?",
            "Address of the language model",
            "The LLM server listens on a port of the loopback address.",
            "in the language en",
            "tagged guide or reference",
            "from 2026-01-31 on",
        ]
    )
    page.get_by_role("button", name="Show all 11").click()
    expect(rows.locator("visible=true")).to_have_count(len(CANDIDATES))
    page.get_by_role("button", name="Passage 2", exact=True).click()
    expect(page.locator("#panel h3")).to_have_text(PASSAGES[1]["title"])


def test_the_explanation_is_reached_by_keyboard_and_scrolls_inside_on_a_phone(
    page: Page, fake_url: str, backend: FakeBackend
) -> None:
    backend.scripts[QUESTION] = EXPLAINED
    page.set_viewport_size({"width": 360, "height": 740})
    page.goto(fake_url)
    explain_switch(page).focus()
    page.keyboard.press("Space")
    ask(page)
    page.get_by_role("button", name="Explain", exact=True).focus()
    page.keyboard.press("Enter")
    page.keyboard.press("Tab")  # Details
    page.keyboard.press("Tab")
    region = page.get_by_role("region", name="Candidates")
    expect(region).to_be_focused()
    page.keyboard.press("ArrowRight")
    for _ in range(100):  # the page's policy forbids what `wait_for_function` would do
        if region.evaluate("e => e.scrollLeft"):
            break
        page.wait_for_timeout(50)
    assert region.evaluate("e => e.scrollLeft") > 0
    assert region.evaluate("e => e.scrollWidth > e.clientWidth")
    assert not overflows(page)


def test_an_assistant_without_documents_offers_no_explanation(page: Page, fake_url: str) -> None:
    page.goto(fake_url)
    expect(explain_switch(page)).to_be_visible()
    page.get_by_label("Assistant").select_option("plain")
    expect(explain_switch(page)).to_be_hidden()


def test_an_abstention_looks_like_none_of_the_answers_and_opens_what_comes_nearest(
    page: Page, fake_url: str, backend: FakeBackend
) -> None:
    backend.scripts[QUESTION] = ABSTAINED
    page.goto(fake_url)
    ask(page)
    card = page.locator(".abstention")
    expect(card.locator("h3")).to_have_text("The documents do not answer this")
    expect(card).to_contain_text("The passages shown come nearest to the question.")
    expect(card).to_contain_text("12 % likely to hold the answer. The language model was not asked.")
    expect(page.locator(".turn .prose")).to_be_hidden()
    expect(page.locator(".turn .sources")).to_have_count(0)
    expect(page.get_by_role("status")).to_have_text("The documents do not answer this")
    expect(card.locator(".near")).to_have_count(3)
    card.locator(".near").nth(1).click()
    expect(page.locator("#panel h3")).to_have_text(PASSAGES[1]["title"])
    page.reload()
    expect(card.locator("h3")).to_have_text("The documents do not answer this")


def test_an_abstention_without_a_passage_says_just_that(
    page: Page, fake_url: str, backend: FakeBackend
) -> None:
    said = "The documents do not answer this: nothing in them matches the question."
    backend.scripts[QUESTION] = saying(said, outcome="abstained", passages=[])
    page.goto(fake_url)
    ask(page)
    expect(page.locator(".abstention h3")).to_have_text(said.removesuffix("."))
    expect(page.locator(".abstention p")).to_have_text("The language model was not asked.")
    expect(page.locator(".nearest")).to_have_count(0)


def test_a_citation_that_its_passage_does_not_support_is_marked(
    page: Page, fake_url: str, backend: FakeBackend
) -> None:
    backend.scripts[QUESTION] = DOUBTFUL
    page.goto(fake_url)
    ask(page)
    expect(page.locator(".marker")).to_have_text(["1", "2?", "1"])
    doubtful = page.get_by_role("button", name="does not support this")
    expect(doubtful).to_have_count(1)
    expect(page.locator(".sources .chip").nth(1)).to_contain_text("not supported")
    doubtful.click()
    expect(page.locator("#panel mark.chosen")).to_have_text(CITATIONS[1]["quote"])
    expect(page.locator("#panel .note")).to_have_text(
        "This passage does not seem to support the sentence that cites it."
    )
    page.locator(".marker").first.click()
    expect(page.locator("#panel .note")).to_have_count(0)


def test_each_stage_that_was_missing_is_said_in_a_sentence(
    page: Page, fake_url: str, backend: FakeBackend
) -> None:
    backend.scripts[QUESTION] = saying("Hm.", degraded=list(NOTES))
    page.goto(fake_url)
    ask(page)
    for note, words in zip(page.locator(".turn .note").all(), NOTES.values(), strict=True):
        expect(note).to_contain_text(words)


def test_an_exchange_shows_how_its_passages_were_chosen(
    page: Page, fake_url: str, backend: FakeBackend
) -> None:
    backend.records = [searched_record("a", QUESTION, EXPLAINED), searched_record("b", QUESTION, ABSTAINED)]
    page.goto(f"{fake_url}/exchanges/a")
    opened = page.locator("#exchange")
    expect(opened.locator(".searched dd")).to_have_count(6)
    first = opened.locator(".candidates tbody tr").first.locator("td")
    expect(first).to_have_text(["20.712", "111.8", "11.53", "14.25", "Passage 1"])
    expect(opened.locator(".facts")).to_contain_text("87 %, held to be so from 50 %")
    opened.get_by_role("button", name="Passage 2", exact=True).click()
    expect(opened.locator("#passage-2")).to_have_attribute("open", "")
    page.goto(f"{fake_url}/exchanges/b")
    expect(opened.locator(".abstention h3")).to_have_text("The documents do not answer this")
    opened.locator(".near").first.click()
    expect(opened.locator("#passage-1 summary")).to_be_focused()


TO_TOP = "e => e.scrollIntoView({block: 'start'})"
VIEWS = {"explain": EXPLAINED, "abstained": ABSTAINED, "doubtful": DOUBTFUL}


@pytest.fixture(params=["light", "dark"])
def scheme(request: pytest.FixtureRequest, page: Page) -> str:
    page.emulate_media(color_scheme=request.param, reduced_motion="reduce")
    return str(request.param)


@pytest.fixture(params=[1280, 360])
def width(request: pytest.FixtureRequest, page: Page) -> int:
    page.set_viewport_size({"width": request.param, "height": 800})
    return int(request.param)


@pytest.fixture
def screenshot(screenshots: Path, view: str, scheme: str, width: int) -> Path:
    """Where the view is photographed, for people to look at."""
    return screenshots / f"{view}_{scheme}_{width}.png"


@pytest.mark.parametrize("view", VIEWS)
def test_every_such_view_fits_its_screen(
    page: Page, fake_url: str, backend: FakeBackend, view: str, screenshot: Path
) -> None:
    backend.scripts[QUESTION] = VIEWS[view]
    backend.records = [searched_record("a", QUESTION, VIEWS[view])]
    page.goto(fake_url)
    if view == "explain":
        explain_switch(page).click()
    ask(page)
    if view == "explain":
        page.get_by_role("button", name="Explain", exact=True).click()
        page.locator(".details").first.evaluate(TO_TOP)
    if view == "doubtful":
        page.locator(".marker.doubtful").click()
    page.screenshot(path=screenshot)
    assert not overflows(page)
    page.goto(f"{fake_url}/exchanges/a")
    page.locator("#exchange section").nth(2 if view == "explain" else 0).evaluate(TO_TOP)
    page.screenshot(path=screenshot.with_stem(f"{screenshot.stem}_exchange"))
    assert not overflows(page)
