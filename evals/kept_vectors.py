"""Vectors kept on the disk: what was embedded once is not embedded again, however often it is evaluated."""

import hashlib
import re
import sqlite3
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from business_api.embedding import Embedder, Vectors

if TYPE_CHECKING:
    from tokenizers import Tokenizer

ASKED = 500
"""Keys looked up in one statement; the database takes no more than 999."""


class KeptVectors:
    """An Embedder in front of another. The file is named for the model, its keys are the SHA-256 of a text.

    What `embed` has returned stays in memory, so that a second call costs next to nothing.
    """

    def __init__(self, embedder: Embedder, folder: Path) -> None:
        self.name = embedder.name
        self.dimension = embedder.dimension
        self.max_tokens = embedder.max_tokens
        self.tokenizer: Tokenizer | None = embedder.tokenizer
        self._embedder = embedder
        self._known: dict[str, Vectors] = {}
        folder.mkdir(parents=True, exist_ok=True)
        name = re.sub(r"[^\w.-]+", "-", f"{embedder.name}-{embedder.dimension}")
        self._file = sqlite3.connect(folder / f"{name}.sqlite", timeout=60)
        with self._file:
            self._file.execute("CREATE TABLE IF NOT EXISTS vectors (key BLOB PRIMARY KEY, vector BLOB)")

    async def embed(self, texts: Sequence[str]) -> Vectors:
        """(n, dimension) float32 unit vectors, in the order of the texts. Raises RetrievalUnavailable."""
        self._remember([text for text in texts if text not in self._known])
        missing = list(dict.fromkeys(text for text in texts if text not in self._known))
        if missing:
            self._keep(missing, await self._embedder.embed(missing))
        if not texts:
            return np.empty((0, self.dimension), np.float32)
        return np.stack([self._known[text] for text in texts])

    async def aclose(self) -> None:
        """Close the file and the embedder behind."""
        self._file.close()
        await self._embedder.aclose()

    def missing(self, texts: Sequence[str]) -> list[str]:
        """Those of the texts, each once, that are still to be embedded."""
        self._remember([text for text in texts if text not in self._known])
        return list(dict.fromkeys(text for text in texts if text not in self._known))

    def _remember(self, texts: Sequence[str]) -> None:
        keys = {_key(text): text for text in texts}
        asked = list(keys)
        for start in range(0, len(asked), ASKED):
            some = asked[start : start + ASKED]
            marks = ",".join("?" * len(some))
            query = f"SELECT key, vector FROM vectors WHERE key IN ({marks})"  # noqa: S608 - marks only
            with closing(self._file.execute(query, some)) as rows:
                for key, vector in rows:
                    self._known[keys[key]] = np.frombuffer(vector, np.float32)

    def _keep(self, texts: Sequence[str], vectors: Vectors) -> None:
        rows = [
            (_key(text), vector.astype(np.float32).tobytes())
            for text, vector in zip(texts, vectors, strict=True)
        ]
        with self._file:
            self._file.executemany("INSERT OR REPLACE INTO vectors VALUES (?, ?)", rows)
        self._known.update(zip(texts, vectors, strict=True))


def _key(text: str) -> bytes:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()
