"""What a document's front matter says about it, and what odd front matter does not."""

import datetime
from pathlib import Path

import pytest

from business_api.ingest import ingest
from business_api.ingest.front_matter import LONGEST, about
from business_api.passages import About
from tests.samples.embedder import SampleEmbedder
from tests.samples.memory_store import MemoryStore

SPRING = datetime.date(2024, 3, 31)


def document(*lines: str) -> str:
    return "\n".join(["---", *lines, "---", "# Text", "More of it."])


def test_language_tags_and_date_are_read() -> None:
    found = about(document("title: Keys", "lang: en-GB", "tags: [keys, 'how to']", "date: 2024-03-31"))
    assert found == About("en", SPRING, ("keys", "how to"))


@pytest.mark.parametrize("tags", ["tags: keys, how to,", "tags:\n  - keys\n  - how to\n  - keys"])
def test_tags_may_be_a_text_with_commas_or_a_list(tags: str) -> None:
    assert about(document(tags)).tags == ("keys", "how to")


@pytest.mark.parametrize("said", ["2024-03-31T23:59:00Z", '"2024-03-31"', "2024-03-31 10:00:00 +0200 # day"])
def test_a_time_counts_as_its_day(said: str) -> None:
    assert about(document(f"date: {said}")).date == SPRING


@pytest.mark.parametrize(("said", "language"), [("no", "no"), ("EN_us", "en"), ("zh-Hant-TW", "zh")])
def test_a_language_is_its_first_part(said: str, language: str) -> None:
    assert about(document(f"language: {said}")).language == language


@pytest.mark.parametrize(
    "lines",
    [
        ["lang: English language", "date: 2024-13-45", "tags: {a: b}"],
        ["lang: [en]", "date: yesterday", "tags: [[a], {b: c}]"],
        ["lang:", "tags:", "date:"],
        ["x: [unclosed", "lang: en"],
        ["x: " + "[" * 3000, "lang: en"],
        ["tags: &a [*a]"],
        ["x: !!python/object/apply:os.system [exit]", "y: *nobody"],
        ["a: 1", "just a text"],
        ["x: " + "long " * LONGEST, "lang: en"],
    ],
)
def test_what_is_not_understood_is_left_out(lines: list[str]) -> None:
    assert about(document(*lines)) == About()


@pytest.mark.parametrize("text", ["", "# No front matter\n\nlang: en\n", "---\nlang: en\nnever closed\n"])
def test_a_text_without_front_matter_says_nothing(text: str) -> None:
    assert about(text) == About()


def test_tags_are_bounded_in_number_and_length() -> None:
    many = ", ".join([f"t{n}" for n in range(200)])
    assert len(about(document(f"tags: {many}")).tags) == 64
    assert about(document(f"tags: {'x' * 101}, short")).tags == ("short",)


async def test_what_a_document_says_about_itself_is_stored_with_each_of_its_chunks(tmp_path: Path) -> None:
    docs = tmp_path / "docs"
    docs.mkdir()
    text = "\n\n".join(f"## Part {n}\n\n{'word ' * 200}" for n in range(3))
    (docs / "keys.md").write_text(document("lang: de", "tags: keys", "date: 2024-03-31") + text)
    (docs / "keys.txt").write_text(document("lang: de"))
    store = MemoryStore()
    await ingest([docs], tenant="t", store=store, embedder=SampleEmbedder())
    told = [point.about for point in store.published.values() if point.chunk.document == "docs/keys.md"]
    assert len(told) > 1
    assert set(told) == {About("de", SPRING, ("keys",))}
    assert {p.about for p in store.published.values() if p.chunk.document == "docs/keys.txt"} == {About()}


async def test_a_document_whose_front_matter_changes_is_indexed_again(tmp_path: Path) -> None:
    page, store = tmp_path / "keys.md", MemoryStore()
    for tags in ("old", "new"):
        page.write_text(document(f"tags: {tags}"))
        summary = await ingest([page], tenant="t", store=store, embedder=SampleEmbedder())
    assert [account.status for account in summary.documents] == ["changed"]
    assert {point.about.tags for point in store.published.values()} == {("new",)}
