"""What the figures of the index are made with: invented texts, hashed vectors, a store that forgets."""

import random
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from business_api.passages import Chunk
from business_api.vector_store import Point, StoredDocument

DIMENSION = 384
TENANT = "default"
CHUNKS_PER_DOCUMENT = 8
WORDS = [
    a + b + c
    for a in ("ba", "ce", "di", "fo", "gu", "ha", "ke", "li", "mo", "nu", "pa", "re", "si", "to", "vu")
    for b in ("lan", "mer", "nis", "rot", "sul", "tav", "bel", "cor", "dun", "fir", "gan", "hos")
    for c in ("", "a", "ed", "en", "er", "ing", "is", "o", "or", "um")
]
_WEIGHTS = [1 / (rank + 3) for rank in range(len(WORDS))]


def words(dice: random.Random, count: int) -> str:
    """So many words, the common ones more often (Zipf)."""
    return " ".join(dice.choices(WORDS, _WEIGHTS, k=count))


class HashingEmbedder:
    """Vectors from the hash of a text: what is measured with it is everything but the embedding."""

    name = "hashing"
    dimension = DIMENSION
    max_tokens = 256
    tokenizer = None

    async def embed(self, texts: Sequence[str]) -> np.ndarray[Any, np.dtype[np.float32]]:
        """(n, 384) float32 unit vectors; the same text has the same one."""
        vectors = np.empty((len(texts), DIMENSION), dtype=np.float32)
        for place, text in enumerate(texts):
            vectors[place] = np.random.default_rng(zlib.crc32(text.encode())).standard_normal(DIMENSION)
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
        return vectors

    async def aclose(self) -> None:
        """Nothing is open."""


class ForgetfulStore:
    """A VectorStore for writing only, that counts chunks and keeps nothing."""

    collection = "kb"

    def __init__(self) -> None:
        self.chunks = 0

    async def documents(self, tenant: str) -> dict[str, StoredDocument]:
        """None."""
        return {}

    async def begin(self, tenant: str) -> int:
        """The first generation, always."""
        return 1

    async def stage(self, tenant: str, generation: int, points: Sequence[Point]) -> None:
        """Count and forget."""
        self.chunks += len(points)

    async def retire(self, tenant: str, generation: int, documents: Sequence[str]) -> None:
        """Nothing to do."""

    async def publish(self, tenant: str, generation: int) -> None:
        """Nothing to do."""

    async def vacuum(self, tenant: str) -> None:
        """Nothing to do."""

    async def count(self, tenant: str) -> int:
        """How many chunks came."""
        return self.chunks

    async def search(self, *_: Any, **__: Any) -> Any:
        """Not for searching."""
        raise NotImplementedError

    async def aclose(self) -> None:
        """Nothing is open."""


def points(chunks: int, vectors: np.ndarray[Any, np.dtype[np.float32]]) -> list[Point]:
    """Invented chunks of invented documents, with these vectors."""
    dice = random.Random(chunks)
    made = []
    for number in range(chunks):
        document, part = divmod(number, CHUNKS_PER_DOCUMENT)
        text = words(dice, 110)
        chunk = Chunk(
            id=f"{document}#{part}",
            document=f"docs/{document}.md",
            title=f"Document {document}",
            heading=("Part", str(part)),
            number=part,
            start=part * 1000,
            end=part * 1000 + len(text),
            text=text,
        )
        made.append(Point(chunk, vectors[number].tolist(), "hash"))
    return made


def write_documents(folder: Path, chunks: int) -> None:
    """Text files that are cut into about so many chunks."""
    dice = random.Random(chunks)
    folder.mkdir()
    for number in range(chunks // CHUNKS_PER_DOCUMENT):
        paragraphs = (f"{words(dice, 95)}." for _ in range(CHUNKS_PER_DOCUMENT))
        (folder / f"{number}.txt").write_text("\n\n".join(paragraphs))
