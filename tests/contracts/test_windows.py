"""What all `Windows` promise: those of one process, those in a Redis server, and those that fall back."""

import asyncio
import random
from collections.abc import AsyncIterator, Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from business_api.redis_windows import RedisWindows
from business_api.shared_windows import SharedWindows
from business_api.windows import Allowance, MemoryWindows, Rate, Taken, Windows
from tests.clocks import Clock
from tests.redis_server import RedisServer, redis_server

MINUTE = Rate("tokens_per_minute", 10, 60)
DAY = Rate("tokens_per_day", 15, 86_400)


@pytest.fixture(scope="module")
def redis() -> Iterator[RedisServer]:
    with redis_server() as server:
        yield server


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture(params=["memory", "redis", "shared"])
async def windows(request: pytest.FixtureRequest, clock: Clock) -> AsyncIterator[Windows]:
    if request.param == "memory":
        yield MemoryWindows(clock)
        return
    server: RedisServer = request.getfixturevalue("redis")
    server.clear()
    opened = RedisWindows(server.url, deadline=20, clock=clock)
    yield opened if request.param == "redis" else SharedWindows(opened, MemoryWindows(clock), "local", clock)
    await opened.aclose()


async def take(windows: Windows, amount: int, *rates: Rate, key: str = "k") -> Taken:
    return await windows.take(key, rates or (MINUTE,), amount)


async def used(windows: Windows, rate: Rate = MINUTE, key: str = "k") -> int:
    """What counts now, when all corrections are made."""
    await windows.settled()
    (left,) = (await take(windows, 0, rate, key=key)).left
    return left.limit - left.remaining


async def test_no_more_is_granted_than_the_limit(windows: Windows) -> None:
    assert [(await take(windows, 4)).granted for _ in range(4)] == [True, True, False, False]
    assert (await take(windows, 2)).granted
    assert await used(windows) == 10


async def test_what_is_left_is_told(windows: Windows, clock: Clock) -> None:
    assert (await take(windows, 0)).left == (Allowance(10, 10, 0),)
    assert (await take(windows, 4)).left == (Allowance(10, 6, 61),)
    clock.now += 20
    assert (await take(windows, 6)).left == (Allowance(10, 0, 61),)
    clock.now += 10
    refused = await take(windows, 1)
    assert (refused.granted, refused.left) == (False, (Allowance(10, 0, 51),))


async def test_what_is_refused_fits_after_the_wait_and_not_before(windows: Windows, clock: Clock) -> None:
    for amount in (3, 3, 4):
        await take(windows, amount)
        clock.now += 7.5
    refused = await take(windows, 5)
    assert not refused.granted
    clock.now += refused.wait - 0.01
    assert not (await take(windows, 5)).granted
    clock.now += 0.02
    assert (await take(windows, 5)).granted


async def test_a_refusal_counts_nothing(windows: Windows) -> None:
    await take(windows, 8)
    for _ in range(5):
        assert not (await take(windows, 3)).granted
    assert await used(windows) == 8


async def test_units_are_counted_in_every_rate_or_in_none(windows: Windows, clock: Clock) -> None:
    assert (await take(windows, 8, MINUTE, DAY)).granted
    assert not (await take(windows, 5, MINUTE, DAY)).granted
    assert await used(windows, DAY) == 8
    clock.now += 61
    refused = await take(windows, 8, MINUTE, DAY)
    assert (refused.granted, [left.remaining for left in refused.left]) == (False, [10, 7])
    assert await used(windows) == 0
    clock.now += refused.wait
    assert (await take(windows, 8, MINUTE, DAY)).granted


async def test_keys_have_windows_of_their_own(windows: Windows) -> None:
    assert (await take(windows, 10, key="a")).granted
    assert (await take(windows, 10, key="b")).granted
    assert not (await take(windows, 1, key="a")).granted


async def test_a_lower_limit_holds_for_what_was_spent_before(windows: Windows) -> None:
    await take(windows, 10)
    lower = Rate(MINUTE.name, 5, 60)
    refused = await take(windows, 1, lower)
    assert (refused.granted, refused.left[0].remaining, refused.wait) == (False, 0, 61)


