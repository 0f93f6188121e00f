"""What is true of a Qdrant server only: it may be away, slow or strange; and both engines agree."""

import random
from collections.abc import Sequence
from pathlib import Path

import pytest
from qdrant_client import AsyncQdrantClient

from business_api.errors import RetrievalUnavailable
from business_api.passages import Passage
from business_api.settings import Settings, StoreSettings
from business_api.vector_store import Generations, VectorStore, Wording, open_store
from tests.fakes import LetterEmbedder, serving
from tests.places import chunk, embedded, ingest, points
from tests.qdrant_front import front
from tests.qdrant_places import in_memory
from tests.strange_server import a_server_that_says


async def opened(url: str, deadline: float = 5.0, *, create: bool = True) -> VectorStore:
    settings = Settings(store=StoreSettings(url=url, deadline=deadline))
    return await open_store(settings, "kb", model="letters", dimension=32, create=create)


STRANGE = {
    "silent": None,
    "refusing": b"HTTP/1.1 401 Unauthorized\r\ncontent-length: 6\r\n\r\nsecret",
    "failing": b"HTTP/1.1 500 Oh\r\ncontent-length: 6\r\n\r\nsecret",
    "exhausted": b"HTTP/1.1 429 No\r\nretry-after: 1\r\ncontent-length: 6\r\n\r\nsecret",
    "garbled": b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 6\r\n\r\nsecret",
    "another": b"SSH-2.0-secret\r\n",
}


@pytest.mark.parametrize("kind", STRANGE)
async def test_a_server_in_trouble_is_unavailable_and_its_words_stay_inside(kind: str) -> None:
    async with a_server_that_says(STRANGE[kind]) as url:
        store = await opened(url, deadline=0.3)
        with pytest.raises(RetrievalUnavailable) as caught:
            await store.count("acme")
        await store.aclose()
    assert "secret" not in caught.value.message
    assert "vector store" in caught.value.message


async def test_a_server_that_is_away_at_the_start_is_used_once_it_is_there() -> None:
    with serving(front(AsyncQdrantClient(":memory:"))) as url:
        pass
    store = await opened(url)
    with pytest.raises(RetrievalUnavailable, match="cannot be reached"):
        await store.count("acme")

    with serving(front(AsyncQdrantClient(":memory:")), port=int(url.rsplit(":", 1)[1])):
        assert await store.count("acme") == 0
        assert isinstance(store, Generations)
        await ingest(store, {"a.md": "text"})
        assert await store.count("acme") == 1
    with pytest.raises(RetrievalUnavailable):
        await store.count("acme")
    await store.aclose()


async def test_a_collection_that_vanished_is_unavailable_and_then_looked_for_again() -> None:
    client = AsyncQdrantClient(":memory:")
    with serving(front(client)) as url:
        store = await opened(url)
        await client.delete_collection("kb__v1_letters")
        with pytest.raises(RetrievalUnavailable, match="vanished"):
            await store.count("acme")
        assert await store.count("acme") == 0
        await store.aclose()


EIGHT_BITS = 3e-3
"""By so much a cosine of the embedded engine may differ: it keeps eight bits a component, the other all."""


def clearly_in(found: Sequence[Passage]) -> set[str]:
    return {one.chunk.id for one in found if one.score > found[-1].score + 2 * EIGHT_BITS}


async def test_both_engines_find_the_same_passages_with_the_same_scores(tmp_path: Path) -> None:
    dice = random.Random(7)
    words = [f"{dice.choice('bcdfgm')}{dice.choice('aeiou')}{dice.choice('lnrst')}{i}" for i in range(150)]
    # no two of a length: equal BM25 scores could be ranked either way
    texts = {f"{i}.md": " ".join(dice.choices(words, k=5 + i)) for i in range(60)}
    embedder = LetterEmbedder()
    async with embedded(tmp_path) as one, in_memory(tmp_path) as other:
        stores = [await one(), await other()]
        for store in stores:
            await ingest(store, texts)
            await ingest(store, dict.fromkeys(texts, "foreign"), tenant="evil")
            generation = await store.begin("acme")
            await store.stage("acme", generation, await points([chunk("new.md", " ".join(words))]))
        for turn in range(24):
            text = " ".join(dice.sample(words, 4))
            vector = (await embedder.embed([text]))[0].tolist() if turn % 4 else None
            wordings = [Wording(text, vector), Wording(dice.choice(words))]
            edge, oracle = [await store.search("acme", wordings, candidates=10) for store in stores]
            assert len(edge.dense) == len(oracle.dense) == (turn % 4 > 0)
            assert len(edge.bm25) == len(oracle.bm25) == 2
            for ours, theirs in zip([*edge.dense, *edge.bm25], [*oracle.dense, *oracle.bm25], strict=True):
                assert ours
                assert [p.score for p in ours] == pytest.approx([p.score for p in theirs], abs=EIGHT_BITS)
                assert clearly_in(ours) <= {p.chunk.id for p in theirs}
                assert clearly_in(theirs) <= {p.chunk.id for p in ours}
            assert edge.index.endswith("@1")
        for store in stores:
            await store.aclose()
