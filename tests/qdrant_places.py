"""Where a vector store can live on a server: the oracle, alone and behind HTTP, and a real one.

Each place outlives the stores that are opened on it.
"""

import asyncio
import os
import time
import uuid
import warnings
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from qdrant_client import AsyncQdrantClient

from business_api.settings import StoreSettings
from business_api.vector_store import Generations
from business_api.vector_store.collection import Collection
from business_api.vector_store.qdrant import QdrantCollection, connect
from tests.fakes import serving
from tests.places import Open
from tests.qdrant_front import front


@asynccontextmanager
async def in_memory(folder: Path) -> AsyncIterator[Open]:
    """The oracle: qdrant-client's own Python implementation of the server."""
    client = AsyncQdrantClient(":memory:")
    yield _over(client, wrap=_Interleaved)
    await client.close()


@asynccontextmanager
async def over_http(folder: Path) -> AsyncIterator[Open]:
    """The oracle behind the server's REST interface, over a real socket."""
    with serving(front(AsyncQdrantClient(":memory:"))) as url:
        client = connect(StoreSettings(url=url))
        yield _over(client)
        await client.close()


@asynccontextmanager
async def on_a_server(folder: Path) -> AsyncIterator[Open]:
    """A real Qdrant server, at QDRANT_URL; what the test made there is deleted."""
    client = connect(StoreSettings(url=os.environ["QDRANT_URL"], deadline=20))
    mark = uuid.uuid4().hex[:12]
    yield _over(client, mark)
    for one in (await client.get_aliases()).aliases:
        if one.alias_name.startswith(mark):
            await client.delete_collection(one.collection_name)
    await client.close()


class _Interleaved:
    """The local mode never gives others a turn of the loop; a server does, in every call."""

    def __init__(self, collection: Any) -> None:
        self._collection = collection
        self.name = collection.name

    def __getattr__(self, name: str) -> Callable[..., Awaitable[Any]]:
        async def call(*given: Any, **named: Any) -> Any:
            await asyncio.sleep(0)
            done = await getattr(self._collection, name)(*given, **named)
            await asyncio.sleep(0)
            return done

        return call


def _over(
    client: AsyncQdrantClient, prefix: str = "", wrap: Callable[[Any], Any] = lambda made: made
) -> Open:
    async def open_(
        collection: str = "kb",
        *,
        model: str = "letters",
        dimension: int = 32,
        create: bool = True,
        grace: float = 0.0,
        clock: Callable[[], float] = time.time,
    ) -> Generations:
        async def there() -> Collection | None:
            with warnings.catch_warnings():
                warnings.filterwarnings("ignore", message="Payload indexes have no effect", append=False)
                made = await QdrantCollection.open(
                    client,
                    prefix + collection,
                    model=model,
                    dimension=dimension,
                    create=create,
                    deadline=20,
                )
            return wrap(made) if made else None

        store = Generations(collection, there, grace=grace, clock=clock)
        await store.connect()
        return store

    return open_
