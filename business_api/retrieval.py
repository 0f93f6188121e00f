"""Retrieval: from a query to the passages that may answer it. embed -> search -> fuse -> sift -> rerank."""

import asyncio
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

from business_api.assistants import Assistant
from business_api.embedding import Embedder
from business_api.errors import RetrievalUnavailable
from business_api.exchange import Degradation, Found
from business_api.fusion import fuse
from business_api.passages import Candidate, Narrowing, Query
from business_api.reranking import Reranker
from business_api.sifting import apart, joined, ranked_again, sifted
from business_api.vector_store import Hits, VectorStore, Wording


@dataclass
class _Course:
    """What one retrieval has taken and lost so far."""

    timings_ms: dict[str, float] = field(default_factory=dict)
    degraded: list[Degradation] = field(default_factory=list)

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        began = time.perf_counter()
        try:
            yield
        finally:
            self.timings_ms[name] = (time.perf_counter() - began) * 1000


@dataclass(frozen=True)
class Retriever:
    """Embeds the query, searches the assistant's collection, keeps the best. Deadlines in seconds."""

    stores: Mapping[str, VectorStore]
    embedder: Embedder
    embed_deadline: float
    search_deadline: float
    reranker: Reranker | None = None
    rerank_deadline: float = 0.5

    async def retrieve(self, query: Query, tenant: str, assistant: Assistant) -> Found:
        """The tenant's best passages, no text twice.

        Without a vector in time the words alone are searched, without a reranker in time the order is the
        fusion's; `degraded` says so. Raises RetrievalUnavailable when the store fails or is late.
        """
        course = _Course()
        with course.stage("embed"):
            wordings = await self._wordings(query, assistant, course)
        with course.stage("search"):
            hits = await self._narrowest(wordings, query, tenant, assistant, course)
            weights = (assistant.dense_weight, assistant.bm25_weight)
            candidates = fuse(hits.dense, hits.bm25, assistant.fusion, weights, assistant.candidates)
        if assistant.rerank and self.reranker is not None:
            with course.stage("rerank"):
                candidates = await self._reranked(self.reranker, query, candidates, assistant.rerank, course)
        candidates = sifted(candidates, assistant.passages, assistant.duplicate_share)
        return Found(
            passages=joined(candidates) if assistant.join_neighbours else apart(candidates),
            index=hits.index,
            timings_ms=course.timings_ms,
            candidates=tuple(candidates),
            degraded=tuple(course.degraded),
        )

    async def _wordings(self, query: Query, assistant: Assistant, course: _Course) -> list[Wording]:
        """Each text of the query with its vector; the first one's may be that of the hypothetical answer."""
        words = query.texts if assistant.bm25_weight > 0 else [""] * len(query.texts)
        if assistant.dense_weight == 0:
            return [Wording(text) for text in words]
        meant = [query.hypothetical or query.text, *query.texts[1:]]
        try:
            async with asyncio.timeout(self.embed_deadline):
                # one by one: that is how the embedder knows that a person waits
                vectors = await asyncio.gather(*(self.embedder.embed([text]) for text in meant))
        except (RetrievalUnavailable, TimeoutError):
            course.degraded.append(Degradation.DENSE_UNAVAILABLE)
            return [Wording(text) for text in query.texts]
        return [Wording(text, vector[0].tolist()) for text, vector in zip(words, vectors, strict=True)]

    async def _narrowest(
        self, wordings: Sequence[Wording], query: Query, tenant: str, assistant: Assistant, course: _Course
    ) -> Hits:
        """What is found where the question points to; if nothing, what is found where the caller allows."""
        if query.narrower is not None:
            hits = await self._search(wordings, query.narrower, tenant, assistant)
            if any((*hits.dense, *hits.bm25)):
                return hits
            course.degraded.append(Degradation.NARROWING_FAILED)
        return await self._search(wordings, query.narrowing, tenant, assistant)

    async def _search(
        self, wordings: Sequence[Wording], narrowing: Narrowing, tenant: str, assistant: Assistant
    ) -> Hits:
        assert assistant.collection is not None
        store = self.stores[assistant.collection]
        try:
            async with asyncio.timeout(self.search_deadline):
                return await store.search(
                    tenant, wordings, candidates=assistant.candidates, narrowing=narrowing
                )
        except TimeoutError as exc:
            raise RetrievalUnavailable("the documents could not be searched in time") from exc

    async def _reranked(
        self, reranker: Reranker, query: Query, candidates: list[Candidate], most: int, course: _Course
    ) -> list[Candidate]:
        texts = [candidate.chunk.text for candidate in candidates[:most]]
        try:
            async with asyncio.timeout(self.rerank_deadline):
                scores = await reranker.score(query.text, texts)
        except TimeoutError:
            course.degraded.append(Degradation.RERANK_TIMEOUT)
        except RetrievalUnavailable:
            course.degraded.append(Degradation.RERANK_UNAVAILABLE)
        else:
            return ranked_again(candidates, scores)
        return candidates
