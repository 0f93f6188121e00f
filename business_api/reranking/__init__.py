"""What reads a question and a passage together: a cross-encoder in this process, or a hosted API."""

import asyncio

from business_api.reranking.protocol import Reranker
from business_api.settings import Settings

__all__ = ["Reranker", "open_reranker"]


async def open_reranker(settings: Settings) -> Reranker | None:
    """The reranker that the settings name, None for none; its libraries are imported here and not before.

    Raises OSError when its files are missing or unreadable, ValueError when a setting is missing or the model
    is no cross-encoder. A hosted one is not asked yet.
    """
    chosen = settings.rerank
    folder = settings.var / chosen.folder
    if chosen.kind == "hosted":
        from business_api.reranking.hosted import HostedReranker

        return HostedReranker.open(chosen)
    if chosen.kind == "sentence-transformers":
        from business_api.reranking.torch import open_torch

        return await asyncio.to_thread(open_torch, chosen, folder)
    if chosen.kind == "onnx":
        from business_api.reranking.onnx import open_onnx

        return await asyncio.to_thread(open_onnx, chosen, folder)
    return None
