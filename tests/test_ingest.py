import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from business_api.errors import InvalidRequest, RetrievalUnavailable
from business_api.ingest import Summary, ingest
from business_api.settings import Settings
from business_api.vector_store import VectorStore, Wording, open_store
from tests.samples.documents import pdf
from tests.samples.embedder import SampleEmbedder
from tests.samples.memory_store import MemoryStore


@pytest.fixture(params=["memory", "edge"])
async def store(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[VectorStore]:
    if request.param == "memory":
        yield MemoryStore()
        return
    settings = Settings(var=tmp_path / "var")
    opened = await open_store(settings, "kb", model="letters", dimension=32, create=True)
    yield opened
    await opened.aclose()


@pytest.fixture
def docs(tmp_path: Path) -> Path:
    folder = tmp_path / "docs"
    folder.mkdir()
    (folder / "ports.md").write_text("# Ports\n\nThe LLM server listens on 8001.\n")
    (folder / "keys.md").write_text("# Keys\n\n## Create\n\nKeys are shown once.\n")
    (folder / "notes.txt").write_text("Nothing much.\n" * 400)
    return folder


async def run(store: VectorStore, *paths: Path, embedder: SampleEmbedder | None = None) -> Summary:
    return await ingest(paths, tenant="default", store=store, embedder=embedder or SampleEmbedder())


def statuses(summary: Summary) -> dict[str, str]:
    return {account.document: account.status for account in summary.documents}


async def texts(store: VectorStore) -> set[str]:
    """All that readers can find."""
    if isinstance(store, MemoryStore):
        return {point.chunk.text for point in store.published.values()}
    found = await store.search("default", [Wording("", [1.0] * 32)], candidates=1000)
    return {passage.chunk.text for hits in found.dense for passage in hits}


async def test_what_was_ingested_can_be_found_with_its_place(store: VectorStore, docs: Path) -> None:
    summary = await run(store, docs)
    assert statuses(summary) == {"docs/keys.md": "added", "docs/notes.txt": "added", "docs/ports.md": "added"}
    assert summary.published
    known = await store.documents("default")
    assert {name: entry.chunks for name, entry in known.items()} == {
        account.document: account.chunks for account in summary.documents
    }
    assert known["docs/keys.md"].title == "Keys"
    assert await store.count("default") == summary.totals.chunks_added > 5
    assert "# Ports\n\nThe LLM server listens on 8001." in await texts(store)


async def test_an_unchanged_document_is_not_embedded_again(store: VectorStore, docs: Path) -> None:
    first = await run(store, docs)
    (docs / "ports.md").write_text("# Ports\n\nThe LLM server listens on 9001.\n")
    embedder = SampleEmbedder()
    second = await run(store, docs, embedder=embedder)
    assert statuses(second)["docs/keys.md"] == "unchanged"
    assert len(embedder.seen) == 1
    assert second.totals.characters == first.totals.characters
    assert second.totals.chunks == first.totals.chunks


async def test_nothing_is_published_when_nothing_changed(docs: Path) -> None:
    store = MemoryStore()
    await run(store, docs)
    store.calls.clear()
    assert not (await run(store, docs)).published
    assert store.calls == ["begin", "vacuum"]


async def test_a_changed_document_is_replaced_whole(store: VectorStore, docs: Path) -> None:
    await run(store, docs)
    (docs / "notes.txt").write_text("Just one line now.")
    summary = await run(store, docs)
    [changed] = [account for account in summary.documents if account.status == "changed"]
    assert (changed.chunks, changed.document) == (1, "docs/notes.txt")
    assert changed.chunks_removed > 1
    assert not [text for text in await texts(store) if "Nothing much" in text]
    assert "Just one line now." in await texts(store)


async def test_a_changed_document_is_never_seen_in_two_versions_or_none(
    store: VectorStore, docs: Path
) -> None:
    page = docs / "notes.txt"
    seen: set[frozenset[str]] = set()
    done = asyncio.Event()

    async def watch() -> None:
        while not done.is_set():
            seen.add(frozenset(text[:9] for text in await texts(store) if text.startswith("version")))
            await asyncio.sleep(0)

    page.write_text("version 0 stands here and repeats.\n" * 300)
    await run(store, docs)
    watching = asyncio.create_task(watch())
    for number in range(1, 4):
        page.write_text(f"version {number} stands here and repeats.\n" * 300)
        await run(store, docs)
    done.set()
    await watching
    assert {len(versions) for versions in seen} == {1}


async def test_a_vanished_document_is_removed_but_none_outside_the_given_folders(
    store: VectorStore, docs: Path, tmp_path: Path
) -> None:
    readme = tmp_path / "README.md"
    readme.write_text("# Read me")
    await run(store, docs, readme)
    (docs / "keys.md").unlink()
    readme.unlink()
    summary = await run(store, docs)
    assert statuses(summary)["docs/keys.md"] == "removed"
    assert set(await store.documents("default")) == {"docs/ports.md", "docs/notes.txt", "README.md"}


async def test_a_document_that_comes_back_is_found_again(store: VectorStore, docs: Path) -> None:
    text = (docs / "keys.md").read_text()
    for content in (text, None, text, "", text):
        (docs / "keys.md").unlink(missing_ok=True)
        if content is not None:
            (docs / "keys.md").write_text(content)
        await run(store, docs)
        assert ("docs/keys.md" in await store.documents("default")) == bool(content)


async def test_bad_files_are_reported_and_the_rest_goes_on(store: VectorStore, docs: Path) -> None:
    (docs / "a.pdf").write_bytes(b"%PDF-1.7 broken")
    (docs / "binary.md").write_bytes(bytes(range(256)))
    (docs / "empty.md").write_bytes(b"")
    (docs / "blank.md").write_text(" \n\t\n")
    (docs / "picture.png").write_bytes(b"\x89PNG")
    (docs / "fine.pdf").write_bytes(pdf("A fine page."))
    summary = await run(store, docs)
    told = {account.document: (account.status, account.reason) for account in summary.documents}
    assert told["docs/a.pdf"] == ("failed", "the PDF is corrupt")
    assert told["docs/binary.md"] == ("failed", "binary: it holds NUL bytes")
    assert told["docs/empty.md"] == ("dropped", "the file is empty")
    assert told["docs/blank.md"] == ("dropped", "no text in it")
    assert told["docs/picture.png"] == ("skipped", "unknown type .png")
    assert told["docs/fine.pdf"] == ("added", "")
    assert {account.document for account in summary.failed} == {"docs/a.pdf", "docs/binary.md"}
    assert len(await store.documents("default")) == 4


async def test_a_document_that_broke_keeps_its_earlier_version_and_an_emptied_one_does_not(
    store: VectorStore, docs: Path
) -> None:
    await run(store, docs)
    (docs / "ports.md").write_bytes(b"\xff\xfe broken")
    (docs / "keys.md").write_text("\n")
    summary = await run(store, docs)
    told = {account.document: account.reason for account in summary.documents}
    assert told["docs/ports.md"].endswith("; its earlier version stays")
    assert told["docs/keys.md"] == "no text in it; its earlier version is removed"
    assert set(await store.documents("default")) == {"docs/ports.md", "docs/notes.txt"}


@pytest.mark.parametrize("call", ["begin", "stage", "retire", "publish"])
async def test_a_failure_before_the_publish_leaves_the_old_state(docs: Path, call: str) -> None:
    store = MemoryStore()
    await run(store, docs)
    before = dict(store.published)
    (docs / "notes.txt").write_text("new")
    (docs / "keys.md").unlink()
    store.fails_in = call
    with pytest.raises(RetrievalUnavailable):
        await run(store, docs)
    assert store.published == before
    store.fails_in = ""
    await run(store, docs)
    assert set(await store.documents("default")) == {"docs/ports.md", "docs/notes.txt"}


async def test_a_failing_embedder_leaves_the_old_state(store: VectorStore, docs: Path) -> None:
    await run(store, docs)
    before = await texts(store)
    (docs / "notes.txt").write_text("new")
    with pytest.raises(RetrievalUnavailable):
        await run(store, docs, embedder=SampleEmbedder(error=RetrievalUnavailable("down")))
    assert await texts(store) == before


async def test_a_path_that_does_not_exist_is_refused_before_any_work(docs: Path) -> None:
    store = MemoryStore()
    with pytest.raises(InvalidRequest, match="does not exist"):
        await run(store, docs, docs / "gone")
    assert store.calls == []
