"""What callers, records and operators see when another model answers in place of the LLM tier, over HTTP."""

import asyncio
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import aiohttp
import msgspec
import pytest

from business_api.deadlines import HEADER
from business_api.exchange import Degradation, Outcome
from business_api.settings import LlmSettings
from business_api.transport import InProcess
from business_api.upstream import Upstream
from business_api.upstream.chain import Chain
from business_api.upstream.pool import Pool
from business_api.upstream.replica import Replica
from tests.desk import CONDENSED, Desk, follow_up
from tests.fakes import FakeLlm, eventually
from tests.pools import trail
from tests.stack import Stack, running_stack

MESSAGES = [{"role": "user", "content": "Which port does the LLM server listen on?"}]
SECRET = "sk-of-the-hosted-one"
FAULTS: dict[str, Callable[[FakeLlm], None]] = {
    "dies": lambda one: one.die_after(0),
    "hangs": lambda one: one.hang_before_first(),
    "429": lambda one: one.fail_with(429),
    "500": lambda one: one.fail_with(500),
    "503": lambda one: one.fail_with(503),
}
both = pytest.mark.parametrize("stream", [True, False], ids=["streamed", "whole"])


def backed(llm: FakeLlm, name: str, **settings: Any) -> Upstream:
    """A fallback in this process."""
    own = LlmSettings(retries=0, **settings)
    return Upstream(Pool([Replica(f"{name}/in-process", InProcess(llm))], own), own)


@contextmanager
def stack(var: Path, llm: FakeLlm, *others: FakeLlm, **settings: Any) -> Iterator[Stack]:
    """The service over `llm`, with `small` and `hosted` to fall back on."""
    known = {
        name: backed(one, name, api_key=SECRET)
        for name, one in zip(("small", "hosted"), others, strict=False)
    }
    with running_stack(
        var, llm, llm_settings=LlmSettings(retries=0, fallback_after=0.2, **settings), fallbacks=known
    ) as found:
        yield found


async def ask(
    stack: Stack, model: str = "backed", headers: dict[str, str] | None = None, **fields: Any
) -> tuple[int, Mapping[str, str], str]:
    asked = {"model": model, "messages": MESSAGES, **fields}
    async with (
        aiohttp.ClientSession() as session,
        session.post(f"{stack.url}/v1/chat/completions", json=asked, headers=headers) as reply,
    ):
        return reply.status, reply.headers, await reply.text()


def tandem_of(said: str) -> tuple[str, dict[str, Any]]:
    """The `model` and the `tandem` object of an answer, streamed or not."""
    frames = [line.removeprefix("data: ") for line in said.splitlines() if line.startswith("data: {")]
    last = msgspec.json.decode(frames[-1] if frames else said)
    return last["model"], last["tandem"]


@both
@pytest.mark.parametrize("fail", FAULTS.values(), ids=FAULTS.keys())
async def test_the_answer_and_the_record_say_who_answered(
    tmp_path: Path, fail: Callable[[FakeLlm], None], stream: bool
) -> None:
    llm = FakeLlm()
    fail(llm)
    with stack(tmp_path, llm, FakeLlm("At home.", model="tiny")) as running:
        status, headers, said = await ask(running, stream=stream)
        (exchange,) = running.recorded()
    model, tandem = tandem_of(said)
    assert status == 200
    assert headers["X-Degraded"] == "fallback_model"
    assert tandem["degraded"] == ["fallback_model"]
    assert tandem["versions"]["model"] == "tiny"
    assert model == "backed"
    assert exchange.outcome is Outcome.ANSWERED
    assert exchange.answer == "At home."
    assert exchange.degraded == [Degradation.FALLBACK_MODEL]
    assert exchange.versions["model"] == "tiny"
    assert trail(exchange.attempts)[-1] == ("small/in-process", "answered")
    assert len(exchange.attempts) == 2
    assert [one["replica"] for one in tandem["attempts"]] == [one.replica for one in exchange.attempts]


@both
async def test_the_second_fallback_answers_when_the_first_fails_too(tmp_path: Path, stream: bool) -> None:
    llm, small = FakeLlm(), FakeLlm(model="tiny")
    llm.fail_with(503)
    small.die_after(0)
    with stack(tmp_path, llm, small, FakeLlm("At home.", model="big")) as running:
        status, _, said = await ask(running, stream=stream)
        (exchange,) = running.recorded()
    assert (status, tandem_of(said)[1]["versions"]["model"]) == (200, "big")
    assert [how for _, how in trail(exchange.attempts)] == ["status_503", "broke_off", "answered"]


