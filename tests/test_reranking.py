"""What rerankers do when callers give up or are many, models are wrong, and servers talk nonsense."""

import asyncio
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import pytest

from business_api.errors import RetrievalUnavailable
from business_api.reranking import Reranker, open_reranker
from business_api.reranking.local import TOKENS_A_RUN, LocalReranker
from business_api.settings import RerankSettings, Settings
from tests.fakes import eventually
from tests.tiny_cross_encoder import cross_encoder, make_cross_encoder

__all__ = ["cross_encoder"]  # a fixture

LONG = "x" * 3 * TOKENS_A_RUN
"""Fills a run alone."""


class Gate:
    """A blocking model that waits to be let through, and remembers what it ran together."""

    def __init__(self, labels: int = 1) -> None:
        self.passes = threading.Semaphore(0)
        self.runs: list[tuple[str, list[str]]] = []
        self.error: Exception | None = None
        self.labels = labels

    def logits(self, question: str, texts: Sequence[str]) -> npt.NDArray[Any]:
        self.runs.append((question, list(texts)))
        assert self.passes.acquire(timeout=10)
        if self.error is not None:
            raise self.error
        return np.array([[len(text)] * self.labels for text in texts], np.float32)

    def reranker(self, threads: int = 1) -> LocalReranker:
        return LocalReranker("gate", self.logits, max_tokens=TOKENS_A_RUN, threads=threads)

    def open(self) -> None:
        self.passes.release(1000)


async def asking(reranker: Reranker, question: str, *texts: str) -> "asyncio.Task[list[float]]":
    task = asyncio.create_task(reranker.score(question, texts))
    await asyncio.sleep(0)
    return task


async def test_a_list_is_run_in_parts_and_its_scores_keep_the_order_of_the_texts() -> None:
    gate = Gate()
    gate.open()
    reranker = gate.reranker()
    scores = await reranker.score("q", [LONG, "short", LONG + "y", "tiny", ""])

    assert scores == [len(LONG), 5, len(LONG) + 1, 4, 0]
    assert gate.runs == [("q", ["", "tiny", "short"]), ("q", [LONG]), ("q", [LONG + "y"])]
    await reranker.aclose()


async def test_a_caller_past_its_deadline_costs_no_more_than_the_run_that_has_begun() -> None:
    gate = Gate()
    reranker = gate.reranker()
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.05):
            await reranker.score("late", [LONG] * 20)
    gate.open()

    assert await reranker.score("next", ["tiny"]) == [4]
    assert [question for question, _ in gate.runs] == ["late", "next"]
    await reranker.aclose()


async def test_what_has_begun_goes_on_and_then_the_newest_question_comes_first() -> None:
    gate = Gate()
    reranker = gate.reranker()
    first = await asking(reranker, "first", LONG, LONG)
    old = await asking(reranker, "old", "a")
    new = await asking(reranker, "new", "b")
    gone = await asking(reranker, "gone", "c")
    gone.cancel()
    gate.open()
    await asyncio.gather(first, old, new)

    assert [question for question, _ in gate.runs] == ["first", "first", "new", "old"]
    await reranker.aclose()


async def test_the_parts_of_a_question_run_on_all_threads() -> None:
    gate = Gate()
    reranker = gate.reranker(threads=3)
    scores = await asking(reranker, "wide", *[LONG] * 4)
    await eventually(lambda: len(gate.runs) == 3)
    gate.open()

    assert await scores == [len(LONG)] * 4
    await reranker.aclose()


async def test_a_model_that_fails_is_unavailable_says_nothing_of_itself_and_does_not_run_the_rest() -> None:
    gate = Gate()
    gate.error = RuntimeError("secret")
    reranker = gate.reranker()
    gate.passes.release(1)
    with pytest.raises(RetrievalUnavailable) as caught:
        await reranker.score("fails", [LONG] * 4)
    assert "secret" not in caught.value.message

    gate.error = None
    gate.open()
    assert await reranker.score("next", ["works again"]) == [11]
    assert [question for question, _ in gate.runs] == ["fails", "fails", "next"]
    await reranker.aclose()


async def test_a_score_that_is_not_a_number_is_a_failure() -> None:
    def nonsense(question: str, texts: Sequence[str]) -> npt.NDArray[Any]:
        return np.full((len(texts), 1), np.nan, np.float32)

    reranker = LocalReranker("nonsense", nonsense, max_tokens=512, threads=1)
    with pytest.raises(RetrievalUnavailable):
        await reranker.score("q", ["text"])
    await reranker.aclose()


async def test_closing_lets_begun_runs_end_and_refuses_those_who_wait() -> None:
    gate = Gate()
    reranker = gate.reranker()
    begun = await asking(reranker, "begun", "text")
    cut_off = await asking(reranker, "waits", "text")
    gate.open()
    await reranker.aclose()

    assert await begun == [4]
    with pytest.raises(RetrievalUnavailable, match="closed"):
        await cut_off


