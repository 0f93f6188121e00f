"""Limits per key: what a key may spend, and what it is told."""

import random

import pytest

from business_api.errors import InvalidRequest, RateLimited
from business_api.keys import Limits
from business_api.limits_per_key import LimitsPerKey
from business_api.windows import MemoryWindows
from tests.clocks import Clock

NONE = Limits()


def limits(clock: Clock | None = None, shared_by: int = 1, **default: int) -> LimitsPerKey:
    return LimitsPerKey(MemoryWindows(clock or Clock()), Limits(**default), shared_by)


async def granted(of: LimitsPerKey, key: str = "k", own: Limits = NONE, tries: int = 30) -> int:
    """Requests that are let in, one after the other."""
    done = 0
    for _ in range(tries):
        try:
            await of.count(key, own)
        except RateLimited:
            break
        done += 1
    return done


async def test_a_key_without_limits_of_its_own_has_the_default_ones() -> None:
    assert await granted(limits(requests_per_minute=3)) == 3
    assert await granted(limits()) == 30


async def test_a_key_has_its_own_limits_over_the_default_ones() -> None:
    of = limits(requests_per_minute=3)
    assert await granted(of, "more", Limits(requests_per_minute=7)) == 7
    assert await granted(of, "all", Limits(requests_per_minute=0)) == 30
    assert await granted(of, "less", Limits(requests_per_minute=1)) == 1


async def test_another_limit_holds_at_once_and_for_what_was_spent_before() -> None:
    of = limits(requests_per_minute=3)
    assert await granted(of) == 3
    assert await granted(of, own=Limits(requests_per_minute=5)) == 2
    with pytest.raises(RateLimited):
        await of.count("k", Limits(requests_per_minute=4))


async def test_limits_are_split_among_the_processes_that_share_them() -> None:
    assert await granted(limits(requests_per_minute=10, shared_by=4)) == 2
    assert await granted(limits(requests_per_minute=3, shared_by=4)) == 1


async def test_what_does_not_fit_the_share_of_a_process_is_told_why() -> None:
    of = limits(tokens_per_minute=4000, shared_by=4)
    with pytest.raises(InvalidRequest, match=r"1000 tokens in a minute are allowed by each of 4 processes"):
        await of.reserve("a", "k", 1100)


async def test_tokens_that_were_reserved_and_not_spent_can_be_spent() -> None:
    of = limits(tokens_per_minute=100)
    await of.reserve("a", "k", 90)
    with pytest.raises(RateLimited, match=r"100 tokens in a minute"):
        await of.reserve("b", "k", 20)
    of.settle("a", 30)
    await of.reserve("b", "k", 70)
    assert len(of.reserved) == 1


async def test_tokens_that_were_spent_beyond_the_estimate_are_owed() -> None:
    clock = Clock()
    of = limits(clock, tokens_per_minute=100)
    await of.reserve("a", "k", 10)
    of.settle("a", 150)
    clock.now += 60
    with pytest.raises(RateLimited) as caught:
        await of.reserve("b", "k", 1)
    assert caught.value.retry_after == 1


async def test_an_exchange_is_settled_once() -> None:
    of = limits(tokens_per_minute=100)
    await of.reserve("a", "k", 50)
    for _ in range(3):
        of.settle("a", 40)
    of.settle("never reserved", 1000)
    assert len(of.reserved) == 0
    assert of.headers("k")["x-ratelimit-remaining-tokens"] == "50"
    await of.reserve("b", "k", 60)


async def test_a_daily_budget_holds_beside_the_limit_per_minute() -> None:
    clock = Clock()
    of = limits(clock, tokens_per_minute=100, tokens_per_day=150)
    await of.reserve("a", "k", 100)
    clock.now += 61
    with pytest.raises(RateLimited, match=r"more than 150 tokens in a day") as caught:
        await of.reserve("b", "k", 60)
    clock.now += caught.value.retry_after or 0
    await of.reserve("b", "k", 60)


async def test_what_can_never_fit_is_no_matter_of_waiting() -> None:
    with pytest.raises(InvalidRequest, match=r"101 tokens.*100 tokens in a day") as caught:
        await limits(tokens_per_minute=500, tokens_per_day=100).reserve("a", "k", 101)
    assert caught.value.param == "max_tokens"


async def test_what_is_left_is_told_under_the_names_that_clients_know() -> None:
    of = limits(requests_per_minute=9, tokens_per_minute=100, tokens_per_day=1000)
    assert of.headers("k") == {}
    await of.count("k", NONE)
    await of.reserve("a", "k", 40)
    assert of.headers("k") == {
        "x-ratelimit-limit-requests": "9",
        "x-ratelimit-remaining-requests": "8",
        "x-ratelimit-reset-requests": "1m1s",
        "x-ratelimit-limit-tokens": "100",
        "x-ratelimit-remaining-tokens": "60",
        "x-ratelimit-reset-tokens": "1m1s",
        "x-ratelimit-limit-tokens-day": "1000",
        "x-ratelimit-remaining-tokens-day": "960",
        "x-ratelimit-reset-tokens-day": "24h24m0s",
    }
    assert of.headers("other") == {}


async def test_a_refusal_tells_what_is_left() -> None:
    of = limits(requests_per_minute=1)
    await of.count(None, NONE)
    with pytest.raises(RateLimited) as caught:
        await of.count(None, NONE)
    assert caught.value.headers["x-ratelimit-remaining-requests"] == "0"


@pytest.mark.parametrize("seed", range(3))
async def test_whatever_happens_in_whatever_order_nothing_stays_reserved(seed: int) -> None:
    chance, clock = random.Random(seed), Clock()
    of, spent = limits(clock, tokens_per_minute=1000), 0
    running: list[str] = []
    for number in range(20_000):
        clock.now += chance.random() / 5
        if running and chance.random() < 0.5:
            of.settle(running.pop(chance.randrange(len(running))), chance.randint(0, 30))
        try:
            await of.reserve(str(number), "k", chance.randint(1, 20))
        except RateLimited:
            continue
        running.append(str(number))
        spent += 1
    assert spent > 1000
    for name in running:
        of.settle(name, 0)
    clock.now += 61
    await of.reserve("all", "k", 1000)
    assert len(of.reserved) == 1
