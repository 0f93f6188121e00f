"""Builds an ONNX graph of a BERT sentence encoder from its safetensors: mean pooling and L2 norm inside.

A cross-encoder (BertForSequenceClassification) ends in the logits of its labels instead. No torch: the graph
is written node by node and equals the original to float32 rounding.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, numpy_helper
from safetensors.numpy import load_file

from models.sources import Advance

INPUTS = ("input_ids", "attention_mask", "token_type_ids")
OPSET, IR_VERSION = 17, 9
MASKED = 1e9
"""Taken from the attention scores of padding: its softmax is then exactly 0."""

Array = npt.NDArray[Any]


class _Graph:
    """Nodes and constants of a graph that is being written; every method returns the name of a value."""

    def __init__(self, weights: dict[str, Array]) -> None:
        self.weights = weights
        self.nodes: list[Any] = []
        self.constants: list[Any] = []

    def constant(self, values: Any) -> str:
        name = f"c{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(np.ascontiguousarray(values), name))
        return name

    def integers(self, *values: int) -> str:
        return self.constant(np.array(values, np.int64))

    def scalar(self, value: float) -> str:
        return self.constant(np.float32(value))

    def apply(self, operator: str, *inputs: str, **attributes: Any) -> str:
        name = f"{operator}_{len(self.nodes)}"
        self.nodes.append(onnx.helper.make_node(operator, list(inputs), [name], **attributes))
        return name

    def linear(self, x: str, layer: str) -> str:
        product = self.apply("MatMul", x, self.constant(self.weights[f"{layer}.weight"].T))
        return self.apply("Add", product, self.constant(self.weights[f"{layer}.bias"]))

    def norm(self, x: str, layer: str, epsilon: float) -> str:
        scale, bias = (self.constant(self.weights[f"{layer}.{part}"]) for part in ("weight", "bias"))
        return self.apply("LayerNormalization", x, scale, bias, epsilon=epsilon, axis=-1)

    def gelu(self, x: str) -> str:
        error = self.apply("Erf", self.apply("Mul", x, self.scalar(2**-0.5)))
        half = self.apply("Mul", x, self.scalar(0.5))
        return self.apply("Mul", half, self.apply("Add", error, self.scalar(1.0)))


def build(folder: Path, out: Path, advance: Advance) -> None:
    """Write the encoder of a Hugging Face folder (config.json, model.safetensors) as the ONNX file `out`.

    The weights go into `out`.data beside it: onnxruntime maps that file instead of copying it (80 MB less).

    Inputs input_ids, attention_mask, token_type_ids: int64 [b, s]. Output `out`: float32 [b, hidden],
    each row of length 1; of a cross-encoder float32 [b, labels].
    """
    config = json.loads((folder / "config.json").read_text())
    weights = load_file(folder / "model.safetensors")
    graph = _Graph({name.removeprefix("bert."): values for name, values in weights.items()})
    mask = graph.apply("Cast", "attention_mask", to=TensorProto.FLOAT)
    bias = _attention_bias(graph, mask)
    x = _embeddings(graph, config)
    for number in range(config["num_hidden_layers"]):
        x = _layer(graph, config, f"encoder.layer.{number}", x, bias)
        advance(0.5 / config["num_hidden_layers"])
    end = _classify(graph, x) if "classifier.weight" in graph.weights else _pool(graph, x, mask)
    model = _model(graph, *end)
    onnx.checker.check_model(model)
    beside = out.with_name(f"{out.name}.data")
    beside.unlink(missing_ok=True)
    onnx.external_data_helper.convert_model_to_external_data(model, location=beside.name)
    onnx.external_data_helper.write_external_data_tensors(model, str(out.parent))
    beside.chmod(0o644)
    out.write_bytes(model.SerializeToString(deterministic=True))
    advance(0.5)


def _attention_bias(graph: _Graph, mask: str) -> str:
    """[b, 1, 1, s]: 0 where there is a token, -1e9 at padding."""
    unsqueezed = graph.apply("Unsqueeze", mask, graph.integers(1, 2))
    less_one = graph.apply("Sub", unsqueezed, graph.scalar(1.0))
    return graph.apply("Mul", less_one, graph.scalar(MASKED))


def _embeddings(graph: _Graph, config: dict[str, Any]) -> str:
    weights = graph.weights
    words = graph.apply("Gather", graph.constant(weights["embeddings.word_embeddings.weight"]), "input_ids")
    kinds = graph.constant(weights["embeddings.token_type_embeddings.weight"])
    length = graph.apply(
        "Slice",
        graph.apply("Shape", "input_ids"),
        graph.integers(1),
        graph.integers(2),
        graph.integers(0),
    )
    positions = graph.apply(
        "Slice",
        graph.constant(weights["embeddings.position_embeddings.weight"]),
        graph.integers(0),
        length,
        graph.integers(0),
    )
    summed = graph.apply("Add", words, graph.apply("Gather", kinds, "token_type_ids"))
    summed = graph.apply("Add", summed, positions)
    return graph.norm(summed, "embeddings.LayerNorm", config["layer_norm_eps"])


def _layer(graph: _Graph, config: dict[str, Any], layer: str, x: str, bias: str) -> str:
    """One transformer layer: [b, s, hidden] -> [b, s, hidden]."""
    epsilon = config["layer_norm_eps"]
    attended = graph.linear(_attention(graph, config, layer, x, bias), f"{layer}.attention.output.dense")
    x = graph.norm(graph.apply("Add", attended, x), f"{layer}.attention.output.LayerNorm", epsilon)
    inner = graph.gelu(graph.linear(x, f"{layer}.intermediate.dense"))
    outer = graph.linear(inner, f"{layer}.output.dense")
    return graph.norm(graph.apply("Add", outer, x), f"{layer}.output.LayerNorm", epsilon)


def _attention(graph: _Graph, config: dict[str, Any], layer: str, x: str, bias: str) -> str:
    hidden, heads = config["hidden_size"], config["num_attention_heads"]
    width = hidden // heads
    query, key, value = (
        graph.apply(
            "Reshape",
            graph.linear(x, f"{layer}.attention.self.{part}"),
            graph.integers(0, 0, heads, width),
        )
        for part in ("query", "key", "value")
    )
    scores = graph.apply(
        "MatMul",
        graph.apply("Transpose", query, perm=[0, 2, 1, 3]),
        graph.apply("Transpose", key, perm=[0, 2, 3, 1]),
    )
    scaled = graph.apply("Mul", scores, graph.scalar(width**-0.5))
    shares = graph.apply("Softmax", graph.apply("Add", scaled, bias), axis=-1)
    mixed = graph.apply("MatMul", shares, graph.apply("Transpose", value, perm=[0, 2, 1, 3]))
    joined = graph.apply("Transpose", mixed, perm=[0, 2, 1, 3])
    return graph.apply("Reshape", joined, graph.integers(0, 0, hidden))


def _pool(graph: _Graph, x: str, mask: str) -> tuple[str, int]:
    """Mean over the tokens that are not padding, then length 1; and its width."""
    kept = graph.apply("Unsqueeze", mask, graph.integers(2))
    total = graph.apply("ReduceSum", graph.apply("Mul", x, kept), graph.integers(1), keepdims=0)
    count = graph.apply("ReduceSum", kept, graph.integers(1), keepdims=0)
    mean = graph.apply("Div", total, count)
    unit = graph.apply("LpNormalization", mean, axis=-1, p=2)
    return unit, graph.weights["embeddings.LayerNorm.weight"].size


def _classify(graph: _Graph, x: str) -> tuple[str, int]:
    """The labels' logits from the first token; and their number."""
    first = graph.apply("Squeeze", graph.apply("Gather", x, graph.integers(0), axis=1), graph.integers(1))
    pooled = graph.apply("Tanh", graph.linear(first, "pooler.dense"))
    return graph.linear(pooled, "classifier"), graph.weights["classifier.bias"].size


def _model(graph: _Graph, end: str, width: int) -> Any:
    graph.nodes.append(onnx.helper.make_node("Identity", [end], ["out"]))
    inputs = [onnx.helper.make_tensor_value_info(name, TensorProto.INT64, ["b", "s"]) for name in INPUTS]
    output = onnx.helper.make_tensor_value_info("out", TensorProto.FLOAT, ["b", width])
    whole = onnx.helper.make_graph(graph.nodes, "sentence_encoder", inputs, [output], graph.constants)
    opset = onnx.helper.make_opsetid("", OPSET)
    return onnx.helper.make_model(whole, opset_imports=[opset], ir_version=IR_VERSION)
