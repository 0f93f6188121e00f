"""A stand-in for the reranker port. It works, remembers, can fail, and can be too slow for any deadline."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field


@dataclass
class FakeReranker:
    """A Reranker that a person can check: the share of the question's words that the text has."""

    name: str = "words"
    error: Exception | None = None
    hangs: bool = False
    asked: list[tuple[str, tuple[str, ...]]] = field(default_factory=list)
    gave_up: int = 0
    """Callers who were cancelled while it hung."""

    async def score(self, question: str, texts: Sequence[str]) -> list[float]:
        """Shares from 0 to 1; raises `error` if there is one, never returns if it `hangs`."""
        self.asked.append((question, tuple(texts)))
        if self.hangs:
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                self.gave_up += 1
                raise
        if self.error is not None:
            raise self.error
        words = set(question.lower().split())
        return [len(words & set(text.lower().split())) / max(1, len(words)) for text in texts]

    async def aclose(self) -> None:
        """Nothing is open."""
