"""Opens the vector store that the settings name."""

from business_api.errors import RetrievalUnavailable
from business_api.settings import Settings
from business_api.vector_store.collection import Collection
from business_api.vector_store.generations import Generations
from business_api.vector_store.protocol import VectorStore

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
    grace = 2 * settings.store.deadline + CLOCK_SKEW
    if settings.store.url is None:
        return await _embedded(settings, collection, model, dimension, create=create, grace=grace)

    from business_api.vector_store.qdrant import QdrantCollection, connect

    client = connect(settings.store)

    async def there() -> Collection | None:
        return await QdrantCollection.open(
            client,
            collection,
            model=model,
            dimension=dimension,
            create=create,
            deadline=settings.store.deadline,
        )

    store = Generations(collection, there, client.close, grace=grace)
    try:
        await store.connect()
    except RetrievalUnavailable:
        pass  # it may come back: `/readyz` says so until then
    except BaseException:
        await store.aclose()
        raise
    return store


async def _embedded(
    settings: Settings, collection: str, model: str, dimension: int, *, create: bool, grace: float
) -> VectorStore:
    from business_api.vector_store.edge import EdgeCollection

    async def here() -> Collection | None:
        return EdgeCollection.open(
            settings.var / "index", collection, model=model, dimension=dimension, create=create
        )

    store = Generations(collection, here, grace=grace)
    await store.connect()
    return store
