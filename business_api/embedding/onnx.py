"""The embedding model on onnxruntime: no torch, about 100 MB, 10 ms of CPU a question."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from business_api.embedding.local import LocalEmbedder
from business_api.embedding.protocol import Vectors
from business_api.onnx_file import open_session, open_tokenizer, silent_onnxruntime
from business_api.settings import EmbeddingSettings

if TYPE_CHECKING:
    from tokenizers import Tokenizer

MAX_TOKENS = 256
REMEDY = "run `make models`"


def open_onnx(settings: EmbeddingSettings, folder: Path) -> LocalEmbedder:
    """Load `model.onnx` and `tokenizer.json` of the folder. Raises OSError that says what to run."""
    tokenizer = open_tokenizer(folder, REMEDY)
    encoder = OnnxEncoder(open_session(folder / "model.onnx", REMEDY), tokenizer)
    return LocalEmbedder(
        settings.model,
        encoder.encode,
        dimension=encoder.dimension,
        max_tokens=MAX_TOKENS,
        tokenizer=tokenizer,
        threads=settings.threads,
    )


class OnnxEncoder:
    """texts -> vectors, blocking. Inputs int64 [b, s], output `out` float32 [b, dimension], length 1."""

    def __init__(self, session: Any, tokenizer: "Tokenizer") -> None:
        onnxruntime = silent_onnxruntime()

        self._session = session
        self._tokenizer = tokenizer
        self._end = tokenizer.encode("").ids[-1]
        self.dimension = int(session.get_outputs()[0].shape[1])
        self._shrinking = onnxruntime.RunOptions()
        self._shrinking.add_run_config_entry("memory.enable_memory_arena_shrinkage", "cpu:0")

    def encode(self, texts: Sequence[str]) -> Vectors:
        """(n, dimension) float32 unit vectors."""
        tokens = [self._tokens(text) for text in texts]
        shape = (len(tokens), max(map(len, tokens)))
        ids, mask = np.zeros(shape, np.int64), np.zeros(shape, np.int64)
        for row, these in enumerate(tokens):
            ids[row, : len(these)] = these
            mask[row, : len(these)] = 1
        inputs = {"input_ids": ids, "attention_mask": mask, "token_type_ids": np.zeros_like(ids)}
        # a long run's memory is given back; a question's is kept for the next one
        options = self._shrinking if len(tokens) > 1 else None
        vectors: Vectors = self._session.run(["out"], inputs, options)[0]
        return vectors

    def _tokens(self, text: str) -> list[int]:
        found: list[int] = self._tokenizer.encode(text).ids
        return found if len(found) <= MAX_TOKENS else [*found[: MAX_TOKENS - 1], self._end]
