"""Admission in the story: before anything is paid for; the place comes back whatever is cancelled when."""

import asyncio
import random
from dataclasses import replace

import pytest

from business_api.admission import Admission, rules_of
from business_api.answering import Answer
from business_api.assistants import Assistant
from business_api.errors import Overloaded, UpstreamUnavailable
from business_api.exchange import Degradation, Message, Outcome, Priority, Prompt, Question
from business_api.place import Place
from business_api.settings import LlmSettings
from business_api.transport import InProcess
from business_api.upstream import Upstream
from loadtests.overload import RULES
from tests.fakes import FakeLlm, FixedShelf, eventually
from tests.reading import text_of
from tests.test_answering import Stage, read

PLAIN = Assistant(name="plain")


def question(key: str | None = None, priority: Priority | None = None) -> Question:
    messages = (Message(role="user", content="Which port?"),)
    return Question(id="x1", tenant="t", assistant="plain", messages=messages, key=key, priority=priority)


def admission(places: int = 1, **settings: float) -> Admission:
    return Admission(LlmSettings(max_in_flight=places, **settings), {"vip": "high", "batch": "low"})


def staged(places: int = 1, stage: Stage | None = None, **settings: float) -> tuple[Stage, Admission]:
    """A story behind a gate with so many places."""
    stage, door = stage or Stage(), admission(places, **settings)
    stage.parts = replace(stage.parts, admit=door.admit)
    return stage, door


async def waiting(door: Admission, number: int) -> None:
    await eventually(lambda: door.gate.waiting == number)


async def test_who_waits_is_let_in_when_a_place_is_given_back_and_says_how_long_it_waited() -> None:
    now = [100.0]
    door = Admission(LlmSettings(max_in_flight=1), {}, lambda: now[0])
    first = await door.admit(question(), PLAIN)
    second = asyncio.create_task(door.admit(question(), PLAIN))
    await waiting(door, 1)
    now[0] += 0.25
    first.give_back()
    assert (await second).queue_ms == pytest.approx(250)
    assert first.queue_ms == 0


async def test_the_deadline_in_the_queue_is_kept() -> None:
    door = admission(queue_deadline=0.02)
    kept = await door.admit(question(), PLAIN)
    with pytest.raises(Overloaded) as caught:
        await door.admit(question(), PLAIN)
    assert (caught.value.retry_after or 0) >= 1
    assert (door.gate.running, door.gate.waiting) == (1, 0)
    kept.give_back()


@pytest.mark.parametrize(
    ("key", "asked", "first"),
    [
        ("vip", None, True),
        ("vip", "low", False),
        (None, "high", False),
        ("batch", "normal", False),
        ("batch", None, False),
    ],
)
async def test_a_key_has_a_class_and_may_ask_for_a_lower_one_only(
    key: str | None, asked: Priority | None, first: bool
) -> None:
    door = admission()
    kept, order = await door.admit(question(), PLAIN), list[str]()

    async def come(name: str, asks: Question) -> None:
        place = await door.admit(asks, PLAIN)
        order.append(name)
        place.give_back()

    normal = asyncio.create_task(come("normal", question("other")))
    await waiting(door, 1)
    tested = asyncio.create_task(come("tested", question(key, asked)))
    await waiting(door, 2)
    kept.give_back()
    await asyncio.gather(normal, tested)
    assert order == (["tested", "normal"] if first else ["normal", "tested"])


async def test_a_shed_question_is_recorded_and_reaches_neither_shelf_nor_model() -> None:
    stage, door = staged(max_queued=0)
    kept = await door.admit(question(), PLAIN)
    with pytest.raises(Overloaded) as caught:
        await stage.begin()
    assert caught.value.request_id == "x1"
    assert stage.exchange.outcome is Outcome.FAILED
    assert stage.shelf.asked == []
    assert stage.llm.requests == []
    kept.give_back()


async def test_a_shed_question_is_refused_even_where_passages_could_be_quoted() -> None:
    stage, door = staged(max_queued=0, stage=Stage(when_llm_fails="extract"))
    kept = await door.admit(question(), PLAIN)
    with pytest.raises(Overloaded):
        await stage.begin()
    kept.give_back()


async def test_the_place_is_held_while_the_answer_runs_and_free_at_its_end() -> None:
    stage, door = staged()
    async with await stage.begin() as started:
        assert door.gate.running == 1
        assert await text_of(started)
        assert door.gate.running == 0
    assert stage.exchange.timings_ms["queue"] >= 0


