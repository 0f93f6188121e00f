"""When every LLM server is out: which one is asked all the same, who is tried again, how soon one is back."""

import pytest

from business_api.errors import UpstreamUnavailable
from business_api.upstream import Upstream
from business_api.upstream.pool import MAY_BE_BACK, Pool
from business_api.upstream.watching import Watch
from tests.clocks import Clock
from tests.fakes import FakeLlm
from tests.pools import SAID, heard, llm, pool_of, settings_of, trail
from tests.test_upstream_choosing import asked, replicas

SHUTDOWN = "cannot schedule new futures after shutdown"


def on_clock(upstream: Upstream) -> Clock:
    """All servers of the pool on a clock of the test."""
    clock = Clock()
    for replica in upstream.pool.replicas:
        replica.clock = clock
    return clock


def leaving(*servers: FakeLlm) -> None:
    for one in servers:
        one.fail_with(503, SHUTDOWN)


async def refused(upstream: Upstream) -> list[tuple[str, str]]:
    """The attempts of a question that nobody answered."""
    with pytest.raises(UpstreamUnavailable) as caught:
        await heard(upstream)
    return trail(caught.value.attempts)


def test_the_server_that_was_not_tried_for_longest_is_asked() -> None:
    clock, servers = Clock(), replicas(1, 1, 1)
    for one in servers:
        one.clock = clock
        one.eject("unreachable")
        clock.now += 1
    pool, order = Pool(servers, settings_of()), []
    for _ in range(6):
        order.append(pool.first(asked("?")))
        order[-1].carry(1, 1)
        clock.now += 1
    assert order == servers * 2


async def test_who_is_turned_away_asks_another_server_that_may_be_back() -> None:
    still_away, back = llm(), llm()
    leaving(still_away, back)
    async with pool_of(still_away, back) as upstream:
        clock = on_clock(upstream)
        assert len(await refused(upstream)) == 2
        back.recover()
        clock.now += MAY_BE_BACK
        said, running = await heard(upstream)
    assert said == SAID
    assert trail(running.attempts) == [("a", "draining"), ("b", "answered")]


async def test_a_server_that_was_tried_just_now_is_not_tried_again() -> None:
    servers = llm(), llm()
    leaving(*servers)
    async with pool_of(*servers) as upstream:
        clock = on_clock(upstream)
        assert len(await refused(upstream)) == 2
        clock.now += MAY_BE_BACK / 2
        assert [len(await refused(upstream)) for _ in range(4)] == [1] * 4


async def test_in_a_long_outage_who_may_be_back_is_tried_within_the_budget_of_retries() -> None:
    servers = llm(), llm(), llm()
    leaving(*servers)
    async with pool_of(*servers, retry_floor=1.0) as upstream:
        clock = on_clock(upstream)
        for _ in range(200):
            clock.now += 1
            await refused(upstream)
    assert sum(len(one.requests) for one in servers) <= 1.2 * 200 + 10


def test_a_server_that_has_left_is_probed_soon_and_then_ever_less_often() -> None:
    clock, (left, inside) = Clock(), replicas(1, 1)
    left.clock = inside.clock = clock
    watch = Watch(Pool([left, inside], settings_of()), settings_of(probe_seconds=10.0))
    left.eject("unreachable")
    probes = []
    for second in range(1, 45):
        clock.now += 1
        if watch.due(left):
            left.looked_at = clock.now
            probes.append(second)
    assert probes == [1, 2, 4, 8, 16, 26, 36]


def test_a_server_that_is_out_is_probed_however_often_it_is_asked() -> None:
    clock, (left, inside) = Clock(), replicas(1, 1)
    left.clock = inside.clock = clock
    watch = Watch(Pool([left, inside], settings_of()), settings_of(probe_seconds=1.0))
    left.eject("unreachable")
    for _ in range(20):
        clock.now += 0.06
        left.carry(10, 10)
    assert watch.due(left)
