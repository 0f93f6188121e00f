"""Carries requests to an OpenAI base URL: over the network, or in memory to an ASGI app of this process."""

import asyncio
import importlib
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Protocol

import aiohttp

from business_api.errors import UpstreamTimeout, UpstreamUnavailable

IDLE_SECONDS = 4.0
"""Our pool drops idle connections before the server does: vLLM closes them after 5 s."""
MAX_FRAME = 4 * 1024 * 1024
HANG_UP_SECONDS = 1.0
"""Time that an app in this process gets to notice that nobody reads."""


class Reply(Protocol):
    """A response whose body has not been read. Iterating raises UpstreamUnavailable if it breaks off."""

    @property
    def status(self) -> int:
        """HTTP status."""

    @property
    def headers(self) -> Mapping[str, str]:
        """Response headers; names match in any case."""

    def __aiter__(self) -> AsyncIterator[bytes]: ...
    async def aclose(self) -> None:
        """Hang up: the server sees that nobody reads any more."""


class Transport(Protocol):
    """Where requests go. `path` is relative to the base URL, such as `/chat/completions`."""

    async def send(self, method: str, path: str, body: bytes, headers: Mapping[str, str]) -> Reply:
        """Returns once the status is there. Raises UpstreamUnavailable, UpstreamTimeout (no connection)."""

    async def aclose(self) -> None:
        """Close all connections."""


@dataclass(frozen=True)
class _NetworkReply:
    reply: aiohttp.ClientResponse
    status: int
    headers: Mapping[str, str]

    async def __aiter__(self) -> AsyncIterator[bytes]:
        try:
            async for piece in self.reply.content.iter_any():
                yield piece
        except (aiohttp.ClientError, ConnectionError) as exc:
            raise UpstreamUnavailable("the LLM server broke off") from exc

    async def aclose(self) -> None:
        self.reply.close()


@dataclass(frozen=True)
class Network:
    """Transport over sockets, with a keep-alive pool. `connect_deadline` in seconds."""

    pooled: aiohttp.ClientSession
    fresh: aiohttp.ClientSession
    url: str

    @classmethod
    def open(cls, url: str, connect_deadline: float) -> "Network":
        """A transport for the OpenAI base URL `url`; needs a running event loop."""
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=connect_deadline)
        pool = aiohttp.TCPConnector(limit=0, keepalive_timeout=IDLE_SECONDS)
        single_use = aiohttp.TCPConnector(limit=0, force_close=True)
        return cls(
            aiohttp.ClientSession(connector=pool, timeout=timeout),
            aiohttp.ClientSession(connector=single_use, timeout=timeout),
            url.rstrip("/"),
        )

    async def send(self, method: str, path: str, body: bytes, headers: Mapping[str, str]) -> Reply:
        """See Transport. A connection that the server had closed is replaced by a fresh one at once."""
        try:
            try:
                reply = await self._send(self.pooled, method, path, body, headers)
            except aiohttp.ClientConnectorError:
                raise
            except (aiohttp.ServerDisconnectedError, aiohttp.ClientOSError, ConnectionError):
                reply = await self._send(self.fresh, method, path, body, headers)
        except (aiohttp.ServerTimeoutError, TimeoutError) as exc:
            raise UpstreamTimeout("the LLM server cannot be reached in time") from exc
        except (aiohttp.ClientError, OSError) as exc:
            raise UpstreamUnavailable("the LLM server cannot be reached") from exc
        return _NetworkReply(reply, reply.status, reply.headers)

    async def _send(
        self, session: aiohttp.ClientSession, method: str, path: str, body: bytes, headers: Mapping[str, str]
    ) -> aiohttp.ClientResponse:
        return await session.request(method, self.url + path, data=body or None, headers=headers)

    async def aclose(self) -> None:
        """Close the pool."""
        await self.pooled.close()
        await self.fresh.close()


