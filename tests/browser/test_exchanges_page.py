"""The exchanges page in a real browser, over invented history."""

import pytest
from playwright.sync_api import Page, expect

from tests.browser.fake_backend import FakeBackend
from tests.browser.invented import ANSWER, CITATIONS, history

pytestmark = pytest.mark.browser


def test_the_list_is_newest_first_and_goes_on(page: Page, fake_url: str, backend: FakeBackend) -> None:
    backend.records = history(120)
    page.goto(f"{fake_url}/exchanges")
    expect(page.locator("#list li")).to_have_count(50)
    expect(page.locator("#list li").first).to_contain_text("no. 119")
    page.get_by_role("button", name="Load more").click()
    expect(page.locator("#list li")).to_have_count(100)
    page.get_by_role("button", name="Load more").click()
    expect(page.locator("#list li")).to_have_count(120)
    expect(page.locator("#list li").last).to_contain_text("no. 0")
    expect(page.get_by_role("button", name="Load more")).to_be_hidden()


def test_the_list_is_narrowed_by_outcome_and_by_text(page: Page, fake_url: str, backend: FakeBackend) -> None:
    backend.records = history(40)
    page.goto(f"{fake_url}/exchanges")
    page.get_by_label("Outcome").select_option("failed")
    expect(page.locator("#list li")).to_have_count(8)
    page.get_by_label("Search questions and answers").fill("no. 35")
    expect(page.locator("#list li")).to_have_count(1)
    page.reload()
    expect(page.locator("#list li")).to_have_count(1)
    page.get_by_label("Search questions and answers").fill("nowhere")
    expect(page.locator("#list-end")).to_have_text("No exchange matches.")


def test_an_exchange_shows_all_that_happened_to_it(page: Page, fake_url: str, backend: FakeBackend) -> None:
    backend.records = history(4)
    page.goto(f"{fake_url}/exchanges")
    page.locator("#list a").nth(1).click()
    opened = page.locator("#exchange")
    expect(opened.locator(".badge")).to_have_text("Answered")
    expect(opened.locator(".waterfall tr")).to_have_count(8)
    expect(opened.locator(".citations q")).to_have_text([citation["quote"] for citation in CITATIONS])
    expect(opened.locator(".passage-card")).to_have_count(3)
    expect(opened.locator(".facts")).to_contain_text("answer_from_passages/v1")
    opened.get_by_text("2 messages").click()
    expect(opened.locator(".messages pre").first).to_contain_text("Answer from the passages only")
    opened.locator(".marker").first.click()
    expect(opened.locator("mark.chosen")).to_have_text(CITATIONS[0]["quote"])
    page.go_back()
    expect(opened).to_contain_text("Choose an exchange")


def test_a_long_question_and_what_came_before_it_can_be_read(
    page: Page, fake_url: str, backend: FakeBackend
) -> None:
    record = history(2)[1]
    question = "Why? " * 100
    said = [{"role": "user", "content": "Hello?"}, {"role": "assistant", "content": "Hello."}]
    record["question"]["messages"] = [*said, {"role": "user", "content": question}]
    backend.records = [record]
    page.goto(f"{fake_url}/exchanges/{record['id']}")
    expect(page.locator("#exchange .asked")).to_have_text(question.strip())
    page.get_by_text("2 earlier messages").click()
    expect(page.locator("#exchange .messages pre").first).to_have_text("Hello?")


def test_a_failed_exchange_says_why(page: Page, fake_url: str, backend: FakeBackend) -> None:
    backend.records = history(1)
    page.goto(f"{fake_url}/exchanges/old-000")
    expect(page.locator("#exchange .card.error")).to_contain_text("The LLM server cannot be reached")
    expect(page.locator("#exchange h3")).not_to_contain_text(["Answer"])
    expect(page.locator("#list a[aria-current]")).to_have_count(1)


def test_an_exchange_that_is_not_there_is_said_so(page: Page, fake_url: str, backend: FakeBackend) -> None:
    page.goto(f"{fake_url}/exchanges/nowhere")
    expect(page.locator("#exchange .card.error")).to_contain_text("No exchange 'nowhere'")
    expect(page.locator("#list-end")).to_contain_text("No exchanges yet")


def test_on_a_phone_the_list_gives_way_to_the_exchange(
    page: Page, fake_url: str, backend: FakeBackend
) -> None:
    backend.records = history(4)
    page.set_viewport_size({"width": 360, "height": 740})
    page.goto(f"{fake_url}/exchanges")
    page.locator("#list a").nth(1).click()
    expect(page.locator("#exchange .prose")).to_contain_text(ANSWER[:20])
    expect(page.locator("#list")).to_be_hidden()
    page.get_by_role("link", name="All exchanges").click()
    expect(page.locator("#list li")).to_have_count(4)
    assert page.locator("html").evaluate("e => e.scrollWidth") <= 360
