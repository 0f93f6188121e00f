"""From a question to passages: what is found, and what happens when a part is away or late."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from business_api.assistants import Assistant
from business_api.embedding import CachedEmbedder, open_embedder
from business_api.errors import RetrievalUnavailable
from business_api.exchange import Degradation, Found
from business_api.passages import Query
from business_api.retrieval import Retriever
from business_api.settings import Settings
from business_api.vector_store import Generations, Point
from tests.fakes import LetterEmbedder
from tests.places import chunk, embedded, ingest

ASSISTANT = Assistant(name="tandem", collection="kb")
DOCUMENTS = {
    "port.md": "The LLM server listens on port 8001.",
    "codes.md": "E-4711 says that the queue is full.",
    "fruit.md": "Bananas are yellow.",
}


@dataclass
class Patient(LetterEmbedder):
    """An embedder that takes its time."""

    seconds: float = 0.0
    calls: list[int] = field(default_factory=list)

    async def embed(self, texts: Sequence[str]) -> np.ndarray[Any, np.dtype[np.float32]]:
        self.calls.append(len(texts))
        await asyncio.sleep(self.seconds)
        return await super().embed(texts)


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[Generations]:
    async with embedded(tmp_path) as open_:
        opened = await open_()
        yield opened
        await opened.aclose()


async def retrieve(
    store: Any, text: str, embedder: Any = None, assistant: Assistant = ASSISTANT, deadline: float = 5.0
) -> Found:
    retriever = Retriever({"kb": store}, embedder or LetterEmbedder(), deadline, deadline)
    return await retriever.retrieve(Query((text,)), "acme", assistant)


async def test_passages_come_best_first_with_the_index_and_the_times(store: Generations) -> None:
    await ingest(store, DOCUMENTS)
    found = await retrieve(store, "LLM server port?")

    assert found.passages[0].chunk.document == "port.md"
    scores = [passage.score for passage in found.passages]
    assert scores == sorted(scores, reverse=True)
    assert found.index == "kb__v1_letters@1"
    assert set(found.timings_ms) == {"embed", "search"}
    assert found.degraded == ()


async def test_no_text_comes_twice_and_no_more_than_the_assistant_wants(store: Generations) -> None:
    texts = {f"copy{i}.md": "The same port." for i in range(3)} | {f"{i}.md": f"port {i}" for i in range(9)}
    await ingest(store, texts)
    found = await retrieve(store, "the same port", assistant=Assistant(collection="kb", passages=3))

    assert len({passage.chunk.text for passage in found.passages}) == len(found.passages) == 3
    assert found.passages[0].chunk.document == "copy0.md"


@pytest.mark.parametrize(
    "embedder",
    [LetterEmbedder(error=RetrievalUnavailable("away")), Patient(seconds=60.0)],
    ids=["away", "late"],
)
async def test_without_an_embedder_the_words_alone_are_searched_and_it_is_said(
    store: Generations, embedder: LetterEmbedder
) -> None:
    await ingest(store, DOCUMENTS)
    found = await retrieve(store, "what is E-4711?", embedder, deadline=0.2)

    assert [passage.chunk.document for passage in found.passages] == ["codes.md"]
    assert found.degraded == (Degradation.DENSE_UNAVAILABLE,)


async def test_an_assistant_that_searches_by_words_alone_embeds_nothing(store: Generations) -> None:
    await ingest(store, DOCUMENTS)
    embedder = Patient()
    found = await retrieve(store, "E-4711", embedder, assistant=Assistant(collection="kb", dense_weight=0.0))

    assert [passage.chunk.document for passage in found.passages] == ["codes.md"]
    assert found.degraded == ()
    assert embedder.calls == []


async def test_a_bug_in_the_embedder_is_not_hidden_as_degradation(store: Generations) -> None:
    with pytest.raises(ZeroDivisionError):
        await retrieve(store, "text", LetterEmbedder(error=ZeroDivisionError()))


async def test_a_store_that_fails_is_unavailable(store: Generations) -> None:
    await store.aclose()
    with pytest.raises(RetrievalUnavailable):
        await retrieve(store, "text")


async def test_a_store_that_is_late_is_unavailable() -> None:
    class Late:
        async def search(self, tenant: str, wordings: Any, **how: Any) -> None:
            await asyncio.sleep(60)

    with pytest.raises(RetrievalUnavailable, match="in time"):
        await retrieve(Late(), "text", deadline=0.05)


async def test_each_assistant_searches_its_own_collection(tmp_path: Path) -> None:
    async with embedded(tmp_path) as open_:
        one, two = await open_("one"), await open_("two")
        await ingest(one, {"one.md": "the text"})
        await ingest(two, {"two.md": "the text"})
        retriever = Retriever({"one": one, "two": two}, LetterEmbedder(), 5.0, 5.0)
        for name in ("one", "two"):
            found = await retriever.retrieve(Query(("the text",)), "acme", Assistant(collection=name))
            assert [passage.chunk.document for passage in found.passages] == [f"{name}.md"]
        await one.aclose()
        await two.aclose()


async def test_the_real_model_finds_by_meaning_and_by_identifier(tmp_path: Path) -> None:
    embedder = CachedEmbedder(await open_embedder(Settings()), 100)
    async with embedded(tmp_path) as open_:
        store = await open_(model=embedder.name, dimension=embedder.dimension)
        vectors = await embedder.embed(list(DOCUMENTS.values()))
        generation = await store.begin("acme")
        new = [
            Point(chunk(name, text), vector.tolist(), "1")
            for (name, text), vector in zip(DOCUMENTS.items(), vectors, strict=True)
        ]
        await store.stage("acme", generation, new)
        await store.publish("acme", generation)
        for question, expected in {
            "At which address does the model answer?": "port.md",
            "e-4711": "codes.md",
            "What colour do tropical fruits have?": "fruit.md",
        }.items():
            found = await retrieve(store, question, embedder)
            assert found.passages[0].chunk.document == expected
        await store.aclose()
    await embedder.aclose()
