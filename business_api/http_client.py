"""A small HTTP/1.1 client: one request at a time on a connection, connections kept for the next one.

Knows requests and responses, nothing of LLMs. No redirects, no cookies, no compression, no proxies.
"""

import asyncio
import ssl
from typing import cast
from urllib.parse import urlsplit

import httptools
from starlette.datastructures import Headers

from business_api.arrivals import Arrivals, Arriving
from business_api.errors import UpstreamUnavailable

IDLE_SECONDS = 4.0
"""Our pool drops idle connections before the server does: vLLM closes them after 5 s."""
LINGER_SECONDS = 0.2
MAX_HEAD = 64 * 1024
BROKE_OFF = "the LLM server broke off"


class Connection(asyncio.Protocol):
    """A connection to one server. `idle_since` is the loop's time of its last answer."""

    def __init__(self, pool: "Pool") -> None:
        self._pool = pool
        self._loop = asyncio.get_running_loop()
        self._arrivals: Arrivals | None = None
        self._cut = False
        self.idle_since = 0.0
        self.lost: asyncio.Future[None] = self._loop.create_future()

    async def ask(self, question: bytes) -> "HttpReply":
        """Send a request, wait for the head of the response.

        Raises ConnectionError if the connection is lost before a byte of it came, UpstreamUnavailable for
        what is no response. A caller that is cancelled takes the connection down.
        """
        self._started: asyncio.Future[HttpReply] = self._loop.create_future()
        self._arrivals = Arrivals(self._transport.pause_reading, self._resume)
        self.on_body = self._arrivals.pieces.append  # called by the parser, often
        self._parser = httptools.HttpResponseParser(self)
        self._headers: list[tuple[bytes, bytes]] = []
        self._head_size = 0
        self._has_length = False
        self._transport.write(question)
        try:
            return await self._started
        except BaseException:
            self.abort()
            raise

    def abort(self) -> None:
        """Cut it off."""
        self._cut = True
        self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport."""
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        """Parse it; what nobody asked for ends the connection."""
        arrivals = self._arrivals
        if arrivals is None:
            self.abort()
            return
        if not self._started.done():
            self._head_size += len(data)
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade) as exc:
            self._fail(UpstreamUnavailable("the LLM server does not speak HTTP"), exc)
        arrivals.added(len(data))
        if self._head_size > MAX_HEAD and not self._started.done():
            self._fail(UpstreamUnavailable("the LLM server sent a head without end"))

    def connection_lost(self, exc: Exception | None) -> None:
        """The server is gone: that may be the end of an answer without a length."""
        self._pool.forget(self)
        if not self.lost.done():
            self.lost.set_result(None)
        if self._arrivals is None:
            return
        if not self._started.done() and not self._head_size:
            self._started.set_exception(ConnectionResetError("closed before the answer"))
        elif self._started.done() and not self._has_length and exc is None and not self._cut:
            self._arrivals.end()
        else:
            self._fail(UpstreamUnavailable(BROKE_OFF), exc)

    def on_message_begin(self) -> None:
        """A second response to one request is not ours: the parser stops at what is raised."""
        if self._arrivals is None:
            raise ValueError("nobody asked")

    def on_header(self, name: bytes, value: bytes) -> None:
        """One header."""
        name = name.lower()
        self._has_length |= name in (b"content-length", b"transfer-encoding")
        self._headers.append((name, value))

    def on_headers_complete(self) -> None:
        """The head is there; that of an interim response (1xx) says nothing yet."""
        status = self._parser.get_status_code()
        if status < 200:
            self._headers.clear()
        elif not self._started.done() and self._arrivals is not None:
            headers = Headers(raw=self._headers)
            self._started.set_result(HttpReply(self, self._arrivals, status, headers))

    def on_message_complete(self) -> None:
        """The response is whole; the connection serves the next request if the server lets it."""
        if not self._started.done() or self._arrivals is None:
            return
        self._arrivals.end()
        self._arrivals = None
        if self._parser.should_keep_alive():
            self._pool.put(self)
        else:
            self._transport.close()

    def _resume(self) -> None:
        if not self._transport.is_closing():
            self._transport.resume_reading()

    def _fail(self, failure: UpstreamUnavailable, cause: Exception | None = None) -> None:
        failure.__cause__ = cause
        if not self._started.done():
            self._started.set_exception(failure)
        elif self._arrivals is not None:
            self._arrivals.end(failure)
        self.abort()


class HttpReply(Arriving):
    """A response of the server (the `Reply` of transport.py)."""

    def __init__(self, connection: Connection, arrivals: Arrivals, status: int, headers: Headers) -> None:
        super().__init__(arrivals, status, headers)
        self._connection = connection
        self._released = False

    def release(self) -> None:
        """The rest is of no interest; the connection is, if the response ends within LINGER_SECONDS."""
        self._released = True
        self._arrivals.stop()
        if not self._arrivals.over:
            asyncio.get_running_loop().call_later(LINGER_SECONDS, self._hang_up)

    async def aclose(self) -> None:
        """Hang up, if the response is not whole: then the connection is of no use either."""
        if not self._released:
            self._hang_up()

    def _hang_up(self) -> None:
        if not self._arrivals.over:
            self._arrivals.end(UpstreamUnavailable("hung up"))
            self._connection.abort()


class Pool:
    """Connections to the server of `url`; those that wait for a request are dropped after IDLE_SECONDS."""

    def __init__(self, url: str) -> None:
        address = urlsplit(url)
        secure = address.scheme == "https"
        self._host, self._port = address.hostname or "", address.port or (443 if secure else 80)
        self._ssl = ssl.create_default_context() if secure else None
        self._idle: list[Connection] = []
        self._open: set[Connection] = set()
        self._sweeping: asyncio.TimerHandle | None = None

    async def connect(self) -> Connection:
        """A fresh connection. Raises OSError."""
        loop = asyncio.get_running_loop()
        try:
            _, connection = await loop.create_connection(
                lambda: Connection(self), self._host, self._port, ssl=self._ssl
            )
        except UnicodeError as exc:
            raise OSError(f"no such host: {self._host}") from exc
        self._open.add(connection)
        return connection

    def take(self) -> Connection | None:
        """The connection that was used last, if one waits."""
        return self._idle.pop() if self._idle else None

    def put(self, connection: Connection) -> None:
        """Keep a connection for the next request."""
        loop = asyncio.get_running_loop()
        connection.idle_since = loop.time()
        self._idle.append(connection)
        if self._sweeping is None:
            self._sweeping = loop.call_later(IDLE_SECONDS, self._sweep)

    def forget(self, connection: Connection) -> None:
        """This connection is lost."""
        self._open.discard(connection)
        if connection in self._idle:
            self._idle.remove(connection)

    async def aclose(self) -> None:
        """Cut all connections."""
        if self._sweeping is not None:
            self._sweeping.cancel()
        cut = list(self._open)
        for connection in cut:
            connection.abort()
        await asyncio.gather(*(connection.lost for connection in cut))

    def _sweep(self) -> None:
        """Drop those that waited too long; the one that waited longest is the first."""
        loop = asyncio.get_running_loop()
        self._sweeping = None
        while self._idle and self._idle[0].idle_since <= loop.time() - IDLE_SECONDS:
            self._idle.pop(0).abort()
        if self._idle:
            self._sweeping = loop.call_at(self._idle[0].idle_since + IDLE_SECONDS, self._sweep)
