"""Stores to test the promises of the vector store with: embedded, on a server, and the oracle."""

import os
from collections.abc import AsyncIterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest

from business_api.fusion import fuse
from business_api.passages import Passage
from business_api.vector_store import Generations, Wording
from tests.fakes import LetterEmbedder
from tests.places import Open, embedded
from tests.qdrant_places import in_memory, on_a_server, over_http

REAL = [pytest.param(on_a_server, marks=pytest.mark.qdrant_server)] if "QDRANT_URL" in os.environ else []
IN_RAM = "/dev/shm" if Path("/dev/shm").is_dir() else None  # where a sync does not wait for a disk


@pytest.fixture(params=[embedded, in_memory, over_http, *REAL])
async def open_(request: pytest.FixtureRequest) -> AsyncIterator[Open]:
    with TemporaryDirectory(dir=IN_RAM) as folder:
        async with request.param(Path(folder)) as place:
            yield place


@pytest.fixture
async def store(open_: Open) -> AsyncIterator[Generations]:
    opened = await open_()
    yield opened
    await opened.aclose()


async def wording(text: str) -> Wording:
    """The text, with the vector of its letters."""
    return Wording(text, (await LetterEmbedder().embed([text]))[0].tolist())


async def find(store: Generations, text: str, tenant: str = "acme", **how: Any) -> list[Passage]:
    """What a hybrid search finds, dense by letters and BM25 by words."""
    asked = Wording(text, how.pop("vector", (await wording(text)).vector))
    fusion, weights = how.pop("fusion", "dbsf"), how.pop("weights", (1.0, 1.0))
    hits = await store.search(tenant, [asked], **{"candidates": 20} | how)
    fused = fuse(hits.dense, hits.bm25, fusion, weights, how.get("candidates", 20))
    return [Passage(one.chunk, one.score) for one in fused if one.score > 0][:10]


async def found(store: Generations, text: str, tenant: str = "acme", **how: Any) -> list[str]:
    """The documents that a hybrid search finds."""
    return [passage.chunk.document for passage in await find(store, text, tenant, **how)]
