import hashlib
from pathlib import Path
from typing import Any

import pytest

from business_api.ingest import Summary, ingest
from tests.samples.embedder import SampleEmbedder
from tests.samples.memory_store import MemoryStore


@pytest.fixture
def docs(tmp_path: Path) -> Path:
    folder = tmp_path / "docs"
    folder.mkdir()
    (folder / "keys.md").write_text("# Keys\n\n## Create\n\nKeys are shown once.\n")
    (folder / "notes.txt").write_text("Nothing much.\n" * 400)
    return folder


async def run(store: MemoryStore, *paths: Path, embedder: SampleEmbedder | None = None) -> Summary:
    return await ingest(paths, tenant="default", store=store, embedder=embedder or SampleEmbedder())


async def test_another_embedder_means_embedding_everything_again(docs: Path) -> None:
    store = MemoryStore()
    await run(store, docs)
    summary = await run(store, docs, embedder=SampleEmbedder(name="other"))
    assert {account.status for account in summary.documents} == {"changed"}


async def test_texts_are_embedded_in_batches_of_like_length_with_title_and_headings(docs: Path) -> None:
    embedder, store = SampleEmbedder(), MemoryStore()
    await ingest([docs], tenant="default", store=store, embedder=embedder, batch=4)
    lengths = [len(text) for text in embedder.seen]
    assert max(len(batch) for batch in embedder.batches) == 4
    assert lengths == sorted(lengths)
    assert "Keys > Create\n\n# Keys\n\n## Create\n\nKeys are shown once." in embedder.seen


class Stumbling:
    """A tokenizer that breaks on one word."""

    def num_special_tokens_to_add(self, is_pair: bool) -> int:
        return 2

    def encode(self, text: str, add_special_tokens: bool) -> list[str]:
        if "stumble" in text:
            raise ValueError("a bug")
        return text.split()


async def test_a_document_that_breaks_the_chunker_costs_only_itself(
    docs: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (docs / "bug.md").write_text("stumble here")
    tokenizer: Any = Stumbling()
    summary = await run(MemoryStore(), docs, embedder=SampleEmbedder(tokenizer=tokenizer))
    assert [(bad.document, bad.reason) for bad in summary.failed] == [
        ("docs/bug.md", "it cannot be cut into chunks")
    ]
    assert "cannot cut docs/bug.md" in caplog.text


async def test_two_tenants_share_no_chunk_ids(docs: Path) -> None:
    one, other = MemoryStore(), MemoryStore()
    await ingest([docs], tenant="one", store=one, embedder=SampleEmbedder())
    await ingest([docs], tenant="other", store=other, embedder=SampleEmbedder())
    assert not set(one.published) & set(other.published)


async def test_hash_and_spans_are_those_of_the_converted_text(docs: Path) -> None:
    store = MemoryStore()
    (docs / "dos.md").write_bytes(b"\xef\xbb\xbf# Dos\r\n\r\nLines\r\nof text.\r\n")
    await run(store, docs / "dos.md")
    [point] = store.published.values()
    text = "# Dos\n\nLines\nof text.\n"
    assert text[point.chunk.start : point.chunk.end] == point.chunk.text == text.strip()
    how = hashlib.sha256(b"1/256/2000/256/letters").hexdigest()[:12]
    assert point.content_hash == f"{how}:{hashlib.sha256(text.encode()).hexdigest()}"


async def test_a_long_document_is_staged_as_it_is_embedded_and_published_once(docs: Path) -> None:
    (docs / "notes.txt").write_text("Nothing much.\n" * 2000)
    store, embedder = MemoryStore(), SampleEmbedder()
    summary = await ingest([docs], tenant="default", store=store, embedder=embedder, batch=1)
    assert store.calls.count("stage") == len(embedder.seen) == summary.totals.chunks_added > 32
    assert store.calls[-2:] == ["publish", "vacuum"]
    numbers = sorted(
        point.chunk.number for point in store.published.values() if point.chunk.document.endswith("notes.txt")
    )
    assert numbers == list(range(len(numbers)))
