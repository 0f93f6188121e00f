"""The fakes keep the promises that the tests of everything else stand on."""

from typing import Any

import aiohttp
import msgspec
import numpy as np
import openai
import pytest

from business_api.assistants import Assistant
from business_api.errors import RetrievalUnavailable
from business_api.exchange import Exchange, Question
from business_api.passages import Query
from tests.fakes import FakeLlm, FixedShelf, LetterEmbedder, Notebook, eventually, passage, serving

MESSAGES: Any = [{"role": "user", "content": "which port"}]
TOOL: Any = {"type": "function", "function": {"name": "look_up", "parameters": {"type": "object"}}}


def client(url: str) -> openai.AsyncOpenAI:
    return openai.AsyncOpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0)


async def read(url: str, **fields: Any) -> tuple[list[Any], bool]:
    """Frames of a streamed answer (None for one that does not parse), and whether [DONE] came."""
    body = {"model": "fake", "messages": MESSAGES, "stream": True} | fields
    async with (
        aiohttp.ClientSession() as session,
        session.post(f"{url}/v1/chat/completions", json=body) as got,
    ):
        events = [event.removeprefix("data: ") for event in (await got.text()).split("\n\n") if event]
    return [_decoded(event) for event in events if event != "[DONE]"], "[DONE]" in events


def _decoded(event: str) -> Any:
    try:
        return msgspec.json.decode(event)
    except msgspec.DecodeError:
        return None


async def test_the_real_client_reads_a_whole_answer_with_usage() -> None:
    with serving(FakeLlm("The port is 8001.")) as url:
        async with client(url) as llm:
            answer = await llm.chat.completions.create(model="fake", messages=MESSAGES, logprobs=True)
    assert answer.choices[0].message.content == "The port is 8001."
    assert answer.choices[0].finish_reason == "stop"
    assert answer.usage is not None
    assert answer.usage.total_tokens == 6
    logprobs = answer.choices[0].logprobs
    assert logprobs is not None
    assert len(logprobs.content or []) == 4


async def test_the_real_client_reads_a_stream_with_usage_last() -> None:
    with serving(FakeLlm(pieces=["The ", "port", " 8001"])) as url:
        async with client(url) as llm:
            stream = await llm.chat.completions.create(
                model="fake", messages=MESSAGES, stream=True, stream_options={"include_usage": True}
            )
            chunks = [chunk async for chunk in stream]
    said = [chunk.choices[0].delta.content for chunk in chunks if chunk.choices]
    assert said == ["", "The ", "port", " 8001", None]
    assert chunks[-1].choices == []
    assert chunks[-1].usage is not None


async def test_an_answer_longer_than_max_tokens_ends_with_length() -> None:
    with serving(FakeLlm("one two three")) as url:
        frames, done = await read(url, max_tokens=2)
    assert frames[-1]["choices"][0]["finish_reason"] == "length"
    assert done


async def test_a_request_with_tools_is_answered_by_a_call_of_the_first() -> None:
    with serving(FakeLlm()) as url:
        async with client(url) as llm:
            answer = await llm.chat.completions.create(model="fake", messages=MESSAGES, tools=[TOOL])
    assert answer.choices[0].finish_reason == "tool_calls"
    call: Any = (answer.choices[0].message.tool_calls or [])[0]
    assert (call.function.name, call.function.arguments) == ("look_up", '{"text":"which port"}')


async def test_a_json_format_is_answered_in_json() -> None:
    with serving(FakeLlm("plain words")) as url:
        frames, _ = await read(url, response_format={"type": "json_object"})
    said = "".join(frame["choices"][0]["delta"].get("content") or "" for frame in frames)
    assert msgspec.json.decode(said) == {"answer": "plain words"}


async def test_the_answer_may_depend_on_the_prompt_and_the_request_is_remembered() -> None:
    fake = FakeLlm(answer_for=lambda body: str(body["messages"][-1]["content"]).upper())
    with serving(fake) as url:
        async with client(url) as llm:
            answer = await llm.chat.completions.create(
                model="fake", messages=MESSAGES, extra_headers={"X-Request-Id": "r1"}
            )
    assert answer.choices[0].message.content == "WHICH PORT"
    assert fake.requests[0].body["messages"] == MESSAGES
    assert fake.requests[0].headers["x-request-id"] == "r1"
    assert (fake.running, fake.finished, fake.aborted) == (0, 1, 0)


async def test_a_model_that_is_not_served_is_a_404_in_the_envelope() -> None:
    with serving(FakeLlm()) as url:
        async with client(url) as llm:
            with pytest.raises(openai.NotFoundError, match="does not exist"):
                await llm.chat.completions.create(model="other", messages=MESSAGES)


