"""The promises of the vector store, kept embedded, on a server, and by the oracle alike: what is found."""

import itertools
import uuid

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from business_api.errors import RetrievalUnavailable
from business_api.vector_store import Generations, IndexMismatch, StoredDocument, Wording
from tests.places import Open, chunk, ingest, points
from tests.vector_store_fixtures import find, found, open_, store

__all__ = ["open_", "store"]  # fixtures


async def test_a_rare_identifier_is_found_by_its_letters(store: Generations) -> None:
    texts = {f"filler{i}.md": f"The queue number {i} was full of words." for i in range(20)}
    await ingest(store, texts | {"errors.md": "E-4711 says that the queue is full."})

    assert (await found(store, "what is e-4711?", vector=None))[0] == "errors.md"
    assert (await found(store, "what is e-4711?"))[0] == "errors.md"


async def test_a_near_vector_is_found_without_a_common_word(store: Generations) -> None:
    await ingest(store, {"a.md": "abba abba", "z.md": "zyx zyx"})

    assert (await found(store, "baab"))[0] == "a.md"


async def test_a_passage_is_the_chunk_that_was_stored(store: Generations) -> None:
    whole = chunk("docs/ä.md", "Grüße 🦊", 7, id="x", title="T\"'", heading=("A", "B"), start=120, end=127)
    generation = await store.begin("acme")
    await store.stage("acme", generation, await points([whole]))
    await store.publish("acme", generation)

    assert [passage.chunk for passage in await find(store, "Grüße")] == [whole]


async def test_documents_and_count_are_what_readers_see(store: Generations) -> None:
    generation = await store.begin("acme")
    cut = [chunk("a.md", f"part {number}", number) for number in range(3)]
    await store.stage("acme", generation, await points(cut, "hash-a"))
    await store.stage("acme", generation, await points([chunk("b.md", "whole")], "hash-b"))
    assert await store.documents("acme") == {}
    await store.publish("acme", generation)

    assert await store.documents("acme") == {
        "a.md": StoredDocument("a.md", "a.md", "hash-a", 3),
        "b.md": StoredDocument("b.md", "b.md", "hash-b", 1),
    }
    assert await store.count("acme") == 4


async def test_the_index_names_collection_model_and_generation(store: Generations) -> None:
    await ingest(store, {"a.md": "one"})
    generation = await ingest(store, {"a.md": "two"})

    hits = await store.search("acme", [Wording("two")], candidates=5)
    assert hits.index.endswith(f"kb__v1_letters@{generation}")


async def test_the_index_is_named_without_a_search_as_a_search_names_it(store: Generations) -> None:
    async def of_a_search() -> str:
        return (await store.search("acme", [Wording("one")], candidates=5)).index

    seen = [await store.index("acme")]
    assert seen[0] == await of_a_search()
    for _ in range(2):
        await ingest(store, {"a.md": "one"})
        seen.append(await store.index("acme"))
        assert seen[-1] == await of_a_search()
    generation = await store.begin("acme")
    await store.stage("acme", generation, await points([chunk("b.md", "two")]))
    assert await store.index("acme") == seen[-1]
    await ingest(store, {"a.md": "one"}, tenant="evil")
    assert await store.index("acme") == seen[-1]
    assert len(set(seen)) == 3


@pytest.mark.parametrize("fusion", ["rrf", "dbsf"])
async def test_weights_decide_which_search_counts_more(store: Generations, fusion: str) -> None:
    texts = {"letters.md": "tac tac tac", "words.md": "the cat zzzz zzzz zzzz zzzz zzzz"}
    await ingest(store, texts | {f"{i}.md": f"filler text number {i}" for i in range(9)})

    async def order(dense: float, bm25: float) -> list[str]:
        return await found(store, "cat", fusion=fusion, weights=(dense, bm25), candidates=1)

    assert await order(5.0, 1.0) == ["letters.md", "words.md"]
    assert await order(1.0, 5.0) == ["words.md", "letters.md"]
    assert await order(0.0, 1.0) == ["words.md"]
    assert await order(1.0, 0.0) == ["letters.md"]


