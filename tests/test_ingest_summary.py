import io
import json
import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console

from business_api.ingest import Account, Summary, ingest, rich_watch
from business_api.ingest.summary import Status
from tests.samples.embedder import SampleEmbedder
from tests.samples.memory_store import MemoryStore

content = st.one_of(
    st.text(st.characters(codec="utf-8"), max_size=3000).map(str.encode),
    st.binary(max_size=200),
    st.just(b"# A heading\n\nwords and words\n" * 50),
)
folder = st.dictionaries(st.sampled_from(["a.md", "b.txt", "c.MD", "d.rst", "e.exe", ".f.md"]), content)


class Tally:
    """A watch that adds up."""

    size = 0
    done = 0.0
    chunks = 0

    def total(self, size: int) -> None:
        self.size = size

    def advance(self, size: float, chunks: int = 0) -> None:
        self.done += size
        self.chunks += chunks

    def message(self, text: str) -> None:
        """Nothing to add."""


def put(root: Path, files: dict[str, bytes]) -> None:
    root.mkdir(exist_ok=True)
    for old in root.iterdir():
        old.unlink()
    for name, content in files.items():
        (root / name).write_bytes(content)


@settings(max_examples=25, deadline=None)
@given(versions=st.lists(folder, min_size=1, max_size=3))
async def test_every_document_and_every_character_is_accounted_for(versions: list[dict[str, bytes]]) -> None:
    store = MemoryStore()
    with tempfile.TemporaryDirectory() as place:
        root = Path(place) / "docs"
        for files in versions:
            put(root, files)
            before, watch = len(store.published), Tally()
            summary = await ingest(
                [root], tenant="t", store=store, embedder=SampleEmbedder(), watch=watch, batch=1
            )
            totals, named = summary.totals, {account.document for account in summary.documents}
            assert named >= {f"docs/{name}" for name in files}
            assert sum(totals.documents.values()) == len(summary.documents) == len(named)
            assert totals.characters == totals.indexed + totals.indexed_before + sum(totals.dropped.values())
            assert len(store.published) == before + totals.chunks_added - totals.chunks_removed
            assert set(totals.dropped) <= {"whitespace"}
            assert watch.done == pytest.approx(watch.size)
            assert watch.chunks == totals.chunks_added


def account(name: str, status: Status, **what: Any) -> Account:
    return Account(document=f"docs/{name}", path=f"/x/docs/{name}", status=status, **what)


def example() -> Summary:
    accounts = (
        account("a.md", "added", bytes=11, chunks=2, characters=11, indexed=9, dropped={"whitespace": 2}),
        account("[red]b.pdf", "failed", reason="the PDF is corrupt"),
        account("c.md", "removed", reason="it is no longer there", chunks_removed=3),
        account("d.md", "unchanged", bytes=5, chunks=1, characters=5, indexed_before=5),
        account("e.png", "skipped", reason="unknown type .png"),
        *(account(f"{number}.md", "dropped", reason="the file is empty") for number in range(30)),
    )
    return Summary(documents=accounts, published=True, seconds=2.0, embedding_seconds=1.5)


def test_the_summary_reads_well_and_names_what_went_wrong() -> None:
    out = io.StringIO()
    Console(file=out, width=100).print(example().render())
    shown = out.getvalue()
    assert "16 characters = 9 indexed now + 5 indexed before + 2 whitespace" in shown
    assert "2 chunks added, 3 removed, in 2.0 s (1.0 chunks/s)" in shown
    assert "failed docs/[red]b.pdf: the PDF is corrupt" in shown
    assert "... and 11 more: --json lists all" in shown
    assert "skipped: 1 x unknown type .png" in shown


def test_the_summary_is_json_for_scripts() -> None:
    whole = json.loads(json.dumps(example().as_dict()))
    assert whole["totals"]["documents"] == {
        "added": 1, "changed": 0, "unchanged": 1, "removed": 1, "dropped": 30, "failed": 1, "skipped": 1,
    }  # fmt: skip
    assert whole["documents"][0]["dropped"] == {"whitespace": 2}
    assert whole["totals"]["chunks"] == 3


def test_an_account_that_does_not_add_up_cannot_be_made() -> None:
    with pytest.raises(AssertionError, match="10 characters, 9 known"):
        Account(document="a", path="a", status="added", characters=10, indexed=9)


async def test_the_progress_bar_shows_rate_and_time_left(tmp_path: Path) -> None:
    (tmp_path / "[b]a.md").write_text("words\n\n" * 200)
    out = io.StringIO()
    console = Console(file=out, force_terminal=True, width=140)
    with rich_watch(console) as watch:
        await ingest([tmp_path], tenant="t", store=MemoryStore(), embedder=SampleEmbedder(), watch=watch)
    assert "100%" in out.getvalue()
    assert "chunks" in out.getvalue()
