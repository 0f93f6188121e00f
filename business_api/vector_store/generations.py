"""Generations: how a tenant's documents change for readers in one atomic step, on any Collection.

Each point is visible from generation `since` up to, but not including, `until`. One record per tenant holds
the generation that readers see. A writer stages points `since` the next one and sets `until` on those it
replaces; raising the number in the record publishes both at once.
"""

import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, suppress

from business_api.passages import Narrowing
from business_api.vector_store.collection import Above, Collection, Is, Missing
from business_api.vector_store.following import Lender, borrowed, glanced
from business_api.vector_store.points import KEPT, question_words, stored_point, visible
from business_api.vector_store.protocol import EVERYTHING, Hits, Keyword, Point, StoredDocument, Wording
from business_api.vector_store.record import index_name, read_record
from business_api.vector_store.searching import Asked, Searcher
from business_api.vector_store.writing import Readers, Writer


class Generations:
    """A VectorStore over the collection that `lender` lends.

    `grace` is how long, in seconds, a reader in another process may still be busy with the generation it
    began with.
    """

    def __init__(
        self,
        collection: str,
        lender: Lender,
        *,
        grace: float = 15.0,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.collection = collection
        self.grace = grace
        self._lender = lender
        self._readers = Readers()
        self._searcher = Searcher()
        self._writer = Writer(collection, lender, self._readers, grace=grace, clock=clock)

    async def search(
        self,
        tenant: str,
        wordings: Sequence[Wording],
        *,
        candidates: int,
        narrowing: Narrowing = EVERYTHING,
    ) -> Hits:
        """Read the generation, then search in one call all that is asked for, in one version."""
        asked = Asked(
            [wording.vector for wording in wordings if wording.vector is not None],
            [said for wording in wordings if (said := question_words(wording.text)).indices],
            candidates,
            narrowing,
        )
        with suppress(Missing):  # dropped under our hands: the next version is there
            async with self._readers.one(), self._lender.lent() as points:
                if points is not None:
                    return await self._searcher.search(points, tenant, asked)
        async with self._reading() as points:
            return await self._searcher.search(points, tenant, asked)

    async def index(self, tenant: str) -> str:
        """What readers see now, by name."""
        async with self._reading() as points:
            return index_name(points, await read_record(points, tenant))

    async def documents(self, tenant: str) -> dict[str, StoredDocument]:
        """All documents by id, as readers see them; none while there is no collection."""
        chunks: Counter[str] = Counter()
        kept: dict[str, tuple[str, str]] = {}
        async with self._glancing() as points:
            if points is None:
                return {}
            seen = visible(tenant, (await read_record(points, tenant)).generation)
            async for row in points.rows(seen, ["document", "title", "content_hash"]):
                name = row.payload["document"]
                chunks[name] += 1
                kept[name] = (row.payload["title"], row.payload["content_hash"])
        return {name: StoredDocument(name, *one, chunks[name]) for name, one in kept.items()}

    async def stored(self, tenant: str, document: str) -> list[Point]:
        """The chunks of a document as readers see them, in order; their vectors are left out."""
        async with self._reading() as points:
            seen = visible(tenant, (await read_record(points, tenant)).generation)
            rows = [row async for row in points.rows((*seen, Is("document", document)), KEPT)]
        return sorted((stored_point(row) for row in rows), key=lambda point: point.chunk.number)

    async def tenants(self) -> list[str]:
        """All who ever published something, in order."""
        async with self._reading() as points:
            published = points.rows((Above("generation", 0),), ["record_of"])
            return sorted([row.payload["record_of"] async for row in published])

    async def count(self, tenant: str) -> int:
        """How many chunks readers see; 0 while there is no collection."""
        async with self._glancing() as points:
            if points is None:
                return 0
            return await points.count(visible(tenant, (await read_record(points, tenant)).generation))

    async def values(self, tenant: str, key: Keyword, limit: int) -> list[str]:
        """What readers see of this keyword; nothing while there is no collection."""
        async with self._glancing() as points:
            if points is None:
                return []
            seen = visible(tenant, (await read_record(points, tenant)).generation)
            return await points.values(key, seen, limit)

    async def begin(self, tenant: str) -> int:
        """Shut out other writers and undo what a broken one left; the generation to write."""
        return await self._writer.begin(tenant)

    async def stage(self, tenant: str, generation: int, points: Sequence[Point]) -> None:
        """Store chunks that are visible from this generation on."""
        await self._writer.stage(tenant, generation, points)

    async def retire(self, tenant: str, generation: int, documents: Sequence[str]) -> None:
        """Let the published chunks of these documents be visible up to this generation only."""
        await self._writer.retire(tenant, generation, documents)

    async def publish(self, tenant: str, generation: int) -> None:
        """Raise the number in the record, if nobody else has begun to write since."""
        await self._writer.publish(tenant, generation)

    async def vacuum(self, tenant: str) -> None:
        """Delete what vanished long enough ago that no reader can still be at it."""
        await self._writer.vacuum(tenant)

    async def settle(self) -> None:
        """Clean up what broken writers left. Only for an index that nobody else can be writing."""
        async with self._reading() as points:
            records = points.rows((Above("generation", -1),), ["record_of", "settled"])
            owners = [row.payload["record_of"] async for row in records if not row.payload.get("settled")]
        for tenant in owners:
            await self.begin(tenant)
            await self.vacuum(tenant)

    async def aclose(self) -> None:
        """Give the collection back."""
        await self._lender.aclose()

    @asynccontextmanager
    async def _reading(self) -> AsyncIterator[Collection]:
        async with self._readers.one(), borrowed(self._lender, self.collection) as points:
            yield points

    @asynccontextmanager
    async def _glancing(self) -> AsyncIterator[Collection | None]:
        async with self._readers.one(), glanced(self._lender, self.collection) as points:
            yield points
