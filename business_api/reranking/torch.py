"""A cross-encoder on sentence-transformers (torch): the reference, and the way to a GPU in-process."""

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from business_api.onnx_file import needed
from business_api.reranking.local import LocalReranker, tried
from business_api.reranking.onnx import MAX_TOKENS, REMEDY
from business_api.settings import RerankSettings


def open_torch(settings: RerankSettings, folder: Path) -> LocalReranker:
    """Load the published model of the settings' name, or the folder if they name none.

    Raises OSError when it is missing or unreadable, ValueError when it is no cross-encoder.
    """
    try:
        from sentence_transformers import CrossEncoder
        from torch.nn import Identity
    except ImportError as exc:
        raise OSError("reranking by sentence-transformers: that package is not installed here") from exc
    logging.getLogger("sentence_transformers").setLevel(logging.WARNING)
    source = settings.model or str(needed(folder / "config.json", REMEDY).parent)
    try:
        model = CrossEncoder(source, local_files_only=settings.model is None)
    except Exception as exc:  # it raises nothing more precise
        raise OSError(f"the cross-encoder {source} cannot be loaded") from exc
    network = type(model.model).__name__
    if network.endswith("SequenceClassification") and network not in (model.config.architectures or ()):
        raise ValueError(f"{source} is no cross-encoder: its labels' weights would be made up")

    def logits(question: str, texts: Sequence[str]) -> npt.NDArray[Any]:
        found = model.predict(
            [(question, text) for text in texts],
            batch_size=len(texts),
            activation_fn=Identity(),
            show_progress_bar=False,
            convert_to_numpy=True,
        )
        return np.asarray(found, np.float32).reshape(len(texts), -1)

    return LocalReranker(
        settings.model or folder.name,
        tried(logits, source),
        max_tokens=int(model.max_seq_length or MAX_TOKENS),
        threads=1,  # torch spreads one run over the cores by itself
    )
