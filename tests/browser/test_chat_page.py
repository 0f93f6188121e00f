"""The chat page in a real browser, against a backend that does as the test says."""

import json
from typing import Any

import pytest
from playwright.sync_api import Page, expect

from tests.browser.fake_backend import FakeBackend
from tests.browser.invented import ANSWER, CITATIONS, PASSAGES, QUESTION, Script, saying

pytestmark = pytest.mark.browser


def ask(page: Page, question: str) -> None:
    page.locator("#question").fill(question)
    page.keyboard.press("Enter")


def answered(page: Page, count: int = 1) -> None:
    expect(page.locator(".turn .foot")).to_have_count(count)


def kept(page: Page) -> dict[str, Any]:
    return dict(json.loads(page.evaluate("localStorage.getItem('tandem.chat')")))


def test_stop_ends_the_answer_here_and_hangs_up_there(
    page: Page, fake_url: str, backend: FakeBackend
) -> None:
    backend.scripts["long"] = Script(held=True)
    page.goto(fake_url)
    ask(page, "long")
    expect(page.locator(".turn .prose")).to_contain_text("To use another port")
    page.get_by_role("button", name="Stop").click()
    expect(page.locator(".turn .note")).to_contain_text("Stopped before the answer was complete")
    expect(page.locator(".turn .prose")).to_contain_text("To use another port")
    expect(page.get_by_role("button", name="Send")).to_be_visible()
    assert backend.hung_up.wait(10)


def test_escape_closes_the_passage_first_and_then_stops(
    page: Page, fake_url: str, backend: FakeBackend
) -> None:
    backend.scripts["long"] = Script(held=True)
    page.goto(fake_url)
    ask(page, "long")
    expect(page.locator(".turn .prose")).to_contain_text("To use another port")
    page.locator(".marker").first.click()
    expect(page.locator("#panel")).to_be_visible()
    page.keyboard.press("Escape")
    expect(page.locator("#panel")).to_be_hidden()
    expect(page.get_by_role("button", name="Stop")).to_be_visible()
    page.keyboard.press("Escape")
    expect(page.locator(".turn .note")).to_contain_text("Stopped")


def test_each_marker_opens_its_own_quote(page: Page, fake_url: str) -> None:
    page.goto(fake_url)
    ask(page, QUESTION)
    answered(page)
    for number, citation in enumerate(CITATIONS):
        page.locator(".marker").nth(number).click()
        expect(page.locator("#panel mark.chosen")).to_have_text(citation["quote"])
    expect(page.locator("#panel .note")).to_contain_text("matched to the passage by its words")


def test_offsets_count_characters_whatever_their_width(
    page: Page, fake_url: str, backend: FakeBackend
) -> None:
    passage = PASSAGES[0] | {"text": "🚲🚲 🚀 fact. The same, the same.", "start": 40, "end": 70}
    span = {
        "marker": 1,
        "start": 62,
        "end": 70,
        "quote": "the same",
        "by": "model",
        "title": "",
        "document": "a",
    }
    backend.scripts["wide"] = Script(
        deltas=["So.[1]"], passages=[passage], citations=[span | {"chunk": "c", "score": 1}]
    )
    page.goto(fake_url)
    ask(page, "wide")
    answered(page)
    page.locator(".marker").click()
    before = page.locator("#panel mark.chosen").evaluate("e => e.previousSibling.textContent")
    assert before == "🚲🚲 🚀 fact. The same, "


def test_a_failure_is_a_card_that_counts_down_and_asks_again(
    page: Page, fake_url: str, backend: FakeBackend
) -> None:
    backend.scripts["fail"] = Script(status=503, retry_after=2)
    page.goto(fake_url)
    ask(page, "fail")
    card = page.locator(".card.error")
    expect(card).to_contain_text("The language model cannot be reached")
    expect(card).to_contain_text("x-refused")
    expect(card.get_by_role("button", name="Try again in")).to_be_disabled()
    del backend.scripts["fail"]
    card.get_by_role("button", name="Try again", exact=True).click()
    answered(page)
    expect(page.locator(".turn")).to_have_count(1)
    assert [asked["message"] for asked in backend.asked] == ["fail", "fail"]


def test_a_refused_question_can_be_edited(page: Page, fake_url: str, backend: FakeBackend) -> None:
    message = "question and history need 9000 tokens"
    backend.scripts["long"] = Script(status=400, code="context_length_exceeded", message=message)
    page.goto(fake_url)
    ask(page, "long")
    card = page.locator(".card.error")
    expect(card).to_contain_text("Question and history need 9000 tokens")
    expect(card.get_by_role("button", name="Try again")).to_have_count(0)
    card.get_by_role("button", name="Edit question").click()
    expect(page.locator("#question")).to_have_value("long")
    expect(page.locator(".turn")).to_have_count(0)


