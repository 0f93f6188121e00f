"""Model preparation: what is made equals what was published, and half-made files are never in place."""

import hashlib
import json
import os
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import numpy.typing as npt
import onnxruntime
import pytest
from safetensors.numpy import load_file, save_file
from tokenizers import Tokenizer

from models import recipes
from models.bert_onnx import build
from models.hugging_face import convert
from models.prepare import main
from models.requantise import requantise
from models.sources import Advance

HIDDEN, HEADS, INNER = 64, 2, 128
TOKENS = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "a", "b", "ab", "1", "2", "12"]

Weights = npt.NDArray[np.float32]


def made_weights(seed: int = 7) -> dict[str, Weights]:
    """Weights of a Llama model with one layer, by llama.cpp's names, each [rows, columns]."""
    random = np.random.default_rng(seed)
    shapes = {
        "token_embd": (len(TOKENS), HIDDEN),
        "blk.0.attn_q": (HIDDEN, HIDDEN),
        "blk.0.attn_k": (HIDDEN // 2, HIDDEN),
        "blk.0.attn_v": (HIDDEN // 2, HIDDEN),
        "blk.0.attn_output": (HIDDEN, HIDDEN),
        "blk.0.ffn_gate": (INNER, HIDDEN),
        "blk.0.ffn_up": (INNER, HIDDEN),
        "blk.0.ffn_down": (HIDDEN, INNER),
    }
    return {name: random.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}


def write_gguf(path: Path, kind: gguf.GGMLQuantizationType = gguf.GGMLQuantizationType.Q4_1) -> Path:
    """A GGUF file of the made weights, quantised to `kind`; norms stay float32."""
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_context_length(256)
    writer.add_embedding_length(HIDDEN)
    writer.add_block_count(1)
    writer.add_feed_forward_length(INNER)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(HEADS // 2)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_freq_base(10000.0)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("smollm")
    writer.add_token_list(TOKENS)
    writer.add_token_types([3, 3, 3] + [1] * (len(TOKENS) - 3))
    writer.add_token_merges(["a b", "1 2"])
    for name, number in (("bos", 1), ("eos", 2), ("unk", 0), ("pad", 2)):
        getattr(writer, f"add_{name}_token_id")(number)
    writer.add_chat_template("{% for message in messages %}{{ message['content'] }}{% endfor %}")
    for name, weights in made_weights().items():
        writer.add_tensor(f"{name}.weight", gguf.quantize(weights, kind), raw_dtype=kind)
    for name in ("output_norm", "blk.0.attn_norm", "blk.0.ffn_norm"):
        writer.add_tensor(f"{name}.weight", np.ones(HIDDEN, np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def advance(share: float) -> None:
    assert 0 <= share <= 1


def tensors(path: Path) -> dict[str, Any]:
    return {tensor.name: tensor for tensor in gguf.GGUFReader(path).tensors}


def test_requantised_weights_differ_by_less_than_half_a_step_of_q8(tmp_path: Path) -> None:
    source, out = write_gguf(tmp_path / "q4.gguf"), tmp_path / "q8.gguf"
    requantise(source, out, advance)
    before, after = tensors(source), tensors(out)
    assert before.keys() == after.keys()
    for name, tensor in after.items():
        old = gguf.dequantize(before[name].data, before[name].tensor_type)
        new = gguf.dequantize(tensor.data, tensor.tensor_type)
        step = np.abs(old).max() / 127
        assert np.abs(old - new).max() <= step * 0.51
    assert {t.tensor_type.name for t in after.values()} == {"Q8_0", "F32"}


def test_requantising_keeps_every_key_and_makes_the_same_bytes_twice(tmp_path: Path) -> None:
    source = write_gguf(tmp_path / "q4.gguf")
    for name in ("one.gguf", "two.gguf"):
        requantise(source, tmp_path / name, advance)
    assert (tmp_path / "one.gguf").read_bytes() == (tmp_path / "two.gguf").read_bytes()
    old, new = (gguf.GGUFReader(path).fields for path in (source, tmp_path / "one.gguf"))
    kept = [key for key in old if not key.startswith("GGUF.") and key != "general.file_type"]
    assert [old[key].contents() for key in kept] == [new[key].contents() for key in kept]


def llama_cpp_order(weights: Weights, heads: int) -> Weights:
    """The rows of a query or key matrix as llama.cpp stores them."""
    width = weights.shape[0] // heads
    return weights.reshape(heads, 2, width // 2, -1).swapaxes(1, 2).reshape(weights.shape)


def test_a_converted_folder_holds_the_weights_in_the_published_order(tmp_path: Path) -> None:
    source = write_gguf(tmp_path / "f32.gguf", gguf.GGMLQuantizationType.F32)
    convert(source, tmp_path, advance)
    found, made = load_file(tmp_path / "model.safetensors"), made_weights()
    layer = "model.layers.0.self_attn."
    assert np.array_equal(found["model.embed_tokens.weight"], made["token_embd"])
    assert np.array_equal(llama_cpp_order(found[f"{layer}q_proj.weight"], HEADS), made["blk.0.attn_q"])
    assert np.array_equal(llama_cpp_order(found[f"{layer}k_proj.weight"], HEADS // 2), made["blk.0.attn_k"])
    assert np.array_equal(found[f"{layer}v_proj.weight"], made["blk.0.attn_v"])
    assert json.loads((tmp_path / "config.json").read_text())["tie_word_embeddings"] is True


def test_a_converted_tokenizer_splits_digits_and_knows_the_special_tokens(tmp_path: Path) -> None:
    convert(write_gguf(tmp_path / "q4.gguf"), tmp_path, advance)
    tokenizer = Tokenizer.from_file(str(tmp_path / "tokenizer.json"))
    assert tokenizer.encode("<|im_start|>ab12<|im_end|>").tokens == [
        "<|im_start|>",
        "ab",
        "1",
        "2",
        "<|im_end|>",
    ]


def test_the_onnx_encoder_equals_torch_with_padding_in_the_batch(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(3)
    shape = {"vocab_size": 50, "hidden_size": HIDDEN, "num_attention_heads": HEADS, "num_hidden_layers": 2}
    bert = transformers.BertModel(transformers.BertConfig(intermediate_size=INNER, **shape)).eval()
    (tmp_path / "config.json").write_text(json.dumps(bert.config.to_dict()))
    save_file({k: v.numpy() for k, v in bert.state_dict().items()}, tmp_path / "model.safetensors")
    build(tmp_path, tmp_path / "model.onnx", advance)
    ids = np.array([[5, 9, 11, 2], [7, 3, 0, 0]])
    mask = np.array([[1, 1, 1, 1], [1, 1, 0, 0]])
    inputs = {"input_ids": ids, "attention_mask": mask, "token_type_ids": np.zeros_like(ids)}
    with torch.no_grad():
        hidden = bert(**{k: torch.tensor(v) for k, v in inputs.items()}).last_hidden_state
    kept = torch.tensor(mask)[:, :, None]
    expected = torch.nn.functional.normalize((hidden * kept).sum(1) / kept.sum(1)).numpy()
    (found,) = onnxruntime.InferenceSession(tmp_path / "model.onnx").run(None, inputs)
    assert found.dtype == np.float32
    assert np.abs(found - expected).max() < 1e-6


@pytest.fixture
def var(tmp_path: Path) -> Path:
    """A `var` folder with weights of a tiny model, and the sources file that pins them."""
    weights = tmp_path / "var/weights"
    weights.mkdir(parents=True)
    write_gguf(weights / "tiny.gguf")
    (weights / "LICENSE").write_text("as you like\n")
    requantise(weights / "tiny.gguf", tmp_path / "expected.gguf", advance)
    pin(tmp_path, made=digest(tmp_path / "expected.gguf"))
    return tmp_path / "var"


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def pin(folder: Path, made: str) -> None:
    weights = folder / "var/weights"
    gguf_file, licence = digest(weights / "tiny.gguf"), digest(weights / "LICENSE")
    (folder / "sources.toml").write_text(
        f'[tiny]\nrecipe = "llama_cpp"\nlicence = "none"\n'
        f'[tiny.inputs]\n"tiny.gguf" = "{gguf_file}"\n"LICENSE" = "{licence}"\n'
        f'[tiny.outputs]\n"model-q8_0.gguf" = "{made}"\n"LICENSE" = "{licence}"\n'
    )


def prepare(var: Path, verify: bool = False) -> None:
    main(var=var, verify=verify, sources=var.parent / "sources.toml")


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()} if folder.exists() else set()


def test_a_second_run_changes_no_file(var: Path) -> None:
    prepare(var)
    before = {path: path.stat().st_mtime_ns for path in (var / "models/tiny").iterdir()}
    prepare(var)
    assert {path: path.stat().st_mtime_ns for path in (var / "models/tiny").iterdir()} == before
    assert names(var / "models/tiny") == {"model-q8_0.gguf", "LICENSE", ".prepared.json"}


def test_weights_with_a_wrong_digest_are_refused_by_name(var: Path) -> None:
    with (var / "weights/tiny.gguf").open("ab") as file:
        file.write(b"!")
    with pytest.raises(SystemExit, match=r"tiny\.gguf has the wrong digest .* `make models`"):
        prepare(var)
    assert names(var / "models/tiny") == set()


def test_missing_weights_are_asked_for(var: Path) -> None:
    (var / "weights/tiny.gguf").unlink()
    with pytest.raises(SystemExit, match=r"tiny\.gguf is missing; install the weights again"):
        prepare(var)


def test_a_result_that_is_not_the_pinned_one_is_not_put_in_place(var: Path) -> None:
    pin(var.parent, made="0" * 64)
    with pytest.raises(SystemExit, match=r"model-q8_0\.gguf has the wrong digest"):
        prepare(var)
    assert names(var / "models/tiny") == set()


def test_a_recipe_that_breaks_off_leaves_nothing(var: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(folder: Path, inputs: list[Path], advance: Advance) -> None:
        (folder / "model-q8_0.gguf").write_bytes(b"half")
        raise KeyboardInterrupt

    monkeypatch.setitem(recipes.RECIPES, "llama_cpp", broken)
    with pytest.raises(KeyboardInterrupt):
        prepare(var)
    assert names(var / "models/tiny") == set()


def test_a_file_that_went_missing_is_made_again(var: Path) -> None:
    prepare(var)
    (var / "models/tiny/model-q8_0.gguf").unlink()
    prepare(var)
    assert digest(var / "models/tiny/model-q8_0.gguf") == digest(var.parent / "expected.gguf")


def test_verify_finds_a_file_altered_behind_its_stamp(var: Path) -> None:
    prepare(var)
    path = var / "models/tiny/LICENSE"
    before = path.stat()
    path.write_text("as I like!!\n")
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    prepare(var)
    with pytest.raises(SystemExit, match=r"LICENSE has the wrong digest .* delete .*tiny and run this again"):
        prepare(var, verify=True)
