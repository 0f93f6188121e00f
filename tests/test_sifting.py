"""Which candidates become passages."""

from msgspec.structs import replace

from business_api.passages import Candidate, Chunk
from business_api.sifting import joined, ranked_again, sifted

DOCUMENT = "Alpha one two.\n\nBeta three four.\n\n\nGamma five six."


def candidate(number: int, text: str = "", *, document: str = "a.md", score: float = 1.0) -> Candidate:
    """A candidate that is a paragraph of DOCUMENT, or has this text."""
    paragraph = text or [part.strip("\n") for part in DOCUMENT.split("\n\n")][number]
    start = DOCUMENT.find(paragraph) if not text else number * 100
    chunk = Chunk(
        id=f"{document}#{number}",
        document=document,
        title=document,
        number=number,
        start=start,
        end=start + len(paragraph),
        text=paragraph,
    )
    return Candidate(chunk=chunk, score=score)


def fates(candidates: list[Candidate]) -> list[str]:
    return [one.fate for one in candidates]


def test_the_first_that_say_something_new_are_kept_and_every_other_one_says_why_not() -> None:
    offered = [candidate(n, text) for n, text in enumerate(["same", "same", "other", "third"])]
    assert fates(sifted(offered, 2, 1.0)) == ["kept", "duplicate of a.md#0", "kept", "too far down"]


def test_texts_that_share_most_of_their_words_are_duplicates_only_when_asked_for() -> None:
    offered = [candidate(0, "the port is 8001 here"), candidate(1, "The port is 8001, here!")]
    assert fates(sifted(offered, 2, 1.0)) == ["kept", "kept"]
    assert fates(sifted(offered, 2, 0.9)) == ["kept", "duplicate of a.md#0"]
    other = [candidate(0, "the port is 8001 here"), candidate(1, "the port is 8002 here")]
    assert fates(sifted(other, 2, 0.9)) == ["kept", "kept"]


def test_the_reranker_orders_what_it_has_read_and_the_others_stay_behind() -> None:
    offered = [candidate(n, f"text {n}") for n in range(4)]
    again = ranked_again(offered, [0.1, 0.9, 0.5])
    assert [one.chunk.number for one in again] == [1, 2, 0, 3]
    assert [one.rerank_score for one in again] == [0.9, 0.5, 0.1, None]


def test_neighbours_become_one_passage_at_the_place_of_the_best_with_offsets_that_hold() -> None:
    kept = [candidate(2), candidate(0, "far away", document="b.md"), candidate(1)]
    one, other = joined(sifted(kept, 3, 1.0))
    assert (one.chunk.id, other.chunk.document) == ("a.md#2", "b.md")
    assert (one.chunk.start, one.chunk.end) == (DOCUMENT.find("Beta"), len(DOCUMENT))
    assert len(one.chunk.text) == one.chunk.end - one.chunk.start
    assert one.chunk.text.split() == DOCUMENT[one.chunk.start :].split()
    start = one.chunk.text.find("Gamma five six.")
    assert DOCUMENT[one.chunk.start + start :].startswith("Gamma five six.")


def test_what_is_not_adjacent_or_not_kept_is_not_joined() -> None:
    apart = sifted([candidate(0), candidate(2)], 2, 1.0)
    assert [found.chunk.number for found in joined(apart)] == [0, 2]
    dropped = [replace(candidate(0), fate="kept"), candidate(1)]
    assert [found.chunk.text for found in joined(dropped)] == ["Alpha one two."]
    elsewhere = sifted([candidate(0), candidate(1, "x", document="b.md")], 2, 1.0)
    assert len(joined(elsewhere)) == 2
