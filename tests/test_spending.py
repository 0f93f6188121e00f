"""What a question may take, and what an exchange took."""

from typing import Any

import pytest

from business_api.assistants import Assistant
from business_api.exchange import Degradation, Exchange, Message, Outcome, Question
from business_api.spending import Spending
from tests.exchanges import exchange

SPENDING = Spending(context_tokens=4096, bytes_per_token=3.0)
PLAIN = Assistant(name="plain", max_tokens=100)


def question(*texts: str, **fields: Any) -> Question:
    messages = tuple(Message("user", text) for text in texts)
    return Question(id="q", tenant="t", assistant="plain", messages=messages, **fields)


def test_a_question_takes_its_messages_and_the_longest_answer() -> None:
    assert SPENDING.estimate(question("x" * 30), PLAIN) == 10 + 8 + 100
    assert SPENDING.estimate(question("x" * 30, "x" * 31), PLAIN) == 10 + 8 + 11 + 8 + 100
    assert SPENDING.estimate(question("ü" * 15), PLAIN) == 10 + 8 + 100
    assert SPENDING.estimate(question("x" * 30, max_tokens=7), PLAIN) == 10 + 8 + 7


def test_tools_are_part_of_the_prompt() -> None:
    tools = [{"type": "function", "function": {"name": "f", "description": "x" * 300}}]
    assert SPENDING.estimate(question("x", sampling={"tools": tools}), PLAIN) > 200


def test_passages_are_reserved_before_they_are_found() -> None:
    finding = Assistant(name="kb", collection="kb", passages=3, max_tokens=100)
    assert SPENDING.estimate(question("x" * 30), finding) == 10 + 8 + 4 * 256 + 100


def test_no_question_takes_more_than_the_context() -> None:
    assert SPENDING.estimate(question("x" * 100_000), PLAIN) == 4096


@pytest.mark.parametrize(
    ("ended", "spent"),
    [
        (exchange(), 7),
        (exchange(usage=None, outcome=Outcome.FAILED, answer="x" * 30), 4 + 8 + 10),
        (exchange(usage=None, outcome=Outcome.ABANDONED, answer="x" * 30), 4 + 8 + 10),
        (exchange(usage=None, outcome=Outcome.ABANDONED, answer=""), 4 + 8),
        (exchange(usage=None, outcome=Outcome.FAILED, answer=""), 0),
        (exchange(usage=None, outcome=Outcome.REFUSED, answer="", prompt=None), 0),
        (exchange(usage=None, outcome=Outcome.ABSTAINED, answer="No.", prompt=None), 0),
        (exchange(usage=None, answer="Port 80", degraded=[Degradation.EXTRACTIVE_ANSWER]), 0),
        (exchange(usage=None, outcome=Outcome.FAILED, answer="", tool_calls=[{"a": 1}]), 4 + 8 + 3),
    ],
    ids=["usage", "broke off", "left", "left early", "never began", "refused", "abstained", "quoted", "tool"],
)
def test_what_was_read_and_written_is_spent(ended: Exchange, spent: int) -> None:
    assert SPENDING.spent(ended) == spent
