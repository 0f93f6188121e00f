"""A document that is removed is invisible to the next question, and no rollback brings it back."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from business_api.errors import InvalidRequest
from business_api.ingest.reindexing import reindex, rollback
from business_api.ingest.removing import remove
from business_api.vector_store import Catalogue, StoreLocked
from tests.places import Open, embedded, ingest
from tests.qdrant_places import in_memory
from tests.samples.embedder import SampleEmbedder
from tests.vector_store_fixtures import IN_RAM, found

TEXTS = {f"{name}.md": f"The page of {name} says a few words." for name in ("anna", "bert", "carl")}


@pytest.fixture(params=[embedded, in_memory])
async def open_(request: pytest.FixtureRequest) -> AsyncIterator[Open]:
    with TemporaryDirectory(dir=IN_RAM) as folder:
        async with request.param(Path(folder)) as place:
            store = await place()
            await ingest(store, TEXTS)
            await ingest(store, TEXTS, tenant="evil")
            await store.aclose()
            yield place


@pytest.fixture
def catalogue(open_: Open) -> Catalogue:
    return open_.catalogue("kb")


async def seen(open_: Open, tenant: str = "acme") -> set[str]:
    store = await open_()
    names = set(await found(store, "page words", tenant))
    assert names == set(await store.documents(tenant))
    await store.aclose()
    return names


async def test_what_is_removed_is_gone_for_the_next_question_and_for_its_tenant_only(
    open_: Open, catalogue: Catalogue
) -> None:
    assert await remove(catalogue, ["anna.md", "carl.md"], tenant="acme", grace=0.0) == {
        "anna.md": 1,
        "carl.md": 1,
    }
    assert await seen(open_) == {"bert.md"}
    assert await seen(open_, "evil") == set(TEXTS)


async def test_what_is_removed_is_deleted_and_not_only_hidden(open_: Open, catalogue: Catalogue) -> None:
    await remove(catalogue, ["anna.md"], tenant="acme", grace=0.0)
    async with catalogue.reading("kb__v1_letters") as points:
        kept = [row.payload async for row in points.rows((), ["tenant", "document"])]
    assert {"tenant": "acme", "document": "anna.md"} not in kept
    assert {"tenant": "evil", "document": "anna.md"} in kept


async def test_an_unknown_document_is_named_and_nothing_is_removed(open_: Open, catalogue: Catalogue) -> None:
    with pytest.raises(InvalidRequest, match=r"no such document: dora\.md"):
        await remove(catalogue, ["anna.md", "dora.md"], tenant="acme", grace=0.0)
    assert await seen(open_) == set(TEXTS)


async def test_a_rollback_does_not_bring_back_what_was_removed(open_: Open, catalogue: Catalogue) -> None:
    await reindex(catalogue, SampleEmbedder())
    await remove(catalogue, ["anna.md"], tenant="acme", grace=0.0)
    assert await seen(open_) == {"bert.md", "carl.md"}
    await rollback(catalogue)
    assert await seen(open_) == {"bert.md", "carl.md"}


async def test_a_question_after_the_publish_never_sees_a_removed_document(open_: Open) -> None:
    store = await open_()
    removed: set[str] = set()
    asked: list[set[str]] = []

    async def ask() -> None:
        while len(removed) < len(TEXTS):
            before = set(removed)
            names = set(await found(store, "page words"))
            assert not names & before
            asked.append(names)

    asking = [asyncio.create_task(ask()) for _ in range(3)]
    for name in TEXTS:
        await asyncio.sleep(0.01)
        generation = await store.begin("acme")
        await store.retire("acme", generation, [name])
        await store.publish("acme", generation)
        removed.add(name)
    await asyncio.gather(*asking)
    assert set(TEXTS) in asked
    await store.aclose()


async def test_the_embedded_index_of_a_running_service_is_not_changed(tmp_path: Path) -> None:
    async with embedded(tmp_path) as place:
        store = await place()
        await ingest(store, TEXTS)
        with pytest.raises(StoreLocked, match="stop it first"):
            await remove(place.catalogue("kb"), ["anna.md"], tenant="acme", grace=0.0)
        assert set(await found(store, "page words")) == set(TEXTS)
        await store.aclose()
