"""Through the story: what an assistant does when the passages are judged not to answer."""

from typing import Any

import pytest

from business_api.exchange import Degradation, Outcome
from business_api.passages import Candidate
from tests.fakes import FakeLlm, FixedJudge, FixedShelf
from tests.test_answering import PORTS, Stage, read


def unsure(**assistant: Any) -> Stage:
    return Stage(judge=FixedJudge(0.2, 0.5), **assistant)


async def test_an_assistant_that_refuses_abstains_without_a_call_and_shows_what_came_nearest() -> None:
    stage = unsure(abstain="refuse")
    said = await read(await stage.begin())

    assert said.startswith("The documents do not answer this.")
    assert stage.llm.requests == []
    exchange = stage.exchange
    assert exchange.outcome is Outcome.ABSTAINED
    assert exchange.passages == (PORTS,)
    assert exchange.citations == []
    assert exchange.degraded == []
    assert exchange.judgement is not None
    assert exchange.judgement.probability == 0.2
    assert exchange.versions["model"] == "none"
    assert exchange.usage is None


async def test_an_assistant_that_flags_answers_and_says_so() -> None:
    stage = unsure(abstain="flag")

    assert await read(await stage.begin()) == "It listens on port 8001 [1]."
    assert stage.exchange.outcome is Outcome.ANSWERED
    assert stage.exchange.degraded == [Degradation.LOW_CONFIDENCE]


async def test_an_assistant_that_never_abstains_answers_and_keeps_the_probability() -> None:
    stage = unsure(abstain="never")

    await read(await stage.begin())
    assert stage.exchange.degraded == []
    assert stage.exchange.judgement is not None


@pytest.mark.parametrize("abstain", ["refuse", "flag"])
async def test_a_judgement_at_the_threshold_is_an_answer(abstain: str) -> None:
    stage = Stage(judge=FixedJudge(0.5, 0.5), abstain=abstain)

    await read(await stage.begin())
    assert stage.exchange.outcome is Outcome.ANSWERED
    assert stage.exchange.degraded == []


async def test_nobody_judges_where_nothing_is_searched_or_the_search_failed() -> None:
    stage = unsure(abstain="refuse")
    await read(await stage.begin(assistant="plain"))
    assert stage.judge.asked == []


async def test_an_abstention_of_a_reader_who_leaves_is_abandoned() -> None:
    stage = unsure(abstain="refuse")
    async with await stage.begin():
        pass
    assert stage.exchange.outcome is Outcome.ABANDONED


async def test_candidates_are_kept_with_the_exchange_only_when_they_were_asked_for() -> None:
    candidate = Candidate(chunk=PORTS.chunk, dense_rank=1, fate="kept")
    for explain in (False, True):
        stage = Stage(FakeLlm("8001."), FixedShelf((PORTS,), candidates=(candidate,)))
        await read(await stage.begin(explain=explain))
        assert stage.exchange.explained == ((candidate,) if explain else ())
