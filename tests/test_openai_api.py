"""The wire: what callers of the OpenAI API get, whole and streamed, and what happens when they leave."""

import asyncio
import base64
import random
from pathlib import Path
from typing import Any

import aiohttp
import msgspec
import numpy as np
import pytest

from business_api.exchange import Outcome
from business_api.openai_api import whole_tool_calls
from business_api.settings import LlmSettings
from tests.fakes import FakeLlm, FixedShelf, eventually
from tests.stack import PORTS, Stack, running_stack

USER: Any = {"role": "user", "content": "Which port?"}


def body(**fields: Any) -> dict[str, Any]:
    return {"model": "tandem", "messages": [USER]} | fields


async def ask(stack: Stack, **fields: Any) -> tuple[dict[str, Any], Any, int]:
    """Answered JSON, headers, status."""
    async with (
        aiohttp.ClientSession() as session,
        session.post(f"{stack.url}/v1/chat/completions", json=body(**fields)) as reply,
    ):
        return await reply.json(), reply.headers, reply.status


async def stream(stack: Stack, **fields: Any) -> list[Any]:
    """The payloads of a streamed answer; `[DONE]` stays a string."""
    async with (
        aiohttp.ClientSession() as session,
        session.post(f"{stack.url}/v1/chat/completions", json=body(stream=True, **fields)) as reply,
    ):
        assert reply.status == 200, await reply.text()
        assert reply.content_type == "text/event-stream"
        events = [event.removeprefix("data: ") for event in (await reply.text()).split("\n\n") if event]
    return [event if event == "[DONE]" else msgspec.json.decode(event) for event in events]


def text_of(frames: list[Any]) -> str:
    choices = [frame["choices"][0] for frame in frames if frame != "[DONE]" and frame.get("choices")]
    return "".join(choice["delta"].get("content") or "" for choice in choices)


async def test_a_whole_answer_says_what_it_rests_on(tmp_path: Path) -> None:
    with running_stack(tmp_path) as stack:
        answered, headers, status = await ask(stack)
    assert status == 200
    tandem = answered["tandem"]
    assert answered["choices"][0]["message"]["content"] == "It listens on port 8001 [1]."
    assert answered["usage"]["total_tokens"] > 0
    assert tandem["exchange"] == headers["X-Request-Id"]
    assert tandem["contract"] == "1"
    assert tandem["outcome"] == "answered"
    assert tandem["degraded"] == []
    (citation,) = tandem["citations"]
    assert PORTS.chunk.text[citation["start"] : citation["end"]] == citation["quote"]
    assert {"marker", "document", "title", "chunk", "start", "end", "quote", "score", "by"} <= set(citation)
    assert {"embed", "search", "prompt", "queue", "ttft", "total"} <= set(tandem["timings_ms"])
    assert "embed;dur=" in headers["Server-Timing"]
    assert "X-Degraded" not in headers


async def test_a_streamed_answer_is_the_whole_one_in_pieces(tmp_path: Path) -> None:
    with running_stack(tmp_path) as stack:
        whole, _, _ = await ask(stack)
        frames = await stream(stack)
    assert frames[0]["choices"][0]["delta"] == {"role": "assistant", "content": ""}
    assert text_of(frames) == whole["choices"][0]["message"]["content"]
    assert frames[-1] == "[DONE]"
    assert frames[-2]["tandem"]["citations"] == whole["tandem"]["citations"]
    assert frames[-2]["choices"][0]["finish_reason"] == "stop"
    assert all("usage" not in frame for frame in frames[:-1])


async def test_usage_comes_in_one_last_frame_with_empty_choices_when_asked_for(tmp_path: Path) -> None:
    with running_stack(tmp_path) as stack:
        frames = await stream(stack, stream_options={"include_usage": True})
    assert frames[-1] == "[DONE]"
    assert frames[-2]["choices"] == []
    assert frames[-2]["usage"]["completion_tokens"] > 0
    assert frames[-2]["tandem"]["outcome"] == "answered"
    assert frames[-3]["choices"][0]["finish_reason"] == "stop"


async def test_degradations_are_in_header_and_body(tmp_path: Path) -> None:
    shelf = FixedShelf((PORTS,), degraded=("dense_unavailable",))  # type: ignore[arg-type]
    with running_stack(tmp_path, shelf=shelf) as stack:
        answered, headers, _ = await ask(stack)
    assert headers["X-Degraded"] == "dense_unavailable"
    assert answered["tandem"]["degraded"] == ["dense_unavailable"]


async def test_an_llm_that_is_down_is_503_with_retry_after_and_readiness_names_it(tmp_path: Path) -> None:
    llm = FakeLlm()
    llm.fail_with(500, "CUDA error: secret")
    settings = LlmSettings(url="http://127.0.0.1:9/v1")
    with running_stack(tmp_path, llm, llm_settings=settings) as stack:
        answered, headers, status = await ask(stack)
        assert status == 503
        assert answered["error"]["code"] == "upstream_unavailable"
        assert "secret" not in str(answered)
        assert int(headers["Retry-After"]) >= 1
        llm.recover()
        assert (await ask(stack))[2] == 200
        async with aiohttp.ClientSession() as session:
            for path, expected in (("/healthz", 200), ("/readyz", 200)):
                async with session.get(stack.url + path) as reply:
                    assert reply.status == expected


