"""Remembers the vectors of questions, and embeds a question once however many ask it at the same time."""

import asyncio
import hashlib
from collections import OrderedDict
from collections.abc import Sequence
from typing import TYPE_CHECKING

from business_api.embedding.protocol import Embedder, Vectors

if TYPE_CHECKING:
    from tokenizers import Tokenizer


class CachedEmbedder:
    """An Embedder in front of another: keeps the `size` vectors of single texts that were asked last.

    Lists of texts pass through. A caller who gives up does not stop the work for the others; failures are
    not kept. The arrays are shared, and read-only.
    """

    def __init__(self, embedder: Embedder, size: int) -> None:
        self.name = embedder.name
        self.dimension = embedder.dimension
        self.max_tokens = embedder.max_tokens
        self.tokenizer: Tokenizer | None = embedder.tokenizer
        self._embedder = embedder
        self._size = size
        self._kept: OrderedDict[bytes, Vectors] = OrderedDict()
        self._running: dict[bytes, _Shared] = {}

    async def embed(self, texts: Sequence[str]) -> Vectors:
        """(n, dimension) float32 unit vectors, in the order of the texts. Raises RetrievalUnavailable."""
        if len(texts) != 1:
            return await self._embedder.embed(texts)
        key = hashlib.blake2b(texts[0].encode("utf-8", "surrogatepass"), digest_size=16).digest()
        if key in self._kept:
            self._kept.move_to_end(key)
            return self._kept[key]
        shared = self._running.get(key)
        if shared is None:
            shared = self._share(key, texts[0])
        shared.waiting += 1
        try:
            return await asyncio.shield(shared.task)
        finally:
            shared.waiting -= 1
            if not shared.waiting and not shared.task.done():
                shared.task.cancel()
                self._forget(key, shared)

    async def aclose(self) -> None:
        """Close the embedder behind."""
        for shared in self._running.values():
            shared.task.cancel()
        await self._embedder.aclose()

    def _share(self, key: bytes, text: str) -> "_Shared":
        shared = self._running[key] = _Shared(asyncio.create_task(self._embed(key, text)))
        shared.task.add_done_callback(lambda _: self._forget(key, shared))
        return shared

    def _forget(self, key: bytes, shared: "_Shared") -> None:
        if self._running.get(key) is shared:
            del self._running[key]

    async def _embed(self, key: bytes, text: str) -> Vectors:
        vectors = await self._embedder.embed([text])
        vectors.setflags(write=False)
        self._kept[key] = vectors
        while len(self._kept) > self._size:
            self._kept.popitem(last=False)
        return vectors


class _Shared:
    """A task, and how many wait for it; it is cancelled when the last of them has given up."""

    def __init__(self, task: "asyncio.Task[Vectors]") -> None:
        self.task = task
        self.waiting = 0
