"""The port of the reranker."""

from collections.abc import Sequence
from typing import Protocol


class Reranker(Protocol):
    """Reads a question together with a text and says how well it answers, never on the event loop."""

    name: str

    async def score(self, question: str, texts: Sequence[str]) -> list[float]:
        """One score a text, in the order of the texts, higher is better. Raises RetrievalUnavailable.

        Scores are finite: logits or probabilities, as the model gives them, and only comparable within one
        model. What is longer than the model reads is cut at its end. Cancelling stops the work.
        """

    async def aclose(self) -> None:
        """Stop the work and give the memory back."""
