"""How a tenant's documents are changed: staged and retired out of sight, then published in one step."""

import asyncio
import uuid
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager

import msgspec

from business_api.vector_store.collection import (
    TENANT,
    Above,
    AtMost,
    Collection,
    Is,
    Itself,
    NewPoint,
    OneOf,
    StoreLocked,
)
from business_api.vector_store.following import Lender, borrowed
from business_api.vector_store.points import FOREVER, chunk_point
from business_api.vector_store.protocol import Point
from business_api.vector_store.record import Record, read_record, record_id

STAGE_BATCH = 32
DOCUMENT_BATCH = 256


class Readers:
    """Who is reading now, so that a writer in the same process can wait for them."""

    def __init__(self) -> None:
        self._reading: set[asyncio.Future[None]] = set()

    @asynccontextmanager
    async def one(self) -> AsyncIterator[None]:
        """One reader, from here to the end of the block."""
        done = asyncio.get_running_loop().create_future()
        self._reading.add(done)
        try:
            yield
        finally:
            self._reading.remove(done)
            done.set_result(None)

    async def gone(self) -> None:
        """Return when all who are reading now have ended, whoever comes after them."""
        if self._reading:
            await asyncio.wait(set(self._reading))


class Writer:
    """Writes the generations of a collection; `readers` are those of this process, `grace` is for others."""

    def __init__(
        self, collection: str, lender: Lender, readers: Readers, *, grace: float, clock: Callable[[], float]
    ) -> None:
        self._collection = collection
        self._lender = lender
        self._readers = readers
        self._grace = grace
        self._clock = clock
        self._tokens: dict[str, str] = {}

    async def begin(self, tenant: str) -> int:
        """Shut out other writers and undo what a broken one left; the generation to write."""
        token = uuid.uuid4().hex
        async with borrowed(self._lender, self._collection, newest=True) as points:
            if await points.get(record_id(tenant)) is None:
                first = msgspec.to_builtins(Record(tenant, token))
                await points.put([NewPoint(record_id(tenant), first)])
            await points.change((Itself(record_id(tenant)),), {"writer": token, "settled": False})
            self._tokens[tenant] = token
            generation = (await read_record(points, tenant)).generation
            await points.delete((Is(TENANT, tenant), Above("since", generation)))
            retired = (Is(TENANT, tenant), Above("until", generation), AtMost("until", FOREVER - 1))
            await points.change(retired, {"until": FOREVER})
            await self._sweep(points, tenant)
        return generation + 1

    async def stage(self, tenant: str, generation: int, points: Sequence[Point]) -> None:
        """Store chunks that are visible from this generation on."""
        for start in range(0, len(points), STAGE_BATCH):
            batch = points[start : start + STAGE_BATCH]
            async with self._writing(tenant, generation) as collection:
                await collection.put([chunk_point(tenant, generation, point) for point in batch])

    async def retire(self, tenant: str, generation: int, documents: Sequence[str]) -> None:
        """Let the published chunks of these documents be visible up to this generation only."""
        for start in range(0, len(documents), DOCUMENT_BATCH):
            those = OneOf("document", tuple(documents[start : start + DOCUMENT_BATCH]))
            current = (AtMost("since", generation - 1), Above("until", generation))
            async with self._writing(tenant, generation) as points:
                await points.change((Is(TENANT, tenant), those, *current), {"until": generation})

    async def publish(self, tenant: str, generation: int) -> None:
        """Raise the number in the record, if nobody else has begun to write since."""
        now, ours = self._clock(), self._tokens.get(tenant, "")
        async with self._writing(tenant, generation) as points:
            await points.sync()
            before = await read_record(points, tenant)
            at_rest = now - before.published_at >= self._grace
            await self._assert_live(points, tenant)
            await points.change(
                (Itself(record_id(tenant)), Is("writer", ours)),
                {
                    "generation": generation,
                    "published_by": ours,
                    "published_at": now,
                    "safe": before.generation if at_rest else before.safe,
                },
            )
            await points.sync()
            if (await read_record(points, tenant)).published_by != ours:
                raise _replaced(tenant)
            # once more: what was swapped away meanwhile may have been copied before the change
            await self._assert_live(points, tenant)

    async def vacuum(self, tenant: str) -> None:
        """Delete what vanished long enough ago that no reader can still be at it.

        When nothing hidden is left, the record says so: searches then need not make room for it.
        """
        async with borrowed(self._lender, self._collection) as points:
            await self._sweep(points, tenant)
            generation = (await read_record(points, tenant)).generation
            retired = await points.count((Is(TENANT, tenant), AtMost("until", FOREVER - 1)))
            staged = await points.count((Is(TENANT, tenant), Above("since", generation)))
            if not retired and not staged:
                ours = (Itself(record_id(tenant)), Is("writer", self._tokens.get(tenant, "")))
                await points.change(ours, {"settled": True})

    async def _sweep(self, points: Collection, tenant: str) -> None:
        record = await read_record(points, tenant)
        at_rest = self._clock() - record.published_at >= self._grace
        unseen = record.generation if at_rest else record.safe
        await self._readers.gone()
        await points.delete((Is(TENANT, tenant), AtMost("until", unseen)))

    @asynccontextmanager
    async def _writing(self, tenant: str, generation: int) -> AsyncIterator[Collection]:
        """The collection, as long as nobody has begun to write this tenant after us."""
        async with borrowed(self._lender, self._collection) as points:
            record = await read_record(points, tenant)
            if record.writer != self._tokens.get(tenant) or record.generation + 1 != generation:
                raise _replaced(tenant)
            yield points

    async def _assert_live(self, points: Collection, tenant: str) -> None:
        if not await self._lender.is_live(points.name):
            raise _replaced(tenant)


def _replaced(tenant: str) -> StoreLocked:
    return StoreLocked(
        f"another ingest for {tenant!r} or a reindex has begun, so this one stops and nothing of it shows: "
        "run it again"
    )
