"""What embedders do when files are missing, servers fail, and callers are many or gone."""

import asyncio
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fastapi import Response
from tokenizers import Tokenizer, models

from business_api.embedding import CachedEmbedder, Embedder, Vectors, open_embedder
from business_api.embedding.local import TOKENS_A_RUN, LocalEmbedder
from business_api.errors import RetrievalUnavailable
from business_api.settings import EmbeddingSettings, Settings
from tests.embedding_server import embedding_server
from tests.fakes import LetterEmbedder, eventually, serving
from tests.strange_server import a_server_that_says


class Gate:
    """A blocking model that waits to be let through, and remembers what it ran together."""

    def __init__(self) -> None:
        self.open = threading.Event()
        self.runs: list[list[str]] = []
        self.error: Exception | None = None

    def encode(self, texts: Sequence[str]) -> Vectors:
        self.runs.append(list(texts))
        assert self.open.wait(10)
        if self.error is not None:
            raise self.error
        return np.array([[len(text), 0] for text in texts], np.float32)

    def embedder(self) -> LocalEmbedder:
        tokenizer = Tokenizer(models.BPE())
        return LocalEmbedder("gate", self.encode, dimension=2, max_tokens=256, tokenizer=tokenizer, threads=1)


async def asking(embedder: Embedder, *texts: str) -> list[asyncio.Task[Any]]:
    tasks = [asyncio.create_task(embedder.embed([text])) for text in texts]
    await asyncio.sleep(0)
    return tasks


async def test_questions_that_wait_are_run_together_and_before_lists() -> None:
    gate = Gate()
    embedder = gate.embedder()
    [first] = await asking(embedder, "first")
    many = asyncio.create_task(embedder.embed(["bulk", "of texts"]))
    await asyncio.sleep(0)
    others = await asking(embedder, "one", "three")
    gate.open.set()

    assert [(await task)[0][0] for task in others] == [3, 5]
    assert (await many)[:, 0].tolist() == [4, 8]
    await first
    assert gate.runs == [["first"], ["one", "three"], ["bulk", "of texts"]]
    await embedder.aclose()


async def test_a_run_is_bounded_and_takes_texts_of_like_length() -> None:
    gate = Gate()
    gate.open.set()
    embedder = gate.embedder()
    texts = ["x" * 3000, "short", "y" * 3000, "tiny"] * 10
    lengths = (await embedder.embed(texts))[:, 0].tolist()

    assert lengths == [len(text) for text in texts]
    assert max(len(run) for run in gate.runs if len(run[-1]) == 3000) <= TOKENS_A_RUN // 256
    assert gate.runs[0] == ["short", "tiny"] * 10 or {len(text) for text in gate.runs[0]} == {4, 5}
    await embedder.aclose()


async def test_what_nobody_waits_for_any_more_is_not_run() -> None:
    gate = Gate()
    embedder = CachedEmbedder(gate.embedder(), 10)
    [first] = await asking(embedder, "first")
    gone = await asking(embedder, "gone", "gone")
    await eventually(lambda: gate.runs == [["first"]])
    for task in gone:
        task.cancel()
    await asyncio.gather(*gone, return_exceptions=True)
    [again] = await asking(embedder, "kept")
    gate.open.set()
    await asyncio.gather(first, again)

    assert gate.runs == [["first"], ["kept"]]
    await embedder.aclose()


async def test_a_model_that_fails_is_unavailable_and_says_nothing_of_itself() -> None:
    gate = Gate()
    gate.error = RuntimeError("secret")
    gate.open.set()
    embedder = gate.embedder()
    for texts in (["one"], ["one", "two"]):
        with pytest.raises(RetrievalUnavailable) as caught:
            await embedder.embed(texts)
        assert "secret" not in caught.value.message

    gate.error = None
    assert (await embedder.embed(["works again"]))[0][0] == 11
    await embedder.aclose()


async def test_closing_ends_those_who_wait() -> None:
    gate = Gate()
    embedder = gate.embedder()
    [running] = await asking(embedder, "running")
    [waiting] = await asking(embedder, "waiting")
    gate.open.set()
    await embedder.aclose()

    assert (await running)[0][0] == 7
    with pytest.raises(RetrievalUnavailable):
        await waiting


async def test_identical_questions_are_embedded_once_together_or_one_after_the_other() -> None:
    inner = LetterEmbedder()
    embedder = CachedEmbedder(inner, 10)
    together = await asyncio.gather(*(embedder.embed(["same"]) for _ in range(20)))
    later = await embedder.embed(["same"])

    assert inner.seen == ["same"]
    assert all(np.array_equal(vectors, later) for vectors in together)
    assert not later.flags.writeable


