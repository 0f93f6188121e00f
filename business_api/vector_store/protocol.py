"""The port of the vector store, and the words it speaks."""

from collections.abc import Sequence
from typing import Protocol

import msgspec

from business_api.exchange import Chunk, Passage
from business_api.vector_store.collection import Fusion


class StoredDocument(msgspec.Struct, frozen=True):
    """A document as readers see it now; `content_hash` is what `stage` was given, `chunks` how many."""

    document: str
    title: str
    content_hash: str
    chunks: int


class Point(msgspec.Struct, frozen=True):
    """A chunk to store, its unit vector, and the hash of the document's content."""

    chunk: Chunk
    vector: Sequence[float]
    content_hash: str


class Hits(msgspec.Struct, frozen=True):
    """Passages best first; `index` names the physical collection and the generation: `kb__v1_model@12`."""

    passages: tuple[Passage, ...]
    index: str


class VectorStore(Protocol):
    """Chunks of many tenants, who never see each other's.

    Readers see a tenant's *generation*: the state that the last `publish` made, whole. A writer calls
    `begin`, then `stage` and `retire` as often as it likes, then `publish`; if it dies anywhere before that,
    readers see nothing of it and the next `begin` cleans up.

    Every call raises RetrievalUnavailable when the store cannot be used; `stage`, `retire` and `publish`
    raise StoreLocked when another writer has begun since.
    """

    collection: str

    async def search(
        self,
        tenant: str,
        *,
        text: str,
        vector: Sequence[float] | None,
        candidates: int,
        limit: int,
        fusion: Fusion,
        weights: tuple[float, float],
    ) -> Hits:
        """The best `limit` chunks, fused from `candidates` of the dense and of the BM25 search each.

        `weights` are those of (dense, BM25); a search of weight 0 is left out, the dense one too if `vector`
        is None. Equal scores are ordered by chunk id.
        """

    async def documents(self, tenant: str) -> dict[str, StoredDocument]:
        """All documents by id, as readers see them."""

    async def begin(self, tenant: str) -> int:
        """Clean up what a broken writer left, shut out any other; the generation to write."""

    async def stage(self, tenant: str, generation: int, points: Sequence[Point]) -> None:
        """Store chunks that nobody sees before `publish`; a chunk staged twice is there once."""

    async def retire(self, tenant: str, generation: int, documents: Sequence[str]) -> None:
        """Let the published chunks of these documents vanish with `publish`; staged ones stay."""

    async def publish(self, tenant: str, generation: int) -> None:
        """Show all that is staged and hide all that is retired, in one atomic step."""

    async def vacuum(self, tenant: str) -> None:
        """Delete what no reader can see any more; what vanished just now is left for the next time."""

    async def count(self, tenant: str) -> int:
        """How many chunks readers see."""

    async def aclose(self) -> None:
        """Give the store back."""
