"""Each stage of retrieval: what it adds, and that what it leaves out is said."""

from typing import Any

import pytest

from business_api.assistants import Assistant
from business_api.errors import RetrievalUnavailable
from business_api.exchange import Degradation, Found
from business_api.passages import Narrowing, Query
from business_api.retrieval import Retriever
from business_api.vector_store import Generations
from tests.fake_reranker import FakeReranker
from tests.fakes import LetterEmbedder
from tests.places import chunk, ingest, points
from tests.test_retrieval import DOCUMENTS, store

__all__ = ["store"]  # a fixture


async def retrieve(
    store: Any, query: Query, embedder: Any = None, reranker: FakeReranker | None = None, **assistant: Any
) -> Found:
    retriever = Retriever({"kb": store}, embedder or LetterEmbedder(), 5.0, 5.0, reranker, 0.2)
    return await retriever.retrieve(query, "acme", Assistant(collection="kb", **assistant))


def documents(found: Found) -> list[str]:
    return [passage.chunk.document for passage in found.passages]


async def test_every_wording_is_searched_and_what_any_of_them_finds_is_a_candidate(
    store: Generations,
) -> None:
    await ingest(store, DOCUMENTS)
    one = await retrieve(store, Query(("E-4711",)), dense_weight=0.0)
    both = await retrieve(store, Query(("E-4711", "yellow bananas")), dense_weight=0.0)

    assert documents(one) == ["codes.md"]
    assert set(documents(both)) == {"codes.md", "fruit.md"}


async def test_a_made_up_answer_is_embedded_in_place_of_the_question_whose_words_still_count(
    store: Generations,
) -> None:
    await ingest(store, DOCUMENTS)
    embedder = LetterEmbedder()
    query = Query(("E-4711?",), hypothetical=DOCUMENTS["fruit.md"])
    found = await retrieve(store, query, embedder)

    assert embedder.seen == [DOCUMENTS["fruit.md"]]
    ranks = {one.chunk.document: (one.dense_rank, one.bm25_rank) for one in found.candidates}
    assert ranks["fruit.md"][0] == 1
    assert ranks["codes.md"][1] == 1


async def test_candidates_say_what_became_of_each_chunk(store: Generations) -> None:
    copies = {"copy.md": DOCUMENTS["port.md"]}
    await ingest(store, DOCUMENTS | copies)
    found = await retrieve(store, Query(("LLM server port",)), passages=2)

    fates = {one.chunk.document: one.fate for one in found.candidates}
    assert fates["port.md"] == "kept"
    assert fates["copy.md"] == "duplicate of port.md#0"
    assert sorted(fates.values()) == ["duplicate of port.md#0", "kept", "kept", "too far down"]
    kept = [one.chunk.document for one in found.candidates if one.fate == "kept"]
    assert documents(found) == kept


async def test_a_narrowing_leaves_only_what_it_names(store: Generations) -> None:
    await ingest(store, DOCUMENTS)
    query = Query(("port queue yellow",), narrowing=Narrowing(documents=("codes.md", "fruit.md")))
    assert set(documents(await retrieve(store, query))) == {"codes.md", "fruit.md"}

    nowhere = Query(("port",), narrowing=Narrowing(documents=("elsewhere.md",)))
    assert documents(await retrieve(store, nowhere)) == []


async def test_what_the_question_was_read_to_mean_is_dropped_when_nothing_is_there(
    store: Generations,
) -> None:
    await ingest(store, DOCUMENTS)
    asked, elsewhere = Narrowing(documents=("codes.md",)), Narrowing(documents=("elsewhere.md",))
    hit = await retrieve(store, Query(("port",), narrower=asked))
    assert (documents(hit), hit.degraded) == (["codes.md"], ())

    missed = await retrieve(store, Query(("port",), narrowing=asked, narrower=elsewhere))
    assert (documents(missed), missed.degraded) == (["codes.md"], (Degradation.NARROWING_FAILED,))


async def test_neighbours_are_joined_only_when_the_assistant_wants_it(store: Generations) -> None:
    text = "First port one.\n\nSecond port two."
    cut = [
        chunk("a.md", "First port one.", 0, start=0, end=15),
        chunk("a.md", "Second port two.", 1, start=17, end=33),
    ]
    generation = await store.begin("acme")
    await store.stage("acme", generation, await points(cut))
    await store.publish("acme", generation)

    apart = await retrieve(store, Query(("port",)))
    assert len(apart.passages) == 2
    (whole,) = (await retrieve(store, Query(("port",)), join_neighbours=True)).passages
    assert (whole.chunk.start, whole.chunk.end, whole.chunk.text) == (0, 33, text)


async def test_the_reranker_reads_the_best_and_its_order_decides(store: Generations) -> None:
    await ingest(store, DOCUMENTS)
    reranker = FakeReranker()
    query = Query(("what is yellow", "port"))
    found = await retrieve(store, query, reranker=reranker, rerank=3, passages=2)

    ((question, texts),) = reranker.asked
    assert question == "what is yellow"
    assert sorted(texts) == sorted(DOCUMENTS.values())
    assert documents(found)[0] == "codes.md"  # it has "is"; "yellow." is no word of the question
    assert found.passages[0].score == pytest.approx(1 / 3)
    assert found.candidates[0].rerank_score == found.passages[0].score
    assert "rerank" in found.timings_ms


@pytest.mark.parametrize(
    ("reranker", "name"),
    [
        (FakeReranker(hangs=True), Degradation.RERANK_TIMEOUT),
        (FakeReranker(error=RetrievalUnavailable("away")), Degradation.RERANK_UNAVAILABLE),
    ],
    ids=["late", "away"],
)
async def test_without_the_reranker_the_order_is_the_searches_and_it_is_said(
    store: Generations, reranker: FakeReranker, name: Degradation
) -> None:
    await ingest(store, DOCUMENTS)
    query = Query(("LLM server port",))
    plain = await retrieve(store, query)
    found = await retrieve(store, query, reranker=reranker, rerank=3)

    assert documents(found) == documents(plain)
    assert found.degraded == (name,)
    assert "rerank" in found.timings_ms
    assert reranker.gave_up == reranker.hangs


async def test_an_assistant_without_reranking_asks_no_reranker(store: Generations) -> None:
    await ingest(store, DOCUMENTS)
    reranker = FakeReranker()
    found = await retrieve(store, Query(("port",)), reranker=reranker)
    assert reranker.asked == []
    assert "rerank" not in found.timings_ms


@pytest.mark.parametrize("text", ["Где порт?", "ポート", "🦊", "¿?", "the of and", " ", "x" * 90_000])
async def test_strange_questions_find_what_they_find_without_an_error(store: Generations, text: str) -> None:
    await ingest(store, DOCUMENTS)
    found = await retrieve(store, Query((text,)))
    assert found.degraded == ()
    assert len(found.passages) == 3
