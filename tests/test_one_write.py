"""The head of a response leaves together with its body, and every response stays what it is."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any, cast

import pytest
import uvicorn
from uvicorn.server import ServerState

from business_api import wire
from business_api.arrivals import Take
from business_api.one_write import OneWrite
from business_api.wire import EventStream
from tests.asgi_wire import Receive, Scope, Send, read, respond, start
from tests.fakes import eventually

App = Callable[[Scope, Receive, Send], Awaitable[None]]


class Notebook(asyncio.Transport):
    """A transport that remembers each write."""

    def __init__(self) -> None:
        super().__init__()
        self.written: list[bytes] = []
        self.closed = False

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.written.append(bytes(data))

    def is_closing(self) -> bool:
        return self.closed

    def close(self) -> None:
        self.closed = True


def protocol(app: App) -> OneWrite:
    config = uvicorn.Config(cast(Any, app), interface="asgi3", lifespan="off", log_level="critical")
    config.load()
    return OneWrite(config, ServerState(), {})


async def asked(app: App, *requests: bytes) -> tuple[list[list[bytes]], Notebook]:
    """What was written for each request."""
    transport, found = Notebook(), protocol(app)
    found.connection_made(transport)
    written = []
    for request in requests:
        before = len(transport.written)
        found.data_received(request)
        await asyncio.gather(*found.server_state.tasks)
        written.append(transport.written[before:])
    found.connection_lost(None)
    return written, transport


@asynccontextmanager
async def connected(app: App) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    """A real connection to the app."""
    server = await asyncio.get_running_loop().create_server(lambda: protocol(app), "127.0.0.1", 0)
    reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname()[:2])
    async with asyncio.timeout(5):
        yield reader, writer
    writer.close()
    server.close()


def request(method: str, *headers: str, body: str = "") -> bytes:
    lines = [f"{method} / HTTP/1.1", "Host: a", f"Content-Length: {len(body)}", *headers]
    return ("\r\n".join(lines) + "\r\n\r\n" + body).encode()


async def whole(scope: Scope, receive: Receive, send: Send) -> None:
    await read(receive)
    await respond(send, 200, b"said")


async def pieces(scope: Scope, receive: Receive, send: Send) -> None:
    await start(send, 200, b"text/plain", {})
    for piece in (b"one", b"two"):
        await send({"type": "http.response.body", "body": piece, "more_body": True})
    await send({"type": "http.response.body"})


async def test_a_whole_response_is_one_write_each_time() -> None:
    (first, second), _ = await asked(whole, request("POST"), request("POST"))
    assert len(first) == len(second) == 1
    assert first[0].startswith(b"HTTP/1.1 200 OK\r\n")
    assert first[0].endswith(b"\r\n\r\nsaid")


async def test_a_stream_begins_with_its_head_and_each_later_piece_leaves_at_once() -> None:
    (written,), _ = await asked(pieces, request("GET"))
    assert [piece.rpartition(b"\r\n\r\n")[2] for piece in written[:2]] == [b"3\r\none\r\n", b"3\r\ntwo\r\n"]
    assert written[2:] == [b"0\r\n\r\n"]


async def test_a_response_to_head_leaves_though_nothing_follows() -> None:
    (written,), _ = await asked(whole, request("HEAD"))
    assert b"".join(written).endswith(b"content-length: 4\r\n\r\n")


@pytest.mark.parametrize("status", [204, 304])
async def test_a_status_without_a_body_leaves(status: int) -> None:
    async def empty(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": status, "headers": []})
        await send({"type": "http.response.body"})

    (written,), _ = await asked(empty, request("GET"))
    assert b"".join(written).startswith(b"HTTP/1.1 %d" % status)


async def test_a_response_that_breaks_behind_its_head_is_sent_as_far_as_it_came_and_closed() -> None:
    async def broken(scope: Scope, receive: Receive, send: Send) -> None:
        await start(send, 200, b"text/plain", {})
        raise RuntimeError("broken")

    (written,), transport = await asked(broken, request("GET"))
    assert b"".join(written).startswith(b"HTTP/1.1 200 OK")
    assert transport.closed


async def test_a_last_response_is_sent_before_its_connection_closes() -> None:
    (written,), transport = await asked(whole, request("POST", "Connection: close"))
    assert written[0].endswith(b"said")
    assert transport.closed


async def test_a_caller_that_waits_for_100_is_told_to_go_on() -> None:
    async with connected(whole) as (reader, writer):
        writer.write(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nExpect: 100-continue\r\n\r\n")
        assert await reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
        writer.write(b"x")
        assert (await reader.readuntil(b"said")).startswith(b"HTTP/1.1 200 OK\r\n")


async def test_requests_sent_ahead_are_answered_in_turn() -> None:
    async with connected(whole) as (reader, writer):
        writer.write(request("HEAD") + request("POST", body="x") + request("POST", "Connection: close"))
        answers = (await reader.read()).split(b"HTTP/1.1 200 OK\r\n")[1:]
    assert [answer.rpartition(b"\r\n\r\n")[2] for answer in answers] == [b"", b"said", b"said"]


async def test_a_caller_that_sent_requests_ahead_and_hangs_up_is_noticed_by_the_one_being_answered() -> None:
    told: asyncio.Queue[str] = asyncio.Queue()

    async def listening(scope: Scope, receive: Receive, send: Send) -> None:
        await read(receive)
        told.put_nowait("asked")
        told.put_nowait((await receive())["type"])
        await respond(send, 200, b"nobody reads this")
        told.put_nowait("went on")

    async with connected(listening) as (_, writer):
        writer.write(request("POST") + request("POST"))
        assert await told.get() == "asked"
        writer.close()
        assert [await told.get(), await told.get()] == ["http.disconnect", "went on"]


class Told:
    """An answer of pieces, which are handed on as fast as they are taken; remembers how many were."""

    def __init__(self, piece: bytes, pieces: int) -> None:
        self.taken, self.left = 0, False
        self._piece, self._pieces = piece, pieces

    async def tell(self, write: Take[bytes]) -> bytes:
        while self.taken < self._pieces:
            self.taken += 1
            if (rest := write(self._piece)) is not None:
                await rest()
        return b"end"

    async def __aenter__(self) -> None: ...

    async def __aexit__(self, *_: object) -> None:
        self.left = True

    async def serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        await read(receive)
        await EventStream(cast(Any, self), self.tell, {})(cast(Any, scope), receive, send)


async def test_events_leave_one_write_each_with_the_end_behind_the_last() -> None:
    (written,), _ = await asked(Told(b"piece", 3).serve, request("POST"))
    assert written[0].endswith(b"\r\n\r\n5\r\npiece\r\n")
    assert written[1:] == [b"5\r\npiece\r\n", b"5\r\npiece\r\n", b"3\r\nend\r\n0\r\n\r\n"]


async def test_a_slow_reader_is_waited_for_and_gets_all() -> None:
    told = Told(b" " * 100_000, 500)
    async with connected(told.serve) as (reader, writer):
        writer.write(request("POST", "Connection: close"))
        await asyncio.sleep(0.2)
        assert told.taken < 400
        body = await reader.read()
    assert body.count(b" " * 100_000) == 500
    assert body.endswith(b"end\r\n0\r\n\r\n")
    assert told.left


async def test_a_reader_that_reads_nothing_more_is_taken_for_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wire, "READER_SECONDS", 0.1)
    told = Told(b" " * 100_000, 500)
    async with connected(told.serve) as (_, writer):
        writer.write(request("POST"))
        await eventually(lambda: told.left)
    assert told.taken < 400


async def test_a_server_that_is_not_ours_is_sent_the_same_events() -> None:
    sent: list[Any] = []

    async def send(event: Any) -> None:
        sent.append(event)

    async def receive() -> Any:
        await asyncio.Event().wait()

    told = Told(b"piece", 2)
    await EventStream(cast(Any, told), told.tell, {})({"type": "http"}, receive, send)
    assert [event["body"] for event in sent[1:]] == [b"piece", b"piece", b"end"]
    assert [event.get("more_body", False) for event in sent[1:]] == [True, True, False]
