"""Whoever is cancelled, whenever: nothing stays carried, nothing stays open."""

import asyncio
from collections.abc import Sequence
from contextlib import aclosing, suppress
from functools import partial
from typing import Any

import pytest

from business_api.exchange import Delta
from business_api.settings import LlmSettings
from business_api.transport import InProcess
from business_api.upstream import Upstream
from business_api.upstream.pool import Pool
from business_api.upstream.replica import Replica
from business_api.waiting import Waiting
from tests.fakes import FakeLlm, eventually
from tests.pools import PROMPT, llm, settings_of

STEPS = 80
"""More turns of the event loop than an answer in one process takes."""


def pooled(*servers: FakeLlm, settings: LlmSettings) -> Upstream:
    """A pool in this process: every step of it is a turn of the event loop, none waits for a socket."""
    replicas = [Replica(name, InProcess(one)) for name, one in zip("abc", servers, strict=False)]
    return Upstream(Pool(replicas, settings), settings)


async def answer(upstream: Upstream) -> None:
    running = await upstream.generate(PROMPT, {}, "id-1")
    try:
        await running.relay(lambda _: partial(asyncio.sleep, 0))
    finally:
        await running.aclose()


def carried(upstream: Upstream) -> float:
    """All that the pool still counts as under way."""
    return sum(one.outstanding + one.running + len(one.waits) for one in upstream.pool.replicas)


FAULTS: dict[str, Any] = {
    "well": lambda one: None,
    "failing": lambda one: one.fail_with(502),
    "silent": lambda one: one.hang_before_first(),
    "cut off": lambda one: one.die_after(2),
    "cut off before": lambda one: one.die_after(0),
}


@pytest.mark.parametrize("tell", FAULTS.values(), ids=FAULTS.keys())
@pytest.mark.parametrize("hedge", [False, True], ids=["alone", "hedged"])
async def test_cancelled_at_any_await_nothing_stays_carried(tell: Any, hedge: bool) -> None:
    settings = settings_of(hedge=hedge, hedge_share=1, first_delta_deadline=60, eject_after=1e9)
    for steps in range(STEPS):
        first, second = llm(), llm()
        tell(first)
        upstream = pooled(first, second, settings=settings)
        if hedge:
            upstream._asking.pace.slow = 0.0
        task = asyncio.create_task(answer(upstream))
        for _ in range(steps):
            await asyncio.sleep(0)
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task
        await eventually(lambda: not carried(upstream))  # noqa: B023
        await eventually(lambda: first.running == second.running == 0)  # noqa: B023


@pytest.mark.parametrize("refuses", [False, True], ids=["the end", "what taking raises"])
async def test_behind_an_answer_nothing_of_its_server_is_waited_for(refuses: bool) -> None:
    def take(deltas: Sequence[Delta]) -> None:
        if refuses:
            raise ZeroDivisionError

    upstream = pooled(llm(), settings=settings_of())
    running = await upstream.generate(PROMPT, {}, "id-1")
    async with aclosing(running):
        with suppress(ZeroDivisionError):
            await running.relay(take)
        upstream.pool.replicas[0].cut_off()
        await asyncio.sleep(0)  # as who checks the answer, or waits for a slow reader of its end


async def test_a_wait_that_runs_out_is_a_timeout_and_one_that_is_cancelled_is_not() -> None:
    waiting = Waiting(3600)
    now = asyncio.get_running_loop().time()
    with pytest.raises(TimeoutError), waiting.until(now):
        await asyncio.Event().wait()
    assert not asyncio.current_task().cancelling()  # type: ignore[union-attr]

    async def wait() -> None:
        with waiting.until(now + 60):
            await asyncio.Event().wait()

    task = asyncio.create_task(wait())
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    waiting.close()


async def test_a_wait_that_runs_out_while_it_is_cancelled_is_cancelled() -> None:
    waiting = Waiting(3600)

    async def wait() -> None:
        with waiting.until(asyncio.get_running_loop().time() + 60):
            await asyncio.Event().wait()

    task = asyncio.create_task(wait())
    await asyncio.sleep(0)
    waiting.run_out()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    waiting.close()


async def test_waits_in_a_row_share_a_timer_that_follows_the_earliest_deadline() -> None:
    waiting = Waiting(3600)
    now = asyncio.get_running_loop().time()
    for _ in range(100):
        with waiting.until(now + 3600):
            await asyncio.sleep(0)
    with pytest.raises(TimeoutError), waiting.until(now):
        await asyncio.Event().wait()
    waiting.close()
