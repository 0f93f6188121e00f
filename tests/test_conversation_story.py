"""What was said before a question: read once it has a place, and never for one that is refused."""

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import aiohttp
import pytest

from business_api.admission import Admission
from business_api.answering import Answer, answer
from business_api.assistants import Assistant
from business_api.deadlines import honour
from business_api.errors import Overloaded, RateLimited, Refused, Unavailable, UpstreamTimeout
from business_api.exchange import Message, Outcome, Question
from business_api.settings import LlmSettings
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


def full() -> Stage:
    """A stage without a free place."""
    stage = Stage()
    stage.admission = Admission(ONE_PLACE, {})
    stage.parts = replace(stage.parts, admit=stage.admission.admit)
    return stage


async def test_it_is_read_in_the_questions_place_and_stands_before_it() -> None:
    stage = Stage()
    past = Past(stage)
    await read(await past.go_on())
    assert past.read_with == [1]
    assert stage.shelf.asked[0][0] == "Which port?\nCan I change it?"
    assert [one.content for one in stage.exchange.question.messages] == [
        "Which port?",
        "8001.",
        "Can I change it?",
    ]
    assert {"queue", "history"} <= set(stage.exchange.timings_ms)
    assert stage.admission.gate.running == 0


async def test_it_is_not_read_for_a_question_that_finds_no_place() -> None:
    stage = full()
    past = Past(stage)
    async with await stage.begin(assistant="plain"):
        with pytest.raises(Overloaded):
            await past.go_on()
    assert past.read_with == []
    assert {one.id: one.timings_ms.get("history") for one in stage.notebook.exchanges} == {
        "x1": None,
        "x2": None,
    }


@pytest.mark.parametrize(("text", "assistant"), [("forbidden", "tandem"), ("Why?", "nobody")])
async def test_it_is_not_read_for_a_question_that_cannot_be_asked(text: str, assistant: str) -> None:
    stage = Stage()
    past = Past(stage)
    with pytest.raises(Refused):
        await past.go_on(text, assistant)
    assert past.read_with == []


async def test_a_store_that_cannot_be_read_fails_the_exchange_and_frees_the_place() -> None:
    stage = full()
    past = Past(stage, error=Unavailable("the store of exchanges cannot be used right now"))
    with pytest.raises(Unavailable, match="the store of exchanges") as told:
        await past.go_on()
    assert (told.value.request_id, stage.exchange.outcome) == ("x2", Outcome.FAILED)
    assert stage.llm.requests == []
    assert stage.admission.gate.running == 0


async def test_who_hangs_up_while_it_is_read_leaves_a_record_and_no_place() -> None:
    stage = full()
    past = Past(stage, hangs=True)
    asking = asyncio.create_task(past.go_on())
    await eventually(lambda: bool(past.read_with))
    asking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asking
    assert stage.exchange.outcome is Outcome.ABANDONED
    assert stage.admission.gate.running == 0


async def test_the_callers_deadline_ends_the_reading() -> None:
    stage = full()
    honour("50")
    with pytest.raises(UpstreamTimeout, match="deadline"):
        await Past(stage, hangs=True).go_on()
    assert stage.admission.gate.running == 0


async def test_the_tokens_of_what_was_said_are_reserved_too_and_a_refusal_frees_the_place() -> None:
    stage = full()
    asked_for: list[int] = []

    async def reserve(question: Question, assistant: Assistant) -> None:
        asked_for.append(len(question.messages))
        raise RateLimited("too many tokens", retry_after=1.0)

    stage.parts = replace(stage.parts, reserve=reserve)
    with pytest.raises(RateLimited):
        await Past(stage).go_on()
    assert asked_for == [3]
    assert stage.admission.gate.running == 0


async def test_a_kept_answer_holds_no_place_while_it_is_read() -> None:
    story = CachedStory(settings=ONE_PLACE)
    gate = story.admission.gate

    async def earlier() -> Sequence[Message]:
        return SAID

    for _ in range(2):
        async with await answer(question("Can I change it?"), story.parts, earlier) as started:
            kept = gate.running == 0
            await started.whole()
    assert kept
    assert story.exchanges[1].cached is not None


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
