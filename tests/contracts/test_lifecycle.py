"""The promises of a catalogue, embedded and on a server: versions beside each other, one of them live."""

import asyncio
from contextlib import suppress

import pytest

from business_api.errors import RetrievalUnavailable
from business_api.vector_store import Catalogue, Generations, IndexMismatch, StoreLocked
from business_api.vector_store.collection import Missing
from business_api.vector_store.following import Following, Pinned
from business_api.vector_store.versions import Standing
from tests.fakes import eventually
from tests.places import Open, ingest
from tests.vector_store_fixtures import found, open_, store, wording

__all__ = ["open_", "store"]  # fixtures


async def standings(catalogue: Catalogue) -> dict[str, Standing]:
    return {version.name: version.standing for version in await catalogue.versions()}


async def built(open_: Open, number: int, texts: dict[str, str], model: str = "letters") -> str:
    """The name of a version with these documents, that is not live."""
    fresh = await open_.catalogue("kb").make(number, model, 32)
    await ingest(Generations("kb", Pinned(fresh), grace=0.0), texts)
    await fresh.aclose()
    return fresh.name


async def test_the_first_version_is_live_and_knows_what_made_it(store: Generations, open_: Open) -> None:
    [version] = await open_.catalogue("kb").versions()
    assert (version.number, version.model, version.dimension) == (1, "letters", 32)
    assert version.standing == "live"
    assert version.made_at > 0


async def test_a_version_that_is_built_is_not_seen_before_the_swap(store: Generations, open_: Open) -> None:
    await ingest(store, {"a.md": "old"})
    catalogue = open_.catalogue("kb")
    name = await built(open_, 2, {"b.md": "new"})
    assert await standings(catalogue) == {"kb__v1_letters": "live", name: "unfinished"}
    assert await found(store, "old new") == ["a.md"]

    await catalogue.swap(name, "kb__v1_letters")
    assert await standings(catalogue) == {"kb__v1_letters": "previous", name: "live"}
    assert await found(store, "old new") == ["b.md"]


async def test_a_swap_back_shows_what_was_before(store: Generations, open_: Open) -> None:
    await ingest(store, {"a.md": "old"})
    catalogue = open_.catalogue("kb")
    name = await built(open_, 2, {"b.md": "new"})
    await catalogue.swap(name, "kb__v1_letters")
    assert await found(store, "old") == ["b.md"]
    await catalogue.swap("kb__v1_letters", name)

    assert await found(store, "old") == ["a.md"]
    assert await standings(catalogue) == {"kb__v1_letters": "live", name: "previous"}


async def test_of_two_swaps_the_second_is_told(store: Generations, open_: Open) -> None:
    names = [await built(open_, number, {}) for number in (2, 3)]
    catalogue = open_.catalogue("kb")
    await catalogue.swap(names[0], "kb__v1_letters")

    with pytest.raises(StoreLocked, match="run it again"):
        await catalogue.swap(names[1], "kb__v1_letters")
    assert await catalogue.live() == names[0]


async def test_every_answer_is_whole_from_the_version_it_names(store: Generations, open_: Open) -> None:
    texts = {f"{i}.md": f"text {i}" for i in range(6)}
    await ingest(store, {name: f"{text} of kb__v1_letters" for name, text in texts.items()})
    catalogue = open_.catalogue("kb")
    name = await built(open_, 2, {name: f"{text} of kb__v2_letters" for name, text in texts.items()})
    seen: list[str] = []

    async def ask() -> None:
        while True:
            hits = await store.search("acme", [await wording("text of")], candidates=9)
            version = hits.index.partition("@")[0]
            for passages in (*hits.dense, *hits.bm25):
                assert len(passages) == 6
                assert all(passage.chunk.text.endswith(version) for passage in passages)
            seen.append(version)

    asking = [asyncio.create_task(ask()) for _ in range(3)]
    live, before = "kb__v1_letters", name
    for _ in range(6):
        await catalogue.swap(before, live)
        live, before = before, live
        goal = len(seen) + 6
        await eventually(lambda goal=goal: len(seen) >= goal or any(t.done() for t in asking))  # type: ignore[misc]
    for task in asking:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task
    assert set(seen) == {"kb__v1_letters", name}


async def test_many_who_are_the_first_to_ask_open_it_once(
    open_: Open, caplog: pytest.LogCaptureFixture
) -> None:
    await (await open_()).aclose()
    following = Following(open_.catalogue("kb"), model="letters", dimension=32, create=False)
    store = Generations("kb", following)
    assert await asyncio.gather(*(store.count("acme") for _ in range(5))) == [0] * 5
    assert caplog.text == ""
    await store.aclose()


async def test_a_version_of_another_model_is_left_alone_by_who_cannot_ask_it(
    store: Generations, open_: Open, caplog: pytest.LogCaptureFixture
) -> None:
    await ingest(store, {"a.md": "old"})
    name = await built(open_, 2, {"b.md": "new"}, model="other")
    await open_.catalogue("kb").swap(name, "kb__v1_letters")

    assert await found(store, "old") == ["a.md"]
    assert "kb__v1_letters stays in use here" in caplog.text
    with pytest.raises(IndexMismatch, match="business-api reindex --collection kb"):
        await open_()
    with pytest.raises(StoreLocked, match="run it again"):
        await ingest(store, {"c.md": "lost otherwise"})


async def test_what_is_published_after_a_swap_is_refused_and_not_lost_silently(
    store: Generations, open_: Open
) -> None:
    await ingest(store, {"a.md": "old"})
    generation = await store.begin("acme")
    name = await built(open_, 2, {"a.md": "old"})
    await open_.catalogue("kb").swap(name, "kb__v1_letters")

    with pytest.raises(StoreLocked, match="run it again"):
        await store.publish("acme", generation)


async def test_reading_sees_what_is_published_though_another_has_it_open(
    store: Generations, open_: Open
) -> None:
    await ingest(store, {"a.md": "published"})
    generation = await store.begin("acme")
    await store.retire("acme", generation, ["a.md"])
    async with open_.catalogue("kb").reading("kb__v1_letters") as points:
        read = Generations("kb", Pinned(points))
        assert await read.tenants() == ["acme"]
        assert [point.chunk.text for point in await read.stored("acme", "a.md")] == ["published"]


async def test_nobody_publishes_while_one_reads_alone(store: Generations, open_: Open) -> None:
    await ingest(store, {"a.md": "old"})
    catalogue = open_.catalogue("kb")
    name = await built(open_, 2, {"a.md": "old"})
    generation = await store.begin("acme")
    async with catalogue.reading("kb__v1_letters", alone=True):
        publishing = asyncio.create_task(store.publish("acme", generation))
        await asyncio.sleep(0.05)
        await catalogue.swap(name, "kb__v1_letters")
    with pytest.raises(StoreLocked, match="run it again"):
        await publishing


async def test_a_dropped_version_is_gone_and_a_reader_goes_on_in_the_live_one(
    store: Generations, open_: Open
) -> None:
    await ingest(store, {"a.md": "old"})
    catalogue = open_.catalogue("kb")
    name = await built(open_, 2, {"b.md": "new"})
    await catalogue.swap(name, "kb__v1_letters")
    assert await found(store, "new") == ["b.md"]
    await catalogue.drop("kb__v1_letters")

    assert await standings(catalogue) == {name: "live"}
    assert await found(store, "new") == ["b.md"]
    with pytest.raises((Missing, RetrievalUnavailable)):
        async with catalogue.reading("kb__v1_letters") as points:
            await points.count(())
