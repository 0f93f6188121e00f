"""What all tests share: no settings of the developer's own environment, no proxy."""

import os

import pytest

pytest_plugins = ["tests.llm_fixtures"]


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.startswith(("BUSINESS_API_", "LLM_SERVER_", "OPENAI_")) or name.lower().endswith("_proxy"):
            monkeypatch.delenv(name)
