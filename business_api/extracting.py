"""An answer without an LLM: the sentences of the passages that answer best, verbatim."""

import re
from collections.abc import Sequence

from business_api.citations import citation
from business_api.passages import Citation, Passage
from business_api.sentences import Kind
from business_api.supporting import Claim, Evidence, Grounds

MOST = 3
"""Sentences of an answer."""
RELATED = 0.3
"""Share of the question's weighted words that a sentence must hold to have to do with it."""
NEAR_BEST = 0.6
"""Share of the best sentence's score that the others must reach."""
ALIKE = 0.8
"""Share of common words (Jaccard index) from which on two sentences say the same."""
WORTH: dict[Kind, float] = {"prose": 1.0, "item": 1.0, "row": 0.95, "code": 0.8, "heading": 0.0}
"""What a sentence is worth as an answer: a line of code says how, seldom what."""
LEADS_ON = 0.7
"""Worth of a sentence that ends with a colon: what it announces is not in it."""
HEADED = 0.4
"""Worth of a word of the question that only the headings above the sentence hold."""
MARKED = re.compile(r"\[\d{1,3}\]")
QUOTED = re.compile(r"(.*) \[(\d+)\]", re.DOTALL)


def extract(question: str, passages: Sequence[Passage]) -> str:
    """The sentences that answer best, each with its marker; "" when none has to do with the question.

    At most three, verbatim and in the order of the passages, with an empty line between them.
    """
    grounds, claim = Grounds(passages), Claim(question)
    scored = [
        (_score(grounds, claim, evidence, place), number, place)
        for number, evidence in enumerate(grounds.evidence, 1)
        for place in range(len(evidence.sentences))
    ]
    best = max((score for score, _, _ in scored), default=0.0)
    wanted = max(RELATED, NEAR_BEST * best)
    chosen: list[tuple[int, int]] = []
    for score, number, place in sorted(scored, key=lambda one: (-one[0], one[1:])):
        own = grounds.evidence[number - 1].words[place]
        new = all(not _same(own, grounds.evidence[n - 1].words[p]) for n, p in chosen)
        if score >= wanted and new and len(chosen) < MOST:
            chosen.append((number, place))
    return "\n\n".join(_said(grounds.evidence[number - 1], number, place) for number, place in sorted(chosen))


def quoted(answer: str, passages: Sequence[Passage]) -> list[Citation]:
    """The citations of what `extract` made of these passages. What was extracted supports itself."""
    found = []
    for part in answer.split("\n\n"):
        said = QUOTED.fullmatch(part)
        assert said is not None
        passage = passages[int(said[2]) - 1]
        start = passage.chunk.text.index(said[1])
        span = (start, start + len(said[1]))
        found.append(citation(passage, int(said[2]), span, by="extract", supported=True))
    return found


def _score(grounds: Grounds, claim: Claim, evidence: Evidence, place: int) -> float:
    """How much of the question a sentence holds, 0 to 1, by what a sentence of its kind is worth."""
    own, sentence = evidence.words[place], evidence.sentences[place]
    if MARKED.search(evidence.text[sentence.start : sentence.end]):
        return 0.0  # a number in brackets would be read as one of our markers
    held = grounds.coverage(claim, own)
    headed = grounds.coverage(claim, own | evidence.context) - held
    leads_on = evidence.text[: sentence.end].endswith(":")
    return (held + HEADED * headed if held else 0.0) * WORTH[sentence.kind] * (LEADS_ON if leads_on else 1.0)


def _said(evidence: Evidence, number: int, place: int) -> str:
    sentence = evidence.sentences[place]
    return f"{evidence.text[sentence.start : sentence.end]} [{number}]"


def _same(one: set[str], other: set[str]) -> bool:
    return len(one & other) >= ALIKE * len(one | other)
