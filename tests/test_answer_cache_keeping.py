"""What is kept of answers and what never is, how much memory it takes, and that tenants share nothing."""

import asyncio
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import settings as examples
from hypothesis import strategies as st

from business_api.answer_cache import DELTA_CHARS, key_of
from business_api.answering import answer
from business_api.errors import Overloaded, ServiceError
from business_api.exchange import Degradation, Exchange, Message, Outcome
from business_api.settings import LlmSettings
from tests.caching import SECONDS, CachedStory, question
from tests.fakes import FakeLlm, FixedJudge, FixedShelf
from tests.reading import leave_after_the_first
from tests.stack import PORTS

ONE_PLACE = LlmSettings(max_in_flight=1, min_in_flight=1, start_in_flight=1, max_queued=0)
TOOL = {"type": "function", "function": {"name": "look_up"}}


def length() -> CachedStory:
    return CachedStory(max_tokens=1)


def degraded() -> CachedStory:
    return CachedStory(shelf=FixedShelf((PORTS,), degraded=(Degradation.DENSE_UNAVAILABLE,)))


def unsure() -> CachedStory:
    return CachedStory(judge=FixedJudge(0.1), abstain="flag")


def abstained() -> CachedStory:
    return CachedStory(shelf=FixedShelf())


def broken_off() -> CachedStory:
    story = CachedStory(FakeLlm(pieces=["The ", "port "]))
    story.llm.die_after(1)
    return story


def filtered() -> CachedStory:
    story = CachedStory()
    story.llm.end_with("content_filter")
    return story


def unmarked() -> CachedStory:
    return CachedStory(FakeLlm("It listens on port 8001 [7]."))


def empty() -> CachedStory:
    return CachedStory(FakeLlm(" "))


NEVER = [length, degraded, unsure, abstained, broken_off, filtered, unmarked, empty]


@pytest.mark.parametrize("made", NEVER, ids=lambda made: made.__name__)
async def test_what_is_not_a_whole_and_undegraded_answer_is_not_kept(made: Any) -> None:
    story = made()
    for _ in range(2):
        with suppress(ServiceError):
            await story.ask()
    assert [one.cached for one in story.exchanges] == [None, None]
    assert story.cache.bytes == 0


@pytest.mark.parametrize("sampling", [{"tools": [TOOL]}, {"logprobs": True}], ids=["tools", "logprobs"])
async def test_calls_and_logprobs_are_not_kept(sampling: dict[str, Any]) -> None:
    story = CachedStory()
    for _ in range(2):
        assert (await story.ask(assistant="plain", sampling=sampling)).outcome is Outcome.ANSWERED
    assert story.asked() == 2


async def test_text_with_a_call_beside_it_is_not_kept_though_it_ended_well() -> None:
    story = CachedStory()
    whole: dict[str, Any] = {"outcome": Outcome.ANSWERED, "answer": "Wait.", "finish_reason": "stop"}
    for calls in ([{"index": 0}], []):
        exchange = Exchange(question=question(), tool_calls=calls, versions={"model": "fake"}, **whole)
        story.parts.record(exchange)
        assert (story.cache.bytes > 0) == (calls == [])


async def test_an_answer_whose_reader_left_is_not_kept() -> None:
    story = CachedStory(FakeLlm(pieces=["word "] * 50))
    async with await answer(question(), story.parts) as started:
        await leave_after_the_first(started)
    assert story.exchanges[0].outcome is Outcome.ABANDONED
    assert (await story.ask()).cached is None


async def test_a_reader_who_leaves_a_kept_answer_is_recorded_once_and_the_answer_stays() -> None:
    story = CachedStory(FakeLlm("word " * 100))
    whole = (await story.ask()).answer
    async with await answer(question(), story.parts) as started:
        first, *_ = await leave_after_the_first(started)
        assert first.text == whole[:DELTA_CHARS]
    assert [one.outcome for one in story.exchanges] == [Outcome.ANSWERED, Outcome.ABANDONED]
    assert story.exchanges[1].cached is not None
    assert (await story.ask()).answer == whole


async def test_a_kept_answer_that_nobody_begins_to_read_is_recorded_once() -> None:
    story = CachedStory()
    await story.ask()
    async with await answer(question(), story.parts):
        pass
    assert [one.outcome for one in story.exchanges] == [Outcome.ANSWERED, Outcome.ABANDONED]


