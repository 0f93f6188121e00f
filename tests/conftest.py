"""What all tests share: no settings of the developer's own environment, no proxy."""

import asyncio
import os
from collections.abc import Callable, Mapping

import pytest

LoopFactory = Callable[[], asyncio.AbstractEventLoop]

pytest_plugins = ["tests.llm_fixtures", "tests.vllm_servers"]


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.startswith(("BUSINESS_API_", "LLM_SERVER_", "OPENAI_")) or name.lower().endswith("_proxy"):
            monkeypatch.delenv(name)


def pytest_asyncio_loop_factories(item: pytest.Item) -> Mapping[str, LoopFactory]:
    """Tests run on asyncio's own loop, unless their module names others in `LOOPS`."""
    own = {"asyncio": asyncio.new_event_loop}
    found: Mapping[str, LoopFactory] = getattr(getattr(item, "module", None), "LOOPS", own)
    return found
