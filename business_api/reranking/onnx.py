"""A cross-encoder on onnxruntime: no torch."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from business_api.onnx_file import open_session, open_tokenizer
from business_api.reranking.local import LocalReranker, tried
from business_api.settings import RerankSettings

if TYPE_CHECKING:
    from tokenizers import Tokenizer

MAX_TOKENS = 512
"""Where the folder does not say it."""
ENDLESS = 1_000_000
"""Tokenizers that know no limit name a number far beyond this."""
REMEDY = "put a cross-encoder there, or name its folder by BUSINESS_API_RERANK__FOLDER"


def open_onnx(settings: RerankSettings, folder: Path) -> LocalReranker:
    """Load `tokenizer.json` and `model.onnx` (or `onnx/model.onnx`) of the folder, and try them.

    Raises OSError when they are missing or unreadable, ValueError when it is no cross-encoder.
    """
    tokenizer = open_tokenizer(folder, REMEDY)
    published = folder / "onnx/model.onnx"
    session = open_session(published if published.exists() else folder / "model.onnx", REMEDY)
    max_tokens = _max_tokens(folder)
    logits = tried(OnnxCrossEncoder(session, tokenizer, max_tokens).logits, str(folder))
    return LocalReranker(folder.name, logits, max_tokens=max_tokens, threads=settings.threads)


class OnnxCrossEncoder:
    """(question, texts) -> (n, labels) float32 logits, blocking.

    Of a pair that is too long the end of the text is cut; the question's only beyond half of the tokens.
    """

    def __init__(self, session: Any, tokenizer: "Tokenizer", max_tokens: int) -> None:
        tokenizer.enable_truncation(max_tokens, strategy="longest_first")
        self._tokenizer = tokenizer
        self._session = session
        self._inputs = {one.name for one in session.get_inputs()}
        self._output = session.get_outputs()[0].name

    def logits(self, question: str, texts: Sequence[str]) -> npt.NDArray[Any]:
        """(n, labels). Raises what onnxruntime raises."""
        pairs = [self._tokenizer.encode(question, text) for text in texts]
        shape = (len(pairs), max(len(pair.ids) for pair in pairs))
        ids, mask, kinds = (np.zeros(shape, np.int64) for _ in range(3))
        for row, pair in enumerate(pairs):
            ids[row, : len(pair.ids)] = pair.ids
            mask[row, : len(pair.ids)] = 1
            kinds[row, : len(pair.ids)] = pair.type_ids
        given = {"input_ids": ids, "attention_mask": mask, "token_type_ids": kinds}
        wanted = {name: values for name, values in given.items() if name in self._inputs}
        found: npt.NDArray[Any] = self._session.run([self._output], wanted)[0]
        return found


def _max_tokens(folder: Path) -> int:
    """What the tokenizer is set to, and no more than the model has positions."""
    limits = (
        _setting(folder / "tokenizer_config.json", "model_max_length"),
        _setting(folder / "config.json", "max_position_embeddings"),
    )
    return min((limit for limit in limits if 0 < limit < ENDLESS), default=MAX_TOKENS)


def _setting(file: Path, name: str) -> int:
    """A number of a JSON file; 0 where there is none."""
    return int(json.loads(file.read_text()).get(name) or 0) if file.exists() else 0
