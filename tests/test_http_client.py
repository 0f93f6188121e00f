"""The HTTP client of the LLM boundary, against servers that say byte for byte what a test wants said."""

import asyncio
from pathlib import Path

import pytest
import uvloop

from business_api import http_client
from business_api.errors import UpstreamTimeout, UpstreamUnavailable
from business_api.transport import Network, Reply
from tests.fakes import eventually
from tests.scripted_http import Say, asking, certificate

LOOPS = {"asyncio": asyncio.new_event_loop, "uvloop": uvloop.new_event_loop}
HELLO = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello"
CHUNKED = (
    b"HTTP/1.1 200 OK\r\nX-Name: value\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nhel\r\n2\r\nlo\r\n0\r\n\r\n"
)


async def asked(network: Network) -> Reply:
    return await network.send("GET", "/models", b"", {"X-Request-Id": "id-1"})


async def body(reply: Reply) -> bytes:
    return b"".join([piece async for piece in reply])


async def test_a_response_comes_with_its_status_headers_and_body() -> None:
    async with asking(CHUNKED) as (scripted, network):
        reply = await asked(network)
        assert (reply.status, reply.headers["x-nAME"], await body(reply)) == (200, "value", b"hello")
        line, *headers = scripted.heads[0].decode().strip().split("\r\n")
    assert line == "GET /v1/models HTTP/1.1"
    assert {"X-Request-Id: id-1", "Content-Length: 0"} <= set(headers)
    assert any(header.startswith("Host: 127.0.0.1:") for header in headers)


@pytest.mark.parametrize("response", [HELLO, CHUNKED], ids=["length", "chunked"])
async def test_a_response_that_arrives_byte_by_byte_is_the_same_response(response: bytes) -> None:
    async def slowly(writer: asyncio.StreamWriter) -> None:
        for place in range(len(response)):
            writer.write(response[place : place + 1])
            await writer.drain()
            await asyncio.sleep(0)

    async with asking(slowly) as (_, network):
        assert [await body(await asked(network)) for _ in range(2)] == [b"hello"] * 2


