"""What the index costs: a question's CPU time, a deletion, the speed and the memory of ingestion.

    python -m loadtests.index_figures            # some minutes; table, and loadtests/results/index.json
    python -m loadtests.index_figures --quick    # smaller, wider spread

Everything runs in one process with one thread, on the embedded engine. Retrieval is measured without the
embedder: prepared vectors stand for it. The speed of ingestion is paired with the embedder alone on the same
texts in the same run; memory is that of a process of its own for each corpus, with an embedder that hashes.
"""

import asyncio
import multiprocessing
import random
import tempfile
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Self

import numpy as np
import psutil
import typer
from rich.console import Console

from business_api.assistants import Assistant
from business_api.embedding import Embedder, open_embedder
from business_api.ingest import ingest
from business_api.ingest.indexing import BATCH
from business_api.passages import Query
from business_api.retrieval import Retriever
from business_api.settings import EmbeddingSettings, Settings
from business_api.vector_store import Generations, VectorStore, Wording, open_store
from loadtests.figures import write
from loadtests.index_parts import (
    DIMENSION,
    TENANT,
    ForgetfulStore,
    HashingEmbedder,
    points,
    words,
    write_documents,
)
from loadtests.running import ROOT

PACKAGES = ("tandem", "qdrant-edge-py", "numpy", "onnxruntime", "msgspec")
ASSISTANT = Assistant(name="tandem", collection="kb")


async def _opened(var: Path, embedder: Any) -> VectorStore:
    return await open_store(
        Settings(var=var), "kb", model=embedder.name, dimension=embedder.dimension, create=True
    )


