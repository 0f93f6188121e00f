"""Carries ASGI requests to an HTTP server on loopback; a caller that goes away hangs up there too."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, MutableMapping
from contextlib import suppress
from typing import Any, Protocol
from urllib.parse import urlsplit

Event = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Event]]
Send = Callable[[Event], Awaitable[None]]
Headers = list[tuple[bytes, bytes]]

PIECE_BYTES = 65536
HOP_BY_HOP = (b"connection", b"transfer-encoding", b"keep-alive", b"content-length", b"host")
OWN_ANSWER = b'{"error":{"message":"the LLM server broke off","type":"server_error","code":502,"param":null}}'


class Listening(Protocol):
    """A server that can be reached at `url`, kept alive by whoever holds it."""

    url: str


class Relay:
    """An ASGI app in front of `server`, one connection a request."""

    def __init__(self, server: Listening) -> None:
        self.server = server
        parts = urlsplit(server.url)
        self._address = parts.hostname, parts.port

    async def __call__(self, scope: Event, receive: Receive, send: Send) -> None:
        """Answer one request; server start and stop are acknowledged."""
        if scope["type"] == "lifespan":
            await _lifespan(receive, send)
        elif scope["type"] == "http":
            body = await _body(receive)
            answer = asyncio.ensure_future(self._answer(scope, body, send))
            gone = asyncio.ensure_future(_gone(receive))
            try:
                await asyncio.wait((answer, gone), return_when=asyncio.FIRST_COMPLETED)
            finally:
                await _cancelled(gone)
                if not answer.done():
                    await _cancelled(answer)
            if not answer.cancelled():
                answer.result()

    async def _answer(self, scope: Event, body: bytes, send: Send) -> None:
        try:
            reader, writer = await asyncio.open_connection(*self._address)
        except OSError:
            await _refuse(send)
            return
        try:
            writer.write(_request(scope, body))
            status, headers = await _head(reader)
            chunked = dict(headers).get(b"transfer-encoding", b"").lower() == b"chunked"
            kept = [(name, value) for name, value in headers if name not in HOP_BY_HOP]
            await send({"type": "http.response.start", "status": status, "headers": kept})
            async for piece in _chunks(reader) if chunked else _rest(reader):
                await send({"type": "http.response.body", "body": piece, "more_body": True})
            await send({"type": "http.response.body", "body": b"", "more_body": False})
        finally:
            writer.close()


async def _lifespan(receive: Receive, send: Send) -> None:
    for _ in ("startup", "shutdown"):
        event = await receive()
        await send({"type": f"{event['type']}.complete"})


async def _body(receive: Receive) -> bytes:
    pieces, more = [], True
    while more:
        event = await receive()
        pieces.append(event.get("body", b""))
        more = event.get("more_body", False)
    return b"".join(pieces)


async def _gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


async def _cancelled(task: "asyncio.Future[None]") -> None:
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task


async def _refuse(send: Send) -> None:
    headers = [(b"content-type", b"application/json")]
    await send({"type": "http.response.start", "status": 502, "headers": headers})
    await send({"type": "http.response.body", "body": OWN_ANSWER, "more_body": False})


def _request(scope: Event, body: bytes) -> bytes:
    path: bytes = scope.get("raw_path") or scope["path"].encode()
    if scope.get("query_string"):
        path += b"?" + scope["query_string"]
    lines = [scope["method"].encode() + b" " + path + b" HTTP/1.1", b"Host: localhost", b"Connection: close"]
    lines += [name + b": " + value for name, value in scope["headers"] if name not in HOP_BY_HOP]
    lines += [b"Content-Length: %d" % len(body), b"", body]
    return b"\r\n".join(lines)


async def _head(reader: asyncio.StreamReader) -> tuple[int, Headers]:
    """Status and headers, names in lower case."""
    status, *lines = (await reader.readuntil(b"\r\n\r\n")).split(b"\r\n")[:-2]
    pairs = (line.partition(b":") for line in lines)
    return int(status.split(b" ")[1]), [(name.strip().lower(), value.strip()) for name, _, value in pairs]


async def _chunks(reader: asyncio.StreamReader) -> AsyncIterator[bytes]:
    """The pieces of a chunked body; raises IncompleteReadError when it ends before its last piece."""
    while size := int((await reader.readuntil(b"\r\n")).split(b";")[0], 16):
        yield (await reader.readexactly(size + 2))[:-2]


async def _rest(reader: asyncio.StreamReader) -> AsyncIterator[bytes]:
    while piece := await reader.read(PIECE_BYTES):
        yield piece
