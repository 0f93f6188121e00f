"""A running service is asked all the time while its collection is reindexed and rolled back."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from qdrant_client import AsyncQdrantClient

from business_api.assistants import Assistant
from business_api.exchange import Found
from business_api.ingest import ingest
from business_api.ingest.reindexing import reindex, rollback
from business_api.passages import Query
from business_api.retrieval import Retriever
from business_api.settings import Settings, StoreSettings
from business_api.vector_store import Generations, open_catalogue, open_store, reading
from business_api.vector_store.following import Following
from tests.fakes import FixedShelf, LetterEmbedder, eventually, serving
from tests.qdrant_front import front
from tests.samples.embedder import SampleEmbedder
from tests.stack import running_stack

ASKING = 4


@pytest.fixture(params=["embedded", "server"])
async def settings(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Settings]:
    if request.param == "embedded":
        yield Settings(var=tmp_path / "var")
        return
    with serving(front(AsyncQdrantClient(":memory:"))) as url:
        yield Settings(var=tmp_path / "var", store=StoreSettings(url=url, deadline=30))


class Searched(FixedShelf):
    """A shelf that is an index."""

    def __init__(self, settings: Settings) -> None:
        super().__init__()
        following = Following(open_catalogue(settings, "kb"), model="letters", dimension=32, create=False)
        self.store = Generations("kb", following)
        self._retriever = Retriever({"kb": self.store}, LetterEmbedder(), 30.0, 30.0)

    async def retrieve(self, query: Query, tenant: str, assistant: Assistant) -> Found:
        """What the index finds."""
        self.loop = asyncio.get_running_loop()
        return await self._retriever.retrieve(query, tenant, assistant)

    async def aclose(self) -> None:
        """Close the index where it was opened."""
        await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(self.store.aclose(), self.loop))


@dataclass
class Asked:
    """What the service answered: for each answer the version it names and the chunks it cites."""

    answers: list[tuple[str, set[str]]] = field(default_factory=list)
    failures: list[Any] = field(default_factory=list)
    enough: bool = False

    async def ask(self, url: str) -> None:
        """Ask and ask."""
        async with aiohttp.ClientSession() as session:
            while not self.enough:
                async with session.post(
                    f"{url}/chat", json={"message": "Which port does it listen on?"}
                ) as reply:
                    if reply.status != 200:
                        self.failures.append(await reply.text())
                        continue
                    tandem = (await reply.json())["tandem"]
                version = tandem["versions"]["index"].partition("@")[0]
                self.answers.append((version, {citation["chunk"] for citation in tandem["citations"]}))

    async def until_it_names(self, version: str) -> None:
        """Return when the service answers from this version."""
        seen = len(self.answers)
        await eventually(lambda: any(one == version for one, _ in self.answers[seen:]), seconds=60)


@asynccontextmanager
async def asked_all_the_time(url: str) -> AsyncIterator[Asked]:
    asked = Asked()
    tasks = [asyncio.create_task(asked.ask(url)) for _ in range(ASKING)]
    try:
        yield asked
    finally:
        asked.enough = True
        await asyncio.gather(*tasks)


async def chunks_of(settings: Settings, version: str) -> set[str]:
    catalogue = open_catalogue(settings, "kb")
    async with reading(catalogue, version) as store:
        documents = await store.documents("default")
        found = {p.chunk.id for name in documents for p in await store.stored("default", name)}
    await catalogue.aclose()
    return found


@pytest.fixture
async def docs(settings: Settings, tmp_path: Path) -> Path:
    """A folder of documents that are ingested."""
    folder = tmp_path / "docs"
    folder.mkdir()
    for number in range(12):
        text = f"# Server {number}\n\n" + "It listens on port 8001, says the page. " * 20
        (folder / f"{number}.md").write_text(text)
    store = await open_store(settings, "kb", model="letters", dimension=32, create=True)
    await ingest([folder], tenant="default", store=store, embedder=SampleEmbedder())
    await store.aclose()
    return folder


async def test_no_answer_fails_and_none_is_mixed_while_versions_come_and_go(
    settings: Settings, docs: Path, tmp_path: Path
) -> None:
    catalogue = open_catalogue(settings, "kb")
    shelf = Searched(settings)
    with running_stack(tmp_path / "service", shelf=shelf, requests_per_minute=10**6) as stack:
        async with asked_all_the_time(stack.url) as asked:
            await asked.until_it_names("kb__v1_letters")
            await reindex(catalogue, SampleEmbedder(max_tokens=64))
            await asked.until_it_names("kb__v2_letters")
            await rollback(catalogue)
            await asked.until_it_names("kb__v1_letters")
            await rollback(catalogue)
            await asked.until_it_names("kb__v2_letters")
        await shelf.aclose()
        chunks = {name: await chunks_of(settings, name) for name in ("kb__v1_letters", "kb__v2_letters")}
    await catalogue.aclose()
    assert asked.failures == []
    assert not chunks["kb__v1_letters"] & chunks["kb__v2_letters"]
    assert [one for one in asked.answers if not one[1] or not one[1] <= chunks[one[0]]] == []
