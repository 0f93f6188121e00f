"""Which candidates become passages: no text twice, the reranker's order if any, neighbours joined."""

import re
from collections.abc import Sequence
from typing import NamedTuple

from msgspec.structs import replace

from business_api.passages import Candidate, Chunk, Passage

WORD = re.compile(r"\w+")


def ranked_again(candidates: Sequence[Candidate], scores: Sequence[float]) -> list[Candidate]:
    """The first `len(scores)` candidates in the order of these scores; the others stay behind them."""
    judged = [
        replace(one, rerank_score=score) for one, score in zip(candidates[: len(scores)], scores, strict=True)
    ]
    judged.sort(key=lambda one: -(one.rerank_score or 0.0))
    return [*judged, *candidates[len(scores) :]]


def sifted(candidates: Sequence[Candidate], passages: int, duplicate_share: float) -> list[Candidate]:
    """The same candidates; the `fate` of the first `passages` that say something new is `kept`.

    A chunk is a duplicate when its text is that of a better one, or when they share this much of their words
    (Jaccard index; 1.0: only the same text).
    """
    kept: dict[str, _Reading] = {}
    told: list[Candidate] = []
    for candidate in candidates:
        if len(kept) == passages:
            told.append(candidate)
            continue
        read = _Reading.of(candidate.chunk, duplicate_share)
        if double := next((key for key, one in kept.items() if one.says(read, duplicate_share)), None):
            told.append(replace(candidate, fate=f"duplicate of {double}"))
        else:
            kept[candidate.chunk.id] = read
            told.append(replace(candidate, fate="kept"))
    return told


class _Reading(NamedTuple):
    """A text, and its words if words are compared."""

    text: str
    words: frozenset[str]

    @classmethod
    def of(cls, chunk: Chunk, share: float) -> "_Reading":
        return cls(chunk.text, frozenset(WORD.findall(chunk.text.lower()) if share < 1.0 else ()))

    def says(self, other: "_Reading", share: float) -> bool:
        """Whether the other says the same."""
        if self.text == other.text or share >= 1.0:
            return self.text == other.text
        return len(self.words & other.words) >= share * len(self.words | other.words)


def apart(candidates: Sequence[Candidate]) -> tuple[Passage, ...]:
    """The passages of what is kept, each chunk by itself."""
    return tuple(Passage(one.chunk, one.deciding_score) for one in candidates if one.fate == "kept")


def joined(candidates: Sequence[Candidate]) -> tuple[Passage, ...]:
    """The passages of what is kept; chunks that follow each other in a document become one.

    A joined passage stands where its best chunk stood and has that one's id. Between two chunks lies nothing
    but whitespace: it is filled with line ends, so that offsets hold, and the passage's `seams` say where, so
    that no quote crosses it.
    """
    kept = [one for one in candidates if one.fate == "kept"]
    runs: list[list[Candidate]] = []
    for candidate in sorted(kept, key=lambda one: (one.chunk.document, one.chunk.number)):
        if runs and _follows(runs[-1][-1].chunk, candidate.chunk):
            runs[-1].append(candidate)
        else:
            runs.append([candidate])
    place = {one.chunk.id: number for number, one in enumerate(kept)}
    best = [min(run, key=lambda one: place[one.chunk.id]) for run in runs]
    order = sorted(range(len(runs)), key=lambda number: place[best[number].chunk.id])
    return tuple(_passage(runs[number], best[number]) for number in order)


def _follows(one: Chunk, other: Chunk) -> bool:
    return one.document == other.document and other.number == one.number + 1 and other.start >= one.end


def _passage(run: Sequence[Candidate], best: Candidate) -> Passage:
    seams: list[int] = []
    text, end = "", run[0].chunk.start
    for chunk in (one.chunk for one in run):
        if gap := chunk.start - end:
            seams.append(len(text))
            text += "\n" * gap
        text += chunk.text
        end = chunk.end
    whole = replace(best.chunk, number=run[0].chunk.number, start=run[0].chunk.start, end=end, text=text)
    return Passage(whole, best.deciding_score, tuple(seams))
