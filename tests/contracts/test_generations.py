"""The promises of the vector store about change: whole or not at all, whoever reads or dies meanwhile."""

import asyncio
from contextlib import suppress

import pytest

from business_api.vector_store import Generations, StoreLocked
from tests.places import Open, chunk, ingest, points
from tests.vector_store_fixtures import find, found, open_, store

__all__ = ["open_", "store"]  # fixtures

STEPS = ["begun", "staged", "retired"]


async def test_what_is_staged_changes_nothing_for_readers_before_it_is_published(store: Generations) -> None:
    await ingest(store, {"a.md": "alpha beta", "b.md": "beta gamma", "c.md": "gamma delta"})
    before = await find(store, "beta gamma")
    generation = await store.begin("acme")
    new = [chunk(f"{i}.md", "beta beta gamma", i) for i in range(10)]
    await store.stage("acme", generation, await points(new))
    await store.retire("acme", generation, ["a.md", "b.md"])
    during = await find(store, "beta gamma")
    assert [p.chunk for p in during] == [p.chunk for p in before]
    assert [p.score for p in during] == pytest.approx([p.score for p in before])

    await store.publish("acme", generation)
    assert set(await store.documents("acme")) == {"c.md", *(f"{i}.md" for i in range(10))}


async def test_a_changed_document_is_never_seen_in_two_versions_nor_in_none(open_: Open) -> None:
    store = await open_(grace=60.0)
    await ingest(store, {"a.md": "version 0 of the text"})
    seen: list[str] = []

    async def read() -> None:
        while True:
            passages = await find(store, "version text")
            assert len(passages) == 1
            seen.append(passages[0].chunk.text)
            assert list(await store.documents("acme")) == ["a.md"]

    reader = asyncio.create_task(read())
    for version in range(1, 8):
        await ingest(store, {"a.md": f"version {version} of the text"})
        await store.vacuum("acme")
    reader.cancel()
    with suppress(asyncio.CancelledError):
        await reader
    assert seen == sorted(seen)
    assert len(set(seen)) > 1
    await store.aclose()


@pytest.mark.parametrize("last", STEPS)
async def test_a_writer_that_dies_leaves_readers_where_they_were(open_: Open, last: str) -> None:
    store = await open_()
    await ingest(store, {"a.md": "old a", "b.md": "old b"})
    generation = await store.begin("acme")
    if last in ("staged", "retired"):
        await store.stage("acme", generation, await points([chunk("a.md", "new a")]))
    if last == "retired":
        await store.retire("acme", generation, ["a.md", "b.md"])
    await store.aclose()

    store = await open_()
    assert {p.chunk.text for p in await find(store, "a b")} == {"old a", "old b"}
    assert await ingest(store, {"c.md": "new c"}) == generation
    assert {p.chunk.text for p in await find(store, "a b c")} == {"old a", "old b", "new c"}
    await store.vacuum("acme")
    assert await store.count("acme") == 3
    await store.aclose()


async def test_what_is_published_is_there_when_the_store_is_opened_again(open_: Open) -> None:
    store = await open_()
    await ingest(store, {"a.md": "text"})
    await store.aclose()

    store = await open_(create=False)
    assert await found(store, "text") == ["a.md"]
    await store.aclose()


async def test_a_chunk_staged_twice_is_there_once(store: Generations) -> None:
    generation = await store.begin("acme")
    for _ in range(2):
        await store.stage("acme", generation, await points([chunk("a.md", "text")]))
    await store.publish("acme", generation)

    assert await store.count("acme") == 1


async def test_a_writer_stops_when_another_one_has_begun(store: Generations) -> None:
    await ingest(store, {"a.md": "old"})
    generation = await store.begin("acme")
    late = Generations("kb", store._lender, grace=0.0)
    assert await late.begin("acme") == generation

    with pytest.raises(StoreLocked, match="another ingest"):
        await store.stage("acme", generation, await points([chunk("a.md", "first")]))
    with pytest.raises(StoreLocked, match="another ingest"):
        await store.publish("acme", generation)
    await late.stage("acme", generation, await points([chunk("b.md", "second")]))
    await late.publish("acme", generation)
    assert set(await store.documents("acme")) == {"a.md", "b.md"}


async def test_vacuum_leaves_what_a_reader_may_still_be_at(open_: Open) -> None:
    now = 1000.0
    store = await open_(grace=10.0, clock=lambda: now)
    for version in range(3):
        await ingest(store, {"a.md": f"version {version}"})
        now += 1.0
    await store.vacuum("acme")
    assert await stored(store) == {"version 0", "version 1", "version 2"}

    now += 10.0
    await store.vacuum("acme")
    assert await stored(store) == {"version 2"}
    await store.aclose()


async def stored(store: Generations) -> set[str]:
    async with store._lender.lent() as kept:
        assert kept is not None
        return {row.payload["text"] async for row in kept.rows((), ["text"]) if "text" in row.payload}
