"""Who can use the pages: with a key, by keyboard, in both themes, with a screen reader."""

import pytest
from playwright.sync_api import Page, expect

from tests.browser.fake_backend import FakeBackend
from tests.browser.invented import QUESTION, Script

pytestmark = pytest.mark.browser

BEHIND = {
    "ink": ["paper", "surface", "sunk", "soft", "mark", "mark-chosen", "danger-soft"],
    "quiet": ["paper", "surface", "sunk", "soft", "danger-soft"],
    "accent": ["paper", "surface", "soft"],
    "on-accent": ["accent"],
    "danger": ["danger-soft"],
}
PAIRS = [(text, behind) for text, all_behind in BEHIND.items() for behind in all_behind]


def test_a_service_with_keys_asks_for_one_and_keeps_it_for_the_tab(
    page: Page, fake_url: str, backend: FakeBackend
) -> None:
    backend.key = "secret"
    page.goto(fake_url)
    dialog = page.get_by_role("dialog", name="API key")
    dialog.get_by_label("Key", exact=True).fill("wrong")
    page.keyboard.press("Enter")
    expect(dialog).to_contain_text("not accepted")
    dialog.get_by_label("Key", exact=True).fill("secret")
    dialog.get_by_role("button", name="Use this key").click()
    expect(page.locator(".suggestion").first).to_be_visible()
    page.reload()
    expect(page.locator(".suggestion").first).to_be_visible()
    assert "secret" not in str(page.evaluate("JSON.stringify(localStorage)"))


def test_without_a_key_the_question_is_not_lost(page: Page, fake_url: str, backend: FakeBackend) -> None:
    backend.key = "secret"
    page.goto(fake_url)
    page.get_by_role("button", name="Not now").click()
    page.locator("#question").fill("lost?")
    page.keyboard.press("Enter")
    page.get_by_role("button", name="Not now").click()
    expect(page.locator(".card.error h3")).to_have_text("An API key is needed")
    expect(page.get_by_role("button", name="Try again")).to_be_enabled()
    expect(page.locator(".question")).to_contain_text("lost?")


def press_until(page: Page, key: str, selector: str) -> None:
    for _ in range(30):
        page.keyboard.press(key)
        if page.evaluate("wanted => document.activeElement.matches(wanted)", selector):
            return
    raise AssertionError(f"{key} never reaches {selector}")


def test_everything_can_be_done_by_keyboard(page: Page, fake_url: str) -> None:
    page.goto(fake_url)
    expect(page.locator("#question")).to_be_focused()
    page.keyboard.type("Which port")
    page.keyboard.press("Shift+Enter")
    page.keyboard.type("is it?")
    expect(page.locator("#question")).to_have_value("Which port\nis it?")
    page.keyboard.press("Enter")
    expect(page.locator(".foot")).to_be_visible()
    press_until(page, "Shift+Tab", ".marker")
    page.keyboard.press("Enter")
    expect(page.locator("#panel-title")).to_be_focused()
    press_until(page, "Tab", ".tab:nth-child(2)")
    page.keyboard.press("Enter")
    expect(page.locator("#panel h3")).to_have_text("Operating the LLM tier")
    page.keyboard.press("Escape")
    expect(page.locator(".marker:focus")).to_have_count(1)


def test_the_first_tab_stop_skips_to_the_question(page: Page, fake_url: str) -> None:
    page.goto(fake_url)
    expect(page.locator("#question")).to_be_focused()
    page.evaluate("document.activeElement.blur()")
    page.keyboard.press("Tab")
    page.keyboard.press("Shift+Tab")
    page.locator(".skip").focus()
    expect(page.locator(".skip")).to_be_in_viewport()
    page.keyboard.press("Enter")
    expect(page.locator("#question")).to_be_focused()


def test_on_a_phone_the_passage_is_a_sheet_that_holds_the_focus(page: Page, fake_url: str) -> None:
    page.set_viewport_size({"width": 360, "height": 740})
    page.goto(fake_url)
    page.locator(".suggestion").first.click()
    expect(page.locator(".foot")).to_be_visible()
    page.locator(".marker").first.click()
    box = page.locator("#panel").bounding_box()
    assert box is not None
    assert box["width"] == 360
    assert box["y"] > 100
    assert page.locator("#panel").evaluate("e => e.matches(':modal')")
    page.mouse.click(180, 40)
    expect(page.locator("#panel")).to_be_hidden()


def test_a_running_answer_is_announced_when_it_is_whole(
    page: Page, fake_url: str, backend: FakeBackend
) -> None:
    backend.scripts[QUESTION] = Script(held=True)
    page.goto(fake_url)
    page.locator(".suggestion").first.click()
    prose = page.locator(".turn .prose[aria-live=polite]")
    expect(prose).to_contain_text("To use another port")
    expect(prose).to_have_attribute("aria-busy", "true")
    backend.release()
    expect(prose).to_have_attribute("aria-busy", "false")
    expect(page.get_by_role("status")).to_have_text("Answer complete")


def test_every_button_has_a_name(page: Page, fake_url: str) -> None:
    page.goto(fake_url)
    page.locator(".suggestion").first.click()
    expect(page.locator(".foot")).to_be_visible()
    expect(page.get_by_role("button", name="Passage 1: Configuration")).to_have_count(2)
    for button in page.get_by_role("button").all():
        name = button.get_attribute("aria-label") or button.inner_text()
        assert name.strip()


def test_a_chosen_theme_outlives_a_reload(page: Page, fake_url: str) -> None:
    page.emulate_media(color_scheme="light")
    page.goto(fake_url)
    page.get_by_role("button", name="Dark colours").click()
    page.reload()
    expect(page.locator("html")).to_have_attribute("data-theme", "dark")
    expect(page.get_by_role("button", name="Dark colours")).to_have_attribute("aria-pressed", "true")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_stands_out_from_what_is_behind_it(page: Page, fake_url: str, scheme: str) -> None:
    page.emulate_media(color_scheme="dark" if scheme == "dark" else "light")
    page.goto(fake_url)
    read = "name => getComputedStyle(document.documentElement).getPropertyValue('--' + name).trim()"
    colours = {name: str(page.evaluate(read, name)) for name in {name for pair in PAIRS for name in pair}}
    weak = [(a, b, round(contrast(colours[a], colours[b]), 2)) for a, b in PAIRS]
    assert [pair for pair in weak if pair[2] < 4.5] == []


def contrast(one: str, other: str) -> float:
    """Contrast ratio of two `#rrggbb` colours as WCAG 2 defines it, 1 to 21."""
    light, dark = sorted((_luminance(one), _luminance(other)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


def _luminance(colour: str) -> float:
    channels = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
