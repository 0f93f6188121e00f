"""Keeps workers running on one port: starts them, replaces those that end or are to be renewed.

Each slot has a listening socket of its own, bound with SO_REUSEPORT: the kernel spreads connections over them
evenly. The supervisor holds them all, so that connections wait for a worker's successor and are not reset.
It runs no loop and no thread: workers are forked from it, with all modules loaded and their pages shared.
"""

import gc
import math
import os
import selectors
import shutil
import signal
import socket
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from business_api.metrics_merged import Family, Sample, fold, written_at
from business_api.serving import FAREWELL_SECONDS, INSIST_SECONDS
from business_api.terminal import say
from business_api.worker_process import Slot, Work, Worker, born

STEADY_SECONDS = 10.0
"""A worker that lived this long did not die of its start."""
MOST_STARTS = 5
"""Starts that may fail in a row while no worker serves, before we give up."""
LONGEST_PAUSE = 30.0
_SPARE_SECONDS = 5.0


def pause_after(failures: int) -> float:
    """Seconds to wait before the next start, after so many workers in a row that died young."""
    return 0.0 if failures < 2 else min(LONGEST_PAUSE, 0.5 * 2.0 ** min(failures - 2, 10))


class Supervisor:
    """`count` workers on the address of `bound`, a socket that is not listening."""

    def __init__(self, bound: socket.socket, count: int, work: Work, stop_deadline: float) -> None:
        self._family, self.address = bound.family, bound.getsockname()
        bound.close()  # it made sure that nobody else has the port
        self._slots = [Slot(number) for number in range(count)]
        for slot in self._slots:
            slot.listening = self._bound()
        self._work = work
        self._patience = FAREWELL_SECONDS + stop_deadline + INSIST_SECONDS + _SPARE_SECONDS
        self._folder = Path(tempfile.mkdtemp(prefix="tandem-workers-"))
        self._selector = selectors.DefaultSelector()
        self._bell = socket.socketpair()
        self._births = self._failed = self._stops = self._rolls = 0

    def run(self, started: Callable[[], None]) -> int:
        """Serve until a signal comes; the exit code. `started` is called when the first worker serves.

        SIGTERM and SIGINT stop, a second one insists; SIGHUP replaces the workers one by one.
        """
        gc.collect()
        gc.freeze()  # collecting in a worker must not copy the pages that it shares
        fold(self._folder, "supervisor", [_deaths(0)])
        self._hear_signals()
        try:
            if code := self._first():
                return code
            started()
            while not self._stops and self._failed < MOST_STARTS:
                self._turn(restart=True)
                if self._rolls:
                    self._rolls = 0
                    self._roll()
            return self._stop()
        finally:
            shutil.rmtree(self._folder, ignore_errors=True)

    def _first(self) -> int:
        """Start one worker alone: what is wrong with the settings is said once, what is made is made once."""
        slot = self._slots[0]
        first = self._start(slot)
        while not (self._stops or first.ready or first.code is not None):
            self._turn(restart=False)
        return (first.code or 1) if first.code is not None else 0

    def _roll(self) -> None:
        """Replace the workers one by one: an old one stops when its successor serves."""
        for slot in self._slots:
            old = slot.worker
            if old is None:
                continue  # about to be started anyway
            slot.earlier.append(old)
            slot.worker = None
            self._restart(slot)
            new = slot.worker or old
            self._until(lambda new=new: new.ready or new.left)  # type: ignore[misc]
            if self._stops or new is old or new.left:
                break
            self._ask(old, signal.SIGTERM)
            self._until(lambda old=old: old.code is not None, self._patience)  # type: ignore[misc]
            if not self._stops:
                self._ask(old, signal.SIGKILL)
        else:
            return
        say("not all workers were replaced; those that run go on")

    def _stop(self) -> int:
        """Let all workers end; 0 if all went well."""
        gave_up = not self._stops
        if gave_up:
            say(f"gives up: {MOST_STARTS} workers in a row ended before they could serve")
        workers = [worker for slot in self._slots for worker in slot.all()]
        heard, until = -1, time.monotonic() + self._patience
        for slot in self._slots:
            slot.close()
        while any(worker.code is None for worker in workers):
            if self._stops > heard or time.monotonic() > until:
                number = signal.SIGTERM if heard < 0 else signal.SIGUSR1
                for worker in workers:
                    self._ask(worker, signal.SIGKILL if time.monotonic() > until else number)
                heard = self._stops
            self._turn(restart=False)
        well = all(worker.code in (0, -signal.SIGTERM) for worker in workers)
        return 0 if well and not gave_up else 1

    def _until(self, holds: Callable[[], bool], seconds: float = math.inf) -> None:
        until = time.monotonic() + seconds
        while not (holds() or self._stops) and time.monotonic() < until:
            self._turn(restart=True)

    def _turn(self, *, restart: bool) -> None:
        """Wait for something to happen, a second at most, and see to it."""
        began = time.monotonic()
        empty = [slot for slot in self._slots if slot.worker is None] if restart else []
        for slot in [slot for slot in empty if slot.due <= began]:
            self._restart(slot)
        pauses = [slot.due - began for slot in empty if slot.due > began]
        for key, _ in self._selector.select(min([1.0, *pauses])):
            key.data()
        passed = min(1.0, time.monotonic() - began)  # more than that was our own standstill
        for slot in self._slots:
            for worker in slot.all():
                self._reap(slot, worker)
            if slot.worker and slot.worker.hangs(written_at(self._folder, slot.worker.owner), passed):
                say(f"worker {slot.worker.pid} hangs and is killed")
                os.kill(slot.worker.pid, signal.SIGKILL)

    def _restart(self, slot: Slot) -> None:
        try:
            self._start(slot)
        except OSError as exc:
            say(f"no worker can be started now: {exc.strerror}")
            slot.due = time.monotonic() + LONGEST_PAUSE
            self._step_back(slot)

    def _start(self, slot: Slot) -> Worker:
        if slot.listening is None:
            slot.listening = self._bound()
        self._births += 1
        owner = f"{slot.number}-{self._births}"
        worker = slot.worker = born(slot, owner, self._folder, self._work, self._let_go)
        self._selector.register(worker.pipe, selectors.EVENT_READ, lambda: self._heard(slot, worker))
        return worker

    def _let_go(self, own: Slot) -> None:
        """In a worker: close what is ours. Connections to a socket that nobody accepts from wait for ever."""
        self._selector.close()
        for end in self._bell:
            end.close()
        for slot in self._slots:
            for worker in slot.all():
                if not worker.left:
                    os.close(worker.pipe)
            if slot is not own:
                slot.close()

    def _heard(self, slot: Slot, worker: Worker) -> None:
        """A worker serves, or its end of the pipe is closed: it accepts no more, whyever."""
        if os.read(worker.pipe, 1):
            worker.ready, self._failed = True, 0
            return
        self._selector.unregister(worker.pipe)
        os.close(worker.pipe)
        worker.left = True
        if slot.worker is worker:
            self._vacate(slot, worker)

    def _vacate(self, slot: Slot, worker: Worker) -> None:
        slot.earlier.append(worker)
        self._step_back(slot)
        serving = any(one.worker and one.worker.ready for one in self._slots)
        self._failed = self._failed + 1 if not (worker.ready or serving) else 0
        if slot.worker is not None:
            return
        now = time.monotonic()
        steady = worker.ready and now - worker.since >= STEADY_SECONDS
        slot.failures = 0 if steady else slot.failures + 1
        slot.due = now + pause_after(slot.failures)
        if slot.due > now:
            slot.close()  # connections go to the others meanwhile

    def _step_back(self, slot: Slot) -> None:
        """The slot is that of its earlier worker again, if this still accepts connections."""
        slot.worker = next((one for one in slot.earlier if not one.left), None)
        slot.earlier = [one for one in slot.earlier if one is not slot.worker]

    def _reap(self, slot: Slot, worker: Worker) -> None:
        pid, status = os.waitpid(worker.pid, os.WNOHANG)
        if not pid:
            return
        while not worker.left:
            self._heard(slot, worker)
        slot.earlier.remove(worker)
        worker.code = os.waitstatus_to_exitcode(status)
        fold(self._folder, worker.owner, [] if worker.asked else [_deaths(1)])
        if not worker.asked:
            how = f"signal {-worker.code}" if worker.code < 0 else f"exit code {worker.code}"
            say(f"worker {pid} ended with {how}")

    def _ask(self, worker: Worker, number: int) -> None:
        if worker.code is None:  # not reaped yet: the id is still its own
            worker.asked = True
            os.kill(worker.pid, number)

    def _hear_signals(self) -> None:
        for end in self._bell:
            end.setblocking(False)
        signal.set_wakeup_fd(self._bell[1].fileno())
        self._selector.register(self._bell[0], selectors.EVENT_READ, lambda: self._bell[0].recv(4096))
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._hear_stop)
        signal.signal(signal.SIGHUP, self._hear_roll)
        signal.signal(signal.SIGCHLD, lambda *_: None)  # it rings the bell

    def _hear_stop(self, *_: object) -> None:
        self._stops += 1

    def _hear_roll(self, *_: object) -> None:
        self._rolls += 1

    def _bound(self) -> socket.socket:
        listening = socket.socket(self._family)
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        listening.bind(self.address)
        return listening


def _deaths(count: int) -> Family:
    sample = Sample("tandem_worker_deaths_total", (), float(count))
    return Family("tandem_worker_deaths", "Workers that ended without being asked to", "counter", (sample,))
