"""Records exchanges: into the spool at once, from there into the store. Watching never slows the watched."""

import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from business_api.errors import Unavailable
from business_api.exchange import Exchange
from business_api.settings import Settings
from business_api.sink.content import Content, encoded
from business_api.sink.spool import Drop, Spool
from business_api.sink.store import ExchangeStore

_log = logging.getLogger(__name__)
_QUIET_SECONDS = 60.0
_RETRY_SECONDS = 0.5


class Sink:
    """`record` is the port `Record`. A thread drains the spool into `store`.

    Once `record` has returned, the death of the process loses nothing; once drained (`drain_seconds` later),
    neither does a power cut. What cannot be kept is counted and logged, never raised.
    """

    def __init__(self, spool: Spool, store: ExchangeStore, *, content: Content, drain_seconds: float) -> None:
        self.store = store
        self._spool = spool
        self._content = content
        self._drain_seconds = drain_seconds
        self._draining = threading.Lock()
        self._woken = threading.Event()
        self._closing = threading.Event()
        self._complain = _seldom(_log.warning)
        self._thread = threading.Thread(target=self._run, name="sink-drain", daemon=True)
        self._woken.set()  # dead processes may have left something
        self._thread.start()

    @classmethod
    def open(cls, settings: Settings) -> "Sink":
        """The spool and the store in `settings.var`. Raises OSError or ValueError, naming the file."""
        knobs = settings.sink
        settings.var.mkdir(parents=True, exist_ok=True)
        store = ExchangeStore(_store_path(settings))
        try:
            spool = Spool(
                settings.var / "spool", segment_bytes=knobs.segment_bytes, limit_bytes=knobs.spool_bytes
            )
        except BaseException:
            store.close()
            raise
        return cls(spool, store, content=knobs.content, drain_seconds=knobs.drain_seconds)

    def record(self, exchange: Exchange) -> None:
        """Keep an exchange that has ended. Waits for nothing and never raises."""
        try:
            body = encoded(exchange, self._content)
        except Exception:  # noqa: BLE001 - whatever a record may hold, its request must not suffer from it
            self._spool.drop(Drop.UNENCODABLE)
            self._complain("an exchange was not recorded: %s", Drop.UNENCODABLE)
            return
        reason = self._spool.append(body)
        if reason is not None:
            self._complain("an exchange was not recorded: %s", reason)
        if not self._woken.is_set():
            self._woken.set()

    def drain_now(self, timeout: float = 10.0) -> bool:
        """Block until all that was recorded so far is in the store; False if that was not possible."""
        if not self._draining.acquire(timeout=timeout):
            return False
        try:
            return self._pass_on()
        finally:
            self._draining.release()

    def counts(self) -> dict[str, int]:
        """What became of every record: `made == stored + waiting + dropped`, exactly, at every moment.

        `replayed`, `damaged`, `torn`: records of dead processes that were stored, places in their segments
        that could not be read, and their last writes that were never finished (nor acknowledged).
        """
        names = ("made", "stored", "waiting", "dropped", "replayed", "damaged", "torn")
        counts = self._spool.counts()
        return {name: getattr(counts, name) for name in names}

    def dropped(self) -> dict[str, int]:
        """How many records were not kept, by reason."""
        reasons = self._spool.counts().reasons
        return {reason.value: reasons.get(reason, 0) for reason in Drop}

    def close(self) -> None:
        """Drain, then let go. What could not be drained is kept for the process that starts next."""
        self._closing.set()
        self._woken.set()
        self._thread.join()
        if not self.drain_now():
            self._complain("exchanges wait in the spool for the next start")
        self._spool.close()
        self.store.close()

    def _run(self) -> None:
        while not self._closing.is_set():
            self._woken.wait()
            self._closing.wait(self._drain_seconds)  # one commit for all that come meanwhile
            self._woken.clear()
            if not self._drained():
                self._closing.wait(_RETRY_SECONDS)
                self._woken.set()

    def _drained(self) -> bool:
        try:
            return self.drain_now()
        except Exception as exc:  # noqa: BLE001 - the thread has to outlive whatever it meets
            self._complain("exchanges wait in the spool: %s", type(exc).__name__)
            return False

    def _pass_on(self) -> bool:
        try:
            for stretch in self._spool.unread():
                reading = self._spool.read(stretch)
                self._spool.passed(stretch, reading, self.store.add(reading.bodies))
        except (Unavailable, OSError) as exc:
            self._complain("exchanges wait in the spool: %s", exc.__cause__ or exc)
            self._sync()
            return False
        return True

    def _sync(self) -> None:
        try:
            self._spool.sync()
        except OSError as exc:
            self._complain("the spool could not be synced: %s", exc)


@contextmanager
def open_store(settings: Settings) -> Iterator[ExchangeStore]:
    """The store of these settings, to read beside a running service or without one. Raises ValueError."""
    settings.var.mkdir(parents=True, exist_ok=True)
    store = ExchangeStore(_store_path(settings))
    try:
        yield store
    finally:
        store.close()


def _store_path(settings: Settings) -> Path:
    return settings.var / "exchanges.sqlite"


def _seldom(log: Callable[..., None]) -> Callable[..., None]:
    """The same, at most once a minute: what repeats is counted, not logged."""
    last = -_QUIET_SECONDS

    def complain(text: str, *values: object) -> None:
        nonlocal last
        if time.monotonic() - last >= _QUIET_SECONDS:
            last = time.monotonic()
            log(text, *values)

    return complain
