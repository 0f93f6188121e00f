"""A real Chromium, and a backend for the pages: the fake one, or the stack that TANDEM_URL names."""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, BrowserContext, ConsoleMessage, Page, expect, sync_playwright

from tests.browser.fake_backend import FakeBackend
from tests.fakes import FakeLlm, serving
from tests.stack import running_stack

QUIET = (
    "--headless=new --no-sandbox --disable-quic --no-first-run --disable-background-networking "
    "--disable-component-update --disable-sync"
).split()
PATIENCE = 20_000
"""Milliseconds that a page may take on a busy machine."""
SCREENSHOTS = Path(__file__).resolve().parents[2] / "var" / "screenshots"


def _chromium() -> str | None:
    wanted = os.environ.get("TANDEM_CHROMIUM")
    return wanted or shutil.which("chromium") or shutil.which("chromium-browser")


@pytest.fixture(scope="package")
def browser() -> Iterator[Browser]:
    path = _chromium()
    if path is None:
        reason = "no chromium found: install it (apt-get install chromium) or set TANDEM_CHROMIUM"
        if os.environ.get("TANDEM_REQUIRE_BROWSER") == "1":
            pytest.fail(reason)
        pytest.skip(reason)
    expect.set_options(timeout=PATIENCE)
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=path, args=QUIET)
        yield chromium
        chromium.close()


@pytest.fixture
def backend() -> FakeBackend:
    return FakeBackend()


@pytest.fixture
def fake_url(backend: FakeBackend) -> Iterator[str]:
    with serving(backend.app) as url:
        yield url


@pytest.fixture
def real_url(tmp_path: Path) -> Iterator[str]:
    """The real service; its LLM is scripted, and slow enough that an answer is seen to grow."""
    llm = FakeLlm("The LLM server listens on port 8001 by default [1]. Set a port to change it.", delay=0.06)
    with running_stack(tmp_path, llm) as stack:
        yield stack.url


@pytest.fixture(params=["fake_url", "real_url"])
def stack_url(request: pytest.FixtureRequest) -> str:
    """The running stack of TANDEM_URL, else the fake backend and the real service in turn."""
    if given := os.environ.get("TANDEM_URL"):
        return given.rstrip("/")
    return str(request.getfixturevalue(request.param))


@pytest.fixture
def context(browser: Browser) -> Iterator[BrowserContext]:
    context = browser.new_context(viewport={"width": 1280, "height": 860}, locale="en-GB")
    context.set_default_timeout(PATIENCE)
    yield context
    context.close()


@pytest.fixture
def page(context: BrowserContext) -> Iterator[Page]:
    """A page on which a script error, or anything the content policy stopped, fails the test."""
    page = context.new_page()
    wrong: list[str] = []
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.on("console", lambda line: _note(line, wrong))
    yield page
    assert wrong == []


def _note(line: ConsoleMessage, wrong: list[str]) -> None:
    if line.type == "error" and "Failed to load resource" not in line.text:
        wrong.append(line.text)


@pytest.fixture(scope="session")
def screenshots() -> Path:
    SCREENSHOTS.mkdir(parents=True, exist_ok=True)
    return SCREENSHOTS