async def test_a_response_without_length_ends_with_the_connection() -> None:
    async def closes(writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\n\r\nhel")
        await writer.drain()
        writer.write(b"lo")
        writer.close()

    async with asking(closes) as (scripted, network):
        assert [await body(await asked(network)) for _ in range(2)] == [b"hello"] * 2
        assert scripted.connections == 2


async def test_an_interim_response_is_not_the_answer() -> None:
    async with asking(b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n" + HELLO) as (_, network):
        reply = await asked(network)
        assert (reply.status, "link" in reply.headers, await body(reply)) == (200, False, b"hello")


async def test_one_connection_serves_request_after_request_until_the_server_says_close() -> None:
    last = HELLO.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n")
    async with asking(HELLO, HELLO, last, HELLO) as (scripted, network):
        for connections in (1, 1, 1, 2):
            assert await body(await asked(network)) == b"hello"
            assert scripted.connections == connections


async def test_requests_at_once_have_a_connection_each() -> None:
    async with asking(HELLO) as (scripted, network):
        replies = await asyncio.gather(*(asked(network) for _ in range(5)))
        assert [await body(reply) for reply in replies] == [b"hello"] * 5
        assert scripted.connections == 5


async def test_a_connection_that_waits_too_long_for_a_request_is_dropped(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(http_client, "IDLE_SECONDS", 0.05)
    async with asking(HELLO) as (scripted, network):
        await body(await asked(network))
        assert scripted.open == 1
        await eventually(lambda: scripted.open == 0)
        assert await body(await asked(network)) == b"hello"


async def cut(writer: asyncio.StreamWriter) -> None:
    writer.write(HELLO[:-3])
    await writer.drain()
    writer.close()


async def reset(writer: asyncio.StreamWriter) -> None:
    writer.write(CHUNKED[:-12])
    await writer.drain()
    await asyncio.sleep(0.05)
    writer.transport.abort()


async def collect(reply: Reply, pieces: list[bytes]) -> None:
    while piece := await reply.read():
        pieces.append(piece)


@pytest.mark.parametrize("breaks", [cut, reset])
async def test_a_break_is_told_behind_what_had_arrived(breaks: Say) -> None:
    async with asking(breaks) as (_, network):
        reply = await asked(network)
        pieces: list[bytes] = []
        with pytest.raises(UpstreamUnavailable, match="broke off"):
            await collect(reply, pieces)
    assert pieces
    assert b"hello".startswith(b"".join(pieces))


ODD = {
    "no HTTP": b"SSH-2.0-OpenSSH\r\n\r\n",
    "chunks that are none": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
    "head without end": b"HTTP/1.1 200 OK\r\nX-Long: " + b"x" * 200_000,
    "another protocol": b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: Upgrade\r\n\r\n",
}


@pytest.mark.parametrize("said", ODD.values(), ids=ODD.keys())
async def test_what_is_no_response_is_unavailable_and_the_connection_is_given_up(said: bytes) -> None:
    async with asking(said) as (scripted, network):
        with pytest.raises(UpstreamUnavailable):
            await body(await asked(network))
        await eventually(lambda: scripted.open == 0)


async def test_a_second_response_to_one_request_is_nobodys_answer() -> None:
    async with asking(HELLO + CHUNKED.replace(b"hel", b"bad"), HELLO) as (_, network):
        assert [await body(await asked(network)) for _ in range(3)] == [b"hello"] * 3


async def test_a_slow_reader_slows_the_server_instead_of_filling_memory() -> None:
    written = 0
    total = 64 * 1024 * 1024

    async def floods(writer: asyncio.StreamWriter) -> None:
        nonlocal written
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % total)
        while written < total:
            writer.write(b"x" * 65536)
            await writer.drain()
            written += 65536

    async with asking(floods) as (_, network):
        reply = await asked(network)
        stood = -1
        while stood != written:  # until the server makes no progress any more
            stood = written
            await asyncio.sleep(0.2)
        assert written < total // 2
        size = 0
        async for piece in reply:
            size += len(piece)
        assert size == total


async def test_hanging_up_in_the_middle_closes_the_connection() -> None:
    async def forever(writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        while True:
            writer.write(b"1\r\nx\r\n")
            await writer.drain()
            await asyncio.sleep(0.01)

    async with asking(forever) as (scripted, network):
        reply = await asked(network)
        assert await reply.read()
        await reply.aclose()
        await eventually(lambda: scripted.open == 0)


async def test_a_caller_that_gives_up_waiting_closes_the_connection() -> None:
    async def never(writer: asyncio.StreamWriter) -> None:
        await asyncio.Event().wait()

    async with asking(never) as (scripted, network):
        task = asyncio.create_task(asked(network))
        await eventually(lambda: len(scripted.heads) == 1)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        connections = network._pool._open
        await eventually(lambda: not connections)


async def test_nobody_there_is_unavailable_and_nobody_answering_is_a_timeout() -> None:
    with pytest.raises(UpstreamUnavailable):
        await asked(Network.open("http://127.0.0.1:9/v1", 2.0))
    with pytest.raises(UpstreamUnavailable):
        await asked(Network.open(f"http://{'x' * 70}.invalid/v1", 2.0))
    with pytest.raises(UpstreamTimeout):
        await asked(Network.open("http://127.0.0.1:9/v1", 0.0))


async def test_a_header_cannot_smuggle_in_another() -> None:
    async with asking(HELLO) as (_, network):
        with pytest.raises(ValueError, match="line break"):
            await network.send("GET", "/models", b"", {"X-Request-Id": "a\r\nX-Admin: yes"})


async def test_https_is_spoken_to_a_server_that_is_trusted_and_to_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trusted, context = certificate(tmp_path)
    async with asking(HELLO, tls=context) as (_, stranger):
        with pytest.raises(UpstreamUnavailable):
            await asked(stranger)
    monkeypatch.setenv("SSL_CERT_FILE", str(trusted))
    async with asking(HELLO, tls=context) as (scripted, network):
        assert [await body(await asked(network)) for _ in range(2)] == [b"hello"] * 2
        assert scripted.connections == 1
