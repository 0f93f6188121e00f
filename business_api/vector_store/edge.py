"""The embedded vector store: one collection in a folder of this machine, for one process at a time.

The engine works inside our process and holds the interpreter for the length of a call (0.3-3 ms a query), so
each call gets a turn of the event loop to itself, and long writes are cut into short calls.
"""

import asyncio
import fcntl
import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import IO, Any, TypeVar

import qdrant_edge as edge

from business_api.errors import RetrievalUnavailable
from business_api.vector_store.collection import (
    NewPoint,
    Row,
    StoreLocked,
    Vector,
    Where,
    check_model,
    physical_name,
)
from business_api.vector_store.edge_query import filter_of, indexes, layout, point_of, requests_of

UPSERT_BATCH = 32
PAGE = 256

T = TypeVar("T")


class EdgeCollection:
    """A Collection in the folder `root/<physical name>`; `root/<collection>.json` says which one that is."""

    def __init__(self, folder: Path, shard: edge.EdgeShard, lock: IO[str]) -> None:
        self.name = folder.name
        self._shard = shard
        self._lock = lock
        self._turn = asyncio.Lock()

    @classmethod
    def open(
        cls, root: Path, collection: str, *, model: str, dimension: int, create: bool
    ) -> "EdgeCollection | None":
        """Open the collection; None when there is none and `create` is false.

        Raises StoreLocked when another process has it, IndexMismatch when it was made by another model,
        OSError when the folder cannot be read or written.
        """
        pointer = root / f"{collection}.json"
        name = physical_name(collection, model)
        if pointer.exists():
            name = json.loads(pointer.read_text())["collection"]
            check_model(collection, _kept(root / name), model, dimension)
        elif not create:
            return None
        folder = root / name
        folder.mkdir(parents=True, exist_ok=True)
        lock = _lock(folder)
        try:
            shard = _load(folder) if _kept(folder) else _create(folder, model, dimension)
            if not pointer.exists():
                _write(pointer, {"collection": name})
        except BaseException:
            lock.close()
            raise
        return cls(folder, shard, lock)

    async def get(self, point: str) -> Mapping[str, Any] | None:
        """The payload of the point with this id."""
        found = await self._call(lambda: self._shard.retrieve([point], True, False))
        return found[0].payload if found else None

    async def nearest(
        self, vectors: Sequence[Vector], where: Where, *, corpus: Where, limit: int
    ) -> list[list[Row]]:
        """For each vector the best points, best first; equal scores in any order."""
        request = requests_of(vectors, where, corpus, limit)
        found = await self._call(lambda: self._shard.query_batch(request))
        return [[Row(point.payload or {}, point.score) for point in points] for points in found]

    async def rows(self, where: Where, fields: Sequence[str]) -> list[Row]:
        """All points that match, read page by page."""
        rows: list[Row] = []
        after, more = None, True
        while more:
            request = edge.ScrollRequest(
                offset=after,
                limit=PAGE,
                filter=filter_of(where),
                with_payload=list(fields),
                with_vector=False,
            )
            page, after = await self._call(partial(self._shard.scroll, request))
            rows.extend(Row(point.payload or {}) for point in page)
            more = after is not None
        return rows

    async def count(self, where: Where) -> int:
        """How many points match."""
        request = edge.CountRequest(exact=True, filter=filter_of(where))
        return int(await self._call(lambda: self._shard.count(request)))

    async def put(self, points: Sequence[NewPoint]) -> None:
        """Write or overwrite points, batch by batch."""
        for start in range(0, len(points), UPSERT_BATCH):
            batch = [point_of(point) for point in points[start : start + UPSERT_BATCH]]
            await self._update(edge.UpdateOperation.upsert_points(batch))

    async def change(self, where: Where, payload: Mapping[str, Any]) -> None:
        """Set these payload fields of all points that match."""
        await self._update(edge.UpdateOperation.set_payload_by_filter(filter_of(where), dict(payload)))

    async def delete(self, where: Where) -> None:
        """Delete all points that match."""
        await self._update(edge.UpdateOperation.delete_points_by_filter(filter_of(where)))

    async def sync(self) -> None:
        """Return when everything written so far is on the disk."""
        await self._call(self._shard.flush)

    async def aclose(self) -> None:
        """Write everything to the disk and let other processes have the folder."""
        if self._lock.closed:
            return
        try:
            await self._call(self._shard.flush)
            await self._call(self._shard.close)
        finally:
            self._lock.close()

    async def _update(self, operation: edge.UpdateOperation) -> None:
        await self._call(lambda: self._shard.update(operation))

    async def _call(self, work: Callable[[], T]) -> T:
        """Do it now, alone in this turn of the loop, so that many callers delay others by one call only."""
        async with self._turn:
            try:
                with _our_errors():
                    return work()
            finally:
                await asyncio.sleep(0)


@contextmanager
def _our_errors() -> Iterator[None]:
    try:
        yield
    except Exception as exc:  # the engine raises nothing more precise
        raise RetrievalUnavailable("the index of the documents cannot be used") from exc


def _lock(folder: Path) -> IO[str]:
    """An open file that keeps other processes out until it is closed, however this process ends."""
    file = (folder / "lock").open("a+")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as exc:
        file.seek(0)
        holder = file.read().strip() or "unknown"
        file.close()
        raise StoreLocked(
            f"the index in {folder} is in use by another process (id {holder}): stop it first (a running "
            "`business-api serve` or `ingest`), or let several processes share a Qdrant server with "
            "BUSINESS_API_STORE__URL"
        ) from exc
    file.truncate(0)
    file.write(f"{os.getpid()}\n")
    file.flush()
    return file


def _kept(folder: Path) -> dict[str, Any]:
    """What the index was made with; empty when its making never finished."""
    file = folder / "index.json"
    return json.loads(file.read_text()) if file.exists() else {}


def _load(folder: Path) -> edge.EdgeShard:
    try:
        return edge.EdgeShard.load(str(folder / "shard"))
    except Exception as exc:  # the engine raises nothing more precise
        raise OSError(f"the index in {folder} cannot be read: delete that folder and ingest again") from exc


def _create(folder: Path, model: str, dimension: int) -> edge.EdgeShard:
    shutil.rmtree(folder / "shard", ignore_errors=True)
    with _our_errors():
        shard = edge.EdgeShard.create(str(folder / "shard"), layout(dimension))
        for index in indexes():
            shard.update(index)
        shard.flush()
    _write(folder / "index.json", {"model": model, "dimension": dimension})
    return shard


def _write(file: Path, content: Mapping[str, Any]) -> None:
    fresh = file.with_suffix(".new")
    with fresh.open("w") as out:
        json.dump(content, out)
        out.flush()
        os.fsync(out.fileno())
    fresh.replace(file)
