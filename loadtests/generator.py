"""Asks one question over and over on keep-alive connections, and notes when what arrived. Its own process.

Reads a `Load` as JSON from stdin, prints a `Seen` as JSON. Light on purpose: a C parser on asyncio's
transport, nothing decoded, so that a small machine's time goes to what is measured.
"""

import asyncio
import itertools
import sys
import time
from typing import cast
from urllib.parse import urlsplit

import httptools
import msgspec

SERIAL = b"{serial}"


class Load(msgspec.Struct, frozen=True, kw_only=True):
    """What to ask: `body` is sent to `url` by `callers` at once until `seconds` are over.

    `{serial}` in the body becomes a number of eight digits, another one each time: no question is cached.
    `deltas` content frames are expected in each streamed answer; 0 expects one JSON document. The answers
    of the first `warm_seconds` are not counted. Callers start spread over `spread_seconds`.
    """

    url: str
    body: msgspec.Raw
    callers: int = 1
    seconds: float = 2.0
    warm_seconds: float = 0.0
    spread_seconds: float = 0.0
    deltas: int = 0


class Spread(msgspec.Struct, frozen=True):
    """Milliseconds at the 50th, 90th and 99th percentile."""

    p50: float = 0.0
    p90: float = 0.0
    p99: float = 0.0


class Seen(msgspec.Struct, kw_only=True):
    """What came back. `answers` counts the complete ones after the warm-up, `all_answers` with it.

    `failed` had another status than 200 or broke off, `short` lacked content frames.
    """

    seconds: float
    answers: int
    all_answers: int
    failed: int
    short: int
    frames: int
    whole_ms: Spread
    ttft_ms: Spread
    gap_ms: Spread


def spread(milliseconds: list[float]) -> Spread:
    """Percentiles by nearest rank; zeros of nothing."""
    if not milliseconds:
        return Spread()
    ordered = sorted(milliseconds)
    return Spread(*(round(ordered[int(share * (len(ordered) - 1) + 0.5)], 4) for share in (0.5, 0.9, 0.99)))


def is_content(frame: bytes) -> bool:
    """Whether an SSE frame carries a delta with text."""
    return b'"content":"' in frame and b'"content":""' not in frame


class Tally:
    """What all callers saw."""

    def __init__(self, counts_from: float) -> None:
        self.counts_from = counts_from
        self.serials = itertools.count(time.time_ns() // 1_000_000 % 50_000_000)
        self.answers = self.all_answers = self.failed = self.short = self.frames = 0
        self.whole: list[float] = []
        self.ttft: list[float] = []
        self.gaps: list[float] = []


class Caller(asyncio.Protocol):
    """One connection, one question at a time."""

    def __init__(self, load: Load, tally: Tally) -> None:
        self._load, self._tally = load, tally
        url = urlsplit(load.url)
        self._address = (url.hostname or "127.0.0.1", url.port or 80)
        head = (
            f"POST {url.path} HTTP/1.1\r\nhost: {url.netloc}\r\nuser-agent: load\r\naccept: */*\r\n"
            f"content-type: application/json\r\ncontent-length: {len(bytes(load.body))}\r\n\r\n"
        )
        self._question = head.encode() + bytes(load.body)
        self._varies = SERIAL in self._question
        self._transport: asyncio.Transport | None = None

    async def ask_until(self, end: float, wait: float) -> None:
        """Ask until the clock says `end`, first waiting a little."""
        await asyncio.sleep(wait)
        while time.perf_counter() < end:
            await self._ask()
        if self._transport:
            self._transport.close()

    async def _ask(self) -> None:
        loop = asyncio.get_running_loop()
        if self._transport is None:
            await loop.create_connection(lambda: self, *self._address)
        assert self._transport is not None
        self._done: asyncio.Future[bool] = loop.create_future()
        self._parser = httptools.HttpResponseParser(self)
        self._rest, self._frames, self._last = b"", 0, 0.0
        self._began = time.perf_counter()
        self._transport.write(self._worded())
        complete = await self._done
        self._count(complete and self._parser.get_status_code() == 200)

    def _worded(self) -> bytes:
        if not self._varies:
            return self._question
        return self._question.replace(SERIAL, b"%08d" % next(self._tally.serials))

    def _count(self, good: bool) -> None:
        tally, took = self._tally, (time.perf_counter() - self._began) * 1000
        if not good:
            tally.failed += 1
            return
        tally.all_answers += 1
        tally.short += self._frames < self._load.deltas
        tally.frames += self._frames
        if self._began >= tally.counts_from:
            tally.answers += 1
            tally.whole.append(took)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport."""
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        """Hand over to the parser."""
        self._parser.feed_data(data)

    def on_body(self, body: bytes) -> None:
        """Count the content frames, note when they came."""
        if not self._load.deltas:
            return
        *frames, self._rest = (self._rest + body).split(b"\n\n")
        found = sum(map(is_content, frames))
        if not found:
            return
        now = time.perf_counter()
        if self._began >= self._tally.counts_from:
            if self._frames:
                self._tally.gaps.append((now - self._last) * 1000)
            else:
                self._tally.ttft.append((now - self._began) * 1000)
        self._frames += found
        self._last = now

    def on_message_complete(self) -> None:
        """The answer is whole."""
        self._done.set_result(True)

    def connection_lost(self, exc: Exception | None) -> None:
        """The next question needs a new connection."""
        self._transport = None
        if hasattr(self, "_done") and not self._done.done():
            self._done.set_result(False)


async def put_on(load: Load) -> Seen:
    """Run the load."""
    began = time.perf_counter()
    tally = Tally(began + load.warm_seconds)
    waits = [load.spread_seconds * number / load.callers for number in range(load.callers)]
    callers = [Caller(load, tally) for _ in waits]
    end = began + load.seconds
    await asyncio.gather(*(caller.ask_until(end, wait) for caller, wait in zip(callers, waits, strict=True)))
    return Seen(
        seconds=time.perf_counter() - began,
        answers=tally.answers,
        all_answers=tally.all_answers,
        failed=tally.failed,
        short=tally.short,
        frames=tally.frames,
        whole_ms=spread(tally.whole),
        ttft_ms=spread(tally.ttft),
        gap_ms=spread(tally.gaps),
    )


if __name__ == "__main__":
    import uvloop

    seen = uvloop.run(put_on(msgspec.json.decode(sys.stdin.buffer.read(), type=Load)))
    sys.stdout.buffer.write(msgspec.json.encode(seen))
