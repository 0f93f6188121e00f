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
from business_api.vector_store.collection import Missing, NewPoint, Row, Vector, Where
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
    """A Collection of a server, known there under its physical name. `deadline` of a call in seconds."""

    fetches_apart = False  # a second way to the server costs more than what it saves

    def __init__(self, client: AsyncQdrantClient, name: str, deadline: float) -> None:
        self.name = name
        self._client = client
        self._deadline = deadline

    async def get(self, point: str) -> Mapping[str, Any] | None:
        """The payload of the point with this id."""
        async with our_errors(self._deadline):
            found = await self._client.retrieve(self.name, [point], with_payload=True)
        return found[0].payload or {} if found else None

    async def nearest(
        self, vectors: Sequence[Vector], where: Where, *, corpus: Where, limit: int, fields: Sequence[str]
    ) -> list[list[Row]]:
        """For each vector the best points, best first; equal scores in any order."""
        async with our_errors(self._deadline):
            found = await self._client.query_batch_points(
                self.name, requests_of(vectors, where, corpus, limit, fields)
            )
        return [
            [Row(str(point.id), point.payload or {}, point.score) for point in one.points] for one in found
        ]

    async def fetch(self, ids: Sequence[str | int], fields: Sequence[str]) -> list[Row]:
        """The points with these ids, as far as they are there."""
        async with our_errors(self._deadline):
            found = await self._client.retrieve(self.name, list(ids), with_payload=list(fields))
        return [Row(str(point.id), point.payload or {}) for point in found]

    async def rows(self, where: Where, fields: Sequence[str]) -> AsyncIterator[Row]:
        """All points that match, read page by page."""
        after, more = None, True
        while more:
            async with our_errors(self._deadline):
                page, after = await self._client.scroll(
                    self.name, filter_of(where), limit=PAGE, offset=after, with_payload=list(fields)
                )
            for point in page:
                yield Row(str(point.id), point.payload or {})
            more = after is not None

    async def count(self, where: Where) -> int:
        """How many points match."""
        async with our_errors(self._deadline):
            return (await self._client.count(self.name, filter_of(where), exact=True)).count

    async def values(self, key: str, where: Where, limit: int) -> list[str]:
        """The values that this keyword has in the points that match, those in most points first."""
        async with our_errors(self._deadline):
            found = await self._client.facet(self.name, key, filter_of(where), limit, exact=True)
        return [str(hit.value) for hit in found.hits]

    async def put(self, points: Sequence[NewPoint]) -> None:
        """Write or overwrite points, batch by batch."""
        for start in range(0, len(points), UPSERT_BATCH):
            batch = [point_of(point) for point in points[start : start + UPSERT_BATCH]]
            async with our_errors(self._deadline):
                await self._client.upsert(self.name, batch, wait=True)

    async def change(self, where: Where, payload: Mapping[str, Any]) -> None:
        """Set these payload fields of all points that match."""
        async with our_errors(self._deadline):
            await self._client.set_payload(self.name, dict(payload), points=filter_of(where), wait=True)

    async def delete(self, where: Where) -> None:
        """Delete all points that match."""
        selector = models.FilterSelector(filter=filter_of(where))
        async with our_errors(self._deadline):
            await self._client.delete(self.name, selector, wait=True)

    async def sync(self) -> None:
        """The server syncs its own log."""

    async def aclose(self) -> None:
        """The client is the catalogue's."""


@asynccontextmanager
async def our_errors(deadline: float) -> AsyncIterator[None]:
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
