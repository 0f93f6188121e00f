"""When a question leaves a tier that is slow or hangs: after its time, for a fallback that takes it."""

import asyncio
import contextlib
from dataclasses import replace

import pytest

from business_api.errors import InvalidRequest, ServiceError, UpstreamTimeout
from business_api.upstream.leaving import Leaving
from business_api.upstream.seats import Seats
from tests.chains import asked, burst, carried, chain_of, close, outcomes, small
from tests.fakes import eventually
from tests.pools import NOBODY, PROMPT, SAID, heard, llm, pool_of
from tests.test_reasoning import Thinking


@pytest.mark.parametrize("full", [False, True])
async def test_a_full_fallback_is_no_reason_to_give_up_early(full: bool) -> None:
    primary = llm(first_delay=0.3)
    async with chain_of(primary, small(), fallback_after=0.05, retries=0) as chain:
        seats = chain.fallbacks["small"].seats
        taken = [seats.take() for _ in range(seats.most if full else 0)]
        said, _ = await heard(chain)
        for seat in taken:
            seat.leave()
    assert said == (SAID if full else "Small talk.")


async def test_of_many_who_wait_for_a_slow_tier_no_more_leave_it_than_the_fallback_takes() -> None:
    primary, other = llm(first_delay=0.5), small(delay=0.5)
    async with chain_of(primary, other, fallback_after=0.05, retries=0, knobs={"max_in_flight": 2}) as chain:
        begun, refused = await burst(chain, 10)
        models = sorted(one.model for one in begun)
        await close(begun)
        assert refused == []
        assert models.count("tiny") == 2
        assert len(models) == 10
        assert chain.fallbacks["small"].seats.taken == 0


@pytest.mark.parametrize("hedge", [False, True])
async def test_who_waits_for_a_tier_that_hangs_takes_a_seat_as_soon_as_one_is_free(hedge: bool) -> None:
    primary = llm()
    primary.hang_before_first()
    knobs = {"max_in_flight": 2}
    async with chain_of(primary, small(), fallback_after=0.1, retries=0, knobs=knobs, hedge=hedge) as chain:
        answers = await asyncio.gather(*(heard(chain) for _ in range(15)))
        assert [said for said, _ in answers] == ["Small talk."] * 15
        assert chain.fallbacks["small"].seats.taken == 0
        assert not any(chain.full.values())
        await eventually(lambda: not carried(chain))


async def test_a_fallback_that_comes_back_is_gone_to_by_who_waits_for_a_tier_that_hangs() -> None:
    primary = llm()
    primary.hang_before_first()
    async with chain_of(primary, small(), fallback_after=0.05, retries=0) as chain:
        (back,) = chain.fallbacks["small"].pool.replicas
        for replica in (*chain.primary.pool.replicas, back):
            replica.eject("as a test wants it")
        asking = asyncio.create_task(heard(chain))
        await eventually(lambda: bool(primary.requests))
        await asyncio.sleep(0.15)
        assert not asking.done()
        back.readmit()
        said, running = await asking
    assert said == "Small talk."
    assert outcomes(running)[-1] == ("small/", "answered")


async def test_who_thinks_is_not_left_and_keeps_no_seat() -> None:
    async with chain_of(Thinking(), small(), fallback_after=0.3) as chain:
        asking = asyncio.create_task(heard(chain))
        await asyncio.sleep(0.5)
        assert not asking.done()
        assert chain.fallbacks["small"].seats.taken == 0
        assert (await asking)[1].model != "tiny"


@pytest.mark.parametrize("full", [False, True])
async def test_a_pause_is_not_waited_for_where_a_seat_is_free(full: bool) -> None:
    primary = llm()
    primary.fail_with(503, headers={"retry-after": "4"})
    async with chain_of(primary, small(), fallback_after=0.5, retries=1) as chain:
        seats = chain.fallbacks["small"].seats
        taken = [seats.take() for _ in range(seats.most if full else 0)]
        asking = asyncio.create_task(heard(chain))
        await eventually(lambda: bool(primary.requests))
        await asyncio.sleep(0.3)
        assert asking.done() is not full
        for seat in taken:
            seat.leave()
        _, running = await asyncio.wait_for(asking, 3)
    assert outcomes(running) == [("", "status_503"), ("small/", "answered")]