@both
async def test_when_the_whole_chain_fails_the_error_of_the_tier_is_told(tmp_path: Path, stream: bool) -> None:
    llm, small = FakeLlm(), FakeLlm()
    llm.fail_with(429)
    small.fail_with(500)
    with stack(tmp_path, llm, small) as running:
        status, _, said = await ask(running, stream=stream)
        (exchange,) = running.recorded()
    assert (status, msgspec.json.decode(said)["error"]["code"]) == (503, "overloaded")
    assert exchange.outcome is Outcome.FAILED
    assert exchange.degraded == []
    assert [how for _, how in trail(exchange.attempts)] == ["status_429", "status_500"]


async def test_sentences_of_the_documents_are_the_last_step(tmp_path: Path) -> None:
    llm, small = FakeLlm(), FakeLlm()
    llm.fail_with(500)
    small.fail_with(500)
    with stack(tmp_path, llm, small) as running:
        status, _, said = await ask(running, "backed_kb")
        (exchange,) = running.recorded()
    assert (status, tandem_of(said)[1]["degraded"]) == (200, ["extractive_answer"])
    assert [how for _, how in trail(exchange.attempts)] == ["status_500", "status_500"]


async def test_an_assistant_without_fallbacks_has_none(tmp_path: Path) -> None:
    llm, small = FakeLlm(), FakeLlm()
    llm.fail_with(500)
    with stack(tmp_path, llm, small) as running:
        status, _, _ = await ask(running, "plain")
    assert status == 503
    assert not small.requests


async def test_the_callers_mistake_is_told_as_it_is(tmp_path: Path) -> None:
    llm, small = FakeLlm(), FakeLlm()
    llm.fail_with(400, "bad logit_bias")
    with stack(tmp_path, llm, small) as running:
        status, _, _ = await ask(running)
    assert status == 400
    assert not small.requests


async def test_our_own_refusal_under_overload_is_not_handed_to_a_fallback(tmp_path: Path) -> None:
    llm, small = FakeLlm(first_delay=1.0), FakeLlm()
    with stack(
        tmp_path, llm, small, max_in_flight=1, min_in_flight=1, max_queued=0, first_delta_deadline=30
    ) as running:
        first = asyncio.create_task(ask(running, "plain"))
        await eventually(lambda: running.gate.running == 1)
        status, _, said = await ask(running)
        await first
    assert (status, msgspec.json.decode(said)["error"]["code"]) == (503, "overloaded")
    assert not small.requests


async def test_the_callers_deadline_ends_the_chain_with_a_504_and_a_record(tmp_path: Path) -> None:
    llm, small = FakeLlm(), FakeLlm()
    llm.hang_before_first()
    small.hang_before_first()
    with stack(tmp_path, llm, small) as running:
        status, _, _ = await ask(running, headers={HEADER: "500"})
        (exchange,) = running.recorded()
    assert status == 504
    assert [how for _, how in trail(exchange.attempts)] == ["late", "deadline"]


@both
async def test_who_hangs_up_on_a_fallback_leaves_one_record_and_nothing_running(
    tmp_path: Path, stream: bool
) -> None:
    llm, small = FakeLlm(), FakeLlm("word " * 500, delay=0.05)
    llm.fail_with(500)
    with stack(tmp_path, llm, small) as running:
        asking = asyncio.create_task(ask(running, stream=stream))
        await eventually(lambda: small.running == 1)
        await asyncio.sleep(0.2)
        asking.cancel()
        await asyncio.gather(asking, return_exceptions=True)
        await eventually(lambda: small.running == 0)
        await eventually(lambda: running.gate.running == 0)
        await eventually(lambda: bool(running.recorded()))
        (exchange,) = running.recorded()
    assert exchange.outcome is Outcome.ABANDONED
    assert small.aborted == 1


async def test_no_key_of_a_fallback_is_seen_anywhere(tmp_path: Path) -> None:
    llm, small = FakeLlm(), FakeLlm(model="tiny")
    llm.fail_with(500)
    with stack(tmp_path, llm, small) as running:
        _, headers, said = await ask(running)
        small.fail_with(401, SECRET)
        _, _, refused = await ask(running)
        kept = [msgspec.json.encode(one).decode() for one in running.recorded()]
        async with aiohttp.ClientSession() as session, session.get(f"{running.url}/metrics") as reply:
            metrics = await reply.text()
    assert [one.headers["authorization"] for one in small.requests] == [f"Bearer {SECRET}"] * 2
    assert len(kept) == 2
    assert not [page for page in (str(headers), said, refused, *kept, metrics) if SECRET in page]


async def test_a_follow_up_is_rewritten_by_the_fallback_too() -> None:
    away, other = FakeLlm(), Desk()
    away.fail_with(500)
    desk = Desk(away)
    desk.chains["kb"] = Chain(desk.upstream, {"small": other.upstream}, Counter()).generate
    rewritten = await follow_up(desk)
    assert rewritten.query.texts[0] == CONDENSED
    assert rewritten.degraded == ()
