"""Kept answers: who gets one, what it carries, what is in its key, and what is never kept."""

import asyncio
import datetime
from typing import Any

import msgspec
import pytest

from business_api.answer_cache import CARRIED, OF_THE_ASKER, key_of
from business_api.assistants import Assistant
from business_api.chat_request import PASSED_ON
from business_api.errors import RetrievalUnavailable
from business_api.exchange import Exchange, Message, Outcome, Question
from business_api.passages import Candidate, Narrowing
from tests import fake_answers
from tests.caching import SECONDS, CachedStory, question
from tests.fakes import FakeLlm, FixedJudge, FixedShelf, eventually
from tests.stack import PORTS

VARIED: dict[str, Any] = {
    "tenant": "another",
    "assistant": "other",
    "messages": (Message(role="user", content="Which port"),),
    "sampling": {"temperature": 0.5},
    "max_tokens": 99,
    "narrowing": Narrowing(tags=("guide",)),
    "explain": True,
}
"""Another value for each field of a question that may change its answer."""
MESSAGES = (
    Message(role="user", content="Which port? "),
    Message(role="developer", content="Which port?"),
    Message(role="user", content="Which port?", name="ann"),
)


async def test_the_same_question_is_answered_again_without_searching_or_asking_the_llm() -> None:
    story = CachedStory()
    first = await story.ask()
    story.clock.now += 12.34
    again = await story.ask()
    assert (story.asked(), len(story.shelf.asked)) == (1, 1)
    assert again.cached is not None
    assert (again.cached.exchange, again.cached.age_s) == (first.id, 12.3)
    assert first.cached is None


async def test_an_answer_that_is_given_again_carries_all_that_the_first_one_rests_on() -> None:
    story = CachedStory(judge=FixedJudge(0.9))
    story.shelf.candidates = (Candidate(chunk=PORTS.chunk),)
    first, again = await story.ask(explain=True), await story.ask(explain=True)
    for name in (*CARRIED, "answer", "outcome", "finish_reason", "usage", "degraded"):
        assert getattr(again, name) == getattr(first, name), name
    assert again.id != first.id
    assert again.citations[0].quote in PORTS.chunk.text
    assert again.judgement is not None
    assert again.explained
    assert set(again.timings_ms) == {"cache", "total"}
    assert again.attempts == ()


async def test_an_exchange_that_is_changed_afterwards_changes_no_later_answer() -> None:
    story = CachedStory()
    first = await story.ask()
    expected = msgspec.json.encode((first.citations, first.versions))
    for _ in range(2):
        one = await story.ask()
        assert msgspec.json.encode((one.citations, one.versions)) == expected
        one.citations.clear()
        one.versions.clear()


def test_each_field_of_a_question_is_in_the_key_or_known_not_to_change_the_answer() -> None:
    assert set(VARIED) == set(Question.__struct_fields__) - set(OF_THE_ASKER)


@pytest.mark.parametrize("field", VARIED)
async def test_a_question_that_differs_in_one_field_is_another_question(field: str) -> None:
    story = CachedStory()
    await story.ask()
    assert (await story.ask(**{field: VARIED[field]})).cached is None
    assert (await story.ask(**{field: VARIED[field]})).cached is not None
    assert (await story.ask()).cached is not None


@pytest.mark.parametrize("said", MESSAGES)
async def test_a_message_that_differs_in_anything_is_another_question(said: Message) -> None:
    story = CachedStory()
    earlier = Message(role="user", content="Hello")
    await story.ask(messages=(earlier, Message(role="user", content="Which port?")))
    assert (await story.ask(messages=(earlier, said))).cached is None
    assert (await story.ask(messages=(said,))).cached is None


@pytest.mark.parametrize("field", PASSED_ON)
def test_each_sampling_field_is_in_the_key(field: str) -> None:
    def key(sampling: dict[str, Any]) -> bytes:
        return key_of(Exchange(question=question(sampling=sampling), at=0.0), {})

    values: list[dict[str, Any]] = [{}, *({field: one} for one in (0, 1, {"b": 1, "a": 2}, {"a": 2, "b": 1}))]
    assert len({key(value) for value in values}) == len(values)


@pytest.mark.parametrize("field", OF_THE_ASKER)
async def test_who_asks_how_urgently_and_in_which_conversation_makes_no_difference(field: str) -> None:
    story = CachedStory()
    await story.ask()
    other: dict[str, Any] = {"id": "x", "key": "k", "priority": "low", "conversation": "c", "cache": True}
    assert (await story.ask(**{field: other[field]})).cached is not None


