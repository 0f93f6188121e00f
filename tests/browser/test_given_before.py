"""Answers that were given before, on both pages: it is said, and they can be had anew."""

import pytest
from playwright.sync_api import Page, expect

from tests.browser.fake_backend import FakeBackend
from tests.browser.invented import QUESTION, Script, exchange_record

pytestmark = pytest.mark.browser
BEFORE = Script(cached={"exchange": "x-0000", "age_s": 41.6})


def test_the_chat_page_says_that_an_answer_was_given_before_and_asks_again_for_another(
    page: Page, fake_url: str, backend: FakeBackend
) -> None:
    backend.scripts[QUESTION] = BEFORE
    page.goto(fake_url)
    page.locator("#question").fill(QUESTION)
    page.keyboard.press("Enter")
    expect(page.locator(".turn .timing")).to_contain_text("given before")
    page.get_by_role("button", name="Details").click()
    expect(page.locator(".turn .facts")).to_contain_text("42 s ago, in x-0000")
    backend.scripts[QUESTION] = Script()
    page.get_by_role("button", name="Ask again").click()
    expect(page.locator(".turn .timing")).not_to_contain_text("given before")
    assert [asked.get("tandem") for asked in backend.asked] == [None, {"cache": False}]


def test_the_exchanges_page_leads_to_the_exchange_in_which_the_answer_was_first_given(
    page: Page, fake_url: str, backend: FakeBackend
) -> None:
    asked = {"message": QUESTION}
    backend.records = [exchange_record("x-0000", asked, Script()), exchange_record("x-0001", asked, BEFORE)]
    page.goto(f"{fake_url}/exchanges/x-0001")
    opened = page.locator("#exchange .opened-head")
    expect(opened).to_contain_text("given before")
    opened.get_by_role("link", name="42 s ago").click()
    expect(opened).to_contain_text("x-0000")
    expect(opened).not_to_contain_text("given before")
