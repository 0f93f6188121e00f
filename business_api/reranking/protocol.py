"""The port of the reranker."""

from collections.abc import Sequence
from typing import Protocol


class Reranker(Protocol):
    """Reads a question together with a text and says how well it answers, never on the event loop."""

    name: str

    async def score(self, question: str, texts: Sequence[str]) -> list[float]:
        """One score a text, in the order of the texts, higher is better. Raises RetrievalUnavailable."""

    async def aclose(self) -> None:
        """Stop the work and give the memory back."""
