"""Shorter passages without an LLM: of each the one stretch that holds most of the question.

A stretch, not a choice of sentences, so that a compressed passage is still a chunk: a verbatim span of its
document, in which sentences stand in their order and pronouns near what they mean.
"""

from collections.abc import Sequence

from msgspec.structs import replace

from business_api.passages import Passage
from business_api.supporting import Claim, Evidence, Grounds

SHARE = 0.5
"""Share of a passage's characters that is kept."""
SHORT = 240
"""Characters; a passage this short stays as it is."""


def compress(question: str, passages: Sequence[Passage], share: float = SHARE) -> tuple[Passage, ...]:
    """The passages, each cut to consecutive sentences of about `share` of its characters, at least one.

    A passage that shares no word with the question, found by its meaning, keeps its beginning.
    """
    grounds, claim = Grounds(passages), Claim(question)
    return tuple(_cut(grounds, claim, evidence, share) for evidence in grounds.evidence)


def _cut(grounds: Grounds, claim: Claim, evidence: Evidence, share: float) -> Passage:
    passage, text = evidence.passage, evidence.text
    if len(text) <= SHORT:
        return passage
    first, last = _best_stretch(grounds, claim, evidence, max(SHORT, int(share * len(text))))
    # marks of lists and tables stand before their sentence in its line
    start = text.rfind("\n", 0, evidence.sentences[first].start) + 1
    earlier = evidence.sentences[first - 1].end if first else 0
    start, end = max(start, earlier), evidence.sentences[last].end
    start += len(text[start:end]) - len(text[start:end].lstrip())
    chunk = passage.chunk
    cut = replace(chunk, start=chunk.start + start, end=chunk.start + end, text=text[start:end])
    seams = tuple(seam - start for seam in passage.seams if start < seam < end)
    return replace(passage, chunk=cut, seams=seams)


def _best_stretch(grounds: Grounds, claim: Claim, evidence: Evidence, room: int) -> tuple[int, int]:
    """First and last sentence of the stretch within `room` characters that holds most of the question.

    Of two that hold as much, the one that says it more often, then the earlier one; it fills the room.
    """
    best, found = (-1.0, -1.0), (0, 0)
    own = [grounds.coverage(claim, words) for words in evidence.words]
    for first, begin in enumerate(evidence.sentences):
        held: set[str] = set()
        for last in range(first, len(evidence.sentences)):
            length = evidence.sentences[last].end - begin.start
            if length > room and last > first:
                break
            held |= evidence.words[last]
            score = round(grounds.coverage(claim, held), 3), round(sum(own[first : last + 1]), 3)
            if score > best or (score == best and first == found[0]):
                best, found = score, (first, last)
    return found
