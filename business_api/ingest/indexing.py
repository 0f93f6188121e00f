"""Embeds what was cut, and stages it: the part that taking documents in and reindexing share."""

import hashlib
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

import msgspec

from business_api.ingest.chunking import CHUNK_CHARACTERS, CHUNK_TOKENS, VERSION, Chunker, Piece
from business_api.ingest.watching import Watch
from business_api.passages import About
from business_api.vector_store.protocol import Point, VectorStore

if TYPE_CHECKING:
    from business_api.embedding import Embedder

BATCH = 32
"""Chunks that are embedded together."""

_WINDOW = 16
"""Batches that are collected and sorted by length: what a run holds in memory beside one document."""


class _Staged(msgspec.Struct, frozen=True):
    """A piece on its way, with the share of its document's work that is done with it."""

    piece: Piece
    content_hash: str
    about: About
    share: float


class Indexer:
    """Embeds and stages one tenant's chunks; a document is retired before its new chunks are staged."""

    def __init__(
        self,
        store: VectorStore,
        embedder: "Embedder",
        *,
        tenant: str,
        generation: int,
        watch: Watch,
        batch: int = BATCH,
    ) -> None:
        self.chunker = Chunker(embedder.tokenizer, embedder.max_tokens)
        self.watch = watch
        self.embedding_seconds = 0.0
        self._store, self._embedder = store, embedder
        self._tenant, self._generation, self._batch = tenant, generation, batch
        self._waiting: list[_Staged] = []
        self._touched = False
        limits = f"{CHUNK_TOKENS}/{CHUNK_CHARACTERS}/{embedder.max_tokens}"
        self._how = hashlib.sha256(f"{VERSION}/{limits}/{embedder.name}".encode()).hexdigest()[:12]

    def content_hash(self, text: str) -> str:
        """`how:digest`; same hash: same text, cut and embedded in the same way."""
        return f"{self._how}:{digest(text)}"

    async def retire(self, documents: Sequence[str]) -> None:
        """Let the published chunks of these documents vanish."""
        if documents:
            self._touched = True
            await self._store.retire(self._tenant, self._generation, documents)

    async def add(
        self, pieces: Sequence[Piece], content_hash: str, size: float, about: About | None = None
    ) -> None:
        """Take in a document's pieces; `size` is what the watch is told when they are done."""
        for piece in pieces:
            self._waiting.append(_Staged(piece, content_hash, about or About(), size / len(pieces)))
            if len(self._waiting) >= self._batch * _WINDOW:
                await self._flush()

    async def _flush(self) -> None:
        # texts of about the same length share a batch: the embedder pads the shorter ones
        waiting = sorted(self._waiting, key=lambda staged: len(staged.piece.embedded))
        self._waiting = []
        for start in range(0, len(waiting), self._batch):
            batch = waiting[start : start + self._batch]
            began = time.perf_counter()
            vectors = await self._embedder.embed([staged.piece.embedded for staged in batch])
            self.embedding_seconds += time.perf_counter() - began
            points = [_point(staged, vector) for staged, vector in zip(batch, vectors, strict=True)]
            self._touched = True
            await self._store.stage(self._tenant, self._generation, points)
            self.watch.advance(sum(staged.share for staged in batch), chunks=len(batch))

    async def publish(self) -> bool:
        """Make all of it visible; False if there was nothing to publish."""
        await self._flush()
        if self._touched:
            self.watch.message("publishing")
            await self._store.publish(self._tenant, self._generation)
        await self._store.vacuum(self._tenant)
        return self._touched


def digest(text: str) -> str:
    """SHA-256 of the text, in hexadecimal."""
    return hashlib.sha256(text.encode()).hexdigest()


def _point(staged: _Staged, vector: Sequence[float]) -> Point:
    piece = staged.piece
    return Point(piece.chunk, vector, staged.content_hash, staged.about, piece.before, piece.after)
