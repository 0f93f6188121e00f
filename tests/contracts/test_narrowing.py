"""The promises of a narrowed search, kept by every vector store: it narrows, and never widens."""

import datetime
import itertools

import msgspec
import pytest

from business_api.passages import About, Narrowing
from business_api.vector_store import Generations
from tests.places import Open, chunk, points
from tests.vector_store_fixtures import found, open_, store

__all__ = ["open_", "store"]  # fixtures

MARCH, APRIL, MAY = (datetime.date(2024, month, 1) for month in (3, 4, 5))
LIBRARY = {
    "old.md": About("en", MARCH, ("keys",)),
    "new.md": About("en", MAY, ("keys", "ports")),
    "neu.md": About("de", APRIL, ("ports",)),
    "plain.md": About(),
}


async def shelve(store: Generations, library: dict[str, About], tenant: str = "acme") -> None:
    generation = await store.begin(tenant)
    for document, about in library.items():
        staged = [
            msgspec.structs.replace(point, about=about)
            for point in await points([chunk(document, "how to turn the key", n) for n in range(2)])
        ]
        await store.stage(tenant, generation, staged)
    await store.publish(tenant, generation)


async def left(store: Generations, narrowing: Narrowing, tenant: str = "acme") -> set[str]:
    return set(await found(store, "turn the key", tenant, narrowing=narrowing))


@pytest.mark.parametrize(
    ("narrowing", "documents"),
    [
        (Narrowing(), {"old.md", "new.md", "neu.md", "plain.md"}),
        (Narrowing(documents=("old.md", "plain.md", "gone.md")), {"old.md", "plain.md"}),
        (Narrowing(language="en"), {"old.md", "new.md"}),
        (Narrowing(tags=("keys", "nothing")), {"old.md", "new.md"}),
        (Narrowing(tags=("keys", "ports")), {"old.md", "new.md", "neu.md"}),
        (Narrowing(after=APRIL), {"new.md", "neu.md"}),
        (Narrowing(before=APRIL), {"old.md", "neu.md"}),
        (Narrowing(after=APRIL, before=APRIL), {"neu.md"}),
        (Narrowing(after=MAY, before=MARCH), set()),
        (Narrowing(language="en", tags=("ports",), after=APRIL, documents=("new.md",)), {"new.md"}),
        (Narrowing(language="de", tags=("keys",)), set()),
        (Narrowing(language="fr"), set()),
    ],
)
async def test_all_that_is_set_must_hold(
    store: Generations, narrowing: Narrowing, documents: set[str]
) -> None:
    await shelve(store, LIBRARY)
    assert await left(store, narrowing) == documents


async def test_every_further_condition_finds_the_same_or_less(store: Generations) -> None:
    await shelve(store, LIBRARY)
    conditions = {"documents": ("new.md", "plain.md"), "language": "en", "tags": ("keys",), "after": APRIL}
    for count in range(len(conditions)):
        for names in itertools.combinations(conditions, count):
            chosen = {name: conditions[name] for name in names}
            wider = await left(store, msgspec.convert(chosen, Narrowing))
            for name in conditions.keys() - chosen:
                more = msgspec.convert(chosen | {name: conditions[name]}, Narrowing)
                assert await left(store, more) <= wider


async def test_no_narrowing_shows_another_tenants_documents(store: Generations) -> None:
    await shelve(store, {"ours.md": About("en", MARCH, ("keys",))})
    await shelve(store, {"theirs.md": About("de", MAY, ("secret",))}, "other")
    theirs = [
        Narrowing(documents=("theirs.md",)),
        Narrowing(language="de"),
        Narrowing(tags=("secret",)),
        Narrowing(after=APRIL),
    ]
    assert [await left(store, narrowing) for narrowing in theirs] == [set()] * 4
    assert [await left(store, narrowing, "other") for narrowing in theirs] == [{"theirs.md"}] * 4


async def test_a_changed_document_is_found_by_what_it_is_now(store: Generations) -> None:
    await shelve(store, {"a.md": About("en", None, ("draft",))})
    generation = await store.begin("acme")
    await store.retire("acme", generation, ["a.md"])
    (point,) = await points([chunk("a.md", "how to turn the key")])
    await store.stage("acme", generation, [msgspec.structs.replace(point, about=About("de"))])
    await store.publish("acme", generation)
    assert await left(store, Narrowing(tags=("draft",))) == set()
    assert await left(store, Narrowing(language="de")) == {"a.md"}


async def test_what_no_document_said_before_is_found_from_the_first_that_says_it_on(open_: Open) -> None:
    asked = [Narrowing(language="en"), Narrowing(tags=("keys",)), Narrowing(before=MARCH)]
    store = await open_()
    await shelve(store, {"plain.md": About()})
    assert [await left(store, narrowing) for narrowing in asked] == [set()] * 3
    await shelve(store, {"old.md": LIBRARY["old.md"]})
    assert [await left(store, narrowing) for narrowing in asked] == [{"old.md"}] * 3
    await store.aclose()
    store = await open_()
    assert [await left(store, narrowing) for narrowing in asked] == [{"old.md"}] * 3
    assert await store.values("acme", "tags", 10) == ["keys"]
    await store.aclose()


async def test_the_values_to_choose_from_are_those_that_the_tenants_readers_see(store: Generations) -> None:
    assert await store.values("acme", "tags", 10) == []
    await shelve(store, LIBRARY)
    await shelve(store, {"theirs.md": About("fr", MAY, ("secret",))}, "other")
    generation = await store.begin("acme")
    await store.retire("acme", generation, ["neu.md"])
    (point,) = await points([chunk("coming.md", "not yet")])
    await store.stage("acme", generation, [msgspec.structs.replace(point, about=About("it"))])
    assert set(await store.values("acme", "language", 10)) == {"en", "de"}
    await store.publish("acme", generation)
    assert set(await store.values("acme", "language", 10)) == {"en", "it"}
    assert await store.values("acme", "tags", 10) == ["keys", "ports"]
    assert await store.values("acme", "tags", 1) == ["keys"]
    assert set(await store.values("acme", "document", 10)) == {"old.md", "new.md", "plain.md", "coming.md"}
