"""A model that thinks before it answers: it is not late, and what it thinks is passed on."""

import asyncio
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from business_api.errors import UpstreamUnavailable
from tests.fake_faults import Fault
from tests.fakes import FakeLlm
from tests.pools import PROMPT, pool_of
from tests.reading import deltas_of
from tests.stack import running_stack
from tests.test_upstream_story import ask

THOUGHTS = ["Which ", "port? ", "8001."]


class Thinking(FakeLlm):
    """Thinks for 0.6 s before it says anything, under the field's newer or older name."""

    name = "reasoning"

    async def _frames(self, body: Any, fault: Fault) -> AsyncGenerator[bytes, None]:
        for thought in THOUGHTS:
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


async def test_what_was_thought_is_not_gone_on_with_elsewhere() -> None:
    broken, well = Thinking("The port is 8001.", continues=True), Thinking("The port", continues=True)
    broken.die_after(2)
    async with pool_of(broken, well) as upstream:
        running = await upstream.generate(PROMPT, {}, "id-1")
        with pytest.raises(UpstreamUnavailable):
            await deltas_of(running)
        await running.aclose()
    assert well.requests == []


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
