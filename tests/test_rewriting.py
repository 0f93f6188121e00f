"""What a question becomes before retrieval, and what happens when the LLM is of no use for it."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from business_api.assistants import Assistant
from business_api.errors import RetrievalUnavailable
from business_api.exchange import Degradation, Message, Question
from business_api.passages import Narrowing
from business_api.rewriting import rewrite
from business_api.settings import RewritingSettings
from tests.desk import CHANGE, CONDENSED, FALLBACK, PORT, Desk, follow_up
from tests.fakes import FakeLlm, eventually


async def test_a_follow_up_is_searched_as_one_question() -> None:
    desk = Desk()
    rewritten = await follow_up(desk)
    assert rewritten.query.texts == (CONDENSED,)
    assert rewritten.degraded == ()
    assert set(rewritten.timings_ms) == {"condense"}
    assert f"User: {PORT}\nAssistant: It is 8001." in desk.heard
    (heard,) = desk.llm.requests
    assert heard.body["temperature"] == 0.0
    assert heard.body["max_tokens"] == RewritingSettings().max_tokens


async def test_a_first_question_costs_no_call() -> None:
    desk = Desk()
    rewritten = await desk.rewrite(PORT)
    assert rewritten.query.texts == (PORT,)
    assert rewritten.timings_ms == {}
    assert desk.llm.requests == []


@pytest.mark.parametrize("roles", ["au", "su", "sau"])
async def test_a_history_without_a_question_is_none(roles: str) -> None:
    desk = Desk()
    said = ["Hello!"] * (len(roles) - 1)
    assert (await desk.rewrite(*said, PORT, roles=roles)).query.texts == (PORT,)
    assert desk.llm.requests == []


async def test_without_condensing_a_follow_up_is_searched_in_both_ways() -> None:
    desk = Desk()
    rewritten = await follow_up(desk, condense=False)
    assert rewritten.query.texts == FALLBACK
    assert rewritten.degraded == ()
    assert desk.llm.requests == []


async def test_rewriting_without_an_llm_does_the_same() -> None:
    messages = tuple(Message(role="user", content=text) for text in (PORT, CHANGE))
    wanted = Narrowing(language="en")
    question = Question(id="x", tenant="t", assistant="kb", messages=messages, narrowing=wanted)
    rewritten = await rewrite(question, Assistant(name="kb"))
    assert rewritten.query.texts == FALLBACK
    assert rewritten.query.narrowing == wanted


@pytest.mark.parametrize(
    "said",
    [
        "",
        "  \n \n",
        "It listens on port 8001.",
        "What is the capital of Peru?",
        "port " * 30 + "?",
        "How do I change the port of the LLM server, " + "or of another one, " * 40 + "?",
        PORT,
        "?!",
        "<think>\nThe user wants to change the port?",
        "How do I change the port of the LLM server and " * 20,  # more than max_tokens, in one line
    ],
)
async def test_what_is_no_such_question_is_not_searched(said: str) -> None:
    rewritten = await follow_up(Desk(condense=said))
    assert rewritten.query.texts == FALLBACK
    assert rewritten.degraded == (Degradation.CONDENSE_FAILED,)
    assert set(rewritten.timings_ms) == {"condense"}


@pytest.mark.parametrize(
    "said",
    [
        f'"{CONDENSED}"',
        f"Standalone question: {CONDENSED}",
        f"**Question:** {CONDENSED}\n\nI put in the port, because the user asked about it.",
        f"\n\n1. {CONDENSED}\n2. And another one?",
    ],
)
async def test_labels_quotes_and_rambling_around_the_question_are_left_out(said: str) -> None:
    rewritten = await follow_up(Desk(condense=said))
    assert rewritten.query.texts == (CONDENSED,)
    assert rewritten.degraded == ()


async def test_the_llm_is_stopped_when_the_question_is_there() -> None:
    desk = Desk(FakeLlm(pieces=[CONDENSED, "\n", "x", "and so on"]))
    desk.llm.hang_after(3)
    assert (await follow_up(desk)).query.texts == (CONDENSED,)
    await eventually(lambda: desk.llm.aborted == 1)


async def test_a_question_that_only_comes_back_is_searched_as_without_condensing() -> None:
    rewritten = await follow_up(Desk(condense=CHANGE))
    assert rewritten.query.texts == FALLBACK
    assert rewritten.degraded == ()


def down(llm: FakeLlm) -> None:
    llm.fail_with(503)


def refusing(llm: FakeLlm) -> None:
    llm.fail_with(400, "response_format is not supported")


def late(llm: FakeLlm) -> None:
    llm.hang_before_first()


def dying(llm: FakeLlm) -> None:
    llm.die_after(1)


def broken(llm: FakeLlm) -> None:
    llm.malformed_frame_after(1)


ALL: dict[str, Any] = {"rewordings": 2, "hypothetical": True, "narrow_by": ("tags", "date")}


@pytest.mark.parametrize("fault", [down, refusing, late, dying, broken])
async def test_an_llm_that_fails_costs_what_it_would_have_brought(fault: Callable[[FakeLlm], None]) -> None:
    desk = Desk()
    fault(desk.llm)
    rewritten = await follow_up(desk, deadline=0.2, **ALL)
    assert rewritten.query.texts == FALLBACK
    assert rewritten.query.hypothetical is None
    assert rewritten.query.narrowing == Narrowing()
    assert sorted(rewritten.degraded) == ["condense_failed", "narrowing_failed", "rewording_failed"]
    assert set(rewritten.timings_ms) == {"condense", "reword", "narrow"}
    await eventually(lambda: desk.llm.running == 0)


async def test_all_calls_of_a_question_run_at_once_each_under_its_own_id() -> None:
    desk = Desk()
    desk.llm.hang_before_first()
    running = asyncio.ensure_future(follow_up(desk, **ALL))
    await eventually(lambda: desk.llm.running == 4)
    ids = {heard.headers["x-request-id"] for heard in desk.llm.requests}
    assert ids == {"x1-condense", "x1-reword", "x1-hypothetical", "x1-narrow"}
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    await eventually(lambda: desk.llm.running == 0)


async def test_a_long_conversation_is_cut_for_the_call() -> None:
    start, end = "Why does " + "a" * 50_000, "b" * 50_000 + " fail?"
    desk = Desk(condense="Why does aaa fail?")
    rewritten = await desk.rewrite(*["old " * 30_000, "older " * 30_000] * 2, start + end, roles="uauau")
    assert len(desk.heard) < 4000
    assert "Why does aaa" in desk.heard
    assert "bbb fail?" in desk.heard
    assert rewritten.query.texts == ("Why does aaa fail?",)


@pytest.mark.parametrize(
    ("first", "then", "condensed"),
    [
        ("サーバーはどのポートで待ちますか。", "どう変えますか。", "サーバーのポートはどう変えますか。"),
        ("באיזה פורט השרת מאזין?", "ואיך משנים אותו?", "איך משנים את הפורט של השרת?"),
    ],
)
async def test_a_question_in_another_script_is_condensed_alike(first: str, then: str, condensed: str) -> None:
    rewritten = await Desk(condense=condensed).rewrite(first, "8001", then)
    assert rewritten.query.texts == (condensed,)
    elsewhere = await Desk(condense=CONDENSED).rewrite(first, "8001", then)
    assert elsewhere.degraded == (Degradation.CONDENSE_FAILED,)


async def test_a_callers_text_that_looks_like_a_template_is_only_text() -> None:
    desk = Desk(condense="How do I change {{ 7 * 7 }}?")
    await desk.rewrite("What is {{ 7 * 7 }}?", "A sum.", "How do I change {% if %}?")
    assert "{{ 7 * 7 }}" in desk.heard
    assert "{% if %}" in desk.heard


async def test_values_that_cannot_be_looked_up_cost_the_narrowing() -> None:
    desk = Desk(known=RetrievalUnavailable("down"))
    rewritten = await desk.rewrite(PORT, narrow_by=("tags",))
    assert rewritten.degraded == (Degradation.NARROWING_FAILED,)
    assert desk.llm.requests == []