async def filled(var: Path, chunks: int) -> VectorStore:
    """A store with so many chunks, published."""
    vectors = np.random.default_rng(7).standard_normal((chunks, DIMENSION)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    store = await _opened(var, HashingEmbedder())
    generation = await store.begin(TENANT)
    await store.stage(TENANT, generation, points(chunks, vectors))
    await store.publish(TENANT, generation)
    await store.vacuum(TENANT)
    return store


async def questions(store: VectorStore, asked: int, repeats: int) -> dict[str, list[float]]:
    """CPU ms of each question: first asked, asked again, and while an ingest is at work."""
    dice = random.Random(3)
    texts = [words(dice, 9) for _ in range(asked)]
    retriever = Retriever({"kb": store}, _Prepared(await HashingEmbedder().embed(texts), texts), 60.0, 60.0)

    async def spent(text: str) -> float:
        query, began = Query((text,)), time.process_time()
        await retriever.retrieve(query, TENANT, ASSISTANT)
        return (time.process_time() - began) * 1000

    found = {"first": [await spent(text) for text in texts]}
    found["again"] = [await spent(text) for _ in range(repeats) for text in texts]
    found["engine"] = [await _engine(store, text, retriever) for _ in range(repeats) for text in texts]
    await store.begin(TENANT)
    found["unsettled"] = [await spent(text) for _ in range(repeats) for text in texts]
    return found


class _Prepared(HashingEmbedder):
    """Knows the vectors of its questions."""

    def __init__(self, vectors: np.ndarray[Any, np.dtype[np.float32]], texts: Sequence[str]) -> None:
        self._vectors = {text: vectors[place : place + 1] for place, text in enumerate(texts)}

    async def embed(self, texts: Sequence[str]) -> np.ndarray[Any, np.dtype[np.float32]]:
        """The vector of the one text."""
        return self._vectors[texts[0]]


async def _engine(store: VectorStore, text: str, retriever: Retriever) -> float:
    """CPU ms of the store alone for the same question."""
    vector = (await retriever.embedder.embed([text]))[0].tolist()
    began = time.process_time()
    await store.search(TENANT, [Wording(text, vector)], candidates=ASSISTANT.candidates)
    return (time.process_time() - began) * 1000


async def deletions(store: VectorStore, count: int) -> list[float]:
    """Milliseconds from the call of publish until a question does not find the document any more."""
    assert isinstance(store, Generations)
    vectors = {name: await store.stored(TENANT, name) for name in list(await store.documents(TENANT))[:count]}
    found = []
    for name, chunks in vectors.items():
        text = chunks[0].chunk.text
        generation = await store.begin(TENANT)
        await store.retire(TENANT, generation, [name])
        began = time.perf_counter()
        publishing = asyncio.create_task(store.publish(TENANT, generation))
        while await _is_found(store, text, name):
            pass
        found.append((time.perf_counter() - began) * 1000)
        await publishing
        await store.vacuum(TENANT)
    return found


async def _is_found(store: VectorStore, text: str, name: str) -> bool:
    hits = await store.search(TENANT, [Wording(text)], candidates=ASSISTANT.candidates)
    return any(passage.chunk.document == name for found in hits.bm25 for passage in found)


async def speeds(folder: Path, var: Path, rounds: int) -> dict[str, list[float]]:
    """Speed of ingestion in per cent of the embedder's own, by CPU time and by the clock; round by round."""
    settings = Settings(embedding=EmbeddingSettings(threads=1))
    embedder = await open_embedder(settings)
    shares: dict[str, list[float]] = {"CPU": [], "clock": []}
    for number in range(rounds):
        seen = _Listening(embedder)
        store = await _opened(var / str(number), embedder)
        with _Timed() as whole:
            await ingest([folder], tenant=TENANT, store=store, embedder=seen)
        await store.aclose()
        with _Timed() as alone:
            for start in range(0, len(seen.texts), BATCH):
                await embedder.embed(seen.texts[start : start + BATCH])
        shares["CPU"].append(alone.cpu / whole.cpu * 100)
        shares["clock"].append(alone.clock / whole.clock * 100)
    await embedder.aclose()
    return shares


class _Timed:
    """Seconds of CPU time and of the clock that the block took."""

    def __enter__(self) -> Self:
        self.cpu, self.clock = time.process_time(), time.perf_counter()
        return self

    def __exit__(self, *_: object) -> None:
        self.cpu, self.clock = time.process_time() - self.cpu, time.perf_counter() - self.clock


class _Listening:
    """An embedder that remembers what it embedded, in order."""

    def __init__(self, embedder: Embedder) -> None:
        self._embedder = embedder
        self.name, self.dimension = embedder.name, embedder.dimension
        self.max_tokens, self.tokenizer = embedder.max_tokens, embedder.tokenizer
        self.texts: list[str] = []

    async def embed(self, texts: Sequence[str]) -> np.ndarray[Any, np.dtype[np.float32]]:
        """The embedder's vectors."""
        self.texts.extend(texts)
        return await self._embedder.embed(texts)

    async def aclose(self) -> None:
        """Nothing of its own is open."""


def memory(chunks: int, kept: bool) -> float:
    """MB by which a process of its own grows while it ingests so many chunks."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(_grown, (chunks, kept))


def _grown(chunks: int, kept: bool) -> float:
    with tempfile.TemporaryDirectory() as folder:
        docs, var = Path(folder) / "docs", Path(folder) / "var"
        write_documents(docs, 64)
        asyncio.run(_ingested(docs, var / "warm", kept=kept))
        write_documents(Path(folder) / "more", chunks)
        before = psutil.Process().memory_info().rss
        Path("/proc/self/clear_refs").write_text("5")  # forgets the peak so far
        asyncio.run(_ingested(Path(folder) / "more", var / "measured", kept=kept))
        return (_peak() - before) / 1e6


def _peak() -> int:
    """Bytes of memory that this process had at most."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM"))


async def _ingested(docs: Path, var: Path, *, kept: bool) -> None:
    embedder = HashingEmbedder()
    store: Any = await _opened(var, embedder) if kept else ForgetfulStore()
    await ingest([docs], tenant=TENANT, store=store, embedder=embedder)
    await store.aclose()


def main(quick: Annotated[bool, typer.Option(help="Smaller, wider spread.")] = False) -> None:
    """Measure, print the table, write loadtests/results/index.json."""
    from loadtests.index_rows import Measured, rows_of

    chunks, asked, gone, rounds = (2000, 30, 10, 1) if quick else (10_000, 100, 100, 2)
    corpora = (1000, 5000) if quick else (1000, 50_000)
    say = partial(Console(stderr=True).print, style="dim")
    with tempfile.TemporaryDirectory() as folder:

        async def searched() -> tuple[dict[str, list[float]], list[float]]:
            store = await filled(Path(folder) / "filled", chunks)
            say("questions")
            spent = await questions(store, asked, 3)
            say("deletions")
            return spent, await deletions(store, gone)

        spent, gone_ms = asyncio.run(searched())
        say("ingestion beside the embedder alone")
        shares = asyncio.run(speeds(ROOT / "docs", Path(folder) / "speeds", rounds))
    grown = {}
    for size in corpora:
        say(f"memory of {size:,} chunks")
        grown[size] = (memory(size, kept=False), memory(size, kept=True))
    write("index", rows_of(Measured(chunks, spent, gone_ms, shares, grown)), PACKAGES)


if __name__ == "__main__":
    typer.run(main)
