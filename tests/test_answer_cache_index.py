"""Kept answers over real indexes: once the documents of a tenant change, no earlier answer is given."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from business_api.exchange import Earlier
from business_api.ingest.reindexing import reindex, rollback
from business_api.vector_store import Generations
from tests.caching import CachedStory
from tests.fakes import FakeLlm
from tests.places import Open, ingest
from tests.samples.embedder import SampleEmbedder
from tests.vector_store_fixtures import open_

__all__ = ["open_"]  # a fixture

TEXTS = {f"{name}.md": f"The port of {name} is 8001." for name in ("anna", "bert", "carl")}


@pytest.fixture
async def store(open_: Open) -> AsyncIterator[Generations]:
    store = await open_()
    await ingest(store, TEXTS, tenant="t")
    await ingest(store, TEXTS, tenant="other")
    yield store
    await store.aclose()


@pytest.fixture
async def story(store: Generations) -> CachedStory:
    """A story in which the answer for both tenants is kept."""
    story = CachedStory(FakeLlm("It is port 8001 [1]."), store=store)
    for tenant in ("t", "other"):
        assert (await asked(story, tenant)) == (False, {"anna.md", "bert.md", "carl.md"})
        assert (await asked(story, tenant)) == (True, {"anna.md", "bert.md", "carl.md"})
    return story


async def asked(story: CachedStory, tenant: str = "t") -> tuple[bool, set[str]]:
    """Whether the answer was given before, and the documents it rests on."""
    exchange = await story.ask(text="Which port?", tenant=tenant)
    assert exchange.outcome == "answered"
    return exchange.cached is not None, {passage.chunk.document for passage in exchange.passages}


async def test_an_ingest_is_seen_by_the_next_question_and_by_its_tenant_only(
    story: CachedStory, store: Generations
) -> None:
    await ingest(store, {"dora.md": "The port of dora is 8001."}, tenant="t")
    assert await asked(story) == (False, {*TEXTS, "dora.md"})
    assert await asked(story) == (True, {*TEXTS, "dora.md"})
    assert await asked(story, "other") == (True, set(TEXTS))


async def test_while_documents_change_each_answer_is_of_the_state_it_names_and_none_is_of_an_earlier_one(
    story: CachedStory, store: Generations
) -> None:
    texts: dict[str, str] = {}
    ended = False

    async def write() -> None:
        nonlocal ended
        for number in range(12):
            generation = await ingest(store, {"state.md": f"The port is 8001 in state {number}."}, tenant="t")
            texts[f"@{generation}"] = f"The port is 8001 in state {number}."
            await asyncio.sleep(0.002)
        ended = True

    async def ask_on() -> None:
        while not ended:
            await asyncio.sleep(0)
            published = len(texts)
            exchange = await story.ask(text="In which state is the port?", tenant="t")
            said = [p.chunk.text for p in exchange.passages if p.chunk.document == "state.md"]
            seen.append((published, exchange.versions["index"].rpartition("@")[2], said, exchange.cached))

    seen: list[tuple[int, str, list[str], Earlier | None]] = []
    await asyncio.gather(write(), *(ask_on() for _ in range(4)))
    states = list(texts)
    for published, generation, said, _ in seen:
        if f"@{generation}" in texts:
            assert said == [texts[f"@{generation}"]]
            assert states.index(f"@{generation}") >= published - 1
        else:
            assert (said, published) == ([], 0)
    assert any(cached for _, _, said, cached in seen if said)


async def test_what_is_staged_and_not_published_changes_nothing(
    story: CachedStory, store: Generations
) -> None:
    await store.retire("t", await store.begin("t"), ["anna.md"])
    assert await asked(story) == (True, set(TEXTS))


async def test_a_removed_document_is_in_no_answer_any_more(story: CachedStory, store: Generations) -> None:
    generation = await store.begin("t")
    await store.retire("t", generation, ["anna.md"])
    await store.publish("t", generation)
    assert await asked(story) == (False, {"bert.md", "carl.md"})
    await store.vacuum("t")
    assert await asked(story) == (True, {"bert.md", "carl.md"})


async def test_a_reindex_and_a_rollback_are_seen_at_once(open_: Open, story: CachedStory) -> None:
    catalogue = open_.catalogue("kb")
    await reindex(catalogue, SampleEmbedder())
    assert (await asked(story))[0] is False
    assert (await asked(story))[0] is True
    assert story.exchanges[-1].versions["index"].startswith(f"{(await catalogue.live())}@")
    await rollback(catalogue)
    assert await asked(story) == (True, set(TEXTS)), "these are the very documents it was made from"
    assert story.exchanges[-1].versions["index"].partition("@")[0] == await catalogue.live()
    await reindex(catalogue, SampleEmbedder())
    assert (await asked(story))[0] is False
    await catalogue.aclose()


async def test_a_version_that_was_dropped_never_lends_its_name_to_other_documents(
    open_: Open, story: CachedStory, store: Generations
) -> None:
    catalogue = open_.catalogue("kb")
    for number in range(4):
        await reindex(catalogue, SampleEmbedder())
        await ingest(store, {"new.md": f"The port of number {number} is 8001."}, tenant="t")
        assert (await asked(story))[0] is False
        await rollback(catalogue)
    names = {one.versions["index"] for one in story.exchanges if one.cached is None}
    assert len(names) == len(
        [one for one in story.exchanges if one.cached is None and one.question.tenant == "t"]
    )
    await catalogue.aclose()