async def test_a_kept_answer_needs_no_place_even_when_there_is_none() -> None:
    story = CachedStory(settings=ONE_PLACE)
    await story.ask()
    story.llm.hang_after(1, times=1)
    async with await answer(question("Another?"), story.parts):
        assert story.admission.gate.running == 1
        with pytest.raises(Overloaded):
            await story.ask(text="A third?")
        assert (await story.ask()).cached is not None
        assert story.admission.gate.running == 1


async def test_identical_questions_at_once_are_each_answered_and_then_one_is_kept() -> None:
    story = CachedStory(FakeLlm("port 8001 [1].", first_delay=0.01))
    await asyncio.gather(*(story.ask(question()) for _ in range(50)))
    assert story.asked() == 50
    assert (await story.ask()).cached is not None
    once = CachedStory(FakeLlm("port 8001 [1]."))
    await once.ask()
    assert story.cache.bytes < 2 * once.cache.bytes


async def test_half_a_surrogate_pair_that_an_llm_said_is_not_kept_and_harms_nothing() -> None:
    story = CachedStory()
    exchange = Exchange(question=question(), outcome=Outcome.ANSWERED, answer="\ud83d", finish_reason="stop")
    exchange.versions = {"model": "fake"}
    story.parts.record(exchange)
    assert story.exchanges == [exchange]
    assert story.cache.bytes == 0


async def test_the_answer_used_longest_ago_makes_room_for_another() -> None:
    story = CachedStory(limit=7000)
    await story.ask(text="one")
    size = story.cache.bytes
    assert 7000 // 3 < size <= 7000 // 2, "two fit, three do not"
    for text in ("two", "one", "three"):
        await story.ask(text=text)
    assert [(await story.ask(text=text)).cached is not None for text in ("one", "two")] == [True, False]


async def test_answers_that_are_too_old_and_not_asked_for_leave_the_memory_when_others_come() -> None:
    story = CachedStory()
    for number in range(5):
        await story.ask(text=f"old {number}")
    story.clock.now += SECONDS
    await story.ask(text="new 0")
    once = CachedStory()
    await once.ask(text="new 0")
    assert story.cache.bytes < 2 * once.cache.bytes


async def test_an_answer_larger_than_all_the_memory_displaces_nothing() -> None:
    story = CachedStory(
        FakeLlm(answer_for=lambda body: "x" * 5000 if "long" in str(body) else "short"), limit=3000
    )
    await story.ask(assistant="plain")
    await story.ask(assistant="plain", text="long")
    assert (await story.ask(assistant="plain")).cached is not None
    assert (await story.ask(assistant="plain", text="long")).cached is None


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 400)), max_size=30), st.integers(0, 6000))
@examples(max_examples=25, deadline=None)
def test_memory_never_passes_its_bound_and_adds_up(asked: list[tuple[int, int]], limit: int) -> None:
    async def ask_all() -> None:
        story = CachedStory(FakeLlm(answer_for=lambda body: str(body["messages"][0]["content"])), limit=limit)
        for number, size in asked:
            await story.ask(assistant="plain", text=f"{number}{'y' * size}", cache=bool(size % 2))
            assert 0 <= story.cache.bytes <= limit
        story.clock.now += 1000
        story.llm.end_with("length")
        for number, size in asked:
            await story.ask(assistant="plain", text=f"{number}{'y' * size}")
        assert story.cache.bytes == 0, "what is too old is dropped when it is asked for"

    asyncio.run(ask_all())


@given(st.lists(st.tuples(st.text(max_size=3), st.sampled_from(["a", "b", "a b"])), max_size=20))
@examples(max_examples=30, deadline=None)
def test_no_tenant_is_ever_given_the_answer_of_another(asked: list[tuple[str, str]]) -> None:
    async def ask_all() -> None:
        story = CachedStory(FakeLlm(answer_for=lambda body: f"answer {len(story.llm.requests)}"))
        made_for: dict[str, tuple[str, str]] = {}
        for tenant, text in asked:
            exchange = await story.ask(assistant="plain", tenant=tenant, text=text)
            assert made_for.setdefault(exchange.answer, (tenant, text)) == (tenant, text)
        assert story.asked() == len(set(asked))

    asyncio.run(ask_all())


@given(st.text(max_size=8), st.text(max_size=8), st.text(max_size=8), st.text(max_size=8))
def test_no_two_tenants_or_texts_make_one_key(tenant: str, text: str, other: str, said: str) -> None:
    def key(of: str, content: str) -> bytes:
        asked = question(tenant=of, messages=(Message(role="user", content=content),))
        return key_of(Exchange(question=asked, at=0.0), {})

    assert (key(tenant, text) == key(other, said)) == ((tenant, text) == (other, said))