async def test_equal_scores_are_ordered_by_chunk_id(store: Generations) -> None:
    names = [f"{letter}.md" for letter in "hcafbdge"]
    generation = await store.begin("acme")
    same = [chunk(name, "the same text", title="T") for name in names]
    await store.stage("acme", generation, await points(same))
    await store.publish("acme", generation)

    for fusion in ("dbsf", "rrf"):
        passages = await find(store, "same", fusion=fusion)
        scores = [(-round(passage.score, 6), passage.chunk.id) for passage in passages]
        assert scores == sorted(scores)
        assert len(passages) == len(names)
    assert await found(store, "same") == sorted(names)


@pytest.mark.parametrize("question", ["", "the of and", "¿?"])
async def test_a_question_without_words_finds_nothing_by_words(store: Generations, question: str) -> None:
    await ingest(store, {"a.md": "the of and"})

    assert await found(store, question, vector=None) == []


async def test_a_tenant_without_documents_finds_nothing(store: Generations) -> None:
    await ingest(store, {"a.md": "text"})

    assert await found(store, "text", tenant="nobody") == []
    assert await store.documents("nobody") == {}
    assert await store.count("nobody") == 0


marks = itertools.count()
names = st.sampled_from(["a", "b", "a'", '["a"]', "A", "", "ä"])
ingests = st.lists(
    st.tuples(
        names, st.dictionaries(st.sampled_from(["x", "y", "z"]), st.text("abc ", min_size=1), max_size=2)
    ),
    max_size=3,
)


@settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(ingests)
async def test_tenants_never_see_each_other(
    store: Generations, ingested: list[tuple[str, dict[str, str]]]
) -> None:
    mark = next(marks)
    expected: dict[str, dict[str, str]] = {}
    for name, texts in ingested:
        await ingest(store, texts, tenant=f"{mark}{name}")
        expected.setdefault(name, {}).update(texts)

    for name in ["a", "b", "a'", '["a"]', "A", "", "ä"]:
        tenant, own = f"{mark}{name}", expected.get(name, {})
        assert set(await store.documents(tenant)) == set(own)
        passages = await find(store, "a b c", tenant)
        assert {p.chunk.document: p.chunk.text for p in passages} == own


async def test_another_model_or_dimension_is_refused_with_what_to_do(open_: Open) -> None:
    await (await open_()).aclose()

    with pytest.raises(IndexMismatch, match=r"'letters'.*'other'.*reindex.*BUSINESS_API_EMBEDDING__MODEL"):
        await open_(model="other")
    with pytest.raises(IndexMismatch, match="32 dimensions"):
        await open_(dimension=64)
    await (await open_(dimension=0, create=False)).aclose()


async def test_before_anything_is_ingested_a_search_says_what_to_run(open_: Open) -> None:
    store = await open_(create=False)
    with pytest.raises(RetrievalUnavailable, match="business-api ingest --collection"):
        await find(store, "text")
    assert await store.documents("acme") == {}
    assert await store.count("acme") == 0
    await store.aclose()


async def test_a_collection_made_later_is_found_without_opening_again(open_: Open) -> None:
    reader = await open_(create=False)
    writer = await open_()
    await ingest(writer, {"a.md": "text"})
    await writer.aclose()

    assert await found(reader, "text") == ["a.md"]
    await reader.aclose()


async def test_collections_do_not_see_each_other(open_: Open) -> None:
    one, two = await open_("one"), await open_("two")
    await ingest(one, {"a.md": "text"})

    assert await found(two, "text") == []
    await one.aclose()
    await two.aclose()


@pytest.mark.parametrize("name", ["", "../kb", "a b", "k" * 65, "_x"])
async def test_a_collection_name_that_could_be_a_path_is_refused(open_: Open, name: str) -> None:
    with pytest.raises(ValueError, match="collection"):
        await open_(name)


async def test_many_points_go_in_and_come_out(store: Generations) -> None:
    texts = {f"{i}.md": f"text number {i} {uuid.uuid5(uuid.NAMESPACE_URL, str(i)).hex}" for i in range(300)}
    await ingest(store, texts)

    assert await store.count("acme") == 300
    assert set(await store.documents("acme")) == set(texts)