async def test_one_caller_who_gives_up_does_not_stop_the_others() -> None:
    gate = Gate()
    embedder = CachedEmbedder(gate.embedder(), 10)
    gives_up, stays = await asking(embedder, "same", "same")
    gives_up.cancel()
    await asyncio.sleep(0)
    gate.open.set()

    assert (await stays)[0][0] == 4
    assert gives_up.cancelled()
    await embedder.aclose()


async def test_a_question_asked_again_after_all_gave_up_is_embedded() -> None:
    gate = Gate()
    embedder = CachedEmbedder(gate.embedder(), 10)
    [gone] = await asking(embedder, "same")
    gone.cancel()
    [again] = await asking(embedder, "same")
    gate.open.set()

    assert (await again)[0][0] == 4
    await embedder.aclose()


async def test_the_cache_forgets_what_was_asked_longest_ago() -> None:
    inner = LetterEmbedder()
    embedder = CachedEmbedder(inner, 2)
    for text in ["a", "b", "a", "c", "a", "b"]:
        await embedder.embed([text])

    assert inner.seen == ["a", "b", "c", "b"]


async def test_a_failure_is_not_kept() -> None:
    inner = LetterEmbedder(error=RetrievalUnavailable("away"))
    embedder = CachedEmbedder(inner, 10)
    with pytest.raises(RetrievalUnavailable):
        await embedder.embed(["a"])
    inner.error = None

    assert (await embedder.embed(["a"])).shape == (1, 32)


@pytest.mark.parametrize("kind", ["onnx", "sentence-transformers"])
async def test_a_missing_model_says_what_to_run(kind: Any, tmp_path: Path) -> None:
    with pytest.raises(OSError, match="make models"):
        await open_embedder(Settings(var=tmp_path, embedding=EmbeddingSettings(kind=kind)))


@pytest.mark.parametrize("broken", ["model.onnx", "tokenizer.json"])
async def test_a_broken_model_says_what_to_run(broken: str, tmp_path: Path) -> None:
    real = Settings().var / EmbeddingSettings().folder
    for name in ("model.onnx", "tokenizer.json"):
        (tmp_path / name).symlink_to(real / name)
    (tmp_path / broken).unlink()
    (tmp_path / broken).write_bytes(b"broken")
    with pytest.raises(OSError, match=rf"{broken} cannot be read: run `make models`"):
        await open_embedder(Settings(var=tmp_path, embedding=EmbeddingSettings(folder=tmp_path)))


async def hosted(url: str, **knobs: Any) -> Embedder:
    chosen = EmbeddingSettings(kind="hosted", url=f"{url}/v1", model="letters", **knobs)
    return await open_embedder(Settings(embedding=chosen))


WRONG = {
    "failing": Response(b"secret", 500),
    "not JSON": Response(b"secret"),
    "not UTF-8": Response(b"\xff\xfe"),
    "not embeddings": Response(b'{"data": [{"index": 0, "embedding": ["secret"]}]}'),
    "too few": Response(b'{"data": []}'),
    "too short": Response(b'{"data": [{"index": 0, "embedding": [1.0]}]}'),
    "zero": Response(b'{"data": [{"index": 0, "embedding": [' + b"0," * 31 + b"0]}]}"),
}


@pytest.mark.parametrize("kind", WRONG)
async def test_a_hosted_model_in_trouble_is_unavailable_and_its_words_stay_inside(kind: str) -> None:
    with serving(embedding_server(LetterEmbedder(), WRONG[kind])) as url:
        embedder = await hosted(url, dimension=32)
        with pytest.raises(RetrievalUnavailable, match="embedding server") as caught:
            await embedder.embed(["one"])
        await embedder.aclose()
    assert "secret" not in caught.value.message


async def test_a_hosted_model_that_is_away_or_late_is_unavailable() -> None:
    with serving(embedding_server(LetterEmbedder())) as url:
        embedder = await hosted(url)
        assert embedder.dimension == 32
        await embedder.aclose()
    with pytest.raises(RetrievalUnavailable, match="cannot be reached"):
        await hosted(url)
    async with a_server_that_says(None) as url:
        late = await hosted(url, dimension=32, deadline=0.1)
        with pytest.raises(RetrievalUnavailable, match="in time"):
            await late.embed(["one"])
        await late.aclose()


async def test_many_texts_are_sent_in_several_calls() -> None:
    inner = LetterEmbedder()
    with serving(embedding_server(inner)) as url:
        embedder = await hosted(url, dimension=32)
        assert (await embedder.embed([f"text {i}" for i in range(150)])).shape == (150, 32)
        await embedder.aclose()
    assert len(inner.seen) == 150


async def test_a_hosted_model_needs_a_url() -> None:
    with pytest.raises(ValueError, match="BUSINESS_API_EMBEDDING__URL"):
        await open_embedder(Settings(embedding=EmbeddingSettings(kind="hosted")))
