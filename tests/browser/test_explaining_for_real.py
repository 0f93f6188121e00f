"""The real service behind the pages: what it says of its candidates, of doubt and of abstaining is shown."""

from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from tests.fakes import FixedJudge, FixedShelf
from tests.stack import PORTS, running_stack
from tests.test_explain import CANDIDATES

pytestmark = pytest.mark.browser


def test_candidates_are_the_same_on_the_page_and_in_the_record(page: Page, tmp_path: Path) -> None:
    shelf = FixedShelf((PORTS,), candidates=CANDIDATES)
    with running_stack(tmp_path, shelf=shelf, judge=FixedJudge(probability=0.87)) as stack:
        page.goto(stack.url)
        page.get_by_role("switch", name="Explain").click()
        page.locator(".suggestion").first.click()
        page.get_by_role("button", name="Explain", exact=True).click()
        cells = page.locator(".candidates tbody :is(th, td)")
        expect(cells).to_have_count(18)
        shown = cells.all_inner_texts()
        page.get_by_role("button", name="Details").click()
        expect(page.locator(".facts")).to_contain_text("87 %")
        page.locator(".details .facts a").click()
        expect(cells).to_have_count(18)
        assert cells.all_inner_texts() == shown
        expect(page.locator(".searched dd")).to_have_text("Which port?")


def test_an_abstention_shows_its_nearest_passages(page: Page, tmp_path: Path) -> None:
    with running_stack(tmp_path, judge=FixedJudge(probability=0.12)) as stack:
        page.goto(stack.url)
        page.get_by_label("Assistant").select_option("careful")
        page.locator("#question").fill("Who was the first emperor?")
        page.keyboard.press("Enter")
        expect(page.locator(".abstention h3")).to_have_text("The documents do not answer this")
        page.locator(".near").click()
        expect(page.locator("#panel .passage")).to_have_text(PORTS.chunk.text)
        page.keyboard.press("Escape")
        page.get_by_role("button", name="Details").click()
        page.locator(".details .facts a").click()
        expect(page.locator("#exchange .near")).to_contain_text(PORTS.chunk.text)
        assert stack.llm.requests == []
