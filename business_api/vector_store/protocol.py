"""The port of the vector store, and the words it speaks."""

from collections.abc import Sequence
from typing import Literal, Protocol

import msgspec

from business_api.passages import About, Chunk, Narrowing, Passage

EVERYTHING = Narrowing()
Keyword = Literal["document", "language", "tags"]


class StoredDocument(msgspec.Struct, frozen=True):
    """A document as readers see it now; `content_hash` is what `stage` was given, `chunks` how many."""

    document: str
    title: str
    content_hash: str
    chunks: int


class Point(msgspec.Struct, frozen=True):
    """A chunk to store, its unit vector, the hash of the document's content, what the document is about.

    `before` is the whitespace between this chunk and the one before, `after` that behind the last chunk: with
    them a document can be put together again, character by character.
    """

    chunk: Chunk
    vector: Sequence[float]
    content_hash: str
    about: About = About()
    before: str = ""
    after: str = ""


class Wording(msgspec.Struct, frozen=True):
    """One way to say what is searched for: by its words ("" for not at all) and by its vector, if any."""

    text: str
    vector: Sequence[float] | None = None


class Hits(msgspec.Struct, frozen=True):
    """What each search found, best first: one tuple a search. Scores are cosines and BM25 sums.

    `index` names the physical collection and the generation: `kb__v1_model@12`.
    """

    dense: tuple[tuple[Passage, ...], ...]
    bm25: tuple[tuple[Passage, ...], ...]
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
        wordings: Sequence[Wording],
        *,
        candidates: int,
        narrowing: Narrowing = EVERYTHING,
    ) -> Hits:
        """The best `candidates` chunks of each dense and of each BM25 search, all of one generation.

        A wording without a vector has no dense search, one without words that count no BM25 search. Equal
        scores are ordered by chunk id.
        """

    async def index(self, tenant: str) -> str:
        """What `Hits.index` of a search would be now."""

    async def documents(self, tenant: str) -> dict[str, StoredDocument]:
        """All documents by id, as readers see them."""

    async def values(self, tenant: str, key: Keyword, limit: int) -> list[str]:
        """The values that the documents readers see have of this keyword, those of most chunks first."""

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
