"""The embedding model on sentence-transformers (torch): the reference, and the way to a GPU in-process."""

import logging
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from business_api.embedding.local import LocalEmbedder
from business_api.embedding.onnx import REMEDY
from business_api.embedding.protocol import Vectors
from business_api.onnx_file import needed, open_tokenizer
from business_api.settings import EmbeddingSettings


def open_torch(settings: EmbeddingSettings, folder: Path) -> LocalEmbedder:
    """Load the folder's `sentence-transformers` sub-folder, or the folder itself. Raises OSError."""
    inner = folder / "sentence-transformers"
    folder = inner if inner.exists() else folder
    needed(folder / "modules.json", REMEDY)
    tokenizer = open_tokenizer(folder, REMEDY)
    try:
        from sentence_transformers import SentenceTransformer
    except ImportError as exc:
        raise OSError("embedding by sentence-transformers: that package is not installed here") from exc
    logging.getLogger("sentence_transformers").setLevel(logging.WARNING)
    model = SentenceTransformer(str(folder), local_files_only=True)

    def encode(texts: Sequence[str]) -> Vectors:
        found = model.encode(
            list(texts),
            batch_size=32,
            normalize_embeddings=True,
            show_progress_bar=False,
            convert_to_numpy=True,
        )
        return np.asarray(found, np.float32)

    return LocalEmbedder(
        settings.model,
        encode,
        dimension=int(encode(["dimension"]).shape[1]),
        max_tokens=int(model.max_seq_length or 256),
        tokenizer=tokenizer,
        threads=1,  # torch spreads one run over the cores by itself
    )
