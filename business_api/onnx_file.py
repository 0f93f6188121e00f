"""Opens the files of an ONNX model, set the way all our models run."""

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tokenizers import Tokenizer


def needed(file: Path, remedy: str) -> Path:
    """The file, if it is there. Raises FileNotFoundError that ends in `remedy`."""
    if not file.exists():
        raise FileNotFoundError(f"{file} is missing: {remedy}")
    return file


def open_tokenizer(folder: Path, remedy: str) -> "Tokenizer":
    """The tokenizer of the folder, set to neither truncate nor pad. Raises OSError that ends in `remedy`."""
    from tokenizers import Tokenizer

    file = needed(folder / "tokenizer.json", remedy)
    try:
        tokenizer = Tokenizer.from_file(str(file))
    except Exception as exc:  # it raises nothing more precise
        raise OSError(f"{file} cannot be read: {remedy}") from exc
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer


def silent_onnxruntime() -> Any:
    """The library, told before it loads not to keep a device id and usage events in the home folder."""
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
    import onnxruntime

    return onnxruntime


def open_session(model: Path, remedy: str) -> Any:
    """An InferenceSession that may be run in several threads. Raises OSError that ends in `remedy`."""
    file = str(needed(model, remedy))
    onnxruntime = silent_onnxruntime()
    options = onnxruntime.SessionOptions()
    # one thread a run, several runs at once: the same throughput, and no thread spins while it waits
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.log_severity_level = 3
    try:
        return onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])
    except Exception as exc:  # it raises nothing more precise
        raise OSError(f"{model} cannot be read: {remedy}") from exc
