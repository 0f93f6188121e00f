"""The spool: records on disk before anything else may happen to them. Knows bytes, not exchanges.

A process appends frames to its own active segment with one unbuffered write each: what `append` has returned
for survives the death of the process. Full segments are closed; a reader passes all of them on, in order, and
what was passed on is deleted. Each process holds a lock on its segments; whoever starts adopts those whose
lock is free, that is, whose process is dead.
"""

import contextlib
import errno
import os
import threading
from collections import Counter
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from business_api.sink.claims import Claim, adopt, claim
from business_api.sink.frames import Reading, frame, read_frames


class Drop(StrEnum):
    """Why a record was not kept."""

    UNENCODABLE = "unencodable"
    FULL = "full"
    WRITE_ERROR = "write_error"
    DAMAGED = "damaged"
    CLOSED = "closed"


@dataclass(frozen=True)
class Counts:
    """What became of the records of this process: `made == stored + waiting + dropped`, exactly.

    `replayed` are records of dead processes that were stored, `torn` their unfinished last writes (nobody was
    told that they were recorded), `damaged` the unreadable places in their segments. `spool_bytes` is what
    all these take on disk.
    """

    made: int
    stored: int
    waiting: int
    dropped: int
    reasons: dict[Drop, int]
    replayed: int
    damaged: int
    torn: int
    spool_bytes: int


@dataclass
class _Segment:
    path: Path
    owner: Claim
    size: int = 0
    frames: int | None = 0  # None: written by a dead process
    passed: int = 0
    synced: bool = False


@dataclass(frozen=True)
class Stretch:
    """A part of a segment that was written and not yet passed on; `frames` None: of a dead process."""

    segment: _Segment
    start: int
    end: int
    frames: int | None


class Spool:
    """Segments in one folder. `append` and `counts` from any thread; one reader at a time.

    Raises OSError if the folder cannot be written. `limit_bytes` bounds what this process keeps.
    """

    def __init__(self, folder: Path, *, segment_bytes: int, limit_bytes: int) -> None:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._folder = folder
        # A drained active segment still takes its place: it must leave room for others.
        self._segment_bytes = min(segment_bytes, limit_bytes // 4)
        self._limit_bytes = limit_bytes
        self._lock = threading.Lock()
        self._own = claim(folder)
        self._adopted = adopt(folder)
        self._segments = [
            _Segment(path, dead, size=path.stat().st_size, frames=None)
            for dead in self._adopted
            for path in dead.segments()
        ]
        self._bytes = sum(one.size for one in self._segments)
        self._active: _Segment | None = None
        self._file = -1
        self._number = 0
        self._closed = False
        self._made = self._waiting = self._stored = 0
        self._replayed = self._damaged = self._torn = 0
        self._dropped: Counter[Drop] = Counter()

    def append(self, body: bytes) -> Drop | None:
        """Keep one record, or say why not. Returns when the operating system has it; does not sync."""
        framed = frame(body)
        with self._lock:
            self._made += 1
            reason = self._write(framed)
            if reason is not None:
                self._dropped[reason] += 1
            return reason

    def drop(self, reason: Drop) -> None:
        """Count a record that never became bytes."""
        with self._lock:
            self._made += 1
            self._dropped[reason] += 1

    def unread(self) -> list[Stretch]:
        """Everything that waits right now, oldest first."""
        with self._lock:
            return [
                Stretch(one, one.passed, one.size, one.frames)
                for one in self._segments
                if one.size > one.passed
            ]

    def read(self, stretch: Stretch) -> Reading:
        """The records of a stretch. Raises OSError; a segment that somebody deleted reads as empty."""
        try:
            with stretch.segment.path.open("rb") as file:
                file.seek(stretch.start)
                return read_frames(file.read(stretch.end - stretch.start))
        except FileNotFoundError:
            return Reading([], damaged=1, torn=False)

    def passed(self, stretch: Stretch, reading: Reading, stored: int) -> None:
        """Note that a stretch is in safe hands, `stored` of its records; delete what is no longer needed."""
        with self._lock:
            stretch.segment.passed = stretch.end
            if stretch.frames is None:
                self._replayed += stored
                self._damaged += reading.damaged + len(reading.bodies) - stored
                self._torn += reading.torn
            else:
                self._waiting -= stretch.frames
                self._stored += stored
                self._dropped[Drop.DAMAGED] += stretch.frames - stored
                stretch.segment.frames = (stretch.segment.frames or 0) - stretch.frames
            self._sweep()

    def sync(self) -> None:
        """Put closed segments that still wait on the disk itself. Raises OSError."""
        with self._lock:
            closed = [one for one in self._segments if one is not self._active and not one.synced]
        for one in closed:
            _sync(one.path)
            one.synced = True
        if closed:
            _sync(self._folder)

    def counts(self) -> Counts:
        """All counters at one moment."""
        with self._lock:
            return Counts(
                made=self._made,
                stored=self._stored,
                waiting=self._waiting,
                dropped=self._dropped.total(),
                reasons={reason: count for reason, count in self._dropped.items() if count},
                replayed=self._replayed,
                damaged=self._damaged,
                torn=self._torn,
                spool_bytes=self._bytes,
            )

    def close(self) -> None:
        """Append no more. What was not passed on stays on disk for the process that starts next."""
        with self._lock:
            self._closed = True
            self._close_active()
            self._sweep()
            for held in (self._own, *self._adopted):
                held.release()

    def _write(self, framed: bytes) -> Drop | None:
        if self._closed:
            return Drop.CLOSED
        if self._bytes + len(framed) > self._limit_bytes:
            return Drop.FULL
        try:
            segment = self._segment_for(len(framed))
            self._append(segment, framed)
        except OSError as exc:
            return Drop.FULL if exc.errno in (errno.ENOSPC, errno.EDQUOT) else Drop.WRITE_ERROR
        segment.size += len(framed)
        self._bytes += len(framed)
        segment.frames = (segment.frames or 0) + 1
        self._waiting += 1
        return None

    def _segment_for(self, length: int) -> _Segment:
        if self._active and self._active.size and self._active.size + length > self._segment_bytes:
            self._close_active()
        if self._active is None:
            self._number += 1
            path = self._own.segment(self._number)
            self._file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_EXCL, 0o600)
            self._active = _Segment(path, self._own)
            self._segments.append(self._active)
        return self._active

    def _append(self, segment: _Segment, framed: bytes) -> None:
        """Write all of it or nothing. A disk that fills up first takes a part, and raises the next time."""
        try:
            if os.write(self._file, framed) == len(framed):
                return
        except OSError:
            self._cut(segment)
            raise
        self._cut(segment)
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def _cut(self, segment: _Segment) -> None:
        try:
            os.ftruncate(self._file, segment.size)
        except OSError:
            self._close_active()  # half a frame is left behind its end, where nobody will read it

    def _close_active(self) -> None:
        if self._active is not None:
            self._active = None
            os.close(self._file)

    def _sweep(self) -> None:
        done = [one for one in self._segments if one is not self._active and one.passed == one.size]
        for one in done:
            with contextlib.suppress(OSError):  # it will be read once more by the next process: harmless
                one.path.unlink(missing_ok=True)
            self._bytes -= one.size
        self._segments = [one for one in self._segments if one not in done]


def _sync(path: Path) -> None:
    with contextlib.suppress(FileNotFoundError):
        file = os.open(path, os.O_RDONLY)
        try:
            os.fsync(file)
        finally:
            os.close(file)
