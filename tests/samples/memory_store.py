"""A VectorStore in memory: keeps the promises of generations, remembers its calls, and can fail."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from business_api.errors import RetrievalUnavailable
from business_api.passages import Narrowing
from business_api.vector_store import EVERYTHING, Hits, Point, StoredDocument, Wording
from business_api.vector_store.protocol import Keyword


@dataclass
class MemoryStore:
    """`published` is what readers see, by chunk id; the call named in `fails_in` raises."""

    collection: str = "kb"
    published: dict[str, Point] = field(default_factory=dict)
    calls: list[str] = field(default_factory=list)
    fails_in: str = ""
    _generation: int = 0
    _staged: dict[str, Point] = field(default_factory=dict)
    _retired: set[str] = field(default_factory=set)

    def _called(self, name: str) -> None:
        self.calls.append(name)
        if self.fails_in == name:
            raise RetrievalUnavailable(f"told to fail in {name}")

    async def index(self, tenant: str) -> str:
        return f"memory@{self._generation}"

    async def documents(self, tenant: str) -> dict[str, StoredDocument]:
        found: dict[str, StoredDocument] = {}
        for point in self.published.values():
            name, known = point.chunk.document, found.get(point.chunk.document)
            assert known is None or known.content_hash == point.content_hash, "two versions at once"
            chunks = known.chunks + 1 if known else 1
            found[name] = StoredDocument(name, point.chunk.title, point.content_hash, chunks)
        return found

    async def begin(self, tenant: str) -> int:
        self._called("begin")
        self._staged, self._retired = {}, set()
        return self._generation + 1

    async def stage(self, tenant: str, generation: int, points: Sequence[Point]) -> None:
        self._called("stage")
        assert generation == self._generation + 1
        self._staged |= {point.chunk.id: point for point in points}

    async def retire(self, tenant: str, generation: int, documents: Sequence[str]) -> None:
        self._called("retire")
        assert generation == self._generation + 1
        self._retired |= {i for i, point in self.published.items() if point.chunk.document in set(documents)}

    async def publish(self, tenant: str, generation: int) -> None:
        self._called("publish")
        self._generation = generation
        kept = {id_: point for id_, point in self.published.items() if id_ not in self._retired}
        self.published = kept | self._staged
        self._staged, self._retired = {}, set()

    async def vacuum(self, tenant: str) -> None:
        self._called("vacuum")

    async def count(self, tenant: str) -> int:
        return len(self.published)

    async def values(self, tenant: str, key: Keyword, limit: int) -> list[str]:
        found: Counter[str] = Counter()
        for point in self.published.values():
            about = point.about
            said: dict[str, tuple[str, ...]] = {
                "document": (point.chunk.document,),
                "language": (about.language,) if about.language else (),
                "tags": about.tags,
            }
            found.update(said[key])
        return [value for value, _ in found.most_common(limit)]

    async def search(
        self,
        tenant: str,
        wordings: Sequence[Wording],
        *,
        candidates: int,
        narrowing: Narrowing = EVERYTHING,
    ) -> Hits:
        raise NotImplementedError

    async def aclose(self) -> None:
        """Nothing is open."""
