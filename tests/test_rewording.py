"""Other wordings of a question and hypothetical answers: which are searched for, and which are left out."""

import pytest

from business_api.exchange import Degradation
from tests.desk import CHANGE, CONDENSED, PORT, Desk, follow_up


async def test_rewordings_are_searched_beside_the_question_each_once() -> None:
    said = (
        f"Here they are:\n1. {CONDENSED}\n- Where is the port set?\n* where is the port set\n{CHANGE}\nWhat?"
    )
    desk = Desk(reword=said)
    rewritten = await follow_up(desk, rewordings=3)
    assert rewritten.query.texts == (CONDENSED, "Where is the port set?", "What?")
    assert rewritten.degraded == ()
    assert "3 other ways" in desk.heard


async def test_no_more_rewordings_are_taken_than_asked_for() -> None:
    desk = Desk(reword="Where is it set?\nWhat sets it?\nWho sets it?")
    rewritten = await desk.rewrite(PORT, rewordings=2)
    assert rewritten.query.texts == (PORT, "Where is it set?", "What sets it?")


@pytest.mark.parametrize("said", ["", PORT, "I cannot help with that.", "why " * 30 + "?"])
async def test_without_a_usable_rewording_the_question_stands_alone(said: str) -> None:
    rewritten = await Desk(reword=said).rewrite(PORT, rewordings=2)
    assert rewritten.query.texts == (PORT,)
    assert rewritten.degraded == (Degradation.REWORDING_FAILED,)


async def test_a_hypothetical_answer_stands_beside_the_question() -> None:
    said = "The LLM server listens on port 8001.\nIt can be changed."
    rewritten = await Desk(hypothetical=said).rewrite(PORT, hypothetical=True)
    assert rewritten.query.texts == (PORT,)
    assert rewritten.query.hypothetical == "The LLM server listens on port 8001. It can be changed."


@pytest.mark.parametrize("said", ["", "No.", "again " * 40, "<think> what could this be about"])
async def test_without_a_usable_hypothetical_answer_there_is_none(said: str) -> None:
    rewritten = await Desk(hypothetical=said).rewrite(PORT, hypothetical=True)
    assert rewritten.query.hypothetical is None
    assert rewritten.degraded == (Degradation.REWORDING_FAILED,)
