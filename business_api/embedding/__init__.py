"""What turns text into vectors: onnxruntime by default, sentence-transformers, or a hosted API."""

import asyncio

from business_api.embedding.cache import CachedEmbedder
from business_api.embedding.protocol import Embedder, Vectors
from business_api.settings import Settings

__all__ = ["CachedEmbedder", "Embedder", "Vectors", "open_embedder"]


async def open_embedder(settings: Settings) -> Embedder:
    """The embedder that the settings name; its libraries are imported here and not before.

    Raises OSError when its files are missing or unreadable (the message says what to run), ValueError when a
    setting is missing, RetrievalUnavailable when a hosted one does not answer.
    """
    chosen = settings.embedding
    folder = settings.var / chosen.folder
    if chosen.kind == "hosted":
        from business_api.embedding.hosted import HostedEmbedder

        return await HostedEmbedder.open(chosen)
    if chosen.kind == "sentence-transformers":
        from business_api.embedding.torch import open_torch

        return await asyncio.to_thread(open_torch, chosen, folder)

    from business_api.embedding.onnx import open_onnx

    return await asyncio.to_thread(open_onnx, chosen, folder)
