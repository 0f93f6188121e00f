"""Asks at moments that were drawn before, however late the answers come. Its own process.

Reads an `Offered` as JSON from stdin, prints an empty line when it begins, and an `Outcome` at the end. All
times count from the moment at which a question was due, so that a caller who could not send in time waits
too. A closed loop of callers would ask less when answers are slow, and so hide an overload.
"""

import asyncio
import contextlib
import random
import resource
import sys
import time
from typing import cast
from urllib.parse import urlsplit

import httptools
import msgspec

from loadtests.answer_text import said_of
from loadtests.generator import SERIAL, is_content
from loadtests.offered import Asked, Ended, Offered, Outcome, drawn, ending_of

IDLE_SECONDS = 3.0
"""Connections that were idle for longer are not used again: servers close them after five seconds."""


class Callers:
    """All callers: asks when it is time to, on connections that are idle or on new ones."""

    def __init__(self, offered: Offered) -> None:
        self.offered = offered
        self.asked = drawn(offered)
        self.idle: list[Connection] = []
        self.open: set[Connection] = set()
        self.left = len(self.asked)
        self.over = asyncio.Event()
        self._next = 0
        self._opening: set[asyncio.Task[None]] = set()
        url = urlsplit(offered.url)
        self._address = (url.hostname or "127.0.0.1", url.port or 80)
        keys = (f"authorization: Bearer {flow.key}\r\n" if flow.key else "" for flow in offered.flows)
        body = bytes(offered.body)
        self._questions = [
            (
                f"POST {url.path} HTTP/1.1\r\nhost: {url.netloc}\r\naccept: */*\r\n{key}"
                f"content-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
            ).encode()
            + body
            for key in keys
        ]

    async def run(self) -> Outcome:
        """Ask all, wait for the answers as long as the patience lasts."""
        self.loop = asyncio.get_running_loop()
        self.began, at = time.monotonic(), time.time()
        self._tick()
        end = self.offered.seconds + self.offered.patience
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self.over.wait(), end if self.left else 0)
        for connection in list(self.open):
            connection.hang_up()
        return Outcome(at, self.asked)

    def _tick(self) -> None:
        now = time.monotonic() - self.began
        while self._next < len(self.asked) and self.asked[self._next].due <= now:
            self._ask(self.asked[self._next])
            self._next += 1
        if self._next < len(self.asked):
            self.loop.call_later(self.asked[self._next].due - now, self._tick)

    def _ask(self, asked: Asked) -> None:
        asked.lag_ms = self.since_due(asked)
        fresh = time.monotonic() - IDLE_SECONDS
        while self.idle and self.idle[0].since < fresh:
            self.idle.pop(0).hang_up()
        if self.idle:
            asked.kept = True
            self.idle.pop().ask(asked)
            return
        task = self.loop.create_task(self._ask_anew(asked))
        self._opening.add(task)
        task.add_done_callback(self._opening.discard)

    async def _ask_anew(self, asked: Asked) -> None:
        connection = Connection(self)
        try:
            await self.loop.create_connection(lambda: connection, *self._address)
        except OSError:
            self.note(asked, "broken")
            return
        connection.ask(asked)

    def worded(self, asked: Asked) -> bytes:
        """The request."""
        return self._questions[asked.flow].replace(SERIAL, b"%08d" % asked.serial)

    def since_due(self, asked: Asked) -> float:
        """Milliseconds, not by the loop's clock: uvloop's stands still for a millisecond."""
        return (time.monotonic() - self.began - asked.due) * 1000

    def note(self, asked: Asked, ended: Ended) -> None:
        """It is over."""
        asked.ended, asked.end_ms = ended, self.since_due(asked)
        self.left -= 1
        if not self.left:
            self.over.set()


class Connection(asyncio.Protocol):
    """One keep-alive connection; `since` is when it became idle."""

    def __init__(self, callers: Callers) -> None:
        self._callers = callers
        self._asked: Asked | None = None
        self._leaving: asyncio.TimerHandle | None = None
        self.since = 0.0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport."""
        self._transport = cast(asyncio.Transport, transport)
        self._callers.open.add(self)

    def ask(self, asked: Asked) -> None:
        """Send the question."""
        if self._transport.is_closing():
            self._callers.note(asked, "broken")
            return
        self._asked, self._pieces = asked, list[bytes]()
        self._parser = httptools.HttpResponseParser(self)
        self._transport.write(self._callers.worded(asked))
        if (leave := self._callers.offered.leave) is not None:
            self._leaving = self._callers.loop.call_later(random.uniform(*leave), self.hang_up)

    def data_received(self, data: bytes) -> None:
        """Hand over to the parser."""
        if self._asked is None:
            self._transport.abort()
            return
        self._parser.feed_data(data)

    def on_body(self, body: bytes) -> None:
        """Keep it; note when the first text came."""
        self._pieces.append(body)
        if self._asked is None or self._asked.ttft_ms:
            return
        if any(map(is_content, b"".join(self._pieces).split(b"\n\n"))):
            self._asked.ttft_ms = self._callers.since_due(self._asked)

    def on_message_complete(self) -> None:
        """The answer is over; the connection is idle again, or closed if the server says so."""
        asked, self._asked = self._asked, None
        assert asked is not None
        if self._leaving is not None:
            self._leaving.cancel()
        asked.status, body = self._parser.get_status_code(), b"".join(self._pieces)
        self._callers.note(asked, ending_of(asked.status, body))
        if self._callers.offered.texts:
            asked.text, asked.trail, asked.resumed = said_of(body)
        if self._parser.should_keep_alive():
            self.since = time.monotonic()
            self._callers.idle.append(self)
        else:
            self._transport.close()

    def hang_up(self) -> None:
        """Leave in the middle of whatever it is."""
        asked, self._asked = self._asked, None
        if asked is not None and not self._callers.over.is_set() and self._leaving is not None:
            self._callers.note(asked, "left")
        self._transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        """A question that was asked is not answered any more."""
        self._callers.open.discard(self)
        if self in self._callers.idle:
            self._callers.idle.remove(self)
        if self._asked is not None:
            asked, self._asked = self._asked, None
            if self._callers.offered.texts:
                asked.text, asked.trail, asked.resumed = said_of(b"".join(self._pieces))
            self._callers.note(asked, "broken")


if __name__ == "__main__":
    import uvloop

    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    offered = msgspec.json.decode(sys.stdin.buffer.read(), type=Offered)
    print(flush=True)
    # sys.stdout's own buffer may be none, and then a write may be cut short
    with open(1, "wb", closefd=False) as out:
        out.write(msgspec.json.encode(uvloop.run(Callers(offered).run())))
