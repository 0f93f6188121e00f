"""Who leaves before the answer is whole: recorded as abandoned, and the model is stopped."""

import asyncio
from dataclasses import replace

import pytest

from business_api.exchange import Outcome
from tests.fakes import FakeLlm, eventually
from tests.reading import leave_after_the_first
from tests.test_answering import Stage, read


async def test_a_reader_who_leaves_is_recorded_and_the_model_is_stopped() -> None:
    stage = Stage(FakeLlm(pieces=["word "] * 500, delay=0.02))
    async with await stage.begin() as started:
        await leave_after_the_first(started)
    assert stage.exchange.outcome is Outcome.ABANDONED
    await eventually(lambda: stage.llm.running == 0)
    assert stage.admission.gate.running == 0


async def test_a_reader_who_leaves_during_the_last_check_leaves_the_usage_behind() -> None:
    checking = asyncio.Event()

    async def never(claim: str, window: str) -> float | None:
        checking.set()
        return await asyncio.Future()

    stage = Stage(FakeLlm("The LLM server listens to everybody gladly [1]"), support="flag")
    stage.parts = replace(stage.parts, similarity=never)
    reading = asyncio.create_task(read(await stage.begin()))
    await eventually(checking.is_set)
    reading.cancel()
    await asyncio.wait([reading])
    assert stage.exchange.outcome is Outcome.ABANDONED
    assert stage.exchange.usage is not None


async def test_a_reader_who_never_starts_reading_is_recorded_too() -> None:
    stage = Stage(FakeLlm(pieces=["word "] * 500, delay=0.02))
    async with await stage.begin():
        pass
    assert stage.exchange.outcome is Outcome.ABANDONED
    await eventually(lambda: stage.llm.running == 0)


async def test_a_caller_cancelled_while_waiting_is_abandoned() -> None:
    llm = FakeLlm()
    llm.hang_before_first()
    stage = Stage(llm)
    task = asyncio.create_task(stage.begin())
    await eventually(lambda: llm.running == 1)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert stage.exchange.outcome is Outcome.ABANDONED
