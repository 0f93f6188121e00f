"""Retrieval: from a question to the passages that may answer it."""

import asyncio
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from business_api.assistants import Assistant
from business_api.embedding import Embedder
from business_api.errors import RetrievalUnavailable
from business_api.exchange import Degradation, Found, Passage
from business_api.vector_store import Hits, VectorStore

TIMES = 3
"""So many times the passages wanted are asked for: some stand in for duplicates."""


@dataclass(frozen=True)
class Retriever:
    """Embeds the question, searches the assistant's collection, keeps the best. Deadlines in seconds."""

    stores: Mapping[str, VectorStore]
    embedder: Embedder
    embed_deadline: float
    search_deadline: float

    async def retrieve(self, text: str, tenant: str, assistant: Assistant) -> Found:
        """The tenant's best passages, no text twice.

        Without a vector in time the words alone are searched, and `degraded` says so. Raises
        RetrievalUnavailable when the store fails or is late.
        """
        timings: dict[str, float] = {}
        began = time.perf_counter()
        vector = await self._embed(text) if assistant.dense_weight > 0 else None
        embedded = time.perf_counter()
        hits = await self._search(text, vector, tenant, assistant)
        timings["embed"] = (embedded - began) * 1000
        timings["search"] = (time.perf_counter() - embedded) * 1000
        missing = vector is None and assistant.dense_weight > 0
        return Found(
            passages=_distinct(hits.passages)[: assistant.passages],
            index=hits.index,
            timings_ms=timings,
            degraded=(Degradation.DENSE_UNAVAILABLE,) if missing else (),
        )

    async def _embed(self, text: str) -> Sequence[float] | None:
        try:
            async with asyncio.timeout(self.embed_deadline):
                vector: list[float] = (await self.embedder.embed([text]))[0].tolist()
        except (RetrievalUnavailable, TimeoutError):
            return None
        return vector

    async def _search(
        self, text: str, vector: Sequence[float] | None, tenant: str, assistant: Assistant
    ) -> Hits:
        assert assistant.collection is not None
        try:
            async with asyncio.timeout(self.search_deadline):
                return await self.stores[assistant.collection].search(
                    tenant,
                    text=text,
                    vector=vector,
                    candidates=assistant.candidates,
                    limit=assistant.passages * TIMES,
                    fusion=assistant.fusion,
                    weights=(assistant.dense_weight, assistant.bm25_weight),
                )
        except TimeoutError as exc:
            raise RetrievalUnavailable("the documents could not be searched in time") from exc


def _distinct(passages: Sequence[Passage]) -> tuple[Passage, ...]:
    """Each text once, where it stands best."""
    best: dict[str, Passage] = {}
    for passage in passages:
        best.setdefault(passage.chunk.text, passage)
    return tuple(best.values())
