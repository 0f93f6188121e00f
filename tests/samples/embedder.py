"""An Embedder whose vectors a person can check, that remembers the batches it was given."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from tokenizers import Tokenizer

from business_api.embedding.protocol import Vectors
from tests.fakes import LetterEmbedder


@dataclass
class SampleEmbedder:
    """Embeds as LetterEmbedder does, with or without a tokenizer; raises `error` if there is one."""

    name: str = "letters"
    dimension: int = 32
    max_tokens: int = 256
    tokenizer: Tokenizer | None = None
    error: Exception | None = None
    batches: list[list[str]] = field(default_factory=list)

    @property
    def seen(self) -> list[str]:
        """All texts so far, in order."""
        return [text for batch in self.batches for text in batch]

    async def embed(self, texts: Sequence[str]) -> Vectors:
        """(n, 32) float32 unit vectors."""
        self.batches.append(list(texts))
        return await LetterEmbedder(error=self.error).embed(texts)

    async def aclose(self) -> None:
        """Nothing is open."""
