"""Reindexing: what is stored is carried over whole, by new settings, and nothing else changes for readers."""

import datetime
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import msgspec
import pytest

from business_api.embedding.protocol import Vectors
from business_api.errors import InvalidRequest, RetrievalUnavailable
from business_api.ingest import Summary, ingest
from business_api.ingest.carrying import Unsound, put_together
from business_api.ingest.reindexing import reindex, rollback
from business_api.passages import About
from business_api.vector_store import Catalogue, Generations, StoreLocked
from tests.places import Open, chunk, embedded, points
from tests.qdrant_places import in_memory
from tests.samples.embedder import SampleEmbedder
from tests.vector_store_fixtures import IN_RAM, found, store

__all__ = ["store"]  # a fixture


@pytest.fixture(params=[embedded, in_memory])
async def open_(request: pytest.FixtureRequest) -> AsyncIterator[Open]:
    with TemporaryDirectory(dir=IN_RAM) as folder:
        async with request.param(Path(folder)) as place:
            yield place


@pytest.fixture
def catalogue(open_: Open) -> Catalogue:
    return open_.catalogue("kb")


@pytest.fixture
def docs(tmp_path: Path) -> Path:
    folder = tmp_path / "docs"
    folder.mkdir()
    (folder / "ports.md").write_text(
        "\n\n# Ports\n\n\n \nThe LLM server listens on 8001.  \n\n\t\n## Two\n\nMore.\n\n"
    )
    (folder / "notes.txt").write_text("Nothing much  to see.\n" * 200)
    (folder / "keys.md").write_text("# Keys\n\n## Create\n\nKeys are shown once.")
    return folder


async def take(
    store: Generations, *paths: Path, embedder: SampleEmbedder | None = None, tenant: str = "acme"
) -> Summary:
    return await ingest(paths, tenant=tenant, store=store, embedder=embedder or SampleEmbedder())


def statuses(summary: Summary) -> set[str]:
    return {account.status for account in summary.documents}


async def test_the_next_ingest_finds_nothing_changed(
    store: Generations, catalogue: Catalogue, docs: Path
) -> None:
    before = await take(store, docs)
    done = await reindex(catalogue, SampleEmbedder())

    assert (done.version, done.before) == ("kb__v2_letters", "kb__v1_letters")
    assert done.summary.totals.characters == before.totals.characters
    assert done.summary.totals.chunks_added == before.totals.chunks_added
    assert done.questions == 3
    embedder = SampleEmbedder()
    assert statuses(await take(store, docs, embedder=embedder)) == {"unchanged"}
    assert embedder.seen == []
    assert await found(store, "which port? 8001") != []


async def test_another_embedder_and_other_chunks_are_what_the_next_ingest_would_make(
    store: Generations, open_: Open, docs: Path
) -> None:
    await take(store, docs)
    other = SampleEmbedder(name="other", max_tokens=64)
    done = await reindex(open_.catalogue("kb"), other)

    renewed = await open_(model="other")
    assert done.version == "kb__v2_other"
    assert done.summary.totals.chunks > await store.count("acme")
    assert statuses(await take(renewed, docs, embedder=other)) == {"unchanged"}
    await renewed.aclose()


async def test_every_tenant_and_what_documents_say_of_themselves_is_carried(
    store: Generations, catalogue: Catalogue, docs: Path
) -> None:
    await take(store, docs / "keys.md")
    said = About(language="no", date=datetime.date(2026, 11, 3), tags=("a", "b"))
    stored = [msgspec.structs.replace(one, about=said) for one in await points([chunk("mail/1", "Hei.")])]
    generation = await store.begin("evil")
    await store.stage("evil", generation, stored)
    await store.publish("evil", generation)
    await reindex(catalogue, SampleEmbedder())

    assert await store.tenants() == ["acme", "evil"]
    assert list(await store.documents("acme")) == ["keys.md"]
    assert [point.about for point in await store.stored("evil", "mail/1")] == [said]


async def test_an_index_that_knows_nothing_of_front_matter_learns_it(
    store: Generations, catalogue: Catalogue
) -> None:
    generation = await store.begin("acme")
    await store.stage("acme", generation, await points([chunk("a.md", "---\nlang: en\n---\n\n# A\n\nText.")]))
    await store.publish("acme", generation)
    await reindex(catalogue, SampleEmbedder())

    assert [point.about for point in await store.stored("acme", "a.md")] == [About(language="en")]