async def test_a_seat_that_comes_too_late_is_given_back() -> None:
    """It is taken while the first words of the slow tier are on their way."""
    primary, other = llm(first_delay=0.2), small()
    async with chain_of(primary, other, fallback_after=0.2, retries=0) as chain:
        for _ in range(10):
            await heard(chain)
        assert chain.fallbacks["small"].seats.taken == 0


async def test_who_hangs_up_while_it_waits_for_a_seat_wants_none() -> None:
    async with chain_of(NOBODY, small(), retries=0, knobs={"max_in_flight": 1}) as chain:
        begun, _ = await burst(chain, 1)
        asking = asyncio.create_task(asked(chain))
        await asyncio.sleep(0.05)
        asking.cancel()
        await asyncio.gather(asking, return_exceptions=True)
        await close(begun)
        await asyncio.sleep(0.15)
        assert chain.fallbacks["small"].seats.taken == 0


async def test_who_waits_for_a_seat_gets_one_that_is_left_soon() -> None:
    async with chain_of(NOBODY, small(), retries=0, knobs={"max_in_flight": 1}) as chain:
        begun, _ = await burst(chain, 1)
        asking = asyncio.create_task(heard(chain))
        await asyncio.sleep(0.3)
        assert not asking.done()
        await close(begun)
        assert (await asking)[0] == "Small talk."


async def test_a_fallback_that_is_out_is_no_reason_to_give_up_early() -> None:
    async with chain_of(llm(first_delay=0.3), NOBODY, fallback_after=0.05, retries=0) as chain:
        chain.fallbacks["small"].pool.replicas[0].eject("as a test wants it")
        assert (await heard(chain))[0] == SAID


async def test_an_attempt_that_is_begun_when_the_question_has_just_been_taken_asks_nobody() -> None:
    primary, seats = llm(), Seats(1)
    async with pool_of(primary, retries=0) as upstream:
        with Leaving(0.0, lambda: seats) as leaving:
            await eventually(lambda: leaving.seat is not None)
            with pytest.raises(UpstreamTimeout):
                await upstream.begin(replace(upstream.asked(PROMPT, {}, "id-1"), leaving=leaving))
    assert primary.requests == []


@pytest.mark.parametrize("fails", [UpstreamTimeout("late"), InvalidRequest("wrong"), None])
async def test_a_seat_is_kept_for_whom_the_tier_has_failed_and_left_else(fails: Exception | None) -> None:
    seats = Seats(1)
    with contextlib.suppress(ServiceError), Leaving(0.0, lambda: seats) as leaving:
        await eventually(lambda: leaving.seat is not None)
        if fails is not None:
            raise fails
    kept = isinstance(fails, UpstreamTimeout)
    assert (leaving.seat is not None, seats.taken) == (kept, int(kept))


async def test_a_tier_that_is_back_is_asked_by_who_found_no_seat() -> None:
    primary = llm()
    async with chain_of(primary, small(), retries=0, knobs={"max_in_flight": 1}) as chain:
        (replica,) = chain.primary.pool.replicas
        replica.eject("as a test wants it")
        begun = [await asked(chain)]
        asking = asyncio.create_task(heard(chain))
        await asyncio.sleep(0.1)
        replica.readmit()
        said, running = await asking
        await close(begun)
    assert said == SAID
    assert outcomes(running) == [("llm", "out"), ("small", "full"), ("", "answered")]


async def test_who_hangs_up_in_the_very_moment_of_leaving_has_hung_up() -> None:
    primary = llm()
    primary.hang_before_first()
    async with chain_of(primary, small(), retries=0) as chain:
        asking = asyncio.create_task(heard(chain))
        await eventually(lambda: bool(primary.requests))
        asking.cancel()
        for waiting in chain.primary.pool.replicas[0].waits:
            waiting.run_out()
        with pytest.raises(asyncio.CancelledError):
            await asking
        await eventually(lambda: not carried(chain))
