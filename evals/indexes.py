"""Makes an index of a set with the parts that serve: our chunker, embedder and embedded store.

An index stays on the disk and is used again as long as it would come out the same: the digest beside it is
that of the documents, of how they are cut, and of the sources that cut and store them.
"""

import hashlib
import shutil
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from importlib.metadata import version
from pathlib import Path

import msgspec

import business_api
from business_api.embedding import Embedder
from business_api.ingest.chunking import Chunker, Piece
from business_api.ingest.reading import Text
from business_api.settings import Settings, StoreSettings
from business_api.vector_store import Point, VectorStore, open_store
from evals.sets import BadSet, Document
from evals.showing import shown

TENANT = "evaluation"
COLLECTION = "evaluation"
BATCH = 64
SOURCES = ("ingest/chunking.py", "ingest/outline.py", "vector_store/points.py", "vector_store/edge_query.py")


class Cutting(msgspec.Struct, frozen=True):
    """A way of cutting documents into pieces; the same name, the same pieces."""

    name: str
    cut: Callable[[Document], list[Piece]]


def as_served(embedder: Embedder) -> Cutting:
    """The way in which documents are cut when they are ingested."""
    chunker = Chunker(embedder.tokenizer, embedder.max_tokens)

    def cut(document: Document) -> list[Piece]:
        # what has a title only is found by it
        read = Text(document.text or document.title, document.markdown, document.title)
        return chunker.cut(read, tenant=TENANT, document=document.id, content_hash="")

    return Cutting("served", cut)


@asynccontextmanager
async def indexed(
    documents: Sequence[Document], cutting: Cutting, embedder: Embedder, settings: Settings, folder: Path
) -> AsyncIterator[VectorStore]:
    """A store of these documents in this folder, made if it is not there as it should be.

    Raises StoreLocked while another evaluation uses it, BadSet when the documents hold no text at all.
    """
    made_of, digest = folder / "made_of", _digest(documents, cutting, embedder)
    there = made_of.exists() and made_of.read_text() == digest
    if not there:
        shutil.rmtree(folder, ignore_errors=True)
    store = await open_store(
        settings.model_copy(update={"var": folder, "store": StoreSettings()}),
        COLLECTION,
        model=embedder.name,
        dimension=embedder.dimension,
        create=True,
    )
    try:
        if not there:
            await _fill(store, documents, cutting, embedder)
            made_of.write_text(digest)
        yield store
    finally:
        await store.aclose()


async def _fill(
    store: VectorStore, documents: Sequence[Document], cutting: Cutting, embedder: Embedder
) -> None:
    pieces = [piece for one in shown(documents, "cutting documents") for piece in cutting.cut(one)]
    if not pieces:
        raise BadSet("the documents hold no text")
    # alike lengths together: the embedder pads the shorter ones
    pieces.sort(key=lambda piece: len(piece.embedded))
    batches = [pieces[start : start + BATCH] for start in range(0, len(pieces), BATCH)]
    generation = await store.begin(TENANT)
    for batch in shown(batches, f"embedding {len(pieces):,} chunks"):
        vectors = await embedder.embed([piece.embedded for piece in batch])
        points = [
            Point(piece.chunk, vector.tolist(), "") for piece, vector in zip(batch, vectors, strict=True)
        ]
        await store.stage(TENANT, generation, points)
    await store.publish(TENANT, generation)
    await store.vacuum(TENANT)


def _digest(documents: Sequence[Document], cutting: Cutting, embedder: Embedder) -> str:
    digest = hashlib.sha256(msgspec.json.encode(documents))
    digest.update(f"{cutting.name}/{embedder.name}/{embedder.max_tokens}".encode())
    for library in ("qdrant-edge-py", "semantic-text-splitter"):
        digest.update(version(library).encode())
    for source in SOURCES:
        digest.update((Path(business_api.__file__).parent / source).read_bytes())
    return digest.hexdigest()
