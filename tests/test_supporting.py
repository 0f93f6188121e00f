"""Whether a passage says what a sentence says."""

import asyncio
from dataclasses import dataclass, field

import pytest
from msgspec.structs import replace

from business_api.errors import RetrievalUnavailable
from business_api.supporting import Claim, Grounds, read, similarity_of
from tests.fakes import LetterEmbedder, passage

TABLE = passage(
    "# Settings\n\n| Setting | Default | What it is |\n|---|---|---|\n"
    "| `llm.url` | `http://127.0.0.1:8001/v1` | OpenAI URL of the LLM server |\n"
    "| `llm.model` | none | Served name to ask the LLM server for |\n"
    "| `llm.max_in_flight` | 64 | Most generations that run at once |\n",
    "docs/settings.md",
)
TEXT = passage(
    "The spool keeps exchanges on disk until the store takes them. It does not wait for the disk. A segment "
    "of 8 MB is closed and synced. Phoenix lost 1,974 of 2,000 spans in Berlin.",
    "docs/spool.md",
)
GROUNDS = Grounds([TEXT, TABLE])


@dataclass
class Likeness:
    """A Similarity that always says the same, and remembers what it was asked."""

    cosine: float | None
    asked: list[tuple[str, str]] = field(default_factory=list)

    async def similarity(self, one: str, other: str) -> float | None:
        self.asked.append((one, other))
        return self.cosine


@pytest.mark.parametrize(
    "said",
    [
        "Exchanges are kept on disk by the spool until the store takes them.",
        "Segments are closed and synced at 8 MB.",
        "The spool doesn't wait for the disk.",
        "Of 2000 spans Phoenix lost 1974.",
    ],
)
async def test_what_the_passage_says_in_other_order_and_form_is_supported(said: str) -> None:
    assert await GROUNDS.supported(Claim(said), [1], None) == {1: True}


@pytest.mark.parametrize(
    "said",
    [
        "Segments are closed and synced at 16 MB.",
        "Phoenix lost 1,974 of 2,000 spans in Paris.",
        "The spool waits for the disk.",
        "The spool never keeps exchanges on disk until the store takes them.",
        "Bananas are yellow and grow in bunches.",
    ],
)
async def test_another_number_another_name_and_a_denial_are_not_supported(said: str) -> None:
    likeness = Likeness(1.0)
    assert await GROUNDS.supported(Claim(said), [1], likeness.similarity) == {1: False}
    assert likeness.asked == []


@pytest.mark.parametrize(("cosine", "verdict"), [(0.9, True), (0.2, False), (None, False)])
async def test_only_what_the_words_leave_open_is_asked_of_the_vectors(
    cosine: float | None, verdict: bool
) -> None:
    likeness = Likeness(cosine)
    claim = Claim("The spool saves finished exchanges on disk for later")
    assert await GROUNDS.supported(claim, [1], likeness.similarity) == {1: verdict}
    assert likeness.asked == [(claim.text, "The spool keeps exchanges on disk until the store takes them.")]


async def test_passages_cited_together_may_support_what_none_does_alone() -> None:
    claim = Claim("Segments of 8 MB are closed, and 64 generations run at once.")
    assert await GROUNDS.supported(claim, [1, 2], None) == {1: True, 2: True}
    assert await GROUNDS.supported(claim, [1], None) == {1: False}


async def test_of_two_passages_only_the_one_that_says_it_is_supported() -> None:
    assert await GROUNDS.supported(Claim("Segments of 8 MB are synced."), [1, 2], None) == {1: True, 2: False}


async def test_what_says_nothing_has_no_verdict() -> None:
    assert await GROUNDS.supported(Claim("Yes, it does."), [1], None) is None


def test_title_and_headings_may_name_what_a_sentence_only_means() -> None:
    headed = replace(TEXT, chunk=replace(TEXT.chunk, heading=("The spool of Tandem",)))
    claim = Claim("In Tandem segments are closed at 8 MB")
    assert not read(claim, Grounds([headed]).evidence[0]).contradicted
    assert read(claim, GROUNDS.evidence[0]).contradicted


@pytest.mark.parametrize("row", ["llm.url", "llm.model", "llm.max_in_flight"])
def test_the_quote_is_the_row_that_says_it_and_not_its_neighbour(row: str) -> None:
    said = {
        "llm.url": "The URL of the LLM server is set by llm.url.",
        "llm.model": "The served name asked of the LLM server",
        "llm.max_in_flight": "At most 64 generations run at once.",
    }[row]
    start, end = GROUNDS.quote(Claim(said), 2)
    assert TABLE.chunk.text[start:end].startswith(f"`{row}`")


async def test_similarity_is_the_cosine_and_none_when_the_embedder_fails_or_is_late() -> None:
    same = await similarity_of(LetterEmbedder(), 5.0)("abc", "cba")
    assert same == pytest.approx(1.0)
    failing = similarity_of(LetterEmbedder(error=RetrievalUnavailable("down")), 5.0)
    assert await failing("a", "b") is None

    class Late(LetterEmbedder):
        async def embed(self, texts):  # type: ignore[no-untyped-def]
            await asyncio.Event().wait()

    assert await similarity_of(Late(), 0.01)("a", "b") is None
