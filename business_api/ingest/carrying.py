"""Carries documents from one version of a collection to the next, and makes sure that they arrived."""

import re
from collections.abc import Sequence
from pathlib import PurePosixPath
from typing import TYPE_CHECKING

import msgspec

from business_api.ingest.finding import KINDS
from business_api.ingest.front_matter import about
from business_api.ingest.indexing import Indexer, digest
from business_api.ingest.reading import MARKDOWN, Text
from business_api.ingest.summary import Account, Summary
from business_api.ingest.watching import Watch
from business_api.passages import About, Passage
from business_api.vector_store import Generations, Point, StoredDocument, Wording
from business_api.vector_store.collection import Collection
from business_api.vector_store.following import Pinned

if TYPE_CHECKING:
    from business_api.embedding import Embedder

QUESTIONS = 20
"""Documents that are asked for in the new version, by one of their own sentences."""

AMONG = 10
"""So far down a document may be found."""

_LONGEST = 300


class Unsound(ValueError):
    """The new version does not hold, or does not find, what it should: it does not become live."""


class _Carried(msgspec.Struct, frozen=True):
    """A document as it was in the old version, as it is in the new one, and what became of its text."""

    was: str
    content_hash: str
    account: Account


class Carrier:
    """Fills `fresh` for all tenants; carrying again takes only what has changed since."""

    def __init__(self, fresh: Collection, embedder: "Embedder", watch: Watch) -> None:
        self.store = Generations(fresh.name, Pinned(fresh), grace=0.0)
        self._embedder = embedder
        self._watch = watch
        self._carried: dict[tuple[str, str], _Carried] = {}
        self._embedding_seconds = 0.0

    async def carry(self, stored: Collection) -> None:
        """Bring the new version up to date with the old one, and read back all that was carried.

        Raises Unsound when something is not there as it should be.
        """
        old = Generations(stored.name, Pinned(stored))
        changes = {tenant: await self._changes(old, tenant) for tenant in await old.tenants()}
        self._watch.total(sum(one.chunks for stale, _ in changes.values() for one in stale))
        for tenant, (stale, gone) in changes.items():
            if stale or gone:
                await self._bring(old, tenant, stale, gone)
                await self._assert_arrived(tenant, stale)

    async def ask(self) -> int:
        """Ask for documents by their own sentences; how many. Raises Unsound for those that are not found."""
        keys = list(self._carried)
        lost = []
        asked = keys[:: max(1, len(keys) // QUESTIONS)][:QUESTIONS]
        for tenant, document in asked:
            points = await self.store.stored(tenant, document)
            if points and not await self._is_found(tenant, points[len(points) // 2]):
                lost.append(document)
        if lost:
            raise Unsound(
                f"the new version does not find {len(lost)} of {len(asked)} documents by a sentence of their "
                f"own ({', '.join(lost[:5])}): the live one stays"
            )
        return len(asked)

    def summary(self, seconds: float) -> Summary:
        """The account of every document that is in the new version."""
        return Summary(
            documents=tuple(one.account for one in self._carried.values()),
            published=True,
            seconds=seconds,
            embedding_seconds=self._embedding_seconds,
        )

    async def _changes(self, old: Generations, tenant: str) -> tuple[list[StoredDocument], list[str]]:
        """What has to be carried, and what is there no longer."""
        there = await old.documents(tenant)
        known = {name: one.was for (owner, name), one in self._carried.items() if owner == tenant}
        stale = [one for name, one in there.items() if known.get(name) != one.content_hash]
        return stale, sorted(known.keys() - there.keys())

    async def _bring(
        self, old: Generations, tenant: str, stale: Sequence[StoredDocument], gone: Sequence[str]
    ) -> None:
        generation = await self.store.begin(tenant)
        indexer = Indexer(self.store, self._embedder, tenant=tenant, generation=generation, watch=self._watch)
        await indexer.retire(
            [*gone, *(one.document for one in stale if (tenant, one.document) in self._carried)]
        )
        for document in gone:
            del self._carried[tenant, document]
        for one in stale:
            self._watch.message(one.document)
            await self._bring_one(indexer, tenant, one, await old.stored(tenant, one.document))
        await indexer.publish()
        self._embedding_seconds += indexer.embedding_seconds

    async def _bring_one(
        self, indexer: Indexer, tenant: str, known: StoredDocument, points: Sequence[Point]
    ) -> None:
        if not points:  # removed since: the next time it is among those that are gone
            return
        text = put_together(points)
        content_hash = indexer.content_hash(text)
        read = Text(text, markdown=_is_markdown(known.document), title=known.title)
        pieces = indexer.chunker.cut(read, tenant=tenant, document=known.document, content_hash=content_hash)
        # an index from before front matter was understood knows nothing of it
        said = about(text) if read.markdown and points[0].about == About() else points[0].about
        await indexer.add(pieces, content_hash, known.chunks, said)
        indexed = sum(piece.chunk.end - piece.chunk.start for piece in pieces)
        account = Account(
            document=known.document,
            path="",
            status="added",
            chunks=len(pieces),
            characters=len(text),
            indexed=indexed,
            dropped={"whitespace": len(text) - indexed},
        )
        self._carried[tenant, known.document] = _Carried(points[0].content_hash, content_hash, account)

    async def _assert_arrived(self, tenant: str, stale: Sequence[StoredDocument]) -> None:
        """Every document has its chunks, and its text is the old one, character by character."""
        there = await self.store.documents(tenant)
        for name in (one.document for one in stale if (tenant, one.document) in self._carried):
            self._watch.message(f"checking {name}")
            expected = self._carried[tenant, name]
            points = await self.store.stored(tenant, name)
            same = digest(put_together(points)) == expected.content_hash.rpartition(":")[2]
            if not same or there[name].chunks != expected.account.chunks:
                raise Unsound(f"{name} did not arrive whole in the new version: the live one stays")

    async def _is_found(self, tenant: str, point: Point) -> bool:
        sentence = _sentence(point.chunk.text)
        [vector] = await self._embedder.embed([sentence])
        hits = await self.store.search(tenant, [Wording(sentence, vector.tolist())], candidates=AMONG)

        def is_it(passage: Passage) -> bool:
            # another document may say the very same
            return passage.chunk.document == point.chunk.document or sentence in passage.chunk.text

        return any(is_it(passage) for found in (*hits.dense, *hits.bm25) for passage in found)


def put_together(points: Sequence[Point]) -> str:
    """The text of a document from all of its chunks, in order.

    It is the text that was ingested; where the index does not know the whitespace between two chunks, line
    ends stand for it, so that all offsets hold.
    """
    parts: list[str] = []
    end = 0
    for point in points:
        gap = point.chunk.start - end
        parts += (point.before if len(point.before) == gap else "\n" * gap, point.chunk.text)
        end = point.chunk.end
    return "".join([*parts, *(point.after for point in points[-1:])])


def _is_markdown(document: str) -> bool:
    return KINDS.get(PurePosixPath(document).suffix.lower()) in MARKDOWN


def _sentence(text: str) -> str:
    """The longest sentence or line."""
    return max(re.split(r"(?<=[.!?])\s|\n", text), key=len).strip()[:_LONGEST]
