"""A wait that is too long is ended, and nothing else."""

import asyncio
import time
from collections.abc import AsyncIterator

import pytest

from business_api.waiting import Waiting


async def for_ever(seconds: float, until: float | None = None) -> None:
    waiting = Waiting(seconds)
    with waiting.until(time.monotonic() + seconds if until is None else until):
        await asyncio.Event().wait()


async def test_a_wait_that_is_too_long_is_a_timeout() -> None:
    with pytest.raises(TimeoutError):
        await for_ever(0.02)


async def test_many_waits_that_are_each_on_time_may_last_longer_together() -> None:
    waiting = Waiting(0.2)
    async with asyncio.timeout(5):
        for _ in range(6):
            with waiting.until(time.monotonic() + 0.2):
                await asyncio.sleep(0.05)
    waiting.close()


async def test_what_lies_between_two_waits_takes_as_long_as_it_likes() -> None:
    waiting = Waiting(0.02)
    with waiting.until(time.monotonic() + 0.02):
        pass
    await asyncio.sleep(0.1)
    with waiting.until(time.monotonic() + 0.02):
        await asyncio.sleep(0)
    waiting.close()


async def test_a_deadline_holds_that_is_sooner_than_usual_or_has_passed() -> None:
    with pytest.raises(TimeoutError):
        await for_ever(30, until=time.monotonic() + 0.02)
    with pytest.raises(TimeoutError):
        await for_ever(30, until=time.monotonic())


async def test_a_task_that_is_cancelled_by_somebody_else_is_cancelled() -> None:
    task = asyncio.create_task(for_ever(30))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_a_generator_times_out_in_its_own_wait_and_never_in_its_readers() -> None:
    async def numbers() -> AsyncIterator[int]:
        waiting = Waiting(0.05)
        yield 1
        with waiting.until(time.monotonic() + 0.05):
            await asyncio.sleep(0)
        yield 2
        with waiting.until(time.monotonic() + 0.05):
            await asyncio.Event().wait()

    found = numbers()
    assert await anext(found) == 1
    assert await anext(found) == 2
    await asyncio.sleep(0.15)
    with pytest.raises(TimeoutError):
        await anext(found)
