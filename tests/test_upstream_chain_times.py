"""When the next of a fallback chain is asked: the time that each one gets, and who is known to be dead."""

import asyncio
from typing import Any

import pytest

from business_api import deadlines
from business_api.errors import UpstreamTimeout
from business_api.exchange import Message, Prompt
from business_api.upstream.watching import Watch
from tests.chains import carried, chain_of, outcomes, small, tier_of
from tests.fakes import eventually
from tests.pools import SAID, heard, llm
from tests.reading import text_of


async def test_nobody_is_asked_when_the_callers_deadline_has_passed() -> None:
    primary, other = llm(), small()
    async with chain_of(primary, other) as chain:
        deadlines.honour("1")
        await asyncio.sleep(0.01)
        with pytest.raises(UpstreamTimeout):
            await heard(chain)
    assert not primary.requests
    assert not other.requests


async def test_the_callers_deadline_holds_for_all_of_the_chain_together() -> None:
    servers = [llm(), small(), llm()]
    for server in servers:
        server.hang_before_first()
    async with chain_of(*servers, fallback_after=60, knobs={"fallback_after": 60}) as chain:
        deadlines.honour("800")
        with pytest.raises(UpstreamTimeout) as caught:
            await heard(chain)
        await eventually(lambda: not carried(chain))
    assert outcomes(caught.value) == [("", "late"), ("small/", "late"), ("hosted/", "deadline")]


async def test_a_tier_whose_prompt_nobody_else_takes_gets_all_of_the_time() -> None:
    prompt = Prompt(messages=(Message(role="user", content="x" * 1200),), max_tokens=20)
    primary = llm(first_delay=0.3)
    async with chain_of(primary, small(), fallback_after=0.05, knobs={"context_tokens": 400}) as chain:
        running = await chain.generate(prompt, {}, "id-1")
        assert await text_of(running) == SAID
        await running.aclose()


async def test_half_of_the_callers_time_is_left_for_those_that_follow() -> None:
    primary = llm()
    primary.hang_before_first()
    async with chain_of(primary, small(), fallback_after=60) as chain:
        deadlines.honour("3000")
        said, running = await heard(chain)
    assert said == "Small talk."
    first, second = running.attempts
    assert first.ms > second.ms
    assert outcomes(running) == [("", "late"), ("small/", "answered")]


async def test_the_time_of_the_whole_answer_holds_for_all_together() -> None:
    primary, other = llm(), small(delay=60)
    primary.hang_before_first()
    async with chain_of(primary, other, fallback_after=0.2, total_deadline=1.0) as chain:
        with pytest.raises(UpstreamTimeout):
            await heard(chain)
        await eventually(lambda: not carried(chain))


async def test_who_passes_on_because_time_is_short_is_not_put_out_for_it() -> None:
    primary = llm(first_delay=1.0)
    async with chain_of(primary, small(), fallback_after=0.05) as chain:
        for _ in range(4):
            await heard(chain)
        assert chain.primary.pool.out() == {}


async def test_a_tier_with_no_server_in_is_asked_last_and_its_probe_brings_it_back() -> None:
    primary, other = llm(), small()
    primary.fail_with(502)
    async with chain_of(primary, other, retries=0) as chain:
        for _ in range(3):
            await heard(chain)
        assert list(chain.primary.pool.out().values()) == ["status_502"]
        _, running = await heard(chain)
        assert outcomes(running) == [("llm", "out"), ("small/", "answered")]
        assert len(primary.requests) == 3
        primary.recover()
        chain.primary.pool.replicas[0].looked_at -= 60
        await Watch(chain.primary.pool, chain.primary.settings).round()
        await eventually(lambda: not chain.primary.pool.out())
        said, running = await heard(chain)
    assert (said, running.degraded, outcomes(running)) == (SAID, (), [("", "answered")])


async def test_a_tier_that_is_out_is_asked_all_the_same_when_no_fallback_answers() -> None:
    primary, other = llm(), small()
    async with chain_of(primary, other, knobs={"retries": 0, "eject_after": 100}) as chain:
        chain.primary.pool.replicas[0].eject("as a test wants it")
        other.fail_with(500)
        said, running = await heard(chain)
    assert (said, running.degraded) == (SAID, ())
    assert outcomes(running) == [("llm", "out"), ("small/", "status_500"), ("", "answered")]


async def test_a_single_server_that_hangs_is_put_out_and_who_waits_goes_to_the_fallback() -> None:
    primary = llm()
    primary.hang_before_first()
    quick: dict[str, Any] = {"stall_deadline": 0.1, "probe_deadline": 0.1, "probe_seconds": 0.05}
    async with chain_of(primary, small(), first_delta_deadline=60, fallback_after=60, **quick) as chain:
        said, running = await asyncio.wait_for(heard(chain), 20)
        assert list(chain.primary.pool.out().values()) == ["it makes no progress"]
    assert said == "Small talk."
    assert outcomes(running) == [("", "stalled"), ("small/", "answered")]


async def test_a_single_server_that_nobody_stands_in_for_is_never_put_out_for_its_silence() -> None:
    primary = llm(first_delay=0.5)
    quick: dict[str, Any] = {"stall_deadline": 0.05, "probe_deadline": 0.05, "probe_seconds": 0.02}
    async with tier_of(primary, **quick) as tier:
        said, _ = await heard(tier.primary)
        assert tier.primary.pool.out() == {}
    assert said == SAID
