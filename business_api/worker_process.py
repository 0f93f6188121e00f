"""A worker as a forked process: how it is born, what it closes, and how it tells that it serves."""

import os
import signal
import socket
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import NoReturn

from business_api.serving import Place

Work = Callable[[socket.socket, int, Place], int]
"""Serves on a socket in a place, whose number is given, until a signal comes; the exit code."""
HUNG_SECONDS = 30.0
"""A worker that wrote no counts for so long has a loop that stands still."""


@dataclass
class Worker:
    """A forked process. `pipe` ends when it accepts no more connections, whyever: it has `left` then."""

    pid: int
    owner: str
    pipe: int
    since: float
    ready: bool = False
    left: bool = False
    asked: bool = False
    code: int | None = None
    written: int = 0
    silent: float = 0.0

    def hangs(self, written: int, seconds: float) -> bool:
        """Whether it hangs, as its counts were last `written` then and `seconds` passed since we looked."""
        self.silent = self.silent + seconds if self.ready and written == self.written else 0.0
        self.written = written
        return self.silent > HUNG_SECONDS


@dataclass
class Slot:
    """A place for a worker, and its listening socket. `earlier` workers still finish their answers."""

    number: int
    listening: socket.socket | None = None
    worker: Worker | None = None
    earlier: list[Worker] = field(default_factory=list)
    failures: int = 0
    due: float = 0.0

    def all(self) -> list[Worker]:
        """Every worker here that still runs."""
        return [*self.earlier, self.worker] if self.worker else [*self.earlier]

    def close(self) -> None:
        """Refuse connections here; those that nobody has accepted yet are reset."""
        if self.listening is not None:
            self.listening.close()
            self.listening = None


def born(slot: Slot, owner: str, folder: Path, work: Work, let_go: Callable[[Slot], None]) -> Worker:
    """Fork a worker for the slot. `let_go` closes in it what is its supervisor's. Raises OSError."""
    reading, writing = os.pipe()
    supervisor = os.getpid()
    sys.stdout.flush()
    sys.stderr.flush()
    pid = os.fork()
    if pid == 0:
        os.close(reading)
        place = Place(owner, folder, supervisor, lambda: os.write(writing, b"r"), lambda: os.close(writing))
        _live(slot, place, work, let_go)
    os.close(writing)
    return Worker(pid, owner, reading, time.monotonic())


def _live(slot: Slot, place: Place, work: Work, let_go: Callable[[Slot], None]) -> NoReturn:
    code = 1
    try:
        signal.set_wakeup_fd(-1)
        for number in (signal.SIGINT, signal.SIGHUP):  # a terminal sends them to us, too
            signal.signal(number, signal.SIG_IGN)
        for number in (signal.SIGTERM, signal.SIGCHLD):
            signal.signal(number, signal.SIG_DFL)
        let_go(slot)
        assert slot.listening is not None
        code = work(slot.listening, slot.number, place)
    except BaseException:  # noqa: BLE001 - nothing may run on in a copy of the supervisor
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
