"""The guard at the question: what cannot be asked is refused before any work is done."""

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from business_api.errors import PromptTooLong, ServiceError
from business_api.exchange import Message, Question
from business_api.guard import Guard
from business_api.settings import GuardSettings, Settings


@pytest.fixture
def guard(tmp_path: Path) -> Iterator[Guard]:
    with closing(Guard.open(Settings(var=tmp_path))) as opened:
        yield opened


def asked(*messages: Message) -> Question:
    return Question(id="q", tenant="default", assistant="tandem", messages=messages)


def user(text: str = "Which port?") -> Message:
    return Message("user", text)


def calling(*calls: Any) -> Message:
    return Message("assistant", tool_calls=[{"id": call, "type": "function"} for call in calls])


def told(call: str) -> Message:
    return Message("tool", "8000", tool_call_id=call)


def refusal(guard: Guard, *messages: Message) -> ServiceError:
    with pytest.raises(ServiceError) as caught:
        guard.check(asked(*messages))
    assert caught.value.status == 400
    return caught.value


def test_what_clients_send_can_be_asked(guard: Guard) -> None:
    guard.check(asked(user("a\n\tb\r\n\U0001f642 ünï \u2028 \u200b")))
    guard.check(asked(Message("system", "Be kind."), Message("developer", ""), user(), user("again")))
    guard.check(asked(user(), calling("c1", "c2"), told("c2"), told("c1")))
    guard.check(asked(user(), calling("c1"), told("c1"), Message("assistant", "8000"), user("sure?")))
    guard.check(asked(user(), calling("c1"), told("c1"), calling("c1"), told("c1")))


def test_no_messages_are_refused(guard: Guard) -> None:
    assert refusal(guard).param == "messages"


@pytest.mark.parametrize("last", [Message("system", "x"), Message("assistant", "x")])
def test_a_conversation_that_ends_without_a_question_is_refused(guard: Guard, last: Message) -> None:
    assert refusal(guard, user(), last).param == "messages"


@pytest.mark.parametrize(
    "messages", [(user(""),), (user(" \n"),), (user("x"), user("")), (calling("c"), told("c"))]
)
def test_an_empty_question_is_refused(guard: Guard, messages: tuple[Message, ...]) -> None:
    assert refusal(guard, *messages).param == "messages"


def test_an_unknown_role_is_refused_by_name(guard: Guard) -> None:
    assert refusal(guard, user(), Message("wizard", "x"), user()).param == "messages[1].role"


def test_a_question_that_is_too_long_is_refused(tmp_path: Path) -> None:
    settings = Settings(var=tmp_path, guard=GuardSettings(max_question_chars=10))
    guard = Guard.open(settings)
    guard.close()
    guard.check(asked(user("x" * 10)))
    refused = refusal(guard, user("x" * 11))
    assert isinstance(refused, PromptTooLong)
    assert (refused.param, refused.code) == ("messages", "context_length_exceeded")
    assert isinstance(refusal(guard, user("x" * 11), user("short")), PromptTooLong)


@pytest.mark.parametrize("character", ["\x00", "\x08", "\x0b", "\x1b", "\x7f", "\x9f"])
def test_control_characters_are_refused_wherever_they_are(guard: Guard, character: str) -> None:
    refused = refusal(guard, Message("system", f"a{character}"), user())
    assert refused.param == "messages[0].content"
    assert character not in refused.message


def test_a_tool_message_without_its_call_is_refused(guard: Guard) -> None:
    assert refusal(guard, user(), told("c1")).param == "messages[1].tool_call_id"
    assert refusal(guard, user(), calling("c1"), told("c2")).param == "messages[2].tool_call_id"
    twice = refusal(guard, user(), calling("c1"), told("c1"), told("c1"))
    assert twice.param == "messages[3].tool_call_id"
    nameless = refusal(guard, user(), calling("c1"), Message("tool", "x"))
    assert nameless.param == "messages[2].tool_call_id"


def test_a_tool_call_that_nobody_answered_is_refused(guard: Guard) -> None:
    assert refusal(guard, user(), calling("c1"), user()).param == "messages[1].tool_calls"
    assert refusal(guard, user(), calling("c1", "c2"), told("c1"), user()).param == "messages[1].tool_calls"
    assert refusal(guard, user(), calling("c1", "c2"), told("c1")).param == "messages[1].tool_calls"


@pytest.mark.parametrize("calls", [(None,), ("",), (1,), ("c1", "c1")])
def test_a_tool_call_without_an_id_of_its_own_is_refused(guard: Guard, calls: tuple[Any, ...]) -> None:
    param = refusal(guard, user(), calling(*calls), user()).param
    assert param == f"messages[1].tool_calls[{len(calls) - 1}].id"


def test_only_the_assistant_calls_tools(guard: Guard) -> None:
    calls = Message("user", "x", tool_calls=[{"id": "c1"}])
    assert refusal(guard, calls, told("c1")).param == "messages[0].tool_calls"
