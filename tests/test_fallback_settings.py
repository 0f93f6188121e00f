"""How fallbacks are set, what a wrong one is told when the service starts, and what operators see of them."""

import json
import re
import urllib.request
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr, ValidationError

from business_api.assistants import Assistant
from business_api.errors import UpstreamTimeout
from business_api.settings import LlmSettings, Settings
from business_api.upstream.tier import Tier
from tests.chains import chain_of, small, tier_of
from tests.fakes import FakeLlm, serving
from tests.pools import NOBODY, heard, llm, nowhere
from tests.programs import run, serving_program

BACKED = Assistant(name="backed", fallbacks=("small",))
SECRET = "sk-of-the-small-one"
URL = "http://127.0.0.1:9/v1"


async def opened(*assistants: Assistant, **fallbacks: dict[str, Any]) -> dict[str, str]:
    """The names of the fallbacks that are in use, and their servers."""
    known = {name: LlmSettings.model_validate(own) for name, own in fallbacks.items()}
    async with Tier.open(Settings(llm_fallbacks=known), assistants, lambda ttft_ms, tokens: None) as tier:
        return {name: one.pool.replicas[0].name for name, one in tier.fallbacks.items()}


async def test_a_fallback_that_is_not_set_stops_the_start_and_says_what_to_do() -> None:
    told = "'backed' falls back on 'small', which is not set: add it to BUSINESS_API_LLM_FALLBACKS"
    with pytest.raises(ValueError, match=re.escape(told)):
        await opened(BACKED, tiny={"url": URL})


async def test_a_fallback_without_an_address_stops_the_start() -> None:
    with pytest.raises(ValueError, match=r"'small' .* needs a url"):
        await opened(BACKED, small={"model": "tiny"})


async def test_a_setting_that_has_no_effect_on_a_fallback_stops_the_start() -> None:
    with pytest.raises(ValueError, match="take max_queued out"):
        await opened(BACKED, small={"url": URL, "max_queued": 3})


async def test_a_server_of_this_process_that_is_not_there_stops_the_start() -> None:
    with pytest.raises(ValueError, match="asgi://nosuch:app names no LLM server of this installation"):
        await opened(BACKED, small={"url": "asgi://nosuch:app"})


@pytest.mark.parametrize("key", [f"{SECRET}\n", f"“{SECRET}”"])
def test_a_key_that_no_header_can_hold_is_refused_and_not_shown(key: str) -> None:
    with pytest.raises(ValidationError) as told:
        LlmSettings(url=URL, api_key=SecretStr(key))
    assert "take it out" in str(told.value)
    assert SECRET not in str(told.value)


async def test_only_what_some_assistant_names_is_opened_and_servers_bear_its_name() -> None:
    found = await opened(BACKED, Assistant(name="plain"), small={"url": URL}, spare={"url": URL})
    assert found == {"small": "small/127.0.0.1:9"}


async def test_a_fallback_may_have_replicas() -> None:
    replicas = [{"url": URL, "name": "a"}]
    assert await opened(BACKED, small={"replicas": replicas}) == {"small": "small/a"}


async def test_a_fallback_may_run_in_this_process() -> None:
    known = {"small": LlmSettings(url="asgi://tests.fake_llm:FakeLlm")}
    settings = Settings(llm=LlmSettings(url=f"{nowhere()}/v1", retries=0), llm_fallbacks=known)
    async with Tier.open(settings, [BACKED], lambda ttft_ms, tokens: None) as tier:
        said, running = await heard(tier.chains["backed"])
    assert said == "Hello from the fake model."
    assert running.attempts[-1].replica == "small/tests.fake_llm:FakeLlm"


async def test_there_can_be_an_answer_while_one_of_the_chain_serves() -> None:
    async with chain_of(NOBODY, small()) as chain:
        assert await chain.primary.problem() is not None
        assert await chain.problem() is None
    async with chain_of(llm(), NOBODY) as chain:
        assert await chain.problem() is None