@pytest.mark.parametrize("fault", ["die_after", "error_frame_after", "malformed_frame_after"])
async def test_a_break_in_the_middle_is_an_error_frame_and_never_done(tmp_path: Path, fault: str) -> None:
    llm = FakeLlm(pieces=["The ", "port ", "is ", "8001."])
    getattr(llm, fault)(2)
    with running_stack(tmp_path, llm) as stack:
        frames = await stream(stack)
        (exchange,) = stack.recorded()
    assert "[DONE]" not in frames
    assert frames[-1]["error"]["code"] == "upstream_unavailable"
    assert frames[-1]["tandem"]["outcome"] == "failed"
    assert "error" not in text_of(frames[:-1])
    assert exchange.outcome is Outcome.FAILED


async def test_a_break_in_the_middle_of_a_whole_answer_is_a_status(tmp_path: Path) -> None:
    llm = FakeLlm(pieces=["The ", "port "])
    llm.die_after(1)
    with running_stack(tmp_path, llm) as stack:
        _, _, status = await ask(stack)
    assert status == 503


async def test_tool_calls_reach_the_caller_whole_and_streamed(tmp_path: Path) -> None:
    tool = {"type": "function", "function": {"name": "look_up", "parameters": {"type": "object"}}}
    with running_stack(tmp_path, FakeLlm()) as stack:
        whole, _, _ = await ask(stack, model="plain", tools=[tool])
        frames = await stream(stack, model="plain", tools=[tool])
    message = whole["choices"][0]["message"]
    assert message["content"] is None
    assert message["tool_calls"][0]["function"]["name"] == "look_up"
    assert msgspec.json.decode(message["tool_calls"][0]["function"]["arguments"])
    parts = [
        call
        for frame in frames[:-1]
        for choice in frame["choices"]
        for call in choice["delta"].get("tool_calls", ())
    ]
    assert whole_tool_calls(parts)[0]["function"] == message["tool_calls"][0]["function"]


async def test_logprobs_reach_the_caller(tmp_path: Path) -> None:
    with running_stack(tmp_path) as stack:
        whole, _, _ = await ask(stack, model="plain", logprobs=True, top_logprobs=1)
    tokens = [entry["token"] for entry in whole["choices"][0]["logprobs"]["content"]]
    assert "".join(tokens) == whole["choices"][0]["message"]["content"]


@pytest.mark.parametrize("encoding", ["float", "base64"])
async def test_embeddings_come_in_both_encodings(tmp_path: Path, encoding: str) -> None:
    with running_stack(tmp_path) as stack:
        asked = {"model": "letters", "input": ["abc", "xyz"], "encoding_format": encoding}
        async with (
            aiohttp.ClientSession() as session,
            session.post(f"{stack.url}/v1/embeddings", json=asked) as reply,
        ):
            rows = (await reply.json())["data"]
    first = rows[0]["embedding"]
    vector = np.frombuffer(base64.b64decode(first), "<f4") if encoding == "base64" else np.array(first)
    assert vector.shape == (32,)
    assert abs(float(np.linalg.norm(vector)) - 1) < 1e-5


async def test_of_200_callers_of_whom_a_third_leave_each_is_recorded_once_as_it_ended(tmp_path: Path) -> None:
    dice = random.Random(7)
    llm = FakeLlm(pieces=["word "] * 12, delay=0.02)
    left: set[int] = set()

    async def caller(number: int, session: aiohttp.ClientSession) -> None:
        leaves = number % 3 == 0
        asked = body(stream=number % 2 == 0, messages=[{"role": "user", "content": f"question {number}"}])
        async with at_once, session.post(f"{stack.url}/v1/chat/completions", json=asked) as reply:
            for _ in range(dice.randrange(8)) if leaves else ():
                await reply.content.readany()
            if not leaves:
                await reply.read()
            elif not reply.content.at_eof():
                left.add(number)
                reply.close()

    at_once = asyncio.Semaphore(20)
    with running_stack(tmp_path, llm, requests_per_minute=100_000) as stack:
        async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:
            await asyncio.gather(*(caller(number, session) for number in range(200)))
        await eventually(lambda: llm.running == 0 and stack.gate.running == 0)
        exchanges = stack.recorded()
    numbers = [int(exchange.question.text.split()[1]) for exchange in exchanges]
    assert sorted(numbers) == list(range(200))
    gone = {n for n, e in zip(numbers, exchanges, strict=True) if e.outcome is Outcome.ABANDONED}
    assert {e.outcome for e in exchanges} == {Outcome.ANSWERED, Outcome.ABANDONED}
    assert len(gone) > 10
    assert gone <= left, "who stayed got an answer"


async def test_a_caller_who_leaves_before_anything_was_said_is_abandoned(tmp_path: Path) -> None:
    llm = FakeLlm()
    llm.hang_before_first()
    with running_stack(tmp_path, llm) as stack:
        async with aiohttp.ClientSession() as session:
            for streams in (True, False):
                asking = asyncio.create_task(
                    session.post(f"{stack.url}/v1/chat/completions", json=body(stream=streams)).__aenter__()
                )
                await eventually(lambda: llm.running == 1)
                asking.cancel()
                await asyncio.wait([asking])
                await eventually(lambda: llm.running == 0)
        await eventually(lambda: len(stack.recorded()) == 2)
        assert [exchange.outcome for exchange in stack.recorded()] == [Outcome.ABANDONED] * 2


async def test_metrics_count_exchanges_by_outcome_and_the_sinks_states(tmp_path: Path) -> None:
    with running_stack(tmp_path) as stack:
        await ask(stack)
        await ask(stack, model="nobody")
        stack.recorded()
        async with aiohttp.ClientSession() as session, session.get(f"{stack.url}/metrics") as reply:
            text = await reply.text()
    assert 'tandem_exchanges_total{assistant="tandem",outcome="answered"} 1.0' in text
    assert 'tandem_exchanges_total{assistant="unknown",outcome="refused"} 1.0' in text
    assert 'tandem_recorded_total{state="made"} 2.0' in text
