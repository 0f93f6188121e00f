"""The server's side of an HTTP connection, on asyncio's transport: parses, queues, resets, goes stale."""

import asyncio
import os
import socket
import struct
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import cast

import httptools


@dataclass
class Heard:
    """A request as it came in; header names in lower case."""

    method: str = ""
    path: str = ""
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""
    keep_alive: bool = True


class Connection(asyncio.Protocol):
    """A keep-alive connection that hands on one request at a time; the next waits until `done`.

    `answer(connection, heard)` is called for each request. `on_gone` is called once when the caller leaves in
    the middle of an answer.
    """

    def __init__(self, peers: "Peers", answer: Callable[["Connection", Heard], None]) -> None:
        self._peers = peers
        self._answer = answer
        self._unanswered: deque[Heard] = deque()
        self._current: Heard | None = None
        self._parser = httptools.HttpRequestParser(self)
        self.on_gone: Callable[[], None] | None = None
        self._stale = False

    @property
    def idle(self) -> bool:
        """Whether no request is being answered."""
        return self._current is None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport; its `write` is ours."""
        self._transport = cast(asyncio.Transport, transport)
        self.write = self._transport.write
        self._peers.opened(self)

    def data_received(self, data: bytes) -> None:
        """Parse; what is no HTTP ends the connection."""
        if self._stale:
            self._transport.abort()
            return
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError:
            self._transport.abort()

    def on_message_begin(self) -> None:
        """A request begins."""
        self._heard = Heard()

    def on_url(self, url: bytes) -> None:
        """Its path; the query is of no use here."""
        self._heard.path += url.decode("latin-1").partition("?")[0]

    def on_header(self, name: bytes, value: bytes) -> None:
        """A header."""
        self._heard.headers[name.decode("latin-1").lower()] = value.decode("latin-1")

    def on_body(self, body: bytes) -> None:
        """A piece of its body."""
        self._heard.body += body

    def on_message_complete(self) -> None:
        """Answer, or keep it until those before it are answered."""
        self._heard.method = self._parser.get_method().decode()
        self._heard.keep_alive = self._parser.should_keep_alive()
        self._unanswered.append(self._heard)
        if self.idle:
            self._next()

    def _next(self) -> None:
        self._current = self._unanswered.popleft()
        self._peers.busy(self)
        self._answer(self, self._current)

    def send(self, whole: bytes) -> None:
        """A whole response."""
        self.write(whole)
        self.done()

    def done(self) -> None:
        """The answer is complete."""
        self.on_gone = None
        keep = self._current is not None and self._current.keep_alive
        self._current = None
        if not keep:
            self._transport.close()
        elif self._unanswered:
            self._next()
        else:
            self._peers.idles(self)

    def close(self) -> None:
        """Send what is written, then FIN."""
        self._transport.close()

    def abort(self) -> None:
        """Throw away what is not sent yet, and close."""
        self._transport.abort()

    def reset(self) -> None:
        """Send RST instead of FIN."""
        with socket.socket(fileno=os.dup(self._transport.get_extra_info("socket").fileno())) as same:
            same.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._transport.abort()

    def go_stale(self, *, half_close: bool) -> None:
        """The next request on it gets no answer but the end of the connection; FIN is sent now or then."""
        self._stale = True
        if half_close:
            self._transport.write_eof()

    def eof_received(self) -> bool:
        """A caller that will not ask again hangs up."""
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        """Tell whoever is answering."""
        self._peers.closed(self)
        self._unanswered.clear()
        if self.on_gone is not None:
            gone, self.on_gone = self.on_gone, None
            gone()


class Peers:
    """All open connections; those that are idle, the longest first."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self.open: set[Connection] = set()
        self._idle_since: dict[Connection, float] = {}
        self._none = asyncio.Event()

    def opened(self, connection: Connection) -> None:
        """A caller has connected."""
        self.open.add(connection)
        self._none.clear()
        self.idles(connection)

    def closed(self, connection: Connection) -> None:
        """The connection is no more."""
        self.open.discard(connection)
        self._idle_since.pop(connection, None)
        if not self.open:
            self._none.set()

    async def all_closed(self) -> None:
        """Wait until none is open."""
        if self.open:
            await self._none.wait()

    def spare(self, connection: Connection) -> None:
        """Leave it alone, whatever is done to all."""
        self.open.discard(connection)

    def busy(self, connection: Connection) -> None:
        """It is answering."""
        self._idle_since.pop(connection, None)

    def idles(self, connection: Connection) -> None:
        """It has nothing to answer."""
        self._idle_since[connection] = self._clock()

    def idle(self) -> list[Connection]:
        """The idle ones."""
        return list(self._idle_since)

    def close_idle(self, seconds: float) -> None:
        """Close those that are idle for longer than this, as vLLM does after 5 s."""
        latest = self._clock() - seconds
        for connection, since in list(self._idle_since.items()):
            if since > latest:
                return
            connection.close()
