"""Runs the app under uvicorn: one process, one loop, a clean stop. Knows of other workers only its place."""

import asyncio
import gc
import os
import re
import shutil
import signal
import socket
import sys
from collections.abc import Callable, Iterator
from contextlib import AsyncExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import uvicorn

from business_api.app import create_app
from business_api.errors import STOPS
from business_api.metrics_merged import Tally
from business_api.one_write import OneWrite
from business_api.settings import Settings
from business_api.wiring import wired

GARBAGE = 10_000
"""Objects made, beyond those freed, until the youngest are looked through for what is no longer used."""
FAREWELL_SECONDS = 2.0
"""Longest time that connections stay open, each told to close with its next answer, once we stop."""
INSIST_SECONDS = 5.0
"""Time that answers get to be recorded once they are cut off."""
TELLING_SECONDS = 2.0
"""The part of it in which callers are told; one that does not read is not told."""

STOPPING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
WORKER_STOPPING = (signal.SIGTERM,)


@dataclass(frozen=True)
class Place:
    """The place of a worker among several. `started` and `left` tell the supervisor, process `parent`."""

    owner: str
    folder: Path
    parent: int
    started: Callable[[], object]
    left: Callable[[], object]


async def serve_forever(settings: Settings, listening: socket.socket, place: Place | None = None) -> None:
    """Serve until a signal stops us. Raises ValueError, OSError when something cannot be opened.

    Without a place SIGINT, SIGTERM and SIGHUP stop, and a second one insists. With one SIGTERM stops and
    SIGUSR1 insists; the others are the supervisor's.
    """
    task, loop = asyncio.current_task(), asyncio.get_running_loop()
    assert task is not None
    for number in STOPPING if place is None else WORKER_STOPPING:
        loop.add_signal_handler(number, task.cancel)
    with suppress(asyncio.CancelledError):  # stopped before it served
        await _serve(settings, listening, place)


async def _serve(settings: Settings, listening: socket.socket, place: Place | None) -> None:
    async with AsyncExitStack() as opened:
        wires = await opened.enter_async_context(wired(settings))
        wires.metrics.watch("tandem_workers", "Processes that serve", lambda: 1)
        tally = Tally(place.folder, wires.metrics.registry, place.owner) if place else None
        app = create_app(wires, settings, tally.scrape if tally else None)
        if tally:
            await opened.enter_async_context(tally.told())
        else:
            announce(settings, listening.getsockname())
        gc.collect()
        gc.freeze()  # what is there now stays: it need not be looked through again and again
        gc.set_threshold(GARBAGE)
        await _Server(_config(app, settings), place, tally).serve(sockets=[listening])
    if place and tally:
        tally.keep()  # the sink is drained now
        if os.getppid() != place.parent:  # nobody else is left to do it
            shutil.rmtree(place.folder, ignore_errors=True)


def announce(settings: Settings, address: tuple[Any, ...]) -> None:
    """Say on stderr where we listen."""
    host, port = address[:2]
    keys = "API keys are required" if settings.keys_required else "no API key is needed on loopback"
    workers = f", {settings.workers} workers" if settings.workers > 1 else ""
    urls = [replica.url for replica in settings.llm.replicas] or [settings.llm.url]
    llm = re.sub("//[^/]*@", "//", " and ".join(urls))  # without credentials
    print(f"business-api: http://{host}:{port}/ ({keys}), LLM at {llm}{workers}", file=sys.stderr)


def _config(app: Any, settings: Settings) -> uvicorn.Config:
    return uvicorn.Config(
        app,
        http=OneWrite,
        ws="none",
        log_level="warning",
        access_log=False,
        server_header=False,
        proxy_headers=False,  # where a caller comes from is of no interest here
        timeout_keep_alive=75,
        timeout_graceful_shutdown=settings.stop_deadline,  # type: ignore[arg-type]
    )


class _Server(uvicorn.Server):
    """uvicorn raises a signal again when it has stopped, which would end us before the sink is closed."""

    def __init__(self, config: uvicorn.Config, place: Place | None, tally: Tally | None) -> None:
        super().__init__(config)
        self._place = place
        self._tally = tally

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Signals ask for a stop; a second one insists. A worker hears SIGTERM from more than one side."""
        loop = asyncio.get_running_loop()
        for number in WORKER_STOPPING if self._place else STOPPING:
            loop.add_signal_handler(number, self._stop)
        if self._place:
            loop.add_signal_handler(signal.SIGUSR1, self._insist)
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Accept connections, then say so."""
        await super().startup(sockets)
        if self._place and self.started:
            self._place.started()

    async def on_tick(self, counter: int) -> bool:
        """Every 0.1 s: whether to stop. A worker whose supervisor has died stops, too."""
        if self._tally and counter % 10 == 0:
            self._tally.keep()
        if self._place and os.getppid() != self._place.parent:
            self.should_exit = True
        return await super().on_tick(counter)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Accept no more, let what runs end, cut off what does not end in time; all of it is recorded."""
        await asyncio.sleep(0)  # what the kernel has accepted for us is ours
        for server in self.servers:
            server.close()
        if self._place:
            self._place.left()
        await self._part()
        await super().shutdown(sockets)
        cut = {*self.server_state.tasks}
        if self.force_exit:  # else uvicorn has told them so
            _cut_off(cut)
        cut = await _running_still(cut, TELLING_SECONDS)
        _cut_off(cut)
        await _running_still(cut, INSIST_SECONDS - TELLING_SECONDS)

    async def _part(self) -> None:
        """Let callers leave by themselves: one that was closed on could have asked at that very moment."""
        self.config.encoded_headers.append((b"connection", b"close"))
        self.server_state.default_headers = [*self.server_state.default_headers, (b"connection", b"close")]
        loop = asyncio.get_running_loop()
        until = loop.time() + FAREWELL_SECONDS
        while self.server_state.connections and not self.force_exit and loop.time() < until:  # noqa: ASYNC110
            await asyncio.sleep(0.05)

    def _stop(self) -> None:
        self.force_exit = self.should_exit and self._place is None
        self.should_exit = True

    def _insist(self) -> None:
        self.should_exit = self.force_exit = True


def _cut_off(tasks: set[asyncio.Task[None]]) -> None:
    for task in tasks:
        task.cancel(STOPS)  # a reason tells it from a caller who hangs up


async def _running_still(tasks: set[asyncio.Task[None]], seconds: float) -> set[asyncio.Task[None]]:
    return (await asyncio.wait(tasks, timeout=seconds))[1] if tasks else tasks
