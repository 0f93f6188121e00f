"""How much is asked twice: counted, on a clock of our own, and in whole outages."""

import asyncio

import pytest

from business_api.errors import Unavailable
from business_api.upstream.budget import HedgeBudget, RetryBudget
from business_api.upstream.pace import FEWEST, Pace
from tests.fakes import eventually
from tests.pools import PROMPT, SAID, heard, llm, pool_of, trail


class Clock:
    """Seconds that pass when they are told to."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def retried(seconds: int, per_second: int) -> int:
    """How many retries a budget allows when all of so many requests fail."""
    clock = Clock()
    budget = RetryBudget(0.2, 10.0, clock)
    retries = 0
    for _ in range(seconds * per_second):
        clock.now += 1 / per_second
        budget.earn()
        while budget.spend():
            retries += 1
    return retries


@pytest.mark.parametrize("per_second", [100, 500, 5000])
def test_of_many_requests_that_all_fail_a_fifth_is_asked_again(per_second: int) -> None:
    assert retried(20, per_second) == pytest.approx(0.2 * 20 * per_second, abs=11)


@pytest.mark.parametrize("per_second", [1, 5])
def test_few_requests_may_be_retried_ten_times_a_second(per_second: int) -> None:
    assert retried(10, per_second) == pytest.approx(100, abs=11)


def test_a_quiet_night_saves_up_one_second_of_retries_and_no_more() -> None:
    clock = Clock()
    budget = RetryBudget(0.2, 10.0, clock)
    clock.now += 36_000
    assert sum(budget.spend() for _ in range(1000)) == 10


def test_hedges_take_their_share_of_tokens_and_no_more() -> None:
    budget = HedgeBudget(0.03)
    hedged = 0
    for _ in range(1000):
        budget.earn(500)
        hedged += 500 * budget.spend(500)
    assert 0.029 <= hedged / (1000 * 500) <= 0.03


OUTAGES = {
    "cut off": lambda one: one.die_after(0),
    "busy": lambda one: one.fail_with(503),
    "failing": lambda one: one.fail_with(502),
    "shutting down": lambda one: one.fail_with(503, "cannot schedule new futures after shutdown"),
}


@pytest.mark.parametrize("tell", OUTAGES.values(), ids=OUTAGES.keys())
async def test_a_whole_outage_is_not_made_worse_by_retries(tell: object) -> None:
    servers = llm(), llm()
    for one in servers:
        tell(one)  # type: ignore[operator]
    failed = 0
    async with pool_of(*servers) as upstream:
        for _ in range(15):
            answers = await asyncio.gather(*(heard(upstream) for _ in range(20)), return_exceptions=True)
            failed += sum(isinstance(one, Unavailable) for one in answers)
    assert failed == 300
    assert sum(len(one.requests) for one in servers) <= 1.2 * 300


async def test_those_who_wait_on_a_server_that_dies_all_move_on() -> None:
    """Failing over from a dead server adds no load, and takes nothing of the budget."""
    dying, well = llm(), llm()
    dying.die_after(0)
    async with pool_of(dying, well, retry_share=0, retry_floor=2, eject_after=1) as upstream:
        answers = await asyncio.gather(*(heard(upstream) for _ in range(60)))
    assert [said for said, _ in answers] == [SAID] * 60


async def hedging(upstream: object) -> None:
    pace: Pace = upstream._asking.pace  # type: ignore[attr-defined]
    for _ in range(FEWEST):
        pace.note(0.05)


async def test_a_late_first_delta_is_hedged_and_the_loser_is_cancelled() -> None:
    slow, quick = llm(), llm()
    slow.hang_before_first()
    async with pool_of(slow, quick, hedge=True, hedge_share=1) as upstream:
        await hedging(upstream)
        said, running = await heard(upstream)
        await eventually(lambda: slow.running == 0)
        assert list(upstream.pool.outstanding().values()) == [0.0, 0.0]
    assert said == SAID
    assert trail(running.attempts) == [("a", "outpaced"), ("b", "answered")]


async def test_a_hedge_that_fails_leaves_the_first_attempt_alone() -> None:
    slow, broken = llm(first_delay=0.3), llm()
    broken.fail_with(502)
    async with pool_of(slow, broken, hedge=True, hedge_share=1) as upstream:
        await hedging(upstream)
        said, running = await heard(upstream)
    assert said == SAID
    assert trail(running.attempts) == [("b", "status_502"), ("a", "answered")]


async def test_no_tokens_saved_up_no_hedge() -> None:
    slow, quick = llm(first_delay=0.2), llm()
    async with pool_of(slow, quick, hedge=True, hedge_share=0.0) as upstream:
        await hedging(upstream)
        _, running = await heard(upstream)
    assert trail(running.attempts) == [("a", "answered")]
    assert quick.requests == []


async def test_both_fail_and_the_caller_is_told_of_both() -> None:
    slow, broken = llm(), llm()
    slow.hang_before_first()
    broken.fail_with(502)
    knobs = {"hedge": True, "hedge_share": 1, "first_delta_deadline": 0.4, "retries": 0}
    async with pool_of(slow, broken, **knobs) as upstream:
        await hedging(upstream)
        with pytest.raises(Unavailable) as caught:
            await upstream.generate(PROMPT, {}, "id-1")
        assert list(upstream.pool.outstanding().values()) == [0.0, 0.0]
    assert trail(caught.value.attempts) == [("b", "status_502"), ("a", "late")]


async def test_who_has_failed_a_hedge_is_not_asked_at_once_again() -> None:
    slow, busy = llm(), llm()
    slow.hang_before_first(times=1)
    busy.fail_with(503, headers={"Retry-After": "5"})
    knobs = {"hedge": True, "hedge_share": 1, "first_delta_deadline": 0.4}
    async with pool_of(slow, busy, **knobs) as upstream:
        await hedging(upstream)
        said, running = await heard(upstream)
    assert said == SAID
    assert trail(running.attempts) == [("b", "status_503"), ("a", "late"), ("a", "answered")]
    assert len(busy.requests) == 1


def test_the_pace_is_the_95th_percentile_of_the_last_first_deltas() -> None:
    pace = Pace(window=100)
    for _ in range(FEWEST - 1):
        pace.note(1.0)
    assert pace.slow is None
    for n in range(1, 201):
        pace.note(n / 100)
    assert pace.slow == pytest.approx(1.95, abs=0.17)
