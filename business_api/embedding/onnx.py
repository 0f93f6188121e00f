"""The embedding model on onnxruntime: no torch, about 100 MB, 10 ms of CPU a question."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from business_api.embedding.local import LocalEmbedder
from business_api.embedding.protocol import Vectors
from business_api.settings import EmbeddingSettings

if TYPE_CHECKING:
    from tokenizers import Tokenizer

MAX_TOKENS = 256


def open_onnx(settings: EmbeddingSettings, folder: Path) -> LocalEmbedder:
    """Load `model.onnx` and `tokenizer.json` of the folder. Raises OSError that says what to run."""
    tokenizer = open_tokenizer(folder)
    encoder = OnnxEncoder(_session(needed(folder / "model.onnx")), tokenizer)
    return LocalEmbedder(
        settings.model,
        encoder.encode,
        dimension=encoder.dimension,
        max_tokens=MAX_TOKENS,
        tokenizer=tokenizer,
        threads=settings.threads,
    )


def needed(file: Path) -> Path:
    """The file, if it is there. Raises FileNotFoundError that says what to run."""
    if not file.exists():
        raise FileNotFoundError(f"the embedding model is missing ({file}): run `make models`")
    return file


def open_tokenizer(folder: Path) -> "Tokenizer":
    """The tokenizer of the folder, set to neither truncate nor pad. Raises OSError."""
    from tokenizers import Tokenizer

    file = needed(folder / "tokenizer.json")
    try:
        tokenizer = Tokenizer.from_file(str(file))
    except Exception as exc:  # it raises nothing more precise
        raise OSError(f"{file} cannot be read: run `make models`") from exc
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer


def silent_onnxruntime() -> Any:
    """The library, told before it loads not to keep a device id and usage events in the home folder."""
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
    import onnxruntime

    return onnxruntime


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


def _session(model: Path) -> Any:
    onnxruntime = silent_onnxruntime()
    options = onnxruntime.SessionOptions()
    # one thread a run, several runs at once: the same throughput, and no thread spins while it waits
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.log_severity_level = 3
    try:
        return onnxruntime.InferenceSession(str(model), options, providers=["CPUExecutionProvider"])
    except Exception as exc:  # it raises nothing more precise
        raise OSError(f"{model} cannot be read: run `make models`") from exc
