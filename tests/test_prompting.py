"""Prompts: released templates, and what is kept when not everything fits."""

import hashlib
import tomllib
from pathlib import Path

import pytest

from business_api.assistants import Assistant
from business_api.errors import PromptTooLong
from business_api.exchange import Degradation, Message, Question
from business_api.prompting import Prompting, Template, UnknownTemplate
from business_api.settings import ROOT
from tests.fakes import passage

NAME = "answer_with_markers/v1"
ASSISTANT = Assistant(name="tandem", collection="kb", template=NAME, max_tokens=100)


def prompting(context_tokens: int = 2048) -> Prompting:
    return Prompting({NAME: Template.load(ROOT / "prompts", NAME)}, context_tokens, bytes_per_token=3.0)


def question(*messages: Message, **more: int) -> Question:
    return Question(id="q", tenant="t", assistant="tandem", messages=messages, **more)  # type: ignore[arg-type]


def asked(text: str) -> Message:
    return Message(role="user", content=text)


def said(text: str) -> Message:
    return Message(role="assistant", content=text)


def test_passages_are_numbered_from_one_and_the_question_comes_last() -> None:
    prompt = prompting().fill(question(asked("Where?")), ASSISTANT, [passage("Here."), passage("There.")])
    last = prompt.messages[-1].content or ""
    assert last.index("[1]") < last.index("Here.") < last.index("[2]") < last.index("There.")
    assert last.endswith("Question: Where?")


def test_the_instructions_come_first_and_are_the_same_for_every_question() -> None:
    one = prompting().fill(question(asked("A?")), ASSISTANT, [passage("x")])
    two = prompting().fill(question(asked("B?"), said("b"), asked("C?")), ASSISTANT, [passage("y")])
    assert one.messages[0] == two.messages[0]
    assert one.messages[0].role == "system"


def test_passages_that_do_not_fit_are_left_out_from_the_worst_and_the_prompt_says_so() -> None:
    found = [passage(f"fact {n} " + "word " * 100) for n in range(6)]
    prompt = prompting(context_tokens=900).fill(question(asked("Where?")), ASSISTANT, found)
    assert 0 < len(prompt.passages) < 6
    assert list(prompt.passages) == found[: len(prompt.passages)]
    assert prompt.degraded == (Degradation.PASSAGES_CUT,)


def test_the_oldest_turns_are_left_out_first_and_whole() -> None:
    turns = [m for n in range(9) for m in (asked(f"question {n} " + "w " * 500), said(f"answer {n}"))]
    prompt = prompting().fill(question(*turns, asked("And now?")), ASSISTANT, [passage("x")])
    kept = [m.content for m in prompt.messages[1:-1]]
    assert kept[-1] == "answer 8"
    assert len(kept) % 2 == 0
    assert 0 < len(kept) < 18
    assert Degradation.HISTORY_CUT in prompt.degraded


def test_a_question_that_cannot_fit_is_refused_not_cut() -> None:
    with pytest.raises(PromptTooLong):
        prompting().fill(question(asked("word " * 3000)), ASSISTANT, [])


def test_system_messages_of_the_caller_join_ours_in_one() -> None:
    caller = Message(role="system", content="Answer in French.")
    prompt = prompting().fill(question(caller, asked("Where?")), ASSISTANT, [passage("x")])
    assert [m.role for m in prompt.messages] == ["system", "user"]
    assert (prompt.messages[0].content or "").endswith("Answer in French.")


def test_a_template_without_a_system_message_still_puts_history_before_the_question() -> None:
    small = "answer_from_passages/v1"
    filling = Prompting({small: Template.load(ROOT / "prompts", small)}, 2048, bytes_per_token=3.0)
    assistant = Assistant(name="tandem", collection="kb", template=small)
    caller = Message(role="system", content="Answer in French.")
    messages = (caller, asked("A?"), said("a."), asked("Where?"))
    prompt = filling.fill(question(*messages), assistant, [passage("best"), passage("second")])
    assert [m.role for m in prompt.messages] == ["system", "user", "assistant", "user"]
    last = prompt.messages[-1].content or ""
    assert last.index("second") < last.index("best") < last.index("Where?")


def test_tool_results_stay_behind_the_question_that_called_for_them() -> None:
    calls = [{"id": "c1", "type": "function", "function": {"name": "f", "arguments": "{}"}}]
    messages = (
        asked("Weather?"),
        Message(role="assistant", tool_calls=calls),
        Message(role="tool", content="sunny", tool_call_id="c1"),
    )
    prompt = prompting().fill(question(*messages), ASSISTANT, [passage("x")])
    assert [m.role for m in prompt.messages] == ["system", "user", "assistant", "tool"]
    assert prompt.messages[-1].tool_call_id == "c1"


def test_without_a_template_the_messages_go_as_they_came() -> None:
    messages = (Message(role="system", content="s"), asked("q"))
    prompt = prompting().fill(question(*messages), Assistant(name="plain"), [])
    assert prompt.messages == messages
    assert prompt.template is None


def test_a_passage_that_looks_like_a_template_is_only_text() -> None:
    prompt = prompting().fill(question(asked("{{ 7 * 7 }}?")), ASSISTANT, [passage("{{ cycler.__init__ }}")])
    last = prompt.messages[-1].content or ""
    assert "{{ cycler.__init__ }}" in last
    assert "49" not in last


def test_a_template_that_does_not_exist_is_named_with_those_that_do() -> None:
    with pytest.raises(UnknownTemplate, match="answer_with_markers/v1"):
        Template.load(ROOT / "prompts", "answer_with_markers/v99")


def test_a_template_with_an_unknown_name_in_it_does_not_render(tmp_path: Path) -> None:
    (tmp_path / "odd").mkdir()
    (tmp_path / "odd/v1.toml").write_text('[[messages]]\nrole = "user"\ncontent = "{{ nobody }}"')
    with pytest.raises(Exception, match="nobody"):
        Template.load(tmp_path, "odd/v1").render("q", [], "f")


def test_a_broken_template_is_named(tmp_path: Path) -> None:
    (tmp_path / "odd").mkdir()
    (tmp_path / "odd/v1.toml").write_text('[[messages]]\nrole = "user"\ncontent = "{% if %}"')
    with pytest.raises(ValueError, match=r"odd/v1\.toml"):
        Template.load(tmp_path, "odd/v1")


def test_released_templates_never_change() -> None:
    released = tomllib.loads((ROOT / "prompts/released.toml").read_text())
    found = {
        str(path.relative_to(ROOT / "prompts").with_suffix("")): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in (ROOT / "prompts").glob("*/*.toml")
    }
    assert found == released
