"""A model that thinks before it answers: it is not late, and what it thinks is passed on."""

import asyncio
from collections.abc import AsyncGenerator, Sequence
from pathlib import Path
from typing import Any

import msgspec
import pytest

from business_api.errors import UpstreamUnavailable
from business_api.exchange import Exchange, Message, Outcome, Prompt, Question
from business_api.spending import Spending
from tests.fake_faults import Fault
from tests.fakes import FakeLlm
from tests.pools import PROMPT, pool_of, trail
from tests.reading import deltas_of
from tests.stack import running_stack
from tests.test_upstream_story import ask

THOUGHTS = ["Which ", "port? ", "8001."]


class Thinking(FakeLlm):
    """Thinks for 0.6 s before it says anything, under the field's newer or older name."""

    name = "reasoning"
    thoughts: Sequence[object] = THOUGHTS

    async def _frames(self, body: Any, fault: Fault) -> AsyncGenerator[bytes, None]:
        for thought in self.thoughts:
            delta = {self.name: thought}
            yield b"data: " + msgspec.json.encode({"choices": [{"index": 0, "delta": delta}]}) + b"\n\n"
            await asyncio.sleep(0.2)
        async for frame in super()._frames(body, fault):
            yield frame


@pytest.mark.parametrize("name", ["reasoning", "reasoning_content"])
@pytest.mark.parametrize("deadline", ["first_delta_deadline", "delta_deadline"])
async def test_who_thinks_is_not_silent(name: str, deadline: str) -> None:
    llm = Thinking("The port is 8001.")
    llm.name = name
    async with pool_of(llm, retries=0, **{deadline: 0.4}) as upstream:
        running = await upstream.generate(PROMPT, {}, "id-1")
        deltas = await deltas_of(running)
        await running.aclose()
    assert [delta.reasoning for delta in deltas if delta.reasoning] == THOUGHTS
    assert "".join(delta.text for delta in deltas) == "The port is 8001."


@pytest.mark.parametrize("fails", ["dies", "hangs"])
async def test_who_fails_while_it_thinks_is_left_for_another(fails: str) -> None:
    broken, well = Thinking(), Thinking("The port is 8001.")
    broken.die_after(0) if fails == "dies" else broken.hang_before_first()
    async with pool_of(broken, well, delta_deadline=0.5) as upstream:
        running = await upstream.generate(PROMPT, {}, "id-1")
        deltas = await deltas_of(running)
        await running.aclose()
    assert [name for name, _ in trail(running.attempts)] == ["a", "b"]
    assert [delta.reasoning for delta in deltas if delta.reasoning] == THOUGHTS
    assert "".join(delta.text for delta in deltas) == "The port is 8001."


async def test_an_answer_that_was_thought_of_is_not_gone_on_with_by_who_has_not() -> None:
    said: dict[str, Any] = {"pieces": ["The ", "port ", "is ", "8001."], "continues": True}
    broken, well = Thinking(**said), Thinking(**said)
    broken.die_after(2)
    async with pool_of(broken, well) as upstream:
        running = await upstream.generate(PROMPT, {}, "id-1")
        with pytest.raises(UpstreamUnavailable):
            await deltas_of(running)
        await running.aclose()
    assert well.requests == []


async def test_a_thought_that_is_no_text_is_passed_over() -> None:
    llm = Thinking("The port is 8001.")
    llm.thoughts = [{"text": "Which"}, 1]
    async with pool_of(llm) as upstream:
        running = await upstream.generate(PROMPT, {}, "id-1")
        deltas = await deltas_of(running)
        await running.aclose()
    assert [delta.reasoning for delta in deltas if delta.reasoning] == []
    assert "".join(delta.text for delta in deltas) == "The port is 8001."


def test_what_was_thought_and_delivered_is_spent() -> None:
    message = Message(role="user", content="Where?")
    question = Question(id="x", tenant="t", assistant="plain", messages=(message,))
    prompt = Prompt(messages=(message,), max_tokens=600)
    left = Exchange(question=question, prompt=prompt, outcome=Outcome.ABANDONED)
    spending = Spending(4096, 4.0)
    before = spending.spent(left)
    left.thought = 400
    assert spending.spent(left) == before + 100


async def test_callers_get_what_was_thought_and_the_answer_apart(tmp_path: Path) -> None:
    with running_stack(tmp_path, Thinking("The port is 8001.")) as stack:
        _, whole = await ask(stack)
        _, text = await ask(stack, stream=True)
        first, second = stack.recorded()
    message = msgspec.json.decode(whole)["choices"][0]["message"]
    assert (message["reasoning_content"], message["content"]) == ("".join(THOUGHTS), "The port is 8001.")
    frames = [line.removeprefix("data: ") for line in text.splitlines() if line.startswith("data: {")]
    deltas = [choice["delta"] for frame in frames for choice in msgspec.json.decode(frame)["choices"]]
    assert [one["reasoning_content"] for one in deltas if "reasoning_content" in one] == THOUGHTS
    assert "".join(one.get("content") or "" for one in deltas) == "The port is 8001."
    assert first.answer == second.answer == "The port is 8001."
