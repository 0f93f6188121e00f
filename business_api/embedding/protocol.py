"""The port of the embedder."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from tokenizers import Tokenizer

Vectors = npt.NDArray[np.float32]
"""(n, dimension) float32, each row of length 1."""


class Embedder(Protocol):
    """Turns texts into vectors, never on the event loop.

    `tokenizer` counts tokens as the model does (no truncation or padding is set on it); None if unknown.
    Texts longer than `max_tokens` are embedded by their beginning.
    """

    name: str
    dimension: int
    max_tokens: int

    @property
    def tokenizer(self) -> "Tokenizer | None":
        """Counts tokens; may be used in any thread."""

    async def embed(self, texts: Sequence[str]) -> Vectors:
        """(n, dimension) float32 unit vectors, in the order of the texts. Raises RetrievalUnavailable."""

    async def aclose(self) -> None:
        """Stop the work and give the memory back."""
