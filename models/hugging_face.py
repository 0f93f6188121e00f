"""GGUF to a Hugging Face folder (float32), which vLLM loads. Llama models, byte-level BPE tokenizers."""

import json
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import numpy.typing as npt
from safetensors.numpy import save_file

from models.sources import Advance

TENSOR_NAMES = {
    "attn_norm": "input_layernorm",
    "ffn_norm": "post_attention_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}
OUTER_NAMES = {"token_embd": "model.embed_tokens", "output_norm": "model.norm", "output": "lm_head"}
CONTROL_TOKEN = 3
"""GGUF's token type of special tokens."""

Weights = npt.NDArray[np.float32]


def convert(source: Path, folder: Path, advance: Advance) -> None:
    """Write config, tokenizer, chat template and weights of the GGUF file `source` into `folder`."""
    reader = gguf.GGUFReader(source)
    keys = {name: field.contents() for name, field in reader.fields.items()}
    tensors: dict[str, Weights] = {}
    for tensor in reader.tensors:
        if tensor.name != "rope_freqs.weight":
            name = tensor.name.removesuffix(".weight")
            tensors[_published_name(name) + ".weight"] = _weights(tensor, name, keys)
        advance(tensor.n_bytes / source.stat().st_size)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    _write(folder / "config.json", _config(keys, tied="lm_head.weight" not in tensors))
    _write(folder / "generation_config.json", _special_ids(keys))
    _write(folder / "tokenizer.json", _tokenizer(keys))
    _write(folder / "tokenizer_config.json", _tokenizer_config(keys))
    (folder / "chat_template.jinja").write_text(keys["tokenizer.chat_template"])


def _published_name(name: str) -> str:
    if name in OUTER_NAMES:
        return OUTER_NAMES[name]
    _, layer, part = name.split(".")
    return f"model.layers.{layer}.{TENSOR_NAMES[part]}"


def _weights(tensor: Any, name: str, keys: dict[str, Any]) -> Weights:
    shape = [int(size) for size in reversed(tensor.shape)]
    weights: Weights = gguf.dequantize(tensor.data, tensor.tensor_type).astype(np.float32).reshape(shape)
    if name.endswith("attn_q"):
        weights = _unpermuted(weights, keys["llama.attention.head_count"])
    if name.endswith("attn_k"):
        weights = _unpermuted(weights, keys["llama.attention.head_count_kv"])
    return np.ascontiguousarray(weights)


def _unpermuted(weights: Weights, heads: int) -> Weights:
    """Undo llama.cpp's order of query and key rows, which pairs the halves of each head for its rotation."""
    half = weights.shape[0] // heads // 2
    return weights.reshape(heads, half, 2, -1).swapaxes(1, 2).reshape(weights.shape)


def _special_ids(keys: dict[str, Any]) -> dict[str, int]:
    return {
        "bos_token_id": keys["tokenizer.ggml.bos_token_id"],
        "eos_token_id": keys["tokenizer.ggml.eos_token_id"],
        "pad_token_id": keys["tokenizer.ggml.padding_token_id"],
    }


def _config(keys: dict[str, Any], tied: bool) -> dict[str, Any]:
    hidden, heads = keys["llama.embedding_length"], keys["llama.attention.head_count"]
    return _special_ids(keys) | {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_size": hidden,
        "intermediate_size": keys["llama.feed_forward_length"],
        "num_hidden_layers": keys["llama.block_count"],
        "num_attention_heads": heads,
        "num_key_value_heads": keys["llama.attention.head_count_kv"],
        "head_dim": hidden // heads,
        "hidden_act": "silu",
        "max_position_embeddings": keys["llama.context_length"],
        "rms_norm_eps": round(keys["llama.attention.layer_norm_rms_epsilon"], 9),
        "rope_theta": keys["llama.rope.freq_base"],
        "tie_word_embeddings": tied,
        "vocab_size": len(keys["tokenizer.ggml.tokens"]),
        "attention_bias": False,
        "mlp_bias": False,
        "dtype": "float32",
    }


def _tokenizer(keys: dict[str, Any]) -> dict[str, Any]:
    """A `tokenizers` file: byte-level BPE; SmolLM splits digits first."""
    tokens, types = keys["tokenizer.ggml.tokens"], keys["tokenizer.ggml.token_type"]
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
    digits = {"type": "Digits", "individual_digits": True}
    steps = [digits, byte_level] if keys["tokenizer.ggml.pre"] == "smollm" else [byte_level]
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [
            _added_token(number, tokens[number]) for number, kind in enumerate(types) if kind == CONTROL_TOKEN
        ],
        "normalizer": None,
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": steps},
        "post_processor": None,
        "decoder": byte_level,
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": None,
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": False,
            "byte_fallback": False,
            "ignore_merges": False,
            "vocab": {token: number for number, token in enumerate(tokens)},
            "merges": [merge.split(" ") for merge in keys["tokenizer.ggml.merges"]],
        },
    }


def _added_token(number: int, token: str) -> dict[str, Any]:
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    return {"id": number, "content": token, **flags}


def _tokenizer_config(keys: dict[str, Any]) -> dict[str, Any]:
    tokens, special = keys["tokenizer.ggml.tokens"], _special_ids(keys)
    return {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": tokens[special["bos_token_id"]],
        "eos_token": tokens[special["eos_token_id"]],
        "unk_token": tokens[keys["tokenizer.ggml.unknown_token_id"]],
        "pad_token": tokens[special["pad_token_id"]],
        "model_max_length": keys["llama.context_length"],
        "clean_up_tokenization_spaces": False,
    }


def _write(path: Path, content: dict[str, Any]) -> None:
    path.write_text(json.dumps(content, ensure_ascii=False, indent=1) + "\n")
