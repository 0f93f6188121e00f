"""uvicorn's protocol, but that the head of a response leaves with the beginning of its body, in one write.

uvloop writes at once: a head of its own is one more system call, one more packet, and wakes the caller for
nothing.
"""

import asyncio
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any, cast

from starlette.responses import Response
from starlette.types import Receive, Send
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol, RequestResponseCycle

from business_api.arrivals import Rest, Take

CLOSE = (b"connection", b"close")


class _Cycle(RequestResponseCycle):
    """A request and its response; `gone` is called if the caller hangs up before that is complete."""

    gone: Callable[[], None] | None = None

    def forget(self) -> None:
        """Call nobody."""
        self.gone = None


class OneWrite(HttpToolsProtocol):
    """The protocol of one connection."""

    _answered: _Cycle | None = None

    def on_headers_complete(self) -> None:
        """A request is here: hold the head of its response, unless it has no body, or is to say 100 first."""
        super().on_headers_complete()
        self.cycle.__class__ = _Cycle
        if self.scope["method"] != "HEAD" and not self.cycle.waiting_for_100_continue:
            self.cycle.transport = _Holding(self.cycle)

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: Any) -> None:
        self._answered = cast(_Cycle, cycle)
        super()._start_asgi_task(cycle, app)

    def connection_lost(self, exc: Exception | None) -> None:
        """The caller is gone: uvicorn tells the latest request, which need not be the one being answered."""
        super().connection_lost(exc)
        answered = self._answered
        if answered is not None and not answered.response_complete:
            answered.disconnected = True
            answered.message_event.set()
            answered.transport = self.transport  # what is held knows the request, which knows it
            if answered.gone is not None:
                answered.gone()


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


def when_gone(receive: Receive, call: Callable[[], None]) -> Callable[[], None] | None:
    """Have `call` called if the caller hangs up, which takes no task; gives what forgets it.

    None if `receive` is not plainly ours, or the caller is gone already. The body must have been read.
    """
    cycle = getattr(receive, "__self__", None)
    if not isinstance(cycle, _Cycle) or cycle.disconnected:
        return None
    cycle.gone = call
    cycle.flow.resume_reading()  # a large body has stopped it, and only who reads sees the end
    return cycle.forget


def wrote_whole(send: Send, response: Response) -> bool:
    """Write a response to a POST without a coroutine. Its headers have its length, and are ours.

    `send` searches every header for control characters, which is a twentieth of a request; here the lines are
    counted. False, and nothing written, if one is ended early, or `send` is not plainly ours or has to wait.
    """
    cycle = getattr(send, "__self__", None)
    if not isinstance(cycle, _Cycle) or cycle.flow.write_paused or cycle.response_started:
        return False
    if cycle.disconnected:
        return True
    lines = [*cycle.default_headers, *response.raw_headers]
    if CLOSE in lines:
        cycle.keep_alive = False  # the server is stopping
    elif not cycle.keep_alive:
        lines.append(CLOSE)
    head = STATUS_LINE[response.status_code] + b"".join([b"%b: %b\r\n" % line for line in lines]) + b"\r\n"
    if head.count(b"\r") != len(lines) + 2 or head.count(b"\n") != len(lines) + 2 or b"\0" in head:
        return False
    cycle.response_started = cycle.response_complete = True
    cycle.waiting_for_100_continue = False
    cycle.message_event.set()
    _write_at_once(cycle.transport, head + response.body)
    if not cycle.keep_alive:
        cycle.transport.close()
    cycle.on_response()
    return True


def _write_at_once(transport: asyncio.Transport, data: bytes) -> None:
    if isinstance(transport, _Holding):
        transport.let_go(data)
    else:
        transport.write(data)


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
