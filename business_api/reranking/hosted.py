"""A reranking model behind the API that vLLM, Jina and Cohere have in common."""

import math
from collections.abc import Sequence
from typing import Any

import aiohttp
import msgspec

from business_api.errors import RetrievalUnavailable
from business_api.hosted_model import Rejected, ask, open_session
from business_api.settings import RerankSettings

PATIENCE = 30.0
"""Seconds; ends calls of those who set no deadline of their own."""

CUT = {"truncate_prompt_tokens": -1}
"""Has vLLM cut what is too long; the others do so unasked, and need not know this field."""


class _Result(msgspec.Struct):
    index: int
    relevance_score: float


class _Answer(msgspec.Struct):
    results: list[_Result]


class HostedReranker:
    """A Reranker that asks `POST {url}/rerank`."""

    def __init__(self, model: str, url: str, session: aiohttp.ClientSession) -> None:
        self.name = model
        self._url = url.rstrip("/") + "/rerank"
        self._session = session
        self._more: dict[str, Any] = {}

    @classmethod
    def open(cls, settings: RerankSettings) -> "HostedReranker":
        """To be called in an event loop; nothing is sent yet. Raises ValueError without a URL or a model."""
        if not settings.url or not settings.model:
            raise ValueError(
                "rerank kind 'hosted' needs BUSINESS_API_RERANK__URL and BUSINESS_API_RERANK__MODEL"
            )
        return cls(settings.model, settings.url, open_session(settings.api_key))

    async def score(self, question: str, texts: Sequence[str]) -> list[float]:
        """One score a text, in the order of the texts, higher is better. Raises RetrievalUnavailable."""
        if not texts:
            return []
        asked = {"model": self.name, "query": question, "documents": list(texts)}
        try:
            answer = await self._ask(asked | self._more)
        except Rejected:
            if self._more:
                raise
            answer = await self._ask(asked | CUT)
            self._more = CUT
        return _in_order(answer.results, len(texts))

    async def aclose(self) -> None:
        """Close the connections."""
        await self._session.close()

    async def _ask(self, asked: dict[str, Any]) -> _Answer:
        return await ask(
            self._session, self._url, asked, _Answer, server="the reranking server", deadline=PATIENCE
        )


def _in_order(results: list[_Result], wanted: int) -> list[float]:
    """The scores by index. Raises RetrievalUnavailable unless each is there once and finite."""
    scores = {one.index: one.relevance_score for one in results}
    if len(results) != wanted or scores.keys() != set(range(wanted)):
        raise RetrievalUnavailable("the reranking server did not score each text once")
    if not all(map(math.isfinite, scores.values())):
        raise RetrievalUnavailable("the reranking server gave a score that is not a number")
    return [scores[place] for place in range(wanted)]
