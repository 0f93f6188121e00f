"""Whether a passage says what a sentence says: by its words, and where they leave it open by its meaning.

The words decide most: what share of the sentence's content words stands close together in the passage,
whether each number, identifier and name of the sentence is among them, whether one denies what the other
affirms. How the thresholds were calibrated, and what they reach: docs/citations.md.
"""

import asyncio
import math
import re
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from functools import cached_property
from typing import NamedTuple

from business_api.embedding import Embedder
from business_api.errors import RetrievalUnavailable
from business_api.passages import Passage
from business_api.sentences import PART, STOPWORDS, WORD, Sentence, sentences, stem, weighted, words

Similarity = Callable[[str, str], Awaitable[float | None]]
"""(one text, another) -> cosine of their vectors; None when there is none in time."""

ENOUGH = 0.7
"""Share of the weighted words from which on no similarity is asked for."""
LITTLE = 0.4
"""Share below which a sentence is not supported, whatever its vector says."""
HALF = 0.6
"""The one threshold when there is no similarity."""
SIMILAR = 0.65
"""Cosine from which on a sentence between LITTLE and ENOUGH is supported."""

NEGATIONS = frozenset("not no never without cannot neither nor none nobody nothing".split())
CLAUSE = re.compile(r"[,;:.!?()\n]|\bbut\b|\bonly\b")
DENIED_WORDS = 2
"""Content words behind a negation that it is taken to deny."""


class Evidence:
    """A passage read for checking: its sentences and their words, once for all that is held against it."""

    def __init__(self, passage: Passage) -> None:
        chunk = passage.chunk
        self.passage = passage
        self.text = chunk.text
        found = sentences(self.text, passage.seams)
        self.sentences = found or [Sentence(0, (*passage.seams, len(self.text))[0], "prose")]
        self.words = [set(words(self.text[one.start : one.end])) for one in self.sentences]
        self.context = set(words(" ".join((chunk.title, *chunk.heading, chunk.document))))
        self.all_words = self.context.union(*self.words)


class Claim:
    """A sentence of an answer, read for checking."""

    def __init__(self, text: str) -> None:
        self.text = text.strip()
        self.weights = weighted(self.text)
        self.total = sum(self.weights.values())
        self.names = {word for word, weight in self.weights.items() if weight > 1}

    @property
    def says_something(self) -> bool:
        """Two content words, or a number or name: less is found anywhere."""
        return len(self.weights) > 1 or bool(self.names)

    def missing(self, present: set[str]) -> set[str]:
        """The numbers, identifiers and names that are not present, neither whole nor in all their parts."""
        absent = self.names - present
        return {name for name in absent if not present.issuperset(map(stem, filter(None, PART.split(name))))}

    def share(self, present: set[str]) -> float:
        """Share of the weighted words that are present, 0 to 1."""
        return (
            sum(w for word, w in self.weights.items() if word in present) / self.total if self.total else 0.0
        )


class Reading(NamedTuple):
    """What the words say: the share found in the best one or two sentences, and whether these contradict."""

    share: float
    contradicted: bool
    window: str


def read(claim: Claim, evidence: Evidence) -> Reading:
    """Hold a sentence against a passage, by its words."""
    best, begin, end = -1.0, 0, 1
    for at, own in enumerate(evidence.words):
        for first, present in ((at, own), (at - 1, evidence.words[at - 1] | own if at else own)):
            # two sentences must bring more than one does
            score = claim.share(present) - 0.02 * (at - max(first, 0))
            if score > best:
                best, begin, end = score, max(first, 0), at + 1
    window = evidence.text[evidence.sentences[begin].start : evidence.sentences[end - 1].end]
    return _weighed(claim, window, set[str]().union(*evidence.words[begin:end]), evidence.context)


def _weighed(claim: Claim, window: str, present: set[str], context: set[str]) -> Reading:
    """Title and headings may name what the sentences only mean; they say nothing else."""
    named = present | context
    share = claim.share(present | (claim.names - claim.missing(named)))
    return Reading(share, bool(claim.missing(named)) or _denies(claim.text, window), window)


def _denies(one: str, other: str) -> bool:
    """Whether one of two texts denies what the other affirms or does not speak of."""
    denied, also = denied_words(one), denied_words(other)
    if denied and not denied & also:
        return True
    return bool(denied & set(words(other)) - also) or bool(also & set(words(one)) - denied)