async def test_a_tier_that_is_known_to_be_out_is_not_waited_for() -> None:
    primary = llm()
    async with chain_of(primary, small()) as chain:
        (replica,) = chain.primary.pool.replicas
        replica.eject("it makes no progress")
        assert await chain.problem_of_primary() == f"{replica.name} is out: it makes no progress"
        assert await chain.problem() is None


async def test_when_none_serves_each_says_why() -> None:
    async with chain_of(NOBODY, NOBODY) as chain:
        assert await chain.problem() == (
            "the LLM server cannot be reached; small: the LLM server cannot be reached"
        )


async def test_the_servers_of_all_are_shown_beside_each_other() -> None:
    async with tier_of(llm(), small()) as tier:
        own, other = (pool.replicas[0] for pool in tier.pools)
        other.eject("as a test wants it")
        assert tier.out() == {other.name: "as a test wants it"}
        assert tier.ejected() == {own.name: 0.0, other.name: 1.0}
        assert tier.outstanding() == {own.name: 0.0, other.name: 0.0}


async def test_a_tier_is_silent_when_no_server_that_is_in_has_said_anything_since() -> None:
    async with tier_of(llm()) as tier:
        (replica,) = tier.primary.pool.replicas
        replica.heard_at = 10.0
        assert tier.primary.pool.silent_since(10.5)
        assert not tier.primary.pool.silent_since(9.5)
        replica.eject("as a test wants it")
        assert tier.primary.pool.silent_since(9.5)


async def test_what_is_dead_says_nothing_of_how_much_it_could_take() -> None:
    seen: list[float | None] = []
    silent = llm()
    silent.hang_before_first()
    with serving(silent) as url:
        settings = Settings(llm=LlmSettings(url=f"{url}/v1", first_delta_deadline=0.1, retries=0))
        async with Tier.open(settings, [], lambda ttft_ms, tokens: seen.append(ttft_ms)) as tier:
            tier.primary.pool.replicas[0].eject("as a test wants it")
            with pytest.raises(UpstreamTimeout):
                await heard(tier.primary)
    assert seen == []


def test_a_service_without_its_llm_tier_is_ready_and_says_that_it_is_degraded(tmp_path: Path) -> None:
    (tmp_path / "assistants.toml").write_text('[plain]\nfallbacks = ["small"]\n')
    with serving(FakeLlm("At home.", model="tiny")) as url:
        more = {
            "BUSINESS_API_ASSISTANTS": str(tmp_path / "assistants.toml"),
            "BUSINESS_API_LLM_FALLBACKS": json.dumps({"small": {"url": f"{url}/v1", "model": "tiny"}}),
            "BUSINESS_API_LLM_FALLBACKS__SMALL__API_KEY": SECRET,
        }
        shown = run("serve", "--print-settings", var=tmp_path, **more).stdout
        with serving_program(tmp_path, f"{nowhere()}/v1", **more) as service:
            status, ready = service.get("/readyz")
            _, answered, headers = service.chat("Where?")
            with urllib.request.urlopen(f"{service.url}/metrics", timeout=30) as reply:
                metrics = reply.read().decode()
    assert SECRET not in shown
    assert json.loads(shown)["llm_fallbacks"]["small"]["url"] == f"{url}/v1"
    assert (status, ready["status"]) == (200, "degraded")
    assert "cannot be reached" in ready["degraded"]["llm"]
    assert (answered["answer"], headers["X-Degraded"]) == ("At home.", "fallback_model")
    assert 'tandem_fallback_generations_total{fallback="small"} 1.0' in metrics
    assert 'tandem_degraded_total{degradation="fallback_model"} 1.0' in metrics
    assert SECRET not in service.log.read_text()


def test_a_service_with_an_unknown_fallback_does_not_start(tmp_path: Path) -> None:
    (tmp_path / "assistants.toml").write_text('[plain]\nfallbacks = ["small"]\n')
    ended = run(
        "serve", "--port", "0", var=tmp_path, BUSINESS_API_ASSISTANTS=str(tmp_path / "assistants.toml")
    )
    assert ended.returncode != 0
    assert "BUSINESS_API_LLM_FALLBACKS, which has nothing" in ended.stderr + ended.stdout
    assert "Traceback" not in ended.stderr
