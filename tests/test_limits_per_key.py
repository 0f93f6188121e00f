"""Limits per key: what a key may spend, what it is told, and what happens while Redis is away."""

import logging
import random
import subprocess
import sys
from collections.abc import Sequence

import pytest

from business_api.errors import InvalidRequest, RateLimited, Unavailable
from business_api.keys import Limits
from business_api.limits_per_key import LimitsPerKey
from business_api.redis_windows import RedisWindows
from business_api.settings import ROOT, GuardSettings
from business_api.shared_windows import SharedWindows, WhenAway, open_windows
from business_api.windows import MemoryWindows, Rate, Taken
from tests.clocks import Clock
from tests.redis_server import redis_server

NONE = Limits()
MINUTE = Rate("requests_per_minute", 5, 60)


class Away(MemoryWindows):
    """Windows that can be told to be away."""

    away = False
    tried = 0

    async def take(self, key: str, rates: Sequence[Rate], amount: int) -> Taken:
        self.tried += 1
        if self.away:
            raise Unavailable("away")
        return await super().take(key, rates, amount)


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
    of, running, spent = limits(clock, tokens_per_minute=1000), [], 0
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


def falling_back(when_away: WhenAway) -> tuple[LimitsPerKey, Away, SharedWindows, Clock]:
    clock = Clock()
    there = Away(clock)
    shared = SharedWindows(there, MemoryWindows(clock), when_away, clock)
    return LimitsPerKey(shared, Limits(requests_per_minute=5, tokens_per_minute=100)), there, shared, clock


async def test_while_redis_is_away_this_process_limits_at_the_same_rate() -> None:
    of, there, shared, _ = falling_back("local")
    assert await granted(of) == 5
    there.away = True
    assert await granted(of) == 5
    assert shared.apart == {"local": 6}


async def test_while_redis_is_away_nothing_is_limited_if_that_was_chosen() -> None:
    of, there, shared, _ = falling_back("allow")
    there.away = True
    assert await granted(of) == 30
    await of.reserve("a", "k", 90)
    await of.reserve("b", "k", 90)
    of.settle("a", 10)
    assert shared.apart == {"allow": 32}
    assert len(of.reserved) == 0


async def test_while_redis_is_away_requests_are_refused_if_that_was_chosen() -> None:
    of, there, shared, _ = falling_back("refuse")
    there.away = True
    with pytest.raises(Unavailable) as caught:
        await of.count("k", NONE)
    assert (caught.value.status, caught.value.retry_after) == (503, 1.0)
    assert shared.apart == {"refuse": 1}


async def test_redis_that_is_away_is_tried_once_a_second_and_used_again_when_it_is_back(
    caplog: pytest.LogCaptureFixture,
) -> None:
    of, there, _, clock = falling_back("allow")
    there.away = True
    await granted(of)
    assert there.tried == 1
    clock.now += 1.5
    await granted(of)
    assert there.tried == 2
    there.away = False
    clock.now += 1.5
    assert await granted(of) == 5
    assert [record.levelno for record in caplog.records] == [logging.WARNING] * 2
    assert "nothing is limited" in caplog.text
    assert "back" in caplog.text


async def test_what_was_reserved_is_corrected_where_it_was_counted() -> None:
    of, there, _, clock = falling_back("local")
    await of.reserve("shared", "k", 90)
    there.away = True
    await of.reserve("apart", "k", 90)
    of.settle("shared", 0)
    of.settle("apart", 90)
    there.away = False
    clock.now += 2
    await of.reserve("again", "k", 100)


@pytest.mark.parametrize("url", ["nonsense", "http://localhost", "redis://localhost:port"])
def test_a_wrong_url_names_its_setting(url: str) -> None:
    with pytest.raises(ValueError, match="BUSINESS_API_GUARD__LIMITS_URL"):
        open_windows(GuardSettings(limits_url=url))


def test_a_password_in_the_url_is_not_shown() -> None:
    assert "hidden" not in repr(GuardSettings(limits_url="redis://:hidden@localhost"))


async def test_a_server_that_stops_answering_holds_up_one_request_a_second_for_its_deadline() -> None:
    with redis_server() as server:
        there, clock = RedisWindows(server.url, deadline=0.2), Clock()
        of = LimitsPerKey(
            SharedWindows(there, MemoryWindows(), "local", clock), Limits(requests_per_minute=5)
        )
        assert await granted(of) == 5
        server.freeze()
        assert await granted(of) == 5
        clock.now += 2
        server.thaw()
        assert await granted(of, "fresh") == 5
        await there.aclose()


async def test_a_server_that_was_restarted_is_used_again_and_corrections_it_missed_are_counted() -> None:
    with redis_server() as server:
        there = RedisWindows(server.url, deadline=5)
        taken = await there.take("k", (MINUTE,), 2)
        server.kill()
        there.correct("k", (MINUTE,), taken, -1)
        await there.settled()
        assert there.lost == 1
        with pytest.raises(Unavailable):
            await there.take("k", (MINUTE,), 1)
        server.start()
        assert (await there.take("k", (MINUTE,), 5)).granted
        await there.aclose()


async def test_an_idle_connection_that_the_server_closed_is_no_failure() -> None:
    with redis_server() as server:
        there = RedisWindows(server.url, deadline=5)
        await there.take("k", (MINUTE,), 1)
        server.drop_connections()
        assert (await there.take("k", (MINUTE,), 1)).granted
        await there.aclose()


SPEND = """
import asyncio, sys
from business_api.redis_windows import RedisWindows
from business_api.windows import Rate

async def main(url):
    windows, rate = RedisWindows(url, 30), Rate("tokens_per_day", 1000, 86_400)
    print("ready", flush=True)
    sys.stdin.readline()
    granted = 0
    for _ in range(60):
        taken = await asyncio.gather(*(windows.take("k", (rate,), 3) for _ in range(5)))
        granted += sum(one.granted for one in taken)
    print(granted)
    await windows.aclose()

asyncio.run(main(sys.argv[1]))
"""


def test_processes_that_share_a_server_together_get_no_more_than_the_limit() -> None:
    with redis_server() as server:
        command = [sys.executable, "-c", SPEND, server.url]
        spenders = [
            subprocess.Popen(command, cwd=ROOT, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
            for _ in range(3)
        ]
        for one in spenders:
            assert one.stdout is not None
            assert one.stdout.readline() == "ready\n"
        for one in spenders:
            assert one.stdin is not None
            one.stdin.write("go\n")
            one.stdin.flush()
        shares = [int(one.communicate(timeout=120)[0]) for one in spenders]
    assert sum(shares) == 333  # at most 300 by one of them
