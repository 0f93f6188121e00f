"""Where an embedded vector store can live, and what is put into a store. See also `qdrant_places`."""

import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from business_api.passages import Chunk
from business_api.vector_store import Catalogue, Generations, Point
from business_api.vector_store.edge_versions import EdgeCatalogue
from business_api.vector_store.following import Following
from tests.fakes import LetterEmbedder


@dataclass(frozen=True)
class Open:
    """Opens stores, and the catalogues behind them, in one place that outlives them."""

    catalogue: Callable[[str], Catalogue]

    async def __call__(
        self,
        collection: str = "kb",
        *,
        model: str = "letters",
        dimension: int = 32,
        create: bool = True,
        grace: float = 0.0,
        clock: Callable[[], float] = time.time,
    ) -> Generations:
        """A store that follows the live version."""
        catalogue = self.catalogue(collection)
        following = Following(catalogue, model=model, dimension=dimension, create=create)
        await following.connect()
        return Generations(collection, following, grace=grace, clock=clock)


@asynccontextmanager
async def embedded(folder: Path) -> AsyncIterator[Open]:
    """The embedded engine, in a folder."""
    yield Open(partial(EdgeCatalogue, folder))


def chunk(document: str, text: str, number: int = 0, **other: object) -> Chunk:
    """The chunk of a document that is all of its text, or the one with this number."""
    fields = {"id": f"{document}#{number}", "title": document, "start": 0, "end": len(text)} | other
    return Chunk(document=document, number=number, text=text, **fields)  # type: ignore[arg-type]


async def points(chunks: Sequence[Chunk], content_hash: str = "1") -> list[Point]:
    """The chunks with the vectors of their letters."""
    vectors = await LetterEmbedder().embed([one.text for one in chunks])
    return [Point(one, vector.tolist(), content_hash) for one, vector in zip(chunks, vectors, strict=True)]


async def ingest(
    store: Generations, texts: dict[str, str], *, tenant: str = "acme", content_hash: str = "1"
) -> int:
    """Replace documents (id -> text) in one generation, and publish it."""
    generation = await store.begin(tenant)
    await store.retire(tenant, generation, list(texts))
    await store.stage(tenant, generation, await points([chunk(*one) for one in texts.items()], content_hash))
    await store.publish(tenant, generation)
    return generation
