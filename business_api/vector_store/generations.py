"""Generations: how a tenant's documents change for readers in one atomic step, on any Collection.

Each point is visible from generation `since` up to, but not including, `until`. One record per tenant holds
the generation that readers see. A writer stages points `since` the next one and sets `until` on those it
replaces; raising the number in the record publishes both at once.
"""

import time
import uuid
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager

import msgspec

from business_api.errors import RetrievalUnavailable
from business_api.passages import Narrowing
from business_api.vector_store.collection import (
    TENANT,
    Above,
    AtMost,
    Collection,
    IndexMismatch,
    Is,
    Missing,
    NewPoint,
    OneOf,
    StoreLocked,
)
from business_api.vector_store.points import (
    FOREVER,
    belonging,
    chunk_point,
    narrowed,
    passages_of,
    question_words,
    visible,
)
from business_api.vector_store.protocol import EVERYTHING, Hits, Point, StoredDocument, Wording
from business_api.vector_store.record import Record, read_record, record_id

STAGE_BATCH = 32
DOCUMENT_BATCH = 256
SPARE = 8
"""Hits fetched beyond the limit, so that the order of equal scores is ours at the edge, too."""


class Generations:
    """A VectorStore over the collection that `open_` brings; it is asked again while there is none.

    `grace` is how long, in seconds, a reader may still be busy with the generation it began with.
    """

    def __init__(
        self,
        collection: str,
        open_: Callable[[], Awaitable[Collection | None]],
        close: Callable[[], Awaitable[None]] | None = None,
        *,
        grace: float = 15.0,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.collection = collection
        self._open = open_
        self._close = close
        self._grace = grace
        self._clock = clock
        self._points: Collection | None = None
        self._tokens: dict[str, str] = {}

    async def connect(self) -> bool:
        """Open the collection; whether there is one.

        Raises StoreLocked, IndexMismatch, OSError, RetrievalUnavailable.
        """
        self._points = self._points or await self._open()
        return self._points is not None

    async def search(
        self,
        tenant: str,
        wordings: Sequence[Wording],
        *,
        candidates: int,
        narrowing: Narrowing = EVERYTHING,
    ) -> Hits:
        """Read the generation, then search in one call all that is asked for."""
        dense = [wording.vector for wording in wordings if wording.vector is not None]
        words = [said for wording in wordings if (said := question_words(wording.text)).indices]
        async with self._ready() as points:
            record = await read_record(points, tenant)
            index = f"{points.name}@{record.generation}"
            if not record.generation or not (dense or words):
                return Hits((), (), index)
            # while nothing is hidden the cheaper filter does: what slips in is dropped below
            where = belonging(tenant) if record.settled else visible(tenant, record.generation)
            lists = await points.nearest(
                [*dense, *words],
                (*where, *narrowed(narrowing)),
                corpus=belonging(tenant),
                limit=candidates + SPARE,
            )
        found = [passages_of(rows, tenant, record.generation)[:candidates] for rows in lists]
        return Hits(tuple(found[: len(dense)]), tuple(found[len(dense) :]), index)

    async def documents(self, tenant: str) -> dict[str, StoredDocument]:
        """All documents by id, as readers see them; none while there is no collection."""
        if not await self._exists():
            return {}
        async with self._ready() as points:
            generation = (await read_record(points, tenant)).generation
            rows = await points.rows(visible(tenant, generation), ["document", "title", "content_hash"])
        chunks = Counter(row.payload["document"] for row in rows)
        kept = {row.payload["document"]: row.payload for row in rows}
        return {
            name: StoredDocument(name, one["title"], one["content_hash"], chunks[name])
            for name, one in kept.items()
        }

    async def count(self, tenant: str) -> int:
        """How many chunks readers see; 0 while there is no collection."""
        if not await self._exists():
            return 0
        async with self._ready() as points:
            return await points.count(visible(tenant, (await read_record(points, tenant)).generation))

    async def begin(self, tenant: str) -> int:
        """Shut out other writers and undo what a broken one left; the generation to write."""
        token = uuid.uuid4().hex
        async with self._ready() as points:
            if await points.get(record_id(tenant)) is None:
                first = msgspec.to_builtins(Record(tenant, token))
                await points.put([NewPoint(record_id(tenant), first)])
            await points.change((Is("record_of", tenant),), {"writer": token, "settled": False})
            self._tokens[tenant] = token
            generation = (await read_record(points, tenant)).generation
            await points.delete((Is(TENANT, tenant), Above("since", generation)))
            retired = (Is(TENANT, tenant), Above("until", generation), AtMost("until", FOREVER - 1))
            await points.change(retired, {"until": FOREVER})
        await self._sweep(tenant)
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
        now = self._clock()
        async with self._writing(tenant, generation) as points:
            await points.sync()
            before = await read_record(points, tenant)
            at_rest = now - before.published_at >= self._grace
            await points.change(
                (Is("record_of", tenant), Is("writer", self._tokens[tenant])),
                {
                    "generation": generation,
                    "published_by": self._tokens[tenant],
                    "published_at": now,
                    "safe": before.generation if at_rest else before.safe,
                },
            )
            await points.sync()
            if (await read_record(points, tenant)).published_by != self._tokens[tenant]:
                raise _replaced(tenant)

    async def vacuum(self, tenant: str) -> None:
        """Delete what vanished long enough ago that no reader can still be at it.

        When nothing hidden is left, the record says so: that makes a search at 10,000 chunks three times as
        fast (4.2 -> 1.4 ms of CPU for the dense part).
        """
        await self._sweep(tenant)
        async with self._ready() as points:
            generation = (await read_record(points, tenant)).generation
            retired = await points.count((Is(TENANT, tenant), AtMost("until", FOREVER - 1)))
            staged = await points.count((Is(TENANT, tenant), Above("since", generation)))
            if not retired and not staged:
                ours = (Is("record_of", tenant), Is("writer", self._tokens.get(tenant, "")))
                await points.change(ours, {"settled": True})

    async def _sweep(self, tenant: str) -> None:
        async with self._ready() as points:
            record = await read_record(points, tenant)
            at_rest = self._clock() - record.published_at >= self._grace
            unseen = record.generation if at_rest else record.safe
            await points.delete((Is(TENANT, tenant), AtMost("until", unseen)))

    async def aclose(self) -> None:
        """Give the collection back."""
        if self._points is not None:
            await self._points.aclose()
        if self._close is not None:
            await self._close()

    async def _exists(self) -> bool:
        try:
            return await self.connect()
        except Missing:
            return False
        except (StoreLocked, IndexMismatch) as exc:
            raise RetrievalUnavailable(f"the index of {self.collection!r} cannot be opened") from exc

    @asynccontextmanager
    async def _ready(self) -> AsyncIterator[Collection]:
        if not await self._exists():
            raise RetrievalUnavailable(
                f"nothing has been ingested into {self.collection!r} yet: "
                f"run business-api ingest --collection {self.collection} PATH"
            )
        assert self._points is not None
        async with self._our_errors():
            yield self._points

    @asynccontextmanager
    async def _writing(self, tenant: str, generation: int) -> AsyncIterator[Collection]:
        """The collection, as long as nobody has begun to write this tenant after us."""
        async with self._ready() as points:
            record = await read_record(points, tenant)
            if record.writer != self._tokens.get(tenant) or record.generation + 1 != generation:
                raise _replaced(tenant)
            yield points

    @asynccontextmanager
    async def _our_errors(self) -> AsyncIterator[None]:
        try:
            yield
        except Missing as exc:
            self._points = None
            raise RetrievalUnavailable(f"the collection {self.collection!r} has just vanished") from exc


def _replaced(tenant: str) -> StoreLocked:
    return StoreLocked(
        f"another ingest for {tenant!r} has begun, so this one stops and nothing of it shows: run it again"
    )