@dataclass
class _MemoryReply:
    pieces: asyncio.Queue[bytes | None]
    task: "asyncio.Task[None]"
    gone: asyncio.Event
    status: int = 0
    headers: Mapping[str, str] = field(default_factory=dict)

    async def __aiter__(self) -> AsyncIterator[bytes]:
        while (piece := await self.pieces.get()) is not None:
            if piece:
                yield piece
        if self.task.done() and not self.task.cancelled() and self.task.exception():
            raise UpstreamUnavailable("the LLM server broke off") from self.task.exception()

    async def aclose(self) -> None:
        """Tell the app that nobody reads; cut it off if it goes on."""
        self.gone.set()
        while not self.pieces.empty():
            self.pieces.get_nowait()
        await asyncio.wait((self.task,), timeout=HANG_UP_SECONDS)
        self.task.cancel()
        with suppress(asyncio.CancelledError, UpstreamUnavailable):
            await self.task


@dataclass(frozen=True)
class InProcess:
    """Transport to an ASGI app of this process: the same boundary without a network."""

    app: Any
    prefix: str = "/v1"

    @classmethod
    def open(cls, url: str) -> "InProcess":
        """`asgi://module:factory`, where factory() returns the LLM server's ASGI app."""
        module, _, factory = url.removeprefix("asgi://").partition(":")
        return cls(getattr(importlib.import_module(module), factory)())

    async def send(self, method: str, path: str, body: bytes, headers: Mapping[str, str]) -> Reply:
        """See Transport."""
        pieces: asyncio.Queue[bytes | None] = asyncio.Queue(maxsize=64)
        started: asyncio.Future[tuple[int, dict[str, str]]] = asyncio.get_running_loop().create_future()
        gone = asyncio.Event()
        scope = _scope(method, self.prefix + path, headers)
        task = asyncio.create_task(self._run(scope, body, pieces, started, gone))
        try:
            status, answered = await started
        except BaseException:
            task.cancel()
            raise
        return _MemoryReply(pieces, task, gone, status, answered)

    async def _run(
        self,
        scope: dict[str, Any],
        body: bytes,
        pieces: "asyncio.Queue[bytes | None]",
        started: "asyncio.Future[tuple[int, dict[str, str]]]",
        gone: asyncio.Event,
    ) -> None:
        unread = [{"type": "http.request", "body": body, "more_body": False}]

        async def receive() -> dict[str, Any]:
            if unread:
                return unread.pop()
            await gone.wait()
            return {"type": "http.disconnect"}

        async def send(event: dict[str, Any]) -> None:
            if event["type"] == "http.response.start":
                found = {
                    k.decode("latin-1").lower(): v.decode("latin-1") for k, v in event.get("headers", ())
                }
                if not started.done():  # the caller may have gone
                    started.set_result((event["status"], found))
            elif event["type"] == "http.response.body" and not gone.is_set():
                await pieces.put(event.get("body", b""))

        try:
            await self.app(scope, receive, send)
        except Exception as exc:  # an app of another project: whatever it raises, the server is what failed
            if not started.done():
                started.set_exception(UpstreamUnavailable("the LLM server failed"))
            raise UpstreamUnavailable("the LLM server failed") from exc
        finally:
            if not gone.is_set():
                await pieces.put(None)

    async def aclose(self) -> None:
        """Nothing is open."""


def _scope(method: str, path: str, headers: Mapping[str, str]) -> dict[str, Any]:
    return {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.4"},
        "http_version": "1.1",
        "method": method,
        "scheme": "http",
        "path": path,
        "raw_path": path.encode(),
        "root_path": "",
        "query_string": b"",
        "headers": [(k.lower().encode("latin-1"), v.encode("latin-1")) for k, v in headers.items()],
        "client": ("127.0.0.1", 0),
        "server": ("127.0.0.1", 80),
    }


def open_transport(url: str, connect_deadline: float) -> Transport:
    """Network for http(s) URLs, InProcess for `asgi://module:factory`."""
    return InProcess.open(url) if url.startswith("asgi://") else Network.open(url, connect_deadline)


async def payloads(reply: Reply) -> AsyncGenerator[bytes]:
    """The `data:` payloads of a server-sent event stream, up to `[DONE]` or its end."""
    rest = b""
    async for piece in reply:
        *lines, rest = (rest + piece).split(b"\n")
        if len(rest) > MAX_FRAME:
            raise UpstreamUnavailable("the LLM server sent a frame without end")
        for line in lines:
            if line.startswith(b"data:"):
                payload = line[5:].strip()
                if payload == b"[DONE]":
                    return
                if payload:
                    yield payload
