"""Where a vector store can live on a server: the oracle, alone and behind HTTP, and a real one.

Each place outlives the stores that are opened on it.
"""

import asyncio
import os
import uuid
import warnings
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from qdrant_client import AsyncQdrantClient

from business_api.settings import StoreSettings
from business_api.vector_store.collection import Collection, Row, Where
from business_api.vector_store.qdrant_versions import QdrantCatalogue, connect
from tests.fakes import serving
from tests.places import Open
from tests.qdrant_front import front


@asynccontextmanager
async def in_memory(folder: Path) -> AsyncIterator[Open]:
    """The oracle: qdrant-client's own Python implementation of the server."""
    client = AsyncQdrantClient(":memory:")
    yield _over(client, kind=_SharedInterleaved)
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


class Interleaved:
    """The local mode never gives others a turn of the loop; a server does, in every call."""

    def __init__(self, collection: Collection) -> None:
        self._collection = collection
        self.name = collection.name
        self.fetches_apart = True

    def __getattr__(self, name: str) -> Callable[..., Awaitable[Any]]:
        async def call(*given: Any, **named: Any) -> Any:
            await asyncio.sleep(0)
            done = await getattr(self._collection, name)(*given, **named)
            await asyncio.sleep(0)
            return done

        return call

    async def rows(self, where: Where, fields: Sequence[str]) -> AsyncIterator[Row]:
        async for row in self._collection.rows(where, fields):
            await asyncio.sleep(0)
            yield row


class _Shared(QdrantCatalogue):
    """A catalogue whose client outlives it, and that notices a swap at once."""

    patience = 0.0
    interleaved = False

    async def open(self, name: str) -> Collection:
        opened: Collection = self._lent(await super().open(name))
        return opened

    async def make(self, number: int, model: str, dimension: int) -> Collection:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Payload indexes have no effect", append=False)
            made: Collection = self._lent(await super().make(number, model, dimension))
        return made

    def _lent(self, collection: Any) -> Any:
        return Interleaved(collection) if self.interleaved else collection

    async def aclose(self) -> None:
        """The client is the place's."""


class _SharedInterleaved(_Shared):
    interleaved = True


def _over(client: AsyncQdrantClient, prefix: str = "", kind: type[_Shared] = _Shared) -> Open:
    return Open(lambda collection: kind(client, prefix + collection, 20.0))
