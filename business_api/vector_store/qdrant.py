"""A collection on a Qdrant server. Every call has a deadline; the client's own errors end here."""

import asyncio
import math
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any

import httpx
from qdrant_client import AsyncQdrantClient, models
from qdrant_client.common.client_exceptions import QdrantException
from qdrant_client.http.exceptions import ApiException, UnexpectedResponse

from business_api.errors import RetrievalUnavailable
from business_api.settings import StoreSettings
from business_api.vector_store.collection import (
    BM25,
    DENSE,
    INTEGERS,
    KEYWORDS,
    TENANT,
    Missing,
    NewPoint,
    Row,
    Vector,
    Where,
    check_model,
    physical_name,
)
from business_api.vector_store.qdrant_query import filter_of, point_of, requests_of

UPSERT_BATCH = 64
PAGE = 512
CONNECTIONS = 32


def connect(settings: StoreSettings) -> AsyncQdrantClient:
    """A client for this event loop; nothing is sent yet."""
    assert settings.url
    return AsyncQdrantClient(
        url=settings.url,
        api_key=settings.api_key.get_secret_value() if settings.api_key else None,
        timeout=math.ceil(settings.deadline),
        check_compatibility=False,  # it would ask the server from a thread of its own
        # without limits the client closes each connection to this machine after one use
        limits=httpx.Limits(max_connections=CONNECTIONS, max_keepalive_connections=CONNECTIONS),
    )


class QdrantCollection:
    """A Collection of a server, known there under its physical name; the alias is `collection`."""

    def __init__(self, client: AsyncQdrantClient, name: str, deadline: float) -> None:
        self.name = name
        self._client = client
        self._deadline = deadline

    @classmethod
    async def open(
        cls,
        client: AsyncQdrantClient,
        collection: str,
        *,
        model: str,
        dimension: int,
        create: bool,
        deadline: float,
    ) -> "QdrantCollection | None":
        """Open the collection behind the alias; None when there is none and `create` is false.

        Raises IndexMismatch when it was made by another model, RetrievalUnavailable when the server fails.
        """
        async with _our_errors(deadline):
            known = (await client.get_aliases()).aliases
            name = next((one.collection_name for one in known if one.alias_name == collection), None)
            kept = (await client.get_collection(name)).config.metadata if name else None
        if name is not None:
            check_model(collection, kept or {}, model, dimension)
            return cls(client, name, deadline)
        if not create:
            return None
        name = physical_name(collection, model)
        async with _our_errors(deadline * 4):
            await _create(client, collection, name, model, dimension)
        return cls(client, name, deadline)

    async def get(self, point: str) -> Mapping[str, Any] | None:
        """The payload of the point with this id."""
        async with _our_errors(self._deadline):
            found = await self._client.retrieve(self.name, [point], with_payload=True)
        return found[0].payload or {} if found else None

    async def nearest(
        self, vectors: Sequence[Vector], where: Where, *, corpus: Where, limit: int
    ) -> list[list[Row]]:
        """For each vector the best points, best first; equal scores in any order."""
        async with _our_errors(self._deadline):
            found = await self._client.query_batch_points(
                self.name, requests_of(vectors, where, corpus, limit)
            )
        return [[Row(point.payload or {}, point.score) for point in one.points] for one in found]

    async def rows(self, where: Where, fields: Sequence[str]) -> list[Row]:
        """All points that match, read page by page."""
        rows: list[Row] = []
        after, more = None, True
        while more:
            async with _our_errors(self._deadline):
                page, after = await self._client.scroll(
                    self.name, filter_of(where), limit=PAGE, offset=after, with_payload=list(fields)
                )
            rows.extend(Row(point.payload or {}) for point in page)
            more = after is not None
        return rows

    async def count(self, where: Where) -> int:
        """How many points match."""
        async with _our_errors(self._deadline):
            return (await self._client.count(self.name, filter_of(where), exact=True)).count

    async def put(self, points: Sequence[NewPoint]) -> None:
        """Write or overwrite points, batch by batch."""
        for start in range(0, len(points), UPSERT_BATCH):
            batch = [point_of(point) for point in points[start : start + UPSERT_BATCH]]
            async with _our_errors(self._deadline):
                await self._client.upsert(self.name, batch, wait=True)

    async def change(self, where: Where, payload: Mapping[str, Any]) -> None:
        """Set these payload fields of all points that match."""
        async with _our_errors(self._deadline):
            await self._client.set_payload(self.name, dict(payload), points=filter_of(where), wait=True)

    async def delete(self, where: Where) -> None:
        """Delete all points that match."""
        selector = models.FilterSelector(filter=filter_of(where))
        async with _our_errors(self._deadline):
            await self._client.delete(self.name, selector, wait=True)

    async def sync(self) -> None:
        """The server syncs its own log."""

    async def aclose(self) -> None:
        """The client is closed by whoever made it."""


async def _create(client: AsyncQdrantClient, alias: str, name: str, model: str, dimension: int) -> None:
    """Make collection, payload indexes and alias; what an interrupted attempt left is completed."""
    if not await client.collection_exists(name):
        await client.create_collection(
            name,
            vectors_config={DENSE: models.VectorParams(size=dimension, distance=models.Distance.COSINE)},
            sparse_vectors_config={BM25: models.SparseVectorParams(modifier=models.Modifier.IDF)},
            metadata={"model": model, "dimension": dimension},
        )
    schemas: dict[str, Any] = {
        TENANT: models.KeywordIndexParams(type=models.KeywordIndexType.KEYWORD, is_tenant=True)
    }
    schemas |= dict.fromkeys(KEYWORDS, models.PayloadSchemaType.KEYWORD)
    schemas |= dict.fromkeys(
        INTEGERS, models.IntegerIndexParams(type=models.IntegerIndexType.INTEGER, lookup=False, range=True)
    )
    for key, schema in schemas.items():
        await client.create_payload_index(name, key, schema, wait=True)
    named = models.CreateAlias(collection_name=name, alias_name=alias)
    await client.update_collection_aliases([models.CreateAliasOperation(create_alias=named)])


@asynccontextmanager
async def _our_errors(deadline: float) -> AsyncIterator[None]:
    """Bound the calls inside in seconds; raise Missing, or RetrievalUnavailable for all else."""
    try:
        async with asyncio.timeout(deadline):
            yield
    except UnexpectedResponse as exc:
        if exc.status_code == 404:
            raise Missing from exc
        raise RetrievalUnavailable("the vector store refused the call") from exc
    except TimeoutError as exc:
        raise RetrievalUnavailable("the vector store did not answer in time") from exc
    except (ApiException, QdrantException, httpx.HTTPError, OSError, ValueError) as exc:
        # ValueError: an answer that is not JSON, or not the JSON that the client knows
        raise RetrievalUnavailable("the vector store cannot be reached") from exc