async def test_with_paths_the_new_version_is_up_to_date_with_the_files(
    store: Generations, catalogue: Catalogue, docs: Path
) -> None:
    await take(store, docs)
    (docs / "notes.txt").unlink()
    (docs / "ports.md").write_text("# Ports\n\nIt is 9001 now.\n")
    await reindex(catalogue, SampleEmbedder(), tenant="acme", paths=[docs])

    assert set(await store.documents("acme")) == {"docs/keys.md", "docs/ports.md"}
    assert (await store.stored("acme", "docs/ports.md"))[0].chunk.text.endswith("9001 now.")
    await rollback(catalogue)
    assert set(await store.documents("acme")) == {"docs/keys.md", "docs/ports.md", "docs/notes.txt"}


async def test_a_rollback_is_one_step_back_and_forth(
    store: Generations, catalogue: Catalogue, docs: Path
) -> None:
    await take(store, docs)
    with pytest.raises(InvalidRequest, match="no version before kb__v1_letters"):
        await rollback(catalogue)
    await reindex(catalogue, SampleEmbedder())

    assert (await rollback(catalogue)).name == await catalogue.live() == "kb__v1_letters"
    assert (await rollback(catalogue)).name == await catalogue.live() == "kb__v2_letters"


async def test_the_version_before_the_previous_is_dropped(
    store: Generations, catalogue: Catalogue, docs: Path
) -> None:
    await take(store, docs)
    await reindex(catalogue, SampleEmbedder())
    assert await store.count("acme") > 0  # has changed over
    done = await reindex(catalogue, SampleEmbedder())

    assert done.dropped == ("kb__v1_letters",)
    assert [version.name for version in await catalogue.versions()] == ["kb__v2_letters", "kb__v3_letters"]


async def test_what_is_published_meanwhile_is_carried_too(
    store: Generations, catalogue: Catalogue, docs: Path
) -> None:
    await take(store, docs)

    class Meddling(SampleEmbedder):
        async def embed(self, texts: Sequence[str]) -> Vectors:
            if not self.batches:
                (docs / "late.md").write_text("# Late\n\nCame while it was reindexed.")
                (docs / "keys.md").unlink()
                (docs / "ports.md").write_text("# Ports\n\nChanged while it was reindexed.")
                await take(store, docs)
            return await super().embed(texts)

    await reindex(catalogue, Meddling())

    assert set(await store.documents("acme")) == {"docs/late.md", "docs/notes.txt", "docs/ports.md"}
    assert "Changed while" in (await store.stored("acme", "docs/ports.md"))[0].chunk.text
    assert statuses(await take(store, docs)) == {"unchanged"}


async def test_a_writer_that_is_at_work_is_told_and_nothing_of_it_is_lost_unsaid(
    store: Generations, catalogue: Catalogue, docs: Path
) -> None:
    await take(store, docs)
    generation = await store.begin("acme")
    await reindex(catalogue, SampleEmbedder())

    with pytest.raises(StoreLocked, match="run it again"):
        await store.publish("acme", generation)


@pytest.mark.parametrize("error", [RetrievalUnavailable("down"), KeyboardInterrupt()])
async def test_what_breaks_off_leaves_the_live_version_and_no_other(
    store: Generations, catalogue: Catalogue, docs: Path, error: Exception
) -> None:
    await take(store, docs)
    with pytest.raises(type(error)):
        await reindex(catalogue, SampleEmbedder(error=error))

    assert [version.name for version in await catalogue.versions()] == ["kb__v1_letters"]
    assert statuses(await take(store, docs)) == {"unchanged"}


async def test_a_version_that_does_not_find_its_documents_never_becomes_live(
    store: Generations, catalogue: Catalogue, tmp_path: Path
) -> None:
    for number in range(30):  # too many stop words for BM25, and the same letters for the embedder
        (tmp_path / f"{number}.txt").write_text(
            "of the and " + " ".join("the" if bit == "1" else "eth" for bit in f"{number:05b}")
        )
    await take(store, *(tmp_path / f"{number}.txt" for number in range(30)))
    with pytest.raises(Unsound, match="does not find"):
        await reindex(catalogue, SampleEmbedder())

    assert await catalogue.live() == "kb__v1_letters"
    assert len(await catalogue.versions()) == 1


async def test_nothing_ingested_is_nothing_to_reindex(open_: Open) -> None:
    with pytest.raises(InvalidRequest, match="nothing has been ingested into 'kb'"):
        await reindex(open_.catalogue("kb"), SampleEmbedder())


async def test_a_text_is_put_together_by_its_offsets_where_its_whitespace_is_not_known() -> None:
    cut = [chunk("a.md", "one", 0, start=2, end=5), chunk("a.md", "two", 1, start=7, end=10)]
    stored = await points(cut)
    assert put_together(stored) == "\n\none\n\ntwo"
    known = [msgspec.structs.replace(stored[0], before=" \t"), msgspec.structs.replace(stored[1], after="\n")]
    assert put_together(known) == " \tone\n\ntwo\n"
