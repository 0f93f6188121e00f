"""Carries requests to an OpenAI base URL: over the network, or in memory to an ASGI app of this process."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from typing import Protocol
from urllib.parse import urlsplit

from business_api.arrivals import Take
from business_api.errors import UpstreamTimeout, UpstreamUnavailable
from business_api.http_client import HttpReply, Pool
from business_api.in_process import InProcess

__all__ = ["InProcess", "Network", "Reply", "Transport", "open_transport"]
MAX_FRAME = 4 * 1024 * 1024


class Reply(Protocol):
    """A response whose body has not been read. Reading raises UpstreamUnavailable if it breaks off."""

    @property
    def status(self) -> int:
        """HTTP status."""

    @property
    def headers(self) -> Mapping[str, str]:
        """Response headers; names match in any case."""

    async def read(self) -> bytes:
        """What has arrived of the body, as soon as there is something; nothing at its end."""

    async def relay(self, take: Take[bytes]) -> None:
        """Hand the body on to `take` as it arrives, until its end or `release`; raises what `take` raises."""

    def __aiter__(self) -> AsyncIterator[bytes]: ...
    def release(self) -> None:
        """The rest of the body is of no interest, but it is about to end: no need to hang up."""

    async def aclose(self) -> None:
        """Hang up: the server sees that nobody reads any more."""


async def whole(reply: Reply) -> bytes:
    """All of the body; the reply is closed, however that ends. Raises UpstreamUnavailable."""
    try:
        return b"".join([piece async for piece in reply])
    finally:
        await reply.aclose()


class Transport(Protocol):
    """Where requests go. `path` is relative to the base URL, such as `/chat/completions`."""

    async def send(self, method: str, path: str, body: bytes, headers: Mapping[str, str]) -> Reply:
        """Returns once the status is there. Raises UpstreamUnavailable, UpstreamTimeout (no connection)."""

    async def aclose(self) -> None:
        """Close all connections."""


class Network:
    """Transport over sockets, with a keep-alive pool. `connect_deadline` in seconds."""

    def __init__(self, url: str, connect_deadline: float) -> None:
        address = urlsplit(url)
        self._pool = Pool(url)
        self._path = address.path.rstrip("/")
        self._host = address.netloc.rpartition("@")[2]
        self._connect_deadline = connect_deadline

    @classmethod
    def open(cls, url: str, connect_deadline: float) -> "Network":
        """A transport for the OpenAI base URL `url`."""
        return cls(url, connect_deadline)

    async def send(self, method: str, path: str, body: bytes, headers: Mapping[str, str]) -> HttpReply:
        """See Transport. A connection that the server had closed is replaced by a fresh one at once."""
        question = self._question(method, path, body, headers)
        if (waiting := self._pool.take()) is not None:
            try:
                return await waiting.ask(question)
            except ConnectionError:
                pass
        try:
            async with asyncio.timeout(self._connect_deadline):
                fresh = await self._pool.connect()
            return await fresh.ask(question)
        except TimeoutError as exc:
            raise UpstreamTimeout("the LLM server cannot be reached in time") from exc
        except OSError as exc:
            raise UpstreamUnavailable("the LLM server cannot be reached") from exc

    def _question(self, method: str, path: str, body: bytes, headers: Mapping[str, str]) -> bytes:
        lines = [
            f"{method} {self._path}{path} HTTP/1.1",
            f"Host: {self._host}",
            "Accept-Encoding: identity",
            f"Content-Length: {len(body)}",
            *(f"{name}: {value}" for name, value in headers.items()),
        ]
        head = "\r\n".join(lines)
        if not head.count("\r") == head.count("\n") == len(lines) - 1:
            raise ValueError("a header holds a line break")
        return head.encode("latin-1") + b"\r\n\r\n" + body

    async def aclose(self) -> None:
        """Close the pool."""
        await self._pool.aclose()


def open_transport(url: str, connect_deadline: float) -> Transport:
    """Network for http(s) URLs, InProcess for `asgi://module:factory`."""
    return InProcess.open(url) if url.startswith("asgi://") else Network.open(url, connect_deadline)
