"""A TCP proxy that delays, cuts, throttles, refuses, or forwards nothing.

    python -m loadtests.chaos --to 127.0.0.1:8001 --delay 0.05      # prints its URL

In process: `async with Chaos("127.0.0.1:8001") as proxy:`, with `proxy.url`, `proxy.change(...)` and
`proxy.cut()`. Nothing piles up in it: it reads on only when what it has read is written.
"""

import argparse
import asyncio
import os
import socket
import struct
import sys
from collections.abc import Coroutine
from dataclasses import dataclass
from typing import Any, Literal, Self
from urllib.parse import urlsplit

End = Literal["fin", "rst"]
PIECE = 16 * 1024
IN_FLIGHT = 64
"""Pieces that a delay may hold back at once, in each direction; then the sender waits."""


@dataclass(frozen=True)
class Weather:
    """What happens to connections, those that are open too.

    `delay`, in seconds, is added each way. `bytes_per_second` throttles each way. After `cut_after` bytes of
    answers a connection is cut, by `cut_by`. A `blackhole` holds back all that is sent, either way, until it
    is gone. With `refuse` the port is closed; connections that are open stay.
    """

    delay: float = 0.0
    bytes_per_second: float | None = None
    cut_after: int | None = None
    cut_by: End = "rst"
    blackhole: bool = False
    refuse: bool = False


CALM = Weather()


class Chaos:
    """The proxy in front of `target`, which is `host:port` or a URL. `connections` counts all so far."""

    def __init__(self, target: str, weather: Weather = CALM, port: int = 0) -> None:
        address = urlsplit(target if "//" in target else f"//{target}")
        self._target = (address.hostname or "127.0.0.1", address.port or 80)
        self._changed = asyncio.Event()
        self._ends: dict[asyncio.Task[Any], End] = {}
        self._server: asyncio.Server | None = None
        self.weather = weather
        self.port = port
        self.connections = 0

    @property
    def url(self) -> str:
        """Where to connect instead."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def open(self) -> int:
        """Connections that are open now."""
        return len(self._ends)

    async def __aenter__(self) -> Self:
        await self._listen()
        await self.change(self.weather)
        return self

    async def __aexit__(self, *exc: object) -> None:
        self._close_port()
        await self.cut()

    async def change(self, weather: Weather) -> None:
        """From now on, on all connections. Raises OSError when the port cannot be opened again."""
        self.weather = weather
        self._changed.set()
        self._changed = asyncio.Event()
        if weather.refuse:
            self._close_port()
        elif self._server is None:
            await self._listen()

    async def cut(self, by: End = "rst") -> None:
        """Cut all connections that are open."""
        tasks = list(self._ends)
        for task in tasks:
            self._ends[task] = by
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _listen(self) -> None:
        self._server = await asyncio.start_server(
            self._connected, "127.0.0.1", self.port, backlog=4096, limit=PIECE
        )
        self.port = self._server.sockets[0].getsockname()[1]

    def _close_port(self) -> None:
        if self._server is not None:
            self._server.close()
            self._server = None

    async def _connected(self, reader: asyncio.StreamReader, caller: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._ends[task] = "fin"
        self.connections += 1
        writers = [caller]
        try:
            answers, target = await asyncio.open_connection(*self._target, limit=PIECE)
            writers.append(target)
            await _both(self._carry(reader, target, None), self._carry(answers, caller, task))
        except (asyncio.CancelledError, OSError) as exc:
            # what one side did, the other side sees
            self._ends[task] = "rst" if isinstance(exc, OSError) else self._ends[task]
        finally:
            by = self._ends.pop(task)
            for writer in writers:
                _end(writer, by)

    async def _carry(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, counted: "asyncio.Task[Any] | None"
    ) -> None:
        """One direction, to its end. With `counted` these are the answers, and may be cut."""
        writer.transport.set_write_buffer_limits(high=PIECE)
        held: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue(IN_FLIGHT)
        await _both(_read(reader, held), self._write(held, writer, counted))

    async def _write(
        self,
        held: asyncio.Queue[tuple[float, bytes]],
        writer: asyncio.StreamWriter,
        counted: "asyncio.Task[Any] | None",
    ) -> None:
        answered, loop = 0, asyncio.get_running_loop()
        while True:
            arrived, piece = await held.get()
            await asyncio.sleep(max(0.0, arrived + self.weather.delay - loop.time()))
            while self.weather.blackhole:
                await self._changed.wait()
            if not piece:
                writer.write_eof()
                return
            cut_after = self.weather.cut_after if counted else None
            if cut_after is not None:
                piece = piece[: max(0, cut_after - answered)]
            writer.write(piece)
            await writer.drain()
            answered += len(piece)
            if counted is not None and cut_after is not None and answered >= cut_after:
                self._ends[counted] = self.weather.cut_by
                raise asyncio.CancelledError
            if self.weather.bytes_per_second:
                await asyncio.sleep(len(piece) / self.weather.bytes_per_second)


async def _read(reader: asyncio.StreamReader, held: asyncio.Queue[tuple[float, bytes]]) -> None:
    piece = b"more"
    while piece:
        piece = await reader.read(PIECE)
        await held.put((asyncio.get_running_loop().time(), piece))


async def _both(one: Coroutine[Any, Any, None], other: Coroutine[Any, Any, None]) -> None:
    """Run both to their ends. Raises what the first raises that fails, and ends the other."""
    tasks = [asyncio.ensure_future(one), asyncio.ensure_future(other)]
    try:
        await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def _end(writer: asyncio.StreamWriter, by: End) -> None:
    if writer.transport.is_closing():
        return
    if by == "fin":
        writer.close()
        return
    with socket.socket(fileno=os.dup(writer.get_extra_info("socket").fileno())) as same:
        same.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


def options(arguments: list[str]) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m loadtests.chaos", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--to", required=True, metavar="HOST:PORT")
    parser.add_argument("--port", type=int, default=0, help="where to listen; 0 takes a free port")
    parser.add_argument("--delay", type=float, default=0.0, help="seconds, each way")
    parser.add_argument("--bytes-per-second", type=float)
    parser.add_argument("--cut-after", type=int, help="bytes of answers")
    parser.add_argument("--cut-by", choices=("fin", "rst"), default="rst")
    parser.add_argument("--blackhole", action="store_true")
    return parser.parse_args(arguments)


async def serve(given: argparse.Namespace) -> None:
    """Serve until the process is ended."""
    weather = Weather(
        given.delay, given.bytes_per_second, given.cut_after, given.cut_by, blackhole=given.blackhole
    )
    async with Chaos(given.to, weather, given.port) as proxy:
        print(proxy.url, flush=True)
        await asyncio.Event().wait()


if __name__ == "__main__":
    import uvloop

    uvloop.run(serve(options(sys.argv[1:])))
