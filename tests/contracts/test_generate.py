"""The promises of the Generate port, kept over the network and inside one process alike."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

import pytest

from business_api.errors import (
    InvalidRequest,
    Overloaded,
    PromptTooLong,
    ServiceError,
    UpstreamTimeout,
    UpstreamUnavailable,
)
from business_api.exchange import Message, Prompt
from business_api.settings import LlmSettings
from business_api.transport import InProcess, Network
from business_api.upstream import Upstream
from tests.fakes import FakeLlm, eventually, serving
from tests.reading import deltas_of, heard_into, leave_after_the_first, text_of

PROMPT = Prompt(messages=(Message(role="user", content="Where?"),), max_tokens=20)
PIECES = ["The ", "port ", "is ", "8001."]
Adapt = Callable[..., AbstractAsyncContextManager[Upstream]]


@asynccontextmanager
async def over_the_network(fake: FakeLlm, **knobs: Any) -> AsyncIterator[Upstream]:
    with serving(fake) as url:
        settings = LlmSettings(url=f"{url}/v1", **knobs)
        transport = Network.open(settings.url, settings.connect_deadline)
        yield Upstream(transport, settings)
        await transport.aclose()


@asynccontextmanager
async def in_process(fake: FakeLlm, **knobs: Any) -> AsyncIterator[Upstream]:
    yield Upstream(InProcess(fake), LlmSettings(**knobs))


@pytest.fixture(params=[over_the_network, in_process])
def adapt(request: pytest.FixtureRequest) -> Adapt:
    adapter: Adapt = request.param
    return adapter


async def said(upstream: Upstream, **sampling: Any) -> str:
    running = await upstream.generate(PROMPT, sampling, "id-1")
    try:
        return await text_of(running)
    finally:
        await running.aclose()


async def fails(upstream: Upstream) -> ServiceError:
    with pytest.raises(ServiceError) as caught:
        await said(upstream)
    return caught.value


async def test_an_answer_comes_in_deltas_with_its_reason_and_usage(adapt: Adapt) -> None:
    async with adapt(FakeLlm(pieces=PIECES)) as upstream:
        running = await upstream.generate(PROMPT, {}, "id-1")
        assert [delta.text for delta in await deltas_of(running)] == PIECES
        await running.aclose()
    assert running.finish_reason == "stop"
    assert running.usage is not None
    assert running.usage.completion_tokens == 4
    assert running.model == "fake"


async def test_sampling_and_request_id_reach_the_server_as_they_are(adapt: Adapt) -> None:
    fake = FakeLlm()
    async with adapt(fake) as upstream:
        await said(upstream, temperature=0.5, seed=7, stop=["x"])
    (heard,) = fake.requests
    assert {k: heard.body[k] for k in ("temperature", "seed", "stop")} == {
        "temperature": 0.5,
        "seed": 7,
        "stop": ["x"],
    }
    assert heard.body["model"] == "fake"
    assert heard.headers["x-request-id"] == "id-1"


async def test_tool_calls_and_logprobs_pass_through(adapt: Adapt) -> None:
    tool = {"type": "function", "function": {"name": "look_up", "parameters": {"type": "object"}}}
    async with adapt(FakeLlm()) as upstream:
        running = await upstream.generate(PROMPT, {"tools": [tool], "logprobs": True}, "id-1")
        deltas = await deltas_of(running)
        await running.aclose()
    assert any(delta.tool_calls for delta in deltas)
    assert running.finish_reason == "tool_calls"


@pytest.mark.parametrize(
    ("status", "message", "expected"),
    [
        (400, "bad logit_bias", InvalidRequest),
        (400, "This model's maximum context length is 2048 tokens", PromptTooLong),
        (401, "no", UpstreamUnavailable),
        (404, "no such model", UpstreamUnavailable),
        (429, "slow down", Overloaded),
        (500, "oops /secret/path", UpstreamUnavailable),
        (503, "full", Overloaded),
    ],
)
async def test_a_refusal_of_the_server_becomes_ours(
    adapt: Adapt, status: int, message: str, expected: type[ServiceError]
) -> None:
    fake = FakeLlm()
    fake.fail_with(status, message)
    async with adapt(fake) as upstream:
        failure = await fails(upstream)
    assert type(failure) is expected
    assert "/secret" not in failure.message


async def test_a_failure_before_the_first_delta_is_raised_by_generate_itself(adapt: Adapt) -> None:
    fake = FakeLlm(pieces=PIECES)
    fake.die_after(0)
    async with adapt(fake) as upstream:
        with pytest.raises(UpstreamUnavailable):
            await upstream.generate(PROMPT, {}, "id-1")


@pytest.mark.parametrize(
    "fault",
    [
        lambda fake: fake.die_after(2),
        lambda fake: fake.end_with("abort"),
        lambda fake: fake.done_without_finish(),
        lambda fake: fake.error_frame_after(2),
        lambda fake: fake.malformed_frame_after(2),
    ],
    ids=["dies", "aborts", "done without finish", "error frame", "malformed frame"],
)
async def test_an_answer_that_breaks_off_is_a_failure_after_the_deltas_already_said(
    adapt: Adapt, fault: Callable[[FakeLlm], None]
) -> None:
    fake = FakeLlm(pieces=PIECES)
    fault(fake)
    async with adapt(fake) as upstream:
        running = await upstream.generate(PROMPT, {}, "id-1")
        heard: list[str] = []
        with pytest.raises(UpstreamUnavailable):
            await heard_into(heard, running)
        await running.aclose()
    assert heard[:2] == PIECES[:2]


async def test_silence_before_the_first_delta_ends_at_the_deadline(adapt: Adapt) -> None:
    fake = FakeLlm(pieces=PIECES)
    fake.hang_before_first()
    async with adapt(fake, first_delta_deadline=0.3) as upstream:
        assert isinstance(await fails(upstream), UpstreamTimeout)
        await eventually(lambda: fake.running == 0)


async def test_silence_between_deltas_ends_at_the_deadline(adapt: Adapt) -> None:
    fake = FakeLlm(pieces=PIECES)
    fake.hang_after(2)
    async with adapt(fake, delta_deadline=0.3) as upstream:
        assert isinstance(await fails(upstream), UpstreamTimeout)
        await eventually(lambda: fake.running == 0)


async def test_an_answer_without_end_stops_at_the_total_deadline(adapt: Adapt) -> None:
    fake = FakeLlm(pieces=["x"] * 1000, delay=0.05)
    async with adapt(fake, total_deadline=0.4) as upstream:
        assert isinstance(await fails(upstream), UpstreamTimeout)


async def test_hanging_up_in_the_middle_stops_the_server(adapt: Adapt) -> None:
    fake = FakeLlm(pieces=["x"] * 1000, delay=0.05)
    async with adapt(fake) as upstream:
        running = await upstream.generate(PROMPT, {}, "id-1")
        await leave_after_the_first(running)
        await running.aclose()
        await eventually(lambda: fake.running == 0)
    assert fake.aborted == 1


async def test_cancelling_before_the_first_delta_stops_the_server(adapt: Adapt) -> None:
    fake = FakeLlm()
    fake.hang_before_first()
    async with adapt(fake) as upstream:
        task = asyncio.create_task(upstream.generate(PROMPT, {}, "id-1"))
        await eventually(lambda: fake.running == 1)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await eventually(lambda: fake.running == 0)
