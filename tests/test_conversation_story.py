"""What was said before a question: it stands before it, and is not read for one that finds no room."""

import asyncio
import threading
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import cast

import aiohttp
import pytest

from business_api.admission import Admission
from business_api.answering import Answer, answer
from business_api.assistants import Assistant
from business_api.conversations import READERS, Conversations
from business_api.deadlines import honour
from business_api.errors import Overloaded, Refused, Unavailable, UpstreamTimeout
from business_api.exchange import Message, Outcome, Question
from business_api.place import Place
from business_api.settings import LlmSettings
from business_api.sink import Sink
from tests.caching import CachedStory, question
from tests.fakes import FakeLlm, eventually
from tests.stack import running_stack
from tests.test_answering import Stage, read
from tests.test_chatbot_api import post

ONE_PLACE = LlmSettings(max_in_flight=1, min_in_flight=1, start_in_flight=1, max_queued=0)
SAID = (Message(role="user", content="Which port?"), Message(role="assistant", content="8001."))


class Past:
    """What was said before, and how many places were taken when it was read."""

    def __init__(self, stage: Stage, *, error: Exception | None = None, hangs: bool = False) -> None:
        self._stage, self._error, self._hangs = stage, error, hangs
        self.read_with: list[int] = []

    async def __call__(self) -> Sequence[Message]:
        self.read_with.append(self._stage.admission.gate.running)
        if self._hangs:
            await asyncio.Event().wait()
        if self._error is not None:
            raise self._error
        return SAID

    async def go_on(self, text: str = "Can I change it?", assistant: str = "tandem") -> Answer:
        asked = Question(
            id="x2", tenant="t", assistant=assistant, messages=(Message(role="user", content=text),)
        )
        return await answer(asked, self._stage.parts, self)


def full(settings: LlmSettings = ONE_PLACE) -> Stage:
    """A stage with one place."""
    stage = Stage()
    stage.admission = Admission(settings, {})
    stage.parts = replace(stage.parts, admit=stage.admission.admit, room=stage.admission.room)
    return stage


async def test_it_stands_before_the_question_which_pays_for_it_and_takes_no_place_meanwhile() -> None:
    stage = Stage()
    past = Past(stage)
    paid_for: list[int] = []

    async def reserve(question: Question, assistant: Assistant) -> None:
        paid_for.append(len(question.messages))

    async def admit(question: Question, assistant: Assistant) -> Place:
        paid_for.append(len(question.messages))
        return await stage.admission.admit(question, assistant)

    stage.parts = replace(stage.parts, reserve=reserve, admit=admit)
    await read(await past.go_on())
    assert past.read_with == [0]
    assert paid_for == [3, 3]
    assert stage.shelf.asked[0][0] == "Which port?\nCan I change it?"
    said = [one.content for one in stage.exchange.question.messages]
    assert said == ["Which port?", "8001.", "Can I change it?"]
    assert {"queue", "history"} <= set(stage.exchange.timings_ms)


async def test_it_is_not_read_for_a_question_that_finds_no_room() -> None:
    stage = full()
    past = Past(stage)
    async with await stage.begin(assistant="plain"):
        with pytest.raises(Overloaded):
            await past.go_on()
    assert past.read_with == []
    assert [one.timings_ms.get("history") for one in stage.notebook.exchanges] == [None, None]


async def test_it_is_read_for_a_question_that_may_wait() -> None:
    stage = full(ONE_PLACE.model_copy(update={"max_queued": 1}))
    past = Past(stage)
    async with await stage.begin(assistant="plain"):
        asking = asyncio.create_task(past.go_on())
        await eventually(lambda: stage.admission.gate.waiting == 1)
    await read(await asking)
    assert past.read_with == [1]


@pytest.mark.parametrize(("text", "assistant"), [("forbidden", "tandem"), ("Why?", "nobody")])
async def test_it_is_not_read_for_a_question_that_cannot_be_asked(text: str, assistant: str) -> None:
    stage = Stage()
    past = Past(stage)
    with pytest.raises(Refused):
        await past.go_on(text, assistant)
    assert past.read_with == []


async def test_a_store_that_cannot_be_read_fails_the_exchange() -> None:
    stage = Stage()
    past = Past(stage, error=Unavailable("the store of exchanges cannot be used right now"))
    with pytest.raises(Unavailable, match="the store of exchanges") as told:
        await past.go_on()
    assert (told.value.request_id, stage.exchange.outcome) == ("x2", Outcome.FAILED)
    assert stage.llm.requests == []


