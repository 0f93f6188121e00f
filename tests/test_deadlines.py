"""The caller's own deadline, wherever the question is when it comes."""

import asyncio
import time
from collections.abc import Awaitable

import pytest
import uvloop

from business_api.admission import Admission
from business_api.deadlines import caller_deadline, honour
from business_api.errors import RetrievalUnavailable, UpstreamTimeout
from business_api.exchange import Outcome
from business_api.settings import LlmSettings
from tests.fakes import FakeLlm, FixedShelf
from tests.test_admission import PLAIN, question, waiting
from tests.test_answering import PORTS, Stage, read


async def in_time(ms: int, work: Awaitable[object]) -> object:
    """The work of a request with this deadline."""

    async def asked() -> object:
        honour(str(ms))
        return await work

    return await asyncio.wait_for(asked(), 30)


async def test_it_ends_a_search_that_hangs_and_the_llm_is_not_asked() -> None:
    stage = Stage(shelf=FixedShelf((PORTS,), seconds=60))
    with pytest.raises(UpstreamTimeout, match="the deadline of the request has passed"):
        await in_time(50, stage.begin())
    assert stage.llm.requests == []
    assert (stage.exchange.outcome, (stage.exchange.error or {})["code"]) == (
        Outcome.FAILED,
        "upstream_timeout",
    )
    assert stage.admission.gate.running == 0


async def test_an_assistant_that_answers_without_documents_is_not_late_either() -> None:
    stage = Stage(shelf=FixedShelf((PORTS,), seconds=60), when_retrieval_fails="answer")
    with pytest.raises(UpstreamTimeout):
        await in_time(50, stage.begin())


async def test_a_search_that_fails_in_time_is_told_as_what_it_is() -> None:
    stage = Stage(shelf=FixedShelf(error=RetrievalUnavailable("gone")))
    with pytest.raises(RetrievalUnavailable):
        await in_time(5000, stage.begin())


async def test_behind_it_nothing_is_searched_for() -> None:
    stage = Stage()
    place = stage.parts.admit

    async def late(*asked: object) -> object:
        found = await place(*asked)  # type: ignore[arg-type]
        time.sleep(0.06)  # noqa: ASYNC251 - as a busy event loop does
        return found

    object.__setattr__(stage.parts, "admit", late)
    with pytest.raises(UpstreamTimeout):
        await in_time(50, stage.begin())
    assert stage.shelf.asked == []
    assert stage.admission.gate.running == 0


async def test_sentences_of_the_documents_do_not_come_late() -> None:
    llm = FakeLlm()
    llm.hang_before_first()
    stage = Stage(llm, when_llm_fails="extract")
    with pytest.raises(UpstreamTimeout):
        await in_time(100, stage.begin())
    assert stage.exchange.citations == []


async def test_in_the_queue_it_is_a_504_and_the_queues_own_deadline_is_not() -> None:
    door = Admission(LlmSettings(max_in_flight=1, queue_deadline=60), {})
    kept = await door.admit(question(), PLAIN)
    waits = asyncio.create_task(in_time(50, door.admit(question(), PLAIN)))
    await waiting(door, 1)
    with pytest.raises(UpstreamTimeout):
        await waits
    assert (door.gate.running, door.gate.waiting) == (1, 0)
    kept.give_back()


def test_it_is_a_504_where_timers_ring_a_little_early() -> None:
    async def asked() -> list[BaseException | None]:
        door = Admission(LlmSettings(max_in_flight=1, queue_deadline=60), {})
        kept = await door.admit(question(), PLAIN)
        waits = [in_time(ms, door.admit(question(), PLAIN)) for ms in range(20, 60)]
        found = await asyncio.gather(*waits, return_exceptions=True)
        kept.give_back()
        return [one for one in found if isinstance(one, BaseException)]

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        found = runner.run(asked())
    assert [type(one) for one in found] == [UpstreamTimeout] * 40


async def test_without_one_there_is_time() -> None:
    honour("100")
    honour(None)
    assert caller_deadline() == float("inf")
    assert await read(await Stage().begin()) == "It listens on port 8001 [1]."
