"""Limits that processes share, and what happens while the Redis server is away."""

import logging
import subprocess
import sys
from collections.abc import Sequence

import pytest

from business_api.errors import Unavailable
from business_api.keys import Limits
from business_api.limits_per_key import LimitsPerKey
from business_api.redis_windows import RedisWindows
from business_api.settings import ROOT, GuardSettings
from business_api.shared_windows import SharedWindows, WhenAway, open_windows
from business_api.windows import MemoryWindows, Rate, Taken
from tests.clocks import Clock
from tests.redis_server import redis_server
from tests.test_limits_per_key import NONE, granted

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
        there, clock = RedisWindows(server.url, deadline=2), Clock()
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
