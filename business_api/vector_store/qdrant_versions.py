"""The versions of a collection on a Qdrant server: physical collections behind an alias."""

import time
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from qdrant_client import AsyncQdrantClient, models

from business_api.vector_store.collection import (
    BM25,
    DENSE,
    INTEGERS,
    KEYWORDS,
    TENANT,
    Above,
    Collection,
    Missing,
    StoreLocked,
)
from business_api.vector_store.qdrant import QdrantCollection, connect, our_errors
from business_api.vector_store.versions import Version, number_of, physical_name, version_of

__all__ = ["QdrantCatalogue", "connect"]


class QdrantCatalogue:
    """A Catalogue of a server: the alias `kb` is the live version, `kb.previous` the one before."""

    patience = 1.0

    def __init__(self, client: AsyncQdrantClient, collection: str, deadline: float) -> None:
        physical_name(collection, 1, "")
        self.collection = collection
        self._client = client
        self._deadline = deadline
        self._before = f"{collection}.previous"

    async def live(self) -> str | None:
        """The physical name of the live version."""
        return (await self._named()).get(self.collection)

    async def version(self, name: str) -> Version | None:
        """What is known of a version; None when there is none of this name."""
        named = await self._named()
        try:
            async with our_errors(self._deadline):
                kept = (await self._client.get_collection(name)).config.metadata
        except Missing:
            return None
        return version_of(
            self.collection, name, kept or {}, named.get(self.collection), named.get(self._before)
        )

    async def versions(self) -> list[Version]:
        """All that are there, by number."""
        async with our_errors(self._deadline):
            names = [one.name for one in (await self._client.get_collections()).collections]
        known = [await self.version(name) for name in names if number_of(self.collection, name)]
        return sorted((one for one in known if one is not None), key=lambda one: one.number)

    async def open(self, name: str) -> Collection:
        """A version; that it is there is seen when it is used."""
        return QdrantCollection(self._client, name, self._deadline)

    async def make(self, number: int, model: str, dimension: int) -> Collection:
        """Make an empty version that is not live; one whose making was interrupted is completed."""
        name = physical_name(self.collection, number, model)
        async with our_errors(self._deadline * 4):
            if not await self._client.collection_exists(name):
                await self._client.create_collection(
                    name,
                    vectors_config={
                        DENSE: models.VectorParams(size=dimension, distance=models.Distance.COSINE)
                    },
                    sparse_vectors_config={BM25: models.SparseVectorParams(modifier=models.Modifier.IDF)},
                    metadata={"model": model, "dimension": dimension, "made_at": time.time()},
                )
            for key, schema in _schemas().items():
                await self._client.create_payload_index(name, key, schema, wait=True)
        return QdrantCollection(self._client, name, self._deadline)

    @asynccontextmanager
    async def reading(self, name: str, *, alone: bool = False) -> AsyncIterator[Collection]:
        """The version itself. With `alone` all writers that are at work are shut out for good."""
        points = QdrantCollection(self._client, name, self._deadline)
        if alone:
            await points.change((Above("generation", -1),), {"writer": uuid.uuid4().hex})
        yield points

    async def swap(self, name: str, before: str | None) -> None:
        """Move both aliases in one call. Raises StoreLocked when another swap was first."""
        named = await self._named()
        if named.get(self.collection) != before:
            raise StoreLocked(f"{self.collection!r} was changed over meanwhile: run it again")
        changes = self._renamed(self.collection, name, named) + self._renamed(self._before, before, named)
        async with our_errors(self._deadline):
            await self._client.update_collection_aliases(changes)

    async def drop(self, name: str) -> None:
        """Delete a version."""
        async with our_errors(self._deadline * 4):
            await self._client.delete_collection(name)

    async def aclose(self) -> None:
        """Close the client."""
        await self._client.close()

    async def _named(self) -> dict[str, str]:
        async with our_errors(self._deadline):
            known = (await self._client.get_aliases()).aliases
        return {one.alias_name: one.collection_name for one in known}

    def _renamed(self, alias: str, name: str | None, named: dict[str, str]) -> list[Any]:
        changes: list[Any] = []
        if alias in named:
            changes.append(models.DeleteAliasOperation(delete_alias=models.DeleteAlias(alias_name=alias)))
        if name is not None:
            made = models.CreateAlias(collection_name=name, alias_name=alias)
            changes.append(models.CreateAliasOperation(create_alias=made))
        return changes


def _schemas() -> dict[str, Any]:
    number = models.IntegerIndexParams(type=models.IntegerIndexType.INTEGER, lookup=False, range=True)
    tenant = models.KeywordIndexParams(type=models.KeywordIndexType.KEYWORD, is_tenant=True)
    # a server in strict mode refuses to filter by a field that has no index, even among points named by id
    keywords = dict.fromkeys((*KEYWORDS, "writer"), models.PayloadSchemaType.KEYWORD)
    return {TENANT: tenant} | keywords | dict.fromkeys(INTEGERS, number)
