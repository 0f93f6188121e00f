"""Patience ends a wait that is too long, and nothing else."""

import asyncio
import time
from collections.abc import AsyncIterator

import pytest

from business_api.patience import Patience


async def for_ever(patience: Patience) -> None:
    with patience:
        patience.waits()
        await asyncio.Event().wait()


async def test_a_wait_that_is_too_long_is_a_timeout() -> None:
    with pytest.raises(TimeoutError):
        await for_ever(Patience(0.02))


async def test_many_waits_that_are_each_on_time_may_last_longer_together() -> None:
    async with asyncio.timeout(5):
        with Patience(0.2) as patience:
            for _ in range(6):
                patience.waits()
                await asyncio.sleep(0.05)
                patience.rests()


async def test_what_lies_between_two_waits_takes_as_long_as_it_likes() -> None:
    with Patience(0.02) as patience:
        patience.waits()
        patience.rests()
        await asyncio.sleep(0.1)
        patience.waits()
        await asyncio.sleep(0)
        patience.rests()


async def test_the_end_of_all_waits_holds_whether_waiting_or_not() -> None:
    with pytest.raises(TimeoutError):
        await for_ever(Patience(30, until=time.monotonic() + 0.02))
    with pytest.raises(TimeoutError):
        await for_ever(Patience(30, until=time.monotonic()))


async def test_a_task_that_is_cancelled_by_somebody_else_is_cancelled() -> None:
    task = asyncio.create_task(for_ever(Patience(30)))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_a_generator_times_out_in_its_own_wait_and_never_in_its_readers() -> None:
    async def numbers() -> AsyncIterator[int]:
        with Patience(0.05) as patience:
            yield 1
            patience.waits()
            await asyncio.sleep(0)
            patience.rests()
            yield 2
            patience.waits()
            await asyncio.Event().wait()

    found = numbers()
    assert await anext(found) == 1
    assert await anext(found) == 2
    await asyncio.sleep(0.15)
    with pytest.raises(TimeoutError):
        await anext(found)
