"""GGUF to GGUF: every quantised matrix becomes Q8_0, which AVX2 processors multiply twice as fast as Q4_1."""

from pathlib import Path
from typing import Any

import gguf
import numpy as np

from models.sources import Advance

REPLACED = ("general.architecture", "general.file_type", "general.quantization_version")
KEPT_TYPES = (
    gguf.GGMLQuantizationType.F32,
    gguf.GGMLQuantizationType.F16,
    gguf.GGMLQuantizationType.Q8_0,
)


def requantise(source: Path, out: Path, advance: Advance) -> None:
    """Write `out`, a GGUF file with the keys and the tensors of `source`, quantised matrices as Q8_0."""
    reader = gguf.GGUFReader(source)
    writer = gguf.GGUFWriter(out, reader.fields["general.architecture"].contents())
    _copy_keys(reader, writer)
    for tensor in reader.tensors:
        _add(writer, tensor)
        advance(tensor.n_bytes / source.stat().st_size)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _copy_keys(reader: Any, writer: Any) -> None:
    for key, field in reader.fields.items():
        if key.startswith("GGUF.") or key in REPLACED:
            continue
        kind = field.types[0]
        item = field.types[-1] if kind == gguf.GGUFValueType.ARRAY else None
        writer.add_key_value(key, field.contents(), kind, sub_type=item)
    writer.add_file_type(gguf.LlamaFileType.MOSTLY_Q8_0)
    writer.add_quantization_version(gguf.GGML_QUANT_VERSION)


def _add(writer: Any, tensor: Any) -> None:
    if tensor.tensor_type in KEPT_TYPES:
        writer.add_tensor(tensor.name, tensor.data, raw_dtype=tensor.tensor_type)
        return
    weights = gguf.dequantize(tensor.data, tensor.tensor_type).astype(np.float32)
    quantised = gguf.quantize(weights, gguf.GGMLQuantizationType.Q8_0)
    writer.add_tensor(tensor.name, quantised, raw_dtype=gguf.GGMLQuantizationType.Q8_0)
