"""What `sources.toml` calls recipes: from input files to the output files of one folder."""

import shutil
from collections.abc import Callable
from pathlib import Path

from models.bert_onnx import build
from models.hugging_face import convert
from models.requantise import requantise
from models.sources import Advance

Recipe = Callable[[Path, list[Path], Advance], None]
"""(folder to write, input files in the order of sources.toml, progress) -> every output is written."""


def _llama_cpp(folder: Path, inputs: list[Path], advance: Advance) -> None:
    weights, licence = inputs
    requantise(weights, folder / "model-q8_0.gguf", advance)
    shutil.copyfile(licence, folder / "LICENSE")


def _sentence_encoder(folder: Path, inputs: list[Path], advance: Advance) -> None:
    """The ONNX encoder and, beside it, the published folder as sentence-transformers loads it."""
    published = next(path.parent for path in inputs if path.name == "modules.json")
    original = folder / "sentence-transformers"
    for path in inputs:
        copied = original / path.relative_to(published)
        copied.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, copied)
    for name in ("LICENSE", "NOTICE", "tokenizer.json"):
        shutil.copyfile(published / name, folder / name)
    build(published, folder / "model.onnx", advance)


def _hugging_face(folder: Path, inputs: list[Path], advance: Advance) -> None:
    weights, licence = inputs
    convert(weights, folder, advance)
    shutil.copyfile(licence, folder / "LICENSE")


RECIPES: dict[str, Recipe] = {
    "llama_cpp": _llama_cpp,
    "sentence_encoder": _sentence_encoder,
    "hugging_face": _hugging_face,
}
