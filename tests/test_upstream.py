"""The LLM server over a network: away, back again, closing connections, serving another model."""

import asyncio
from contextlib import suppress

import pytest

from business_api.errors import UpstreamUnavailable
from business_api.exchange import Message, Prompt
from business_api.settings import LlmSettings
from business_api.transport import Network
from business_api.upstream import Upstream
from tests.fakes import FakeLlm, serving
from tests.reading import text_of

PROMPT = Prompt(messages=(Message(role="user", content="Where?"),), max_tokens=20)


async def said(upstream: Upstream) -> str:
    running = await upstream.generate(PROMPT, {}, "id-1")
    try:
        return await text_of(running)
    finally:
        await running.aclose()


async def test_a_server_that_is_not_there_is_unavailable_and_asked_again_when_it_is_back() -> None:
    with serving(FakeLlm()) as url:
        pass
    settings = LlmSettings(url=f"{url}/v1")
    transport = Network.open(settings.url, settings.connect_deadline)
    upstream = Upstream(transport, settings)
    with pytest.raises(UpstreamUnavailable):
        await said(upstream)
    assert await upstream.problem() == "the LLM server cannot be reached"
    with serving(FakeLlm("Back."), port=int(url.rpartition(":")[2])):
        assert await said(upstream) == "Back."
        assert await upstream.problem() is None
        await transport.aclose()


async def test_a_connection_that_the_server_closed_meanwhile_is_replaced() -> None:
    """vLLM closes idle connections after 5 s: the next request on one must not fail."""
    with serving(FakeLlm("One.")) as url:
        settings = LlmSettings(url=f"{url}/v1")
        transport = Network.open(settings.url, settings.connect_deadline)
        upstream = Upstream(transport, settings)
        assert await said(upstream) == "One."
    with serving(FakeLlm("Two."), port=int(url.rpartition(":")[2])):
        assert await said(upstream) == "Two."
        await transport.aclose()


async def test_an_unknown_served_name_is_a_problem_that_is_named() -> None:
    with serving(FakeLlm()) as url:
        settings = LlmSettings(url=f"{url}/v1", model="other")
        transport = Network.open(settings.url, settings.connect_deadline)
        assert await Upstream(transport, settings).problem() == "the LLM server does not serve other"
        await transport.aclose()


ANSWERED = (
    b'data: {"choices": [{"delta": {"content": "Yes."}, "finish_reason": "stop"}], "usage": '
    b'{"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2}}\n\ndata: [DONE]\n\n'
)


async def test_a_connection_whose_answer_ends_a_little_after_done_serves_the_next_question() -> None:
    connections = 0

    async def ends_late(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal connections
        connections += 1
        with suppress(asyncio.IncompleteReadError):
            while head := await reader.readuntil(b"\r\n\r\n"):
                await reader.readexactly(int(head.lower().partition(b"content-length: ")[2].split()[0]))
                writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
                writer.write(b"%x\r\n%s\r\n" % (len(ANSWERED), ANSWERED))
                await writer.drain()
                await asyncio.sleep(0.02)
                writer.write(b"0\r\n\r\n")
        writer.close()

    server = await asyncio.start_server(ends_late, "127.0.0.1", 0)
    settings = LlmSettings(url=f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1", model="odd")
    transport = Network.open(settings.url, settings.connect_deadline)
    upstream = Upstream(transport, settings)
    for _ in range(3):
        assert await said(upstream) == "Yes."
        await asyncio.sleep(0.05)
    assert connections == 1
    await transport.aclose()
    server.close()


async def _answers_once(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Keeps the connection open after an answer, and drops it when the next question comes in."""
    await reader.readuntil(b"\r\n\r\n")
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(ANSWERED) + ANSWERED)
    await writer.drain()
    while b"POST" not in await reader.read(65536):
        if reader.at_eof():
            break
    writer.close()


async def test_questions_in_flight_on_connections_that_the_server_drops_are_asked_again_on_fresh_ones() -> (
    None
):
    server = await asyncio.start_server(_answers_once, "127.0.0.1", 0)
    settings = LlmSettings(url=f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1", model="odd")
    transport = Network.open(settings.url, settings.connect_deadline)
    upstream = Upstream(transport, settings)
    assert await asyncio.gather(*(said(upstream) for _ in range(6))) == ["Yes."] * 6
    for _ in range(3):  # six connections lie in the pool, and every one of them will be dropped
        assert await said(upstream) == "Yes."
    await transport.aclose()
    server.close()
