"""One `/metrics` for several workers: each tells its samples on a socket, and whoever is asked sums them.

What a worker has counted also lies in a file, written every second and before its samples are shown to
anybody: no scrape sees a counter go back, even when a worker is killed. The supervisor adds up the files of
those that have ended.
"""

import asyncio
import os
from collections.abc import AsyncIterator, Iterable, Iterator, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import msgspec
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.metrics_core import Metric

SIBLING_SECONDS = 0.5
"""A worker that does not tell its samples in this time is counted by its file."""
_ENDED = "ended"
_SUFFIX = ".samples"


class Sample(msgspec.Struct, frozen=True, array_like=True):
    """One line of the text format."""

    name: str
    labels: tuple[tuple[str, str], ...]
    value: float


class Family(msgspec.Struct, frozen=True, array_like=True):
    """The samples of one metric; `kind` is Prometheus's word for its type."""

    name: str
    about: str
    kind: str
    samples: tuple[Sample, ...]


class Kept(msgspec.Struct, frozen=True, array_like=True):
    """What a file holds. `owners`: the ended workers whose counts are in it."""

    families: tuple[Family, ...] = ()
    owners: tuple[str, ...] = ()


def families_of(registry: CollectorRegistry) -> tuple[Family, ...]:
    """All that this registry says now."""
    return tuple(
        Family(
            found.name,
            found.documentation,
            found.type,
            tuple(
                Sample(one.name, tuple(sorted(one.labels.items())), float(one.value)) for one in found.samples
            ),
        )
        for found in registry.collect()
    )


def summed(parts: Iterable[Sequence[Family]]) -> tuple[Family, ...]:
    """The families of all parts, with samples of the same name and labels added up."""
    firsts: dict[str, Family] = {}
    values: dict[str, dict[tuple[str, tuple[tuple[str, str], ...]], float]] = {}
    for family in (family for part in parts for family in part):
        firsts.setdefault(family.name, family)
        of_family = values.setdefault(family.name, {})
        for one in family.samples:
            before = of_family.get((one.name, one.labels))
            of_family[one.name, one.labels] = one.value if before is None else _both(one, before)
    return tuple(
        msgspec.structs.replace(
            first,
            samples=tuple(Sample(*key, value) for key, value in values[name].items()),
        )
        for name, first in firsts.items()
    )


def _both(one: Sample, before: float) -> float:
    return min(one.value, before) if one.name.endswith("_created") else one.value + before


def lasting(families: Sequence[Family]) -> tuple[Family, ...]:
    """What stays true of a worker that has ended: counts, but no gauges.

    What waited in its spool is not among them: another one stores that, and counts it as `replayed`.
    """
    return tuple(
        msgspec.structs.replace(
            family, samples=tuple(one for one in family.samples if ("state", "waiting") not in one.labels)
        )
        for family in families
        if family.kind in ("counter", "histogram", "summary")
    )


def exposition(families: Sequence[Family]) -> bytes:
    """Prometheus text format."""
    return generate_latest(_Said(families))


class _Said(CollectorRegistry):
    """A registry that says what it was given."""

    def __init__(self, families: Sequence[Family]) -> None:
        super().__init__()
        self._families = families

    def collect(self) -> Iterator[Metric]:
        for family in self._families:
            metric = Metric(family.name, family.about, family.kind)
            for one in family.samples:
                metric.add_sample(one.name, dict(one.labels), one.value)
            yield metric


@dataclass(frozen=True)
class Tally:
    """The counts of one worker among those of its siblings, whose files are in the same folder."""

    folder: Path
    registry: CollectorRegistry
    owner: str

    @asynccontextmanager
    async def told(self) -> AsyncIterator[None]:
        """Siblings may ask inside."""
        self.keep()
        server = await asyncio.start_unix_server(self._tell, self.folder / self.owner)
        try:
            yield
        finally:
            server.close()
            (self.folder / self.owner).unlink(missing_ok=True)

    def keep(self) -> bytes:
        """Write the counts down, where they outlive this process, if the disk takes them. Returns them."""
        written = msgspec.msgpack.encode(Kept(families_of(self.registry)))
        with suppress(OSError):
            _write(self.folder, self.owner, written)
        return written

    async def scrape(self) -> bytes:
        """The sums over all workers, those that have ended included, in Prometheus's text format."""
        owners = [
            path.stem for path in self.folder.glob(f"*{_SUFFIX}") if path.stem not in (_ENDED, self.owner)
        ]
        own = _kept(self.keep())
        told = dict(zip(owners, await asyncio.gather(*map(self._ask, owners)), strict=True))
        # read last: who vanished meanwhile is in it, and who is in it is not counted twice
        ended = _read(self.folder, _ENDED)
        living = [told[owner] for owner in owners if owner not in ended.owners]
        return exposition(summed([own.families, *living, ended.families]))

    async def _tell(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(self.keep())
        with suppress(ConnectionError):
            await writer.drain()
        writer.close()

    async def _ask(self, owner: str) -> tuple[Family, ...]:
        try:
            async with asyncio.timeout(SIBLING_SECONDS):
                reader, writer = await asyncio.open_unix_connection(self.folder / owner)
                try:
                    return _kept(await reader.read()).families
                finally:
                    writer.close()
        except TimeoutError:
            return _read(self.folder, owner).families
        except (OSError, msgspec.DecodeError):
            return lasting(_read(self.folder, owner).families)


def written_at(folder: Path, owner: str) -> int:
    """When a worker last wrote its counts, in ns; 0 if it did not."""
    try:
        return (folder / (owner + _SUFFIX)).stat().st_mtime_ns
    except FileNotFoundError:
        return 0


def fold(folder: Path, owner: str, more: Sequence[Family] = ()) -> None:
    """Add the counts of a worker that has ended, and `more`, to those of all that ended before it.

    Only the supervisor may call this. What cannot be written stays with the worker's own file.
    """
    ended = _read(folder, _ENDED)
    families = summed([ended.families, lasting(_read(folder, owner).families), more])
    with suppress(OSError):
        _write(folder, _ENDED, msgspec.msgpack.encode(Kept(families, (*ended.owners, owner))))
        for left in (folder / owner, folder / (owner + _SUFFIX)):
            left.unlink(missing_ok=True)


def _kept(written: bytes) -> Kept:
    return msgspec.msgpack.decode(written, type=Kept)


def _read(folder: Path, owner: str) -> Kept:
    try:
        return _kept((folder / (owner + _SUFFIX)).read_bytes())
    except FileNotFoundError:
        return Kept()


def _write(folder: Path, owner: str, written: bytes) -> None:
    fresh = folder / f"{owner}.{os.getpid()}.new"
    fresh.write_bytes(written)
    fresh.replace(folder / (owner + _SUFFIX))
