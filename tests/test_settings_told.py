"""What an operator is told about a setting: by the name of its variable, with what to write in its place."""

from pathlib import Path

import pytest
from pydantic import ValidationError

from business_api.errors import UpstreamUnavailable
from business_api.serving import announce
from business_api.settings import LlmSettings, Settings, StoreSettings
from business_api.upstream import Upstream
from business_api.upstream.serving import served_model
from tests.fakes import FakeLlm, serving
from tests.programs import run

SAME_NAME = '[{"url": "http://gpu:1/a"}, {"url": "http://gpu:1/b"}, {"url": "http://gpu:1/c", "name": "c"}]'


@pytest.mark.parametrize(
    ("name", "value", "told"),
    [
        ("BUSINESS_API_GUARD__PRIORITIES", "high", "BUSINESS_API_GUARD__PRIORITIES: lists and groups"),
        ("BUSINESS_API_LLM_FALLBACKS", "{small: 1}", "BUSINESS_API_LLM_FALLBACKS: lists and groups"),
        ("BUSINESS_API_LLM_FALLBACKS", '{"small": 1}', "BUSINESS_API_LLM_FALLBACKS__SMALL: is a group"),
        ("BUSINESS_API_LLM__URL", "gpu:8001/v1", "BUSINESS_API_LLM__URL: must begin with http://"),
        ("BUSINESS_API_LLM__REPLICAS", '[{"url": "gpu"}]', "BUSINESS_API_LLM__REPLICAS__0__URL: must begin"),
        ("BUSINESS_API_STORE__URL", "qdrant:6333", "BUSINESS_API_STORE__URL: must begin with http://"),
        ("BUSINESS_API_LLM__REPLICAS", SAME_NAME, "BUSINESS_API_LLM__REPLICAS: gpu:1 is there twice: give"),
    ],
)
def test_a_wrong_setting_is_told_by_its_name(tmp_path: Path, name: str, value: str, told: str) -> None:
    done = run("serve", "--print-settings", var=tmp_path, **{name: value})
    assert done.returncode == 2
    assert f"settings: {told}" in done.stderr


@pytest.mark.parametrize(("given", "kept"), [("", None), ("HTTP://q:1", "HTTP://q:1")])
def test_a_url_that_is_empty_is_none(given: str, kept: str | None) -> None:
    assert StoreSettings.model_validate({"url": given}).url == kept


@pytest.mark.parametrize("given", ["http://", "http:// x", "q:6333"])
def test_a_url_without_a_host_is_refused(given: str) -> None:
    with pytest.raises(ValidationError):
        StoreSettings(url=given)


def test_the_start_tells_the_servers_that_are_asked(capsys: pytest.CaptureFixture[str]) -> None:
    several = [{"url": "http://user:secret@one:1/v1"}, {"url": "http://two:2/v1"}]
    announce(Settings(llm=LlmSettings.model_validate({"replicas": several})), ("127.0.0.1", 8000))
    assert "LLM at http://one:1/v1 and http://two:2/v1\n" in capsys.readouterr().err


async def test_a_base_url_with_nothing_behind_it_is_told_so() -> None:
    with serving(FakeLlm()) as url:
        settings = LlmSettings(url=f"{url}/v2")
        async with Upstream.open(settings) as upstream:
            with pytest.raises(UpstreamUnavailable, match=r"status 404\); base URLs mostly end with /v1"):
                await served_model(upstream.pool.replicas[0], settings)
