"""An answer whose server dies in the middle: no character is missing and none is doubled."""

import re
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any

import msgspec
import pytest

from business_api.errors import UpstreamUnavailable
from business_api.exchange import Degradation
from business_api.pool_settings import ReplicaSettings
from business_api.upstream import Upstream
from business_api.upstream.seam import Seam
from loadtests.simulated_faults import Fault
from loadtests.simulated_llm import simulated
from tests import fake_faults
from tests.fakes import FakeLlm
from tests.pools import PIECES, PROMPT, SAID, heard, llm, pool_of, settings_of, trail
from tests.reading import deltas_of, heard_into
from tests.simulated_asking import QUICK

TEXTS = {
    "words": ["The ", "port ", "is ", "8001."],
    "leading spaces": ["The", " port", " is", " 8001."],
    "inside words": ["Un", "believ", "ab", "ly", " go", "od"],
    "paragraphs": ["One.", "\n", "\n", "Two.", "\n\n", "Three."],
    "indented": ["a:\n", "    ", "b: 1\n", "    ", "c: 2"],
    "other scripts": ["Größe ", "größer ", "😀", "😀 ", "東京", "です"],
    "repeated": ["ha ", "ha ", "ha ", "ha "],
}


@pytest.mark.parametrize("pieces", TEXTS.values(), ids=TEXTS.keys())
async def test_wherever_it_breaks_the_text_is_the_same(pieces: list[str]) -> None:
    for place in range(1, len(pieces) + 1):
        broken, well = llm(pieces=pieces), llm(pieces=pieces)
        broken.die_after(place, times=1)
        async with pool_of(broken, well) as upstream:
            said, running = await heard(upstream)
        assert said == "".join(pieces)
        assert running.degraded == (Degradation.RESUMED,)


async def test_the_server_is_told_to_go_on_with_what_was_said_and_how_much_is_left() -> None:
    broken, well = llm(), llm()
    broken.die_after(2)
    async with pool_of(broken, well) as upstream:
        await heard(upstream, temperature=0.5)
    (asked,) = well.requests
    assert asked.body["messages"][-1] == {"role": "assistant", "content": "The port"}
    assert asked.body["continue_final_message"] is True
    assert asked.body["add_generation_prompt"] is False
    assert asked.body["max_tokens"] == PROMPT.max_tokens - 2
    assert asked.body["temperature"] == 0.5
    assert asked.headers["x-request-id"] == "id-1"


WORDS = ["The", " port", " is", " 8001."]


class Refusing(FakeLlm):
    """Says all that it says in one piece, a refusal among it."""

    async def _frames(self, body: Any, fault: fake_faults.Fault) -> AsyncGenerator[bytes, None]:
        first, *others = [frame async for frame in super()._frames(body, fault)]
        refusal = b'data: {"choices": [{"index": 0, "delta": {"refusal": "no"}}]}\n\n'
        yield b"".join([first, refusal, *others])


async def test_no_white_space_is_said_twice_before_a_refusal_either() -> None:
    broken = llm()
    broken.die_after(2)
    async with pool_of(broken, Refusing(pieces=PIECES, continues=True)) as upstream:
        running = await upstream.generate(PROMPT, {}, "id-1")
        async with aclosing(running):
            deltas = await deltas_of(running)
    assert "".join(delta.text for delta in deltas) == SAID
    assert [delta.refusal for delta in deltas if delta.refusal] == ["no"]


async def test_the_usage_is_that_of_the_whole_answer() -> None:
    broken, well = llm(pieces=WORDS), llm(pieces=WORDS)
    broken.die_after(2)
    async with pool_of(broken, well) as upstream:
        _, running = await heard(upstream)
    assert running.usage is not None
    assert running.usage.completion_tokens == len(WORDS)
    assert running.usage.total_tokens == running.usage.prompt_tokens + len(WORDS)


async def test_white_space_that_is_said_again_takes_nothing_of_the_tokens_that_are_left() -> None:
    most = PROMPT.max_tokens
    pieces = ["a", "\n"] * most
    for place in range(1, most):
        broken, well = llm(pieces=pieces), llm(pieces=pieces)
        broken.die_after(place, times=1)
        async with pool_of(broken, well) as upstream:
            said, running = await heard(upstream)
        assert said == "".join(pieces[:most])
        assert running.usage is not None
        assert running.usage.completion_tokens == most