async def test_of_two_labels_the_score_is_by_how_much_the_second_exceeds_the_first() -> None:
    def logits(question: str, texts: Sequence[str]) -> npt.NDArray[Any]:
        return np.array([[1.0, 3.0], [2.0, -0.5]])[: len(texts)]

    reranker = LocalReranker("two", logits, max_tokens=512, threads=1)
    assert await reranker.score("q", ["a", "b"]) == [2.0, -2.5]
    await reranker.aclose()


async def opened(folder: Path, kind: Any = "onnx", **knobs: Any) -> Reranker:
    reranker = await open_reranker(Settings(rerank=RerankSettings(kind=kind, folder=folder, **knobs)))
    assert reranker is not None
    return reranker


async def scores_of(folder: Path, *texts: str, kind: Any = "onnx", **knobs: Any) -> list[float]:
    reranker = await opened(folder, kind, **knobs)
    try:
        return await reranker.score("which port", texts)
    finally:
        await reranker.aclose()


async def test_models_of_two_labels_score_alike_on_both_libraries(tmp_path: Path) -> None:
    folder = make_cross_encoder(tmp_path, labels=2)
    far, near = await scores_of(folder, "bananas", "port which")

    assert near > far + 4
    reference = await scores_of(folder, "bananas", "port which", kind="sentence-transformers")
    assert [far, near] == pytest.approx(reference, abs=1e-4)


@pytest.mark.parametrize("kind", ["onnx", "sentence-transformers"])
async def test_models_of_three_labels_are_refused(kind: Any, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no cross-encoder"):
        await opened(make_cross_encoder(tmp_path, labels=3), kind)


@pytest.mark.parametrize("kind", ["onnx", "sentence-transformers"])
async def test_an_embedding_model_is_refused(kind: Any) -> None:
    folder = Path("models/all-minilm-l6-v2")
    with pytest.raises(ValueError, match="no cross-encoder"):
        await opened(folder / "sentence-transformers" if kind == "sentence-transformers" else folder, kind)


async def test_a_model_laid_out_as_published_and_without_token_types_is_taken(
    cross_encoder: Path, tmp_path: Path
) -> None:
    """Tiny tells the question from the text by `token_type_ids`; with a constant in their place it cannot."""
    model = onnx.load(cross_encoder / "model.onnx")
    [kinds] = [one for one in model.graph.input if one.name == "token_type_ids"]
    model.graph.input.remove(kinds)
    zeros = onnx.helper.make_node("Sub", ["input_ids", "input_ids"], ["token_type_ids"])
    model.graph.node.insert(0, zeros)
    (tmp_path / "onnx").mkdir()
    onnx.save(model, tmp_path / "onnx/model.onnx")
    (tmp_path / "tokenizer.json").symlink_to(cross_encoder / "tokenizer.json")
    (tmp_path / "config.json").symlink_to(cross_encoder / "config.json")

    flat = await scores_of(tmp_path, "bananas", "port which")
    sharp = await scores_of(cross_encoder, "bananas", "port which")
    assert abs(flat[1] - flat[0]) < 1 < sharp[1] - sharp[0]


async def test_a_limit_of_512_is_taken_where_the_folder_names_none(
    cross_encoder: Path, tmp_path: Path
) -> None:
    for name in ("model.onnx", "model.onnx.data", "tokenizer.json"):
        (tmp_path / name).symlink_to(cross_encoder / name)
    reranker, limited = await opened(tmp_path), await opened(cross_encoder)

    assert isinstance(reranker, LocalReranker)
    assert isinstance(limited, LocalReranker)
    assert (reranker.max_tokens, limited.max_tokens) == (512, 64)
    await reranker.aclose()
    await limited.aclose()


@pytest.mark.parametrize("kind", ["onnx", "sentence-transformers"])
async def test_a_missing_model_says_what_to_do(kind: Any, tmp_path: Path) -> None:
    with pytest.raises(OSError, match="missing: put a cross-encoder there, or name its folder"):
        await opened(tmp_path, kind)


@pytest.mark.parametrize("broken", ["model.onnx", "tokenizer.json"])
async def test_a_broken_model_is_named(broken: str, cross_encoder: Path, tmp_path: Path) -> None:
    for name in ("model.onnx", "model.onnx.data", "tokenizer.json"):
        (tmp_path / name).symlink_to(cross_encoder / name)
    (tmp_path / broken).unlink()
    (tmp_path / broken).write_bytes(b"broken")
    with pytest.raises(OSError, match=rf"{broken} cannot be read"):
        await opened(tmp_path)


async def test_a_model_can_be_named_in_place_of_the_folder(cross_encoder: Path, tmp_path: Path) -> None:
    texts = ("bananas", "port which")
    named = await scores_of(tmp_path, *texts, kind="sentence-transformers", model=str(cross_encoder))

    assert named == await scores_of(cross_encoder, *texts, kind="sentence-transformers")


async def test_without_a_reranker_there_is_none() -> None:
    assert await open_reranker(Settings()) is None
