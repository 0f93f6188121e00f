"""What reads a question and a passage together."""

from business_api.reranking.protocol import Reranker

__all__ = ["Reranker"]