async def test_an_abstention_gives_its_place_back_before_it_is_read() -> None:
    stage, door = staged(stage=Stage(shelf=FixedShelf()))
    started = await stage.begin()
    assert door.gate.running == 0
    await read(started)
    assert stage.exchange.outcome is Outcome.ABSTAINED


async def test_quoted_passages_give_their_place_back_before_they_are_read() -> None:
    llm = FakeLlm()
    llm.fail_with(500, "down")
    stage, door = staged(stage=Stage(llm, when_llm_fails="extract"))
    started = await stage.begin("Which port does the server listen on?")
    assert door.gate.running == 0
    await read(started)
    assert stage.exchange.degraded == [Degradation.EXTRACTIVE_ANSWER]


async def test_a_failed_answer_gives_its_place_back() -> None:
    llm = FakeLlm()
    llm.fail_with(500, "down")
    stage, door = staged(stage=Stage(llm))
    with pytest.raises(UpstreamUnavailable):
        await stage.begin()
    assert door.gate.running == 0


async def test_an_answer_that_nobody_reads_or_closes_gives_its_place_back() -> None:
    stage, door = staged()
    started: Answer | None = await stage.begin("Which port?", "plain")
    assert door.gate.running == 1
    assert started is not None
    await started._generation.aclose()  # the LLM's side, which the fake would miss
    started = None
    assert door.gate.running == 0


async def test_a_caller_who_hangs_up_while_waiting_leaves_the_queue_at_once() -> None:
    stage, door = staged()
    kept = await door.admit(question(), PLAIN)
    task = asyncio.create_task(stage.begin())
    await waiting(door, 1)
    task.cancel()
    await asyncio.wait([task])
    assert (door.gate.running, door.gate.waiting) == (1, 0)
    assert stage.exchange.outcome is Outcome.ABANDONED
    kept.give_back()


@pytest.mark.parametrize("assistant", ["tandem", "plain"])
async def test_cancelling_a_story_at_any_await_leaks_no_place(assistant: str) -> None:
    stage, door = staged(places=2)
    for ticks in range(60):
        task = asyncio.create_task(_told(stage, assistant))
        for _ in range(ticks):
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait([task])
        assert (door.gate.running, door.gate.waiting, door.gate.keys) == (0, 0, 0), ticks
    assert len(stage.notebook.exchanges) >= 59  # one cancelled before its first step leaves nothing


async def _told(stage: Stage, assistant: str) -> str:
    return await read(await stage.begin("Which port?", assistant))


async def test_thousands_of_callers_cancelled_at_random_leak_no_place() -> None:
    door, chance = admission(places=5, max_queued=50, queue_deadline=0.05), random.Random(3)

    async def come(number: int) -> None:
        place: Place = await door.admit(question(key=f"k{number % 7}"), PLAIN)
        try:
            for _ in range(chance.randrange(4)):
                await asyncio.sleep(0)
        finally:
            place.give_back()

    tasks = []
    for number in range(5000):
        tasks.append(asyncio.create_task(come(number)))
        if number % 3 == 0:
            await asyncio.sleep(0)
        if number % 2:
            chance.choice(tasks[-20:]).cancel()
    ended = await asyncio.gather(*tasks, return_exceptions=True)
    assert {type(one) for one in ended} >= {type(None), asyncio.CancelledError}
    assert (door.gate.running, door.gate.waiting, door.gate.keys) == (0, 0, 0)


async def test_first_tokens_and_refusals_for_want_of_room_are_told() -> None:
    fake, told = FakeLlm("Port 8001."), list[tuple[float | None, int]]()
    upstream = Upstream(
        InProcess(fake), LlmSettings(), lambda ttft_ms, tokens: told.append((ttft_ms, tokens))
    )
    prompt = Prompt(messages=(Message(role="user", content="Where? " * 30),), max_tokens=20)
    running = await upstream.generate(prompt, {}, "id-1")
    await running.aclose()
    fake.fail_with(503, "full")
    with pytest.raises(Overloaded):
        await upstream.generate(prompt, {}, "id-2")
    assert told == [(running.ttft_ms, 70), (None, 70)]


def test_the_gate_of_the_simulations_is_the_one_of_the_default_settings() -> None:
    assert rules_of(LlmSettings()) == RULES
