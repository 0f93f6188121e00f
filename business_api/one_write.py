"""uvicorn's protocol, but that the head of a response leaves with the beginning of its body, in one write.

uvloop writes at once: a head of its own is one more system call, one more packet, and wakes the caller for
nothing.
"""

import asyncio
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

from starlette.types import Send
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from business_api.arrivals import Rest, Take


class OneWrite(HttpToolsProtocol):
    """The protocol of one connection."""

    _answered: RequestResponseCycle | None = None

    def on_headers_complete(self) -> None:
        """A request is here: hold the head of its response, unless it has no body, or is to say 100 first."""
        super().on_headers_complete()
        if self.scope["method"] != "HEAD" and not self.cycle.waiting_for_100_continue:
            self.cycle.transport = _Holding(self.cycle)

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: Any) -> None:
        self._answered = cycle
        super()._start_asgi_task(cycle, app)

    def connection_lost(self, exc: Exception | None) -> None:
        """The caller is gone: uvicorn tells the latest request, which need not be the one being answered."""
        super().connection_lost(exc)
        if self._answered is not None and not self._answered.response_complete:
            self._answered.disconnected = True
            self._answered.message_event.set()


class _Holding(asyncio.Transport):
    """Stands in for the transport of a response until there is something behind its head."""

    def __init__(self, cycle: RequestResponseCycle) -> None:
        super().__init__()
        self._cycle, self._transport = cycle, cycle.transport
        self._head = b""

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Keep the first piece, send it with the second."""
        if self._head:
            self.let_go(bytes(data))
        else:
            self._head = bytes(data)

    def let_go(self, behind: bytes = b"") -> None:
        """Send what is held, and stand in no more."""
        self._cycle.transport = self._transport
        self._transport.write(self._head + behind)

    def is_closing(self) -> bool:
        """Of the connection."""
        return self._transport.is_closing()

    def close(self) -> None:
        """Send what is held first."""
        self.let_go()
        self._transport.close()


def writes_at_once(send: Send, patiently: Callable[[Rest], Awaitable[None]]) -> Take[bytes] | None:
    """How to write a piece of a chunked body without a coroutine; None if `send` is not plainly uvicorn's.

    For responses that have been started. What lies unread is waited for by `patiently`.
    """
    cycle = getattr(send, "__self__", None)
    if not isinstance(cycle, RequestResponseCycle) or not cycle.chunked_encoding:
        return None
    flow = cycle.flow

    def write(body: bytes) -> Rest | None:
        if not cycle.disconnected:
            cycle.transport.write(b"%x\r\n%b\r\n" % (len(body), body))
            if flow.write_paused:
                return partial(patiently, flow.drain)
        return None

    return write