def denied_words(text: str) -> set[str]:
    """The content words that a negation stands before, in the same clause."""
    found: set[str] = set()
    for clause in CLAUSE.split(text):
        left = 0
        for word in WORD.findall(clause.lower()):
            if word in NEGATIONS or word.endswith(("n't", "n\u2019t")):
                left = DENIED_WORDS
            elif left and word not in STOPWORDS:
                found.add(stem(word))
                left -= 1
    return found


class Grounds:
    """The passages that an answer may rest on, numbered from 1; read when first needed."""

    def __init__(self, passages: Sequence[Passage]) -> None:
        self.passages = passages

    @cached_property
    def evidence(self) -> list[Evidence]:
        """The passages, read."""
        return [Evidence(passage) for passage in self.passages]

    @cached_property
    def _rarity(self) -> dict[str, float]:
        """What a word tells sentences of these passages apart by: the logarithm of how few hold it."""
        held = Counter(word for one in self.evidence for own in one.words for word in own)
        return {word: math.log(1 + self._sentences / count) for word, count in held.items()}

    @cached_property
    def _sentences(self) -> int:
        return sum(len(one.words) for one in self.evidence)

    def coverage(self, claim: Claim, present: set[str]) -> float:
        """Share of a claim's words that are present, 0 to 1; words that few sentences hold weigh more."""
        rarest = math.log(1 + self._sentences)
        weights = {word: w * self._rarity.get(word, rarest) for word, w in claim.weights.items()}
        total = sum(weights.values())
        return sum(w for word, w in weights.items() if word in present) / total if total else 0.0

    def quote(self, claim: Claim, number: int) -> tuple[int, int]:
        """Start and end, in the text of a passage, of the sentence that shares most with a claim.

        Rare words count more; of two that share as much, the one that says less besides.
        """
        one = self.evidence[number - 1]
        scores = [self._alike(claim, own) for own in one.words]
        best = max(range(len(scores)), key=lambda at: (one.sentences[at].kind != "heading", scores[at]))
        return one.sentences[best].start, one.sentences[best].end

    def best(self, claim: Claim) -> int | None:
        """Number of the passage that supports a claim best by its words alone; None when none does.

        Two content words without a number or name among them are found anywhere: they get none.
        """
        if len(claim.weights) < 3 and not claim.names:
            return None
        readings = [read(claim, one) for one in self.evidence]
        good = [
            at for at, reading in enumerate(readings) if not reading.contradicted and reading.share >= HALF
        ]
        alike = {at: max(self._alike(claim, own) for own in self.evidence[at].words) for at in good}
        return max(good, key=lambda at: (round(readings[at].share, 2), alike[at])) + 1 if good else None

    async def supported(
        self, claim: Claim, numbers: Sequence[int], similarity: Similarity | None
    ) -> dict[int, bool] | None:
        """Which of the passages cited together support a claim; None when it says nothing to check.

        A passage may support it alone. If none does, all do when it is supported by what they say together.
        """
        if not claim.says_something:
            return None
        readings = {number: read(claim, self.evidence[number - 1]) for number in numbers}
        found = {number: await _holds(claim, reading, similarity) for number, reading in readings.items()}
        if len(found) > 1 and not any(found.values()):
            together = "\n".join(reading.window for reading in readings.values())
            context = set[str]().union(*(self.evidence[number - 1].context for number in numbers))
            whole = _weighed(claim, together, set(words(together)), context)
            return dict.fromkeys(found, await _holds(claim, whole, similarity))
        return found

    def _alike(self, claim: Claim, present: set[str]) -> float:
        return self.coverage(claim, present) / math.sqrt(4 + len(present))


async def _holds(claim: Claim, reading: Reading, similarity: Similarity | None) -> bool:
    if reading.contradicted or reading.share < LITTLE:
        return False
    if reading.share >= ENOUGH:
        return True
    cosine = await similarity(claim.text, reading.window) if similarity else None
    return reading.share >= HALF if cosine is None else cosine >= SIMILAR


def similarity_of(embedder: Embedder, deadline: float) -> Similarity:
    """Similarity by an embedder's vectors; None when they are not there after `deadline` seconds."""

    async def similarity(one: str, other: str) -> float | None:
        try:
            async with asyncio.timeout(deadline):
                first, second = await asyncio.gather(embedder.embed([one]), embedder.embed([other]))
        except (RetrievalUnavailable, TimeoutError):
            return None
        return float(first[0] @ second[0])

    return similarity