async def test_a_caller_may_have_the_question_answered_anew_and_the_new_answer_is_kept() -> None:
    story = CachedStory(FakeLlm(answer_for=lambda body: f"answer {len(story.llm.requests)}"))
    assert [
        (await story.ask(assistant="plain", cache=cache)).answer for cache in (True, True, False, True)
    ] == [
        "answer 1",
        "answer 1",
        "answer 2",
        "answer 2",
    ]
    assert story.cache.counts == {"hit": 2, "miss": 1, "bypass": 1}


async def test_an_assistant_that_does_not_want_it_gets_every_question_answered() -> None:
    story = CachedStory()
    await story.ask(assistant="never")
    assert (await story.ask(assistant="never")).cached is None
    assert story.cache.counts == {"hit": 0, "miss": 0, "bypass": 0}
    assert "cache" not in story.exchanges[0].timings_ms


@pytest.mark.parametrize("other", [{"temperature": 0.1}, {"passages": 2}, {"support": "enforce"}])
def test_an_assistant_that_differs_in_one_setting_has_another_version(other: dict[str, Any]) -> None:
    assert Assistant(name="a", **other).version != Assistant(name="a").version


async def test_an_answer_is_given_again_until_it_is_too_old() -> None:
    story = CachedStory()
    await story.ask()
    story.clock.now += SECONDS - 0.1
    assert (await story.ask()).cached is not None
    story.clock.now += 0.1
    assert (await story.ask()).cached is None, "giving it again made it young again"
    assert (await story.ask()).cached is not None


async def test_another_index_prompt_or_day_is_another_key() -> None:
    exchange, today = Exchange(question=question()), datetime.timedelta(days=1).total_seconds()
    versions = {"assistant": "a@1", "index": "kb__v1@1", "prompt": "p/v1@1", "model": "m", "fingerprint": "f"}
    keys = {key_of(exchange, versions | {name: "other"}) for name in versions} | {key_of(exchange, versions)}
    keys.add(key_of(Exchange(question=exchange.question, at=exchange.at + today), versions))
    assert len(keys) == 7


async def test_an_answer_of_another_index_is_not_given() -> None:
    story = CachedStory()
    await story.ask()
    story.shelf.index = "kb__v1_letters@2"
    assert (await story.ask()).cached is None


async def test_an_answer_is_kept_under_the_index_it_was_found_in_not_the_one_that_was_there_before() -> None:
    class Changing(FixedShelf):
        async def retrieve(self, *asked: Any) -> Any:
            self.index = "kb__v1_letters@2"
            return await super().retrieve(*asked)

    story = CachedStory(shelf=Changing((PORTS,)))
    await story.ask()
    assert (await story.ask()).cached is not None
    story.shelf.index = "kb__v1_letters@1"
    assert (await story.ask()).cached is None


async def test_once_the_llm_has_another_fingerprint_no_earlier_answer_is_given(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    story = CachedStory()
    await story.ask()
    monkeypatch.setattr(fake_answers, "FINGERPRINT", "vllm-next")
    await story.ask(assistant="never")
    assert (await story.ask()).cached is None


async def test_once_the_llm_tier_says_that_it_serves_another_model_no_earlier_answer_is_given() -> None:
    story = CachedStory()
    await story.ask()
    story.llm.model = "next"
    assert await story.upstream.problem() is None  # as readiness probes ask
    again = await story.ask()
    assert again.cached is None
    assert again.versions["model"] == "next"


async def test_an_index_that_hangs_is_waited_for_a_moment_only() -> None:
    story = CachedStory()
    story.cache.patience = 0.01
    await story.ask()
    story.store.hangs = True
    assert (await story.ask()).cached is None


async def test_a_caller_who_hangs_up_while_an_answer_is_looked_for_is_recorded_once() -> None:
    story = CachedStory()
    await story.ask()
    story.store.hangs = True
    asking = asyncio.create_task(story.ask())
    await eventually(lambda: len(story.store.asked) == 1)
    asking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asking
    assert [one.outcome for one in story.exchanges] == [Outcome.ANSWERED, Outcome.ABANDONED]
    assert story.asked() == 1


@pytest.mark.parametrize("error", [RetrievalUnavailable("down"), TimeoutError()])
async def test_while_the_index_cannot_be_looked_at_the_question_is_answered_as_ever(error: Exception) -> None:
    story = CachedStory()
    await story.ask()
    story.store.error = error
    assert (await story.ask()).cached is None