async def test_a_failure_told_for_one_request_spares_the_next() -> None:
    fake = FakeLlm()
    fake.fail_with(503, "queue full", headers={"Retry-After": "2"}, times=1)
    with serving(fake) as url:
        async with client(url) as llm:
            with pytest.raises(openai.InternalServerError, match="queue full") as caught:
                await llm.chat.completions.create(model="fake", messages=MESSAGES)
            await llm.chat.completions.create(model="fake", messages=MESSAGES)
    assert caught.value.response.headers["retry-after"] == "2"


@pytest.mark.parametrize("stream", [True, False])
async def test_a_dying_server_leaves_a_body_without_its_end(stream: bool) -> None:
    fake = FakeLlm()
    fake.die_after(2)
    with serving(fake) as url:
        with pytest.raises(aiohttp.ClientPayloadError):
            await read(url, stream=stream)
        await eventually(lambda: fake.running == 0)


async def test_an_abort_ends_with_done_all_the_same() -> None:
    fake = FakeLlm()
    fake.end_with("abort")
    with serving(fake) as url:
        frames, done = await read(url)
    assert frames[-1]["choices"][0]["finish_reason"] == "abort"
    assert done


async def test_done_can_come_without_a_finish_reason() -> None:
    fake = FakeLlm()
    fake.done_without_finish()
    with serving(fake) as url:
        frames, done = await read(url)
    assert not any(frame["choices"][0]["finish_reason"] for frame in frames)
    assert done


async def test_an_error_frame_comes_under_status_200_and_before_done() -> None:
    fake = FakeLlm()
    fake.error_frame_after(1)
    with serving(fake) as url:
        frames, done = await read(url)
    assert frames[-1]["error"]["code"] == 500
    assert len(frames) == 3
    assert done


async def test_a_malformed_frame_does_not_parse() -> None:
    fake = FakeLlm()
    fake.malformed_frame_after(1)
    with serving(fake) as url:
        frames, _ = await read(url)
    assert frames.count(None) == 1


@pytest.mark.parametrize("deltas", [0, 2])
async def test_a_hanging_answer_is_counted_until_the_caller_hangs_up(deltas: int) -> None:
    fake = FakeLlm()
    fake.hang_after(deltas) if deltas else fake.hang_before_first()
    body = {"model": "fake", "messages": MESSAGES, "stream": True}
    with serving(fake) as url:
        async with aiohttp.ClientSession() as session:
            got = await session.post(f"{url}/v1/chat/completions", json=body)
            await eventually(lambda: fake.running == 1)
            async with session.get(f"{url}/metrics") as metrics:
                assert 'vllm:num_requests_running{engine="0",model_name="fake"} 1.0' in await metrics.text()
            got.close()
            await eventually(lambda: fake.running == 0)
    assert (fake.finished, fake.aborted) == (0, 1)


async def test_a_port_can_be_served_again_at_once() -> None:
    with serving(FakeLlm()) as url:
        pass
    with serving(FakeLlm(), port=int(url.rsplit(":", 1)[1])) as again:
        assert again == url
        async with aiohttp.ClientSession() as session, session.get(f"{url}/health") as got:
            assert got.status == 200


def test_an_app_that_does_not_start_is_told_at_once() -> None:
    async def broken(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "lifespan.startup.failed", "message": "no"})

    with pytest.raises(RuntimeError, match="did not start"), serving(broken):
        pass


async def test_a_shelf_gives_what_the_assistant_wants_and_fails_on_demand() -> None:
    shelf = FixedShelf((passage("one"), passage("two")))
    found = await shelf.retrieve(Query(("q",)), "t", Assistant(name="a", passages=1))
    assert [p.chunk.text for p in found.passages] == ["one"]
    shelf.error = RetrievalUnavailable("down")
    with pytest.raises(RetrievalUnavailable):
        await shelf.retrieve(Query(("q",)), "t", Assistant(name="a"))
    assert shelf.asked == [("q", "t", "a")] * 2


async def test_letters_are_embedded_as_unit_vectors_that_order_likeness() -> None:
    vectors = await LetterEmbedder().embed(["port 8001", "ports 8001!", "zzz", ""])
    assert vectors.shape == (4, 32)
    assert np.allclose(np.linalg.norm(vectors, axis=1), 1.0)
    assert vectors[0] @ vectors[1] > vectors[0] @ vectors[2]
    assert (await LetterEmbedder().embed([])).shape == (0, 32)


def test_a_notebook_remembers() -> None:
    notebook = Notebook()
    exchange = Exchange(question=Question(id="1", tenant="t", assistant="a", messages=()))
    notebook.record(exchange)
    assert notebook.exchanges == [exchange]
