"""A fallback takes so many texts at once; who finds it full waits for a tier that is slow, or for a seat."""

import asyncio
import gc
from collections.abc import Awaitable, Callable

import pytest

from business_api.deadlines import honour
from business_api.errors import Overloaded, UpstreamTimeout, UpstreamUnavailable
from business_api.upstream import others
from business_api.upstream.chain import Chain
from business_api.upstream.pool import Address
from tests.chains import asked, burst, chain_of, close, outcomes, small
from tests.fakes import FakeLlm, eventually
from tests.pools import NOBODY, SAID, heard, llm


@pytest.fixture(autouse=True)
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who waits for a seat gives up soon."""
    monkeypatch.setattr(others, "LOOKS", 1)


async def test_it_is_passed_over_until_one_has_ended_and_that_is_counted() -> None:
    other = small()
    async with chain_of(NOBODY, other, retries=0, knobs={"max_in_flight": 2}) as chain:
        begun, _ = await burst(chain, 2)
        with pytest.raises(Overloaded, match="small in its place answers as much as it may") as caught:
            await asked(chain)
        assert caught.value.retry_after
        assert ("small", "full") in outcomes(caught.value)
        assert (len(other.requests), chain.full["small"]) == (2, 1)
        await begun[0].aclose()
        assert (await heard(chain))[0] == "Small talk."
        await close(begun)


async def test_the_next_one_is_asked_in_place_of_a_full_one() -> None:
    hosted = llm(model="big")
    async with chain_of(NOBODY, small(), hosted, retries=0, knobs={"max_in_flight": 1}) as chain:
        begun, _ = await burst(chain, 1)
        said, running = await heard(chain)
        await close(begun)
    assert (said, running.model) == (SAID, "big")
    assert outcomes(running)[-2:] == [("small", "full"), ("hosted/", "answered")]


@pytest.mark.parametrize("hedge", [False, True])
async def test_of_a_burst_no_more_are_begun(hedge: bool) -> None:
    other = small(delay=0.02)
    knobs = {"max_in_flight": 3, "hedge": hedge}
    async with chain_of(NOBODY, other, retries=0, knobs=knobs) as chain:
        for _ in range(30):  # so that the pace is known, which hedges want
            await heard(chain)
        before = len(other.requests)
        begun, refused = await burst(chain, 12)
        await close(begun)
        assert (len(begun), len(other.requests) - before) == (3, 3)
        assert {type(one) for one in refused} == {Overloaded}
        assert not chain.fallbacks["small"].seats.full


async def test_who_pauses_before_a_retry_keeps_its_seat() -> None:
    other = small()
    other.fail_with(503, times=2)
    async with chain_of(NOBODY, other, retries=0, knobs={"max_in_flight": 2, "backoff": 0.2}) as chain:
        first = asyncio.create_task(burst(chain, 2))
        await eventually(lambda: len(other.requests) == 2)
        with pytest.raises(Overloaded):
            await asked(chain)
        begun, _ = await first
        assert len(begun) == 2
        await close(begun)


async def test_what_runs_on_a_server_that_leaves_the_pool_counts() -> None:
    other = small()
    async with chain_of(NOBODY, other, retries=0, knobs={"max_in_flight": 1}) as chain:
        begun, _ = await burst(chain, 1)
        pool = chain.fallbacks["small"].pool
        pool.become([Address(next(iter(pool._by_address)).url, name="anew")])
        with pytest.raises(Overloaded):
            await asked(chain)
        await close(begun)


async def fails(chain: Chain, other: FakeLlm) -> None:
    other.fail_with(500, times=1)
    with pytest.raises(Exception, match="cannot be reached"):
        await asked(chain)


async def hangs_up(chain: Chain, other: FakeLlm) -> None:
    other.hang_before_first(times=1)
    asking = asyncio.create_task(asked(chain))
    await eventually(lambda: bool(other.requests))
    asking.cancel()
    await asyncio.gather(asking, return_exceptions=True)


async def is_dropped(chain: Chain, other: FakeLlm) -> None:
    await asked(chain)
    gc.collect()


@pytest.mark.parametrize("leaves", [fails, hangs_up, is_dropped], ids=lambda one: one.__name__)
async def test_however_an_answer_ends_its_seat_is_free(
    leaves: Callable[[Chain, FakeLlm], Awaitable[None]],
) -> None:
    other = small()
    async with chain_of(NOBODY, other, retries=0, knobs={"max_in_flight": 1, "retries": 0}) as chain:
        await leaves(chain, other)
        assert chain.fallbacks["small"].seats.taken == 0
        assert (await heard(chain))[0] == "Small talk."


async def test_a_tier_that_is_out_is_not_asked_because_the_fallback_is_full() -> None:
    primary, other = llm(), small()
    async with chain_of(primary, other, knobs={"max_in_flight": 1}) as chain:
        begun, _ = await burst(chain, 0)
        chain.primary.pool.replicas[0].eject("as a test wants it")
        begun.append(await asked(chain))
        with pytest.raises(Overloaded) as caught:
            await asked(chain)
        assert outcomes(caught.value) == [("llm", "out"), ("small", "full")]
        assert not primary.requests
        await close(begun)


async def test_a_deadline_that_has_passed_is_told_as_that() -> None:
    primary = llm()
    primary.hang_before_first()
    async with chain_of(primary, small(), retries=0) as chain:
        seats = chain.fallbacks["small"].seats
        taken = [seats.take() for _ in range(seats.most)]
        honour("60")
        with pytest.raises(UpstreamTimeout):
            await heard(chain)
        for seat in taken:
            seat.leave()


async def test_who_finds_one_fallback_full_does_not_wait_for_another_one_that_is_out() -> None:
    hosted = llm(model="big")
    hosted.hang_before_first()
    async with chain_of(NOBODY, small(), hosted, retries=0, knobs={"max_in_flight": 1}) as chain:
        begun, _ = await burst(chain, 1)
        chain.fallbacks["hosted"].pool.replicas[0].eject("it makes no progress")
        with pytest.raises(Overloaded, match="and small in its place") as caught:
            await asked(chain)
        assert outcomes(caught.value)[-2:] == [("small", "full"), ("hosted", "out")]
        assert not hosted.requests
        await close(begun)


async def test_where_nobody_serves_that_is_told_though_seats_are_taken() -> None:
    async with chain_of(NOBODY, small(), retries=0, knobs={"max_in_flight": 1}) as chain:
        begun, _ = await burst(chain, 1)
        for tier in (chain.primary, chain.fallbacks["small"]):
            tier.pool.replicas[0].eject("it makes no progress")
        with pytest.raises(UpstreamUnavailable):
            await asked(chain)
        await close(begun)