async def test_an_answer_may_lose_its_server_more_than_once() -> None:
    servers = [llm(pieces=WORDS) for _ in range(3)]
    for one in servers:
        one.die_after(1, times=1)
    async with pool_of(*servers, eject_after=10) as upstream:
        said, running = await heard(upstream)
    assert said == SAID
    told = trail(running.attempts)
    assert [how for _, how in told] == ["broke_off"] * 3 + ["answered"]
    assert {name for name, _ in told} == set("abc")


async def test_an_answer_that_loses_every_server_ends_as_broken_off_with_what_was_said() -> None:
    broken = llm(pieces=[" x"] * 30)
    broken.die_after(1)
    said: list[str] = []
    async with pool_of(broken, eject_after=100) as upstream:
        running = await upstream.generate(PROMPT, {}, "id-1")
        with pytest.raises(UpstreamUnavailable):
            await heard_into(said, running)
        await running.aclose()
        assert upstream.pool.outstanding() == {"a": 0.0}
    assert said == [" x"] * 4
    assert trail(running.attempts) == [("a", "broke_off")] * 4


@pytest.mark.parametrize("together", [1, 4, 7], ids=lambda tokens: f"{tokens} a frame")
@pytest.mark.parametrize("cut_after", [6, 10])
async def test_frames_of_several_tokens_make_no_longer_answer(together: int, cut_after: int) -> None:
    preset = msgspec.structs.replace(QUICK, stream_interval=together, answer_tokens=400)
    fault = Fault(kind="cut", after=cut_after, times=1)
    async with simulated(preset, faults=(fault,)) as broken, simulated(preset) as well:
        replicas = tuple(ReplicaSettings(url=f"{one.url}/v1") for one in (broken, well))
        async with Upstream.open(settings_of(replicas=replicas)) as upstream:
            said, running = await heard(upstream)
        (continued,) = [msgspec.json.decode(one.body) for one in well.heard]
    words = continued["messages"][-1]["content"].split()
    assert len(said.split()) == PROMPT.max_tokens == len(words) + continued["max_tokens"]
    assert running.degraded == (Degradation.RESUMED,)
    assert running.finish_reason == "length"
    assert running.usage is not None
    assert running.usage.completion_tokens == PROMPT.max_tokens


async def test_all_tokens_said_and_only_the_end_lost_is_a_whole_answer() -> None:
    broken, well = llm(pieces=["x "] * 30), llm()
    broken.die_after(PROMPT.max_tokens)
    async with pool_of(broken, well) as upstream:
        said, running = await heard(upstream)
    assert said == "x " * PROMPT.max_tokens
    assert running.finish_reason == "length"
    assert running.usage is not None
    assert running.usage.completion_tokens == PROMPT.max_tokens
    assert well.requests == []


@pytest.mark.parametrize(("continues", "resume"), [(True, "off"), (False, "auto")])
async def test_without_a_server_that_goes_on_it_ends_as_broken_off(continues: bool, resume: str) -> None:
    broken, other = llm(continues=continues), llm(continues=continues)
    broken.die_after(2)
    async with pool_of(broken, other, resume=resume) as upstream:
        running = await upstream.generate(PROMPT, {}, "id-1")
        with pytest.raises(UpstreamUnavailable, match="broke off"):
            await deltas_of(running)
        await running.aclose()
    assert other.requests == []
    assert running.degraded == ()


async def test_a_server_that_refuses_to_go_on_leaves_the_first_failure_to_the_caller() -> None:
    broken, unwilling = llm(), llm()
    broken.die_after(2)
    unwilling.fail_with(400, "continue_final_message is not supported")
    async with pool_of(broken, unwilling) as upstream:
        running = await upstream.generate(PROMPT, {}, "id-1")
        with pytest.raises(UpstreamUnavailable, match="broke off"):
            await deltas_of(running)
        await running.aclose()
    assert trail(running.attempts) == [("a", "broke_off"), ("b", "status_400")]


@pytest.mark.parametrize(
    ("said", "deltas", "shown"),
    [
        ("The port ", [" is"], "The port is"),
        ("The port ", [" ", "is"], "The port is"),
        ("The port ", ["  is"], "The port  is"),
        ("The port ", ["is"], "The port is"),
        ("One.\n\n", ["\n", "\nTwo"], "One.\n\nTwo"),
        ("One.\n", [" Two"], "One.\n Two"),
        ("The port", [" is"], "The port is"),
        ("x ", [""], "x "),
    ],
)
def test_white_space_at_the_seam_is_shown_once(said: str, deltas: list[str], shown: str) -> None:
    seam = Seam(said)
    assert not re.search(r"\s\Z", seam.asked_for)
    assert said + "".join(seam.join(text) for text in deltas) == shown