async def test_what_is_given_back_can_be_spent_at_once(windows: Windows) -> None:
    taken = await take(windows, 10, MINUTE, DAY)
    windows.correct("k", (MINUTE, DAY), taken, -7)
    assert await used(windows) == 3
    assert await used(windows, DAY) == 3
    assert (await take(windows, 7)).granted


async def test_what_was_spent_beyond_the_estimate_counts_over_the_limit(
    windows: Windows, clock: Clock
) -> None:
    taken = await take(windows, 10)
    clock.now += 30
    windows.correct("k", (MINUTE,), taken, 5)
    assert await used(windows) == 10  # remaining is never below zero
    clock.now += 31
    assert await used(windows) == 5


async def test_what_no_longer_counts_cannot_be_given_back(windows: Windows, clock: Clock) -> None:
    taken = await take(windows, 10, MINUTE, DAY)
    clock.now += 61
    await take(windows, 6)
    windows.correct("k", (MINUTE, DAY), taken, -10)
    assert await used(windows) == 6
    assert await used(windows, DAY) == 0


async def test_no_more_is_given_back_than_was_counted(windows: Windows) -> None:
    taken = await take(windows, 4)
    windows.correct("k", (MINUTE,), taken, -9)
    assert await used(windows) == 0


async def test_many_at_once_get_no_more_than_the_limit(windows: Windows) -> None:
    rate = Rate("requests_per_minute", 50, 60)
    many = await asyncio.gather(*(take(windows, 1, rate) for _ in range(120)))
    assert sum(taken.granted for taken in many) == 50


async def test_cancelled_calls_count_nothing_in_the_end(windows: Windows) -> None:
    rate = Rate("tokens_per_day", 1000, 86_400)
    tasks = [asyncio.ensure_future(take(windows, 1, rate)) for _ in range(60)]
    for turn, task in enumerate(tasks):
        for _ in range(turn % 7):
            await asyncio.sleep(0)
        task.cancel()
    done = await asyncio.gather(*tasks, return_exceptions=True)
    assert await used(windows, rate) == sum(isinstance(one, Taken) for one in done)


@pytest.mark.parametrize("seed", range(5))
async def test_a_server_counts_as_a_process_does(redis: RedisServer, clock: Clock, seed: int) -> None:
    redis.clear()
    chance = random.Random(seed)
    memory, server = MemoryWindows(clock), RedisWindows(redis.url, deadline=20, clock=clock)
    counted: list[tuple[tuple[Rate, ...], Taken, Taken]] = []
    for _ in range(150):
        clock.now += chance.choice([0, 0.25, 3, 31, 4000])
        if counted and chance.random() < 0.5:
            rates, here, there = counted.pop(chance.randrange(len(counted)))
            by = chance.randint(-8, 8)
            memory.correct("k", rates, here, by)
            server.correct("k", rates, there, by)
            await server.settled()
        rates, amount = chance.choice([(MINUTE,), (DAY,), (MINUTE, DAY)]), chance.randint(0, 10)
        here, there = await memory.take("k", rates, amount), await server.take("k", rates, amount)
        assert (here.granted, here.slots, here.left) == (there.granted, there.slots, there.left)
        assert here.wait == pytest.approx(there.wait)
        if here.granted:
            counted.append((rates, here, there))
    await server.aclose()


@settings(max_examples=300, deadline=None)
@given(
    st.lists(st.tuples(st.floats(0, 40), st.integers(1, 10), st.integers(-10, 10)), max_size=60),
    st.integers(10, 30),
)
async def test_no_minute_holds_more_than_the_limit_and_what_was_corrected_over_it(
    steps: list[tuple[float, int, int]], limit: int
) -> None:
    clock = Clock()
    windows, rate = MemoryWindows(clock), Rate("r", limit, 60)
    spent: list[tuple[float, int]] = []
    for pause, amount, correction in steps:
        clock.now += pause
        within = sum(units for at, units in spent if at > clock.now - 60)
        taken = await windows.take("k", (rate,), amount)
        if not taken.granted:
            assert 0 < taken.wait <= 61
            continue
        assert within + amount <= limit
        by = max(correction, -amount)
        windows.correct("k", (rate,), taken, by)
        spent.append((clock.now, amount + by))
