"""An embedding model behind an OpenAI embeddings API, such as a second vLLM."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import aiohttp
import msgspec
import numpy as np

from business_api.embedding.protocol import Vectors
from business_api.errors import RetrievalUnavailable
from business_api.hosted_model import ask, open_session
from business_api.settings import EmbeddingSettings

if TYPE_CHECKING:
    from tokenizers import Tokenizer

TEXTS_A_CALL = 64
MAX_TOKENS = 256


class _Embedding(msgspec.Struct):
    index: int
    embedding: list[float]


class _Answer(msgspec.Struct):
    data: list[_Embedding]


class HostedEmbedder:
    """An Embedder that asks `POST {url}/embeddings`. Each call has the deadline of the settings."""

    tokenizer: "Tokenizer | None" = None
    max_tokens = MAX_TOKENS

    def __init__(self, settings: EmbeddingSettings, session: aiohttp.ClientSession, dimension: int) -> None:
        assert settings.url
        self.name = settings.model
        self.dimension = dimension
        self._url = settings.url.rstrip("/") + "/embeddings"
        self._deadline = settings.deadline
        self._session = session

    @classmethod
    async def open(cls, settings: EmbeddingSettings) -> "HostedEmbedder":
        """Ask the server for its dimension unless the settings say it.

        Raises ValueError without a URL, RetrievalUnavailable when the server does not answer.
        """
        if not settings.url:
            raise ValueError("embedding kind 'hosted' needs BUSINESS_API_EMBEDDING__URL")
        session = open_session(settings.api_key)
        embedder = cls(settings, session, settings.dimension or 0)
        try:
            if not embedder.dimension:
                embedder.dimension = (await embedder.embed(["dimension"])).shape[1]
        except BaseException:
            await session.close()
            raise
        return embedder

    async def embed(self, texts: Sequence[str]) -> Vectors:
        """(n, dimension) float32 unit vectors, in the order of the texts. Raises RetrievalUnavailable."""
        parts = [
            await self._call(texts[start : start + TEXTS_A_CALL])
            for start in range(0, len(texts), TEXTS_A_CALL)
        ]
        return np.concatenate(parts) if parts else np.empty((0, self.dimension), np.float32)

    async def aclose(self) -> None:
        """Close the connections."""
        await self._session.close()

    async def _call(self, texts: Sequence[str]) -> Vectors:
        asked = {"model": self.name, "input": list(texts), "encoding_format": "float"}
        answer = await ask(
            self._session,
            self._url,
            asked,
            _Answer,
            server="the embedding server",
            deadline=self._deadline,
        )
        return self._vectors(answer, len(texts))

    def _vectors(self, answer: _Answer, wanted: int) -> Vectors:
        rows = [one.embedding for one in sorted(answer.data, key=lambda one: one.index)]
        width = self.dimension or len(rows[0] if rows else ())
        if len(rows) != wanted or any(len(row) != width for row in rows) or not width:
            raise RetrievalUnavailable("the embedding server answered with vectors of another number or size")
        vectors = np.array(rows, np.float32)
        lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
        if not np.all(np.isfinite(lengths)) or not np.all(lengths > 0):
            raise RetrievalUnavailable("the embedding server answered with an unusable vector")
        return np.asarray(vectors / lengths, np.float32)
