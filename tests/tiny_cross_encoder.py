"""A tiny cross-encoder with weights set by hand: a BERT that counts the question's tokens found in the text.

One dimension a token, some for what a position is. In layer 0 each token of the question looks for itself in
the text, and at a special token if it is not there; in layer 1 [CLS] averages what the question's tokens saw.
Noise on all weights lets every part of the network matter a little.
"""

import json
from pathlib import Path
from string import ascii_lowercase, digits

import numpy as np
import numpy.typing as npt
import pytest
from safetensors.numpy import save_file
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

from models.bert_onnx import build

MAX_TOKENS = 64
SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
WORDS = "the a is on which port does server listen yellow bananas are what where how model answers".split()
TOKENS = [*SPECIAL, *ascii_lowercase, *digits, *(f"##{one}" for one in ascii_lowercase + digits), *WORDS[2:]]

HIDDEN, INNER = 128, 32
QUESTION, TEXT, MARK, MISSED, ANSWER, HIGH, LOW = range(HIDDEN - 7, HIDDEN)
"""The dimensions that follow those of the tokens."""
STEADY = 8.0
"""Large and constant in two dimensions, so that the layer norms change nothing to speak of."""
SHARP = 15.0
"""SHARP squared over the root of HIDDEN is 20: what a match adds to an attention score."""

Weights = dict[str, npt.NDArray[np.float32]]


@pytest.fixture(scope="session")
def cross_encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder as it is published (config.json, model.safetensors, tokenizer files) with model.onnx in it."""
    return make_cross_encoder(tmp_path_factory.mktemp("cross-encoder"))


def make_cross_encoder(folder: Path, labels: int = 1) -> Path:
    """Write the model into `folder`. Of two labels each has half of the logit, the first negated."""
    folder.mkdir(exist_ok=True)
    config = {
        "architectures": ["BertForSequenceClassification"],
        "model_type": "bert",
        "vocab_size": len(TOKENS),
        "hidden_size": HIDDEN,
        "intermediate_size": INNER,
        "num_hidden_layers": 2,
        "num_attention_heads": 1,
        "max_position_embeddings": MAX_TOKENS,
        "type_vocab_size": 2,
        "hidden_act": "gelu",
        "layer_norm_eps": 1e-12,
        "pad_token_id": 0,
        "id2label": {str(label): f"LABEL_{label}" for label in range(labels)},
        "label2id": {f"LABEL_{label}": label for label in range(labels)},
        "dtype": "float32",
    }
    (folder / "config.json").write_text(json.dumps(config))
    _write_tokenizer(folder)
    save_file(_weights(labels), folder / "model.safetensors", metadata={"format": "pt"})
    build(folder, folder / "model.onnx", lambda share: None)
    return folder


def _write_tokenizer(folder: Path) -> None:
    tokenizer = Tokenizer(models.WordPiece({token: i for i, token in enumerate(TOKENS)}, unk_token="[UNK]"))
    tokenizer.add_special_tokens(SPECIAL)
    tokenizer.normalizer = normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    tokenizer.save(str(folder / "tokenizer.json"))
    named = {f"{name[1:-1].lower()}_token": name for name in SPECIAL}
    settings = {"tokenizer_class": "BertTokenizer", "model_max_length": MAX_TOKENS, **named}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))


def _weights(labels: int) -> Weights:
    random = np.random.default_rng(7)
    weights = {name: random.normal(0, 0.002, shape).astype(np.float32) for name, shape in _shapes(labels)}
    for name in weights:
        if name.endswith("LayerNorm.weight"):
            weights[name] += 1

    words = weights["bert.embeddings.word_embeddings.weight"]
    words[np.arange(len(TOKENS)), np.arange(len(TOKENS))] += 1
    words[:, HIGH] += STEADY
    words[:, LOW] -= STEADY
    words[[TOKENS.index("[CLS]"), TOKENS.index("[SEP]")], MARK] += 1
    weights["bert.embeddings.token_type_embeddings.weight"][[0, 1], [QUESTION, TEXT]] += 1

    # a token of the question finds itself in the text (40), else a mark (30), rather than other tokens (20)
    same = np.arange(len(TOKENS))
    _attend(weights, 0, {TEXT: 1.0, MARK: 0.5}, sees=MARK, keeps=MISSED)
    for part in ("query", "key"):
        weights[f"bert.encoder.layer.0.attention.self.{part}.weight"][same, same] += SHARP
    _attend(weights, 1, {QUESTION: 1.0, MARK: -2.0}, sees=MISSED, keeps=ANSWER)

    weights["bert.pooler.dense.weight"][0, ANSWER] += 1
    signs = np.ones(1, np.float32) if labels == 1 else np.linspace(-0.5, 0.5, labels, dtype=np.float32)
    weights["classifier.weight"][:, 0] -= 10 * signs
    weights["classifier.bias"] += 4 * signs
    return weights


def _attend(weights: Weights, layer: int, scores: dict[int, float], *, sees: int, keeps: int) -> None:
    """Let each position look for those with the dimensions `scores`, and keep their `sees` as its `keeps`."""
    name = f"bert.encoder.layer.{layer}.attention"
    weights[f"{name}.self.query.bias"][QUESTION] += SHARP
    for dimension, score in scores.items():
        weights[f"{name}.self.key.weight"][QUESTION, dimension] += score * SHARP
    weights[f"{name}.self.value.weight"][0, sees] += 1
    weights[f"{name}.output.dense.weight"][keeps, 0] += 1


def _shapes(labels: int) -> list[tuple[str, tuple[int, ...]]]:
    """Names and shapes of all weights of the model."""
    linear: dict[str, tuple[int, ...]] = {
        "bert.pooler.dense": (HIDDEN, HIDDEN),
        "classifier": (labels, HIDDEN),
    }
    norms = ["bert.embeddings.LayerNorm"]
    for layer in range(2):
        name = f"bert.encoder.layer.{layer}"
        inside = ["self.query", "self.key", "self.value", "output.dense"]
        linear |= {f"{name}.attention.{part}": (HIDDEN, HIDDEN) for part in inside}
        linear |= {f"{name}.intermediate.dense": (INNER, HIDDEN), f"{name}.output.dense": (HIDDEN, INNER)}
        norms += [f"{name}.attention.output.LayerNorm", f"{name}.output.LayerNorm"]
    tables = {"word": len(TOKENS), "position": MAX_TOKENS, "token_type": 2}
    found: list[tuple[str, tuple[int, ...]]] = [
        (f"bert.embeddings.{name}_embeddings.weight", (rows, HIDDEN)) for name, rows in tables.items()
    ]
    found += [(f"{name}.weight", shape) for name, shape in linear.items()]
    found += [(f"{name}.bias", shape[:1]) for name, shape in linear.items()]
    found += [(f"{name}.{part}", (HIDDEN,)) for name in norms for part in ("weight", "bias")]
    return found