async def test_who_hangs_up_while_it_is_read_leaves_a_record() -> None:
    stage = Stage()
    past = Past(stage, hangs=True)
    asking = asyncio.create_task(past.go_on())
    await eventually(lambda: bool(past.read_with))
    asking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asking
    assert stage.exchange.outcome is Outcome.ABANDONED


async def test_the_callers_deadline_ends_the_reading() -> None:
    honour("50")
    with pytest.raises(UpstreamTimeout, match="deadline"):
        await Past(Stage(), hangs=True).go_on()


async def test_a_kept_answer_is_given_again_though_there_is_no_room() -> None:
    story = CachedStory(settings=ONE_PLACE)

    async def earlier() -> Sequence[Message]:
        return SAID

    async def go_on() -> None:
        async with await answer(question("Can I change it?"), story.parts, earlier) as started:
            await started.whole()

    await go_on()
    async with await answer(question(assistant="never"), story.parts):
        await go_on()
    assert story.exchanges[1].cached is not None


class HeldUp:
    """A store that cannot be read until it is let go."""

    def __init__(self) -> None:
        self.store, self.free, self.reads = self, threading.Event(), 0

    def drain_now(self, timeout: float) -> bool:
        """As that of the sink."""
        return True

    def history(self, tenant: str, conversation: str, limit: int) -> list[tuple[str, str]]:
        """One question, when it is let go."""
        self.reads += 1
        self.free.wait(30)
        return [("Which port?", "8001.")]


async def test_who_waits_too_long_for_a_store_that_is_held_up_is_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("business_api.conversations.PATIENCE", 0.05)
    store = HeldUp()
    conversations = Conversations(cast("Sink", store))
    reading = [asyncio.create_task(conversations.earlier("t", "c")) for _ in range(READERS)]
    try:
        await eventually(lambda: store.reads > 0)
        reading[0].cancel()  # its thread goes on, and counts
        for _ in range(2):
            with pytest.raises(Unavailable, match="held up"):
                await conversations.earlier("t", "c")
    finally:
        store.free.set()
    assert await asyncio.gather(*reading[1:]) == [SAID] * (READERS - 1)
    assert await conversations.earlier("t", "c") == SAID


async def test_a_burst_is_read_by_a_store_that_works() -> None:
    store = HeldUp()
    store.free.set()
    conversations = Conversations(cast("Sink", store))
    assert await asyncio.gather(*(conversations.earlier("t", "c") for _ in range(300))) == [SAID] * 300


async def test_who_hangs_up_before_it_is_read_makes_room_at_once() -> None:
    store = HeldUp()
    conversations = Conversations(cast("Sink", store))
    tasks = [asyncio.create_task(conversations.earlier("t", str(n))) for n in range(READERS + 50)]
    await eventually(lambda: store.reads > 0)
    for gone in tasks[READERS:]:
        gone.cancel()
    await asyncio.gather(*tasks[READERS:], return_exceptions=True)
    store.free.set()
    assert await asyncio.gather(*tasks[:READERS]) == [SAID] * READERS
    assert store.reads == READERS


async def test_a_refused_follow_up_is_recorded_as_it_was_asked(tmp_path: Path) -> None:
    llm = FakeLlm()
    with running_stack(tmp_path, llm, llm_settings=ONE_PLACE) as stack:
        first = await post(f"{stack.url}/chat", message="Which port?", assistant="plain")
        llm.hang_before_first(times=1)
        running = asyncio.create_task(post(f"{stack.url}/chat", message="And?", assistant="plain"))
        await eventually(lambda: stack.gate.running == 1)
        body = {"message": "Can I change it?", "conversation": first["conversation"], "assistant": "plain"}
        async with aiohttp.ClientSession() as session, session.post(f"{stack.url}/chat", json=body) as reply:
            status, told = reply.status, await reply.json()
        running.cancel()
        await eventually(lambda: stack.gate.running == 0)
        refused = next(one for one in stack.recorded() if one.error)
    assert (status, told["error"]["code"]) == (503, "overloaded")
    assert [one.content for one in refused.question.messages] == ["Can I change it?"]
    assert "history" not in refused.timings_ms