@pytest.mark.parametrize(
    ("script", "title"),
    [
        (Script(breaks=True), "The language model cannot be reached"),
        (Script(cut=True), "The answer broke off"),
    ],
)
def test_an_answer_that_breaks_off_keeps_its_beginning(
    page: Page, fake_url: str, backend: FakeBackend, script: Script, title: str
) -> None:
    backend.scripts["break"] = script
    page.goto(fake_url)
    ask(page, "break")
    expect(page.locator(".card.error h3")).to_have_text(title)
    expect(page.locator(".turn .prose")).to_contain_text("To use another port")


def test_a_service_that_is_gone_is_said_in_words(page: Page, fake_url: str) -> None:
    page.goto(fake_url)
    page.context.set_offline(True)
    ask(page, "anyone?")
    expect(page.locator(".card.error h3")).to_have_text("Tandem cannot be reached")


def test_what_was_missing_is_said_in_plain_words(page: Page, fake_url: str, backend: FakeBackend) -> None:
    backend.scripts["poor"] = saying(
        "Hm.", degraded=["dense_unavailable", "tea_cold"], finish_reason="length"
    )
    page.goto(fake_url)
    ask(page, "poor")
    expect(page.locator(".turn .note")).to_have_text(
        [
            "Passages were found by their words only; the search by meaning was not available.",
            "Something was missing for this answer: tea_cold.",
            "The answer reached its longest allowed length.",
        ]
    )
    expect(page.locator(".turn .chip")).to_have_text("3 passages read, none cited")


def test_the_next_question_goes_on_with_the_conversation(
    page: Page, fake_url: str, backend: FakeBackend
) -> None:
    page.goto(fake_url)
    ask(page, "first")
    answered(page)
    page.reload()
    ask(page, "second")
    answered(page, 2)
    page.get_by_role("button", name="New chat").click()
    expect(page.locator("#welcome")).to_be_visible()
    ask(page, "third")
    answered(page)
    assert [asked.get("conversation") for asked in backend.asked] == [None, "c-0001", None]


def test_a_new_chat_is_not_reached_by_the_answer_of_the_old_one(
    page: Page, fake_url: str, backend: FakeBackend
) -> None:
    backend.scripts["long"] = Script(held=True)
    page.goto(fake_url)
    ask(page, "long")
    expect(page.locator(".turn .prose")).to_contain_text("To use another port")
    page.get_by_role("button", name="New chat").click()
    assert backend.hung_up.wait(10)
    expect(page.locator(".turn")).to_have_count(0)
    assert kept(page)["turns"] == []
    ask(page, QUESTION)
    answered(page)


def test_an_answer_interrupted_by_a_reload_is_marked_as_stopped(
    page: Page, fake_url: str, backend: FakeBackend
) -> None:
    backend.scripts["long"] = Script(held=True)
    page.goto(fake_url)
    ask(page, "long")
    expect(page.locator(".turn .prose")).to_contain_text("To use another port")
    page.reload()
    expect(page.locator(".turn .note")).to_contain_text("Stopped")
    expect(page.locator(".turn .prose")).to_contain_text("To use another port")


def test_the_chosen_assistant_is_asked(page: Page, fake_url: str, backend: FakeBackend) -> None:
    page.goto(fake_url)
    page.get_by_label("Assistant").select_option("plain")
    expect(page.locator("#question")).to_have_attribute("placeholder", "Ask the model")
    ask(page, "hello")
    answered(page)
    page.reload()
    expect(page.get_by_label("Assistant")).to_have_value("plain")
    assert backend.asked[0]["assistant"] == "plain"


def test_a_thumb_down_asks_why_and_both_are_sent(page: Page, fake_url: str, backend: FakeBackend) -> None:
    page.goto(fake_url)
    ask(page, QUESTION)
    answered(page)
    page.get_by_role("button", name="Bad answer").click()
    page.get_by_label("What was wrong?").fill("the port is 8001")
    page.keyboard.press("Enter")
    expect(page.locator(".thanks")).to_have_text("Thank you")
    expect(page.get_by_role("button", name="Bad answer")).to_have_attribute("aria-pressed", "true")
    assert backend.ratings == [
        ("x-0001", {"rating": "down"}),
        ("x-0001", {"rating": "down", "comment": "the port is 8001"}),
    ]


def test_copy_gives_the_answer_as_it_was_written(page: Page, fake_url: str) -> None:
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    page.goto(fake_url)
    ask(page, QUESTION)
    answered(page)
    page.get_by_role("button", name="Copy answer").click()
    expect(page.locator("#status")).to_have_text("Copied")
    assert page.evaluate("navigator.clipboard.readText()") == ANSWER
