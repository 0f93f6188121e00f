"""Opens the vector store that the settings name."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from business_api.errors import RetrievalUnavailable
from business_api.settings import Settings
from business_api.vector_store.collection import Missing
from business_api.vector_store.following import Following, Pinned
from business_api.vector_store.generations import Generations
from business_api.vector_store.protocol import VectorStore
from business_api.vector_store.versions import Catalogue

CLOCK_SKEW = 5.0
"""Seconds by which the clocks of two writers may differ."""


async def open_store(
    settings: Settings, collection: str, *, model: str, dimension: int, create: bool = False
) -> VectorStore:
    """The store of this collection: on the server at `settings.store.url`, or embedded in `var/index`.

    `model` and `dimension` (0: not compared) must be those that the collection was made with, or
    IndexMismatch is raised. StoreLocked says that another process has the embedded index; ValueError and
    OSError are for the operator, too. A server that cannot be reached now is tried again at each call.
    """
    catalogue = open_catalogue(settings, collection)
    following = Following(catalogue, model=model, dimension=dimension, create=create)
    store = Generations(collection, following, grace=grace_of(settings))
    try:
        if await following.connect() and settings.store.url is None:
            await store.settle()
    except RetrievalUnavailable:
        if settings.store.url is None:
            raise
        # it may come back: `/readyz` says so until then
    except BaseException:
        await store.aclose()
        raise
    return store


def open_catalogue(settings: Settings, collection: str) -> Catalogue:
    """The versions of a collection; nothing is opened yet. Raises ValueError for an unusable name."""
    if settings.store.url is None:
        from business_api.vector_store.edge_versions import EdgeCatalogue

        return EdgeCatalogue(settings.var / "index", collection)
    from business_api.vector_store.qdrant_versions import QdrantCatalogue, connect

    return QdrantCatalogue(connect(settings.store), collection, settings.store.deadline)


def grace_of(settings: Settings) -> float:
    """How long a reader elsewhere may be at a generation; the embedded index has none elsewhere."""
    return 0.0 if settings.store.url is None else 2 * settings.store.deadline + CLOCK_SKEW


@asynccontextmanager
async def reading(catalogue: Catalogue, name: str) -> AsyncIterator[Generations]:
    """A store to read one version by, whoever else has it open. Raises RetrievalUnavailable."""
    try:
        async with catalogue.reading(name) as points:
            yield Generations(name, Pinned(points))
    except Missing as exc:
        raise RetrievalUnavailable(f"the collection {name!r} has just vanished") from exc
