"""What speaks for and against the passages answering a question: numbers, made without a model.

Two kinds. How well the searches found something tells apart the questions that the documents are not about.
Whether one sentence says what the question says tells apart those that they nearly answer: a name is missing,
a denial that nobody made, the opposite word.
"""

import re
from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache
from typing import NamedTuple

from business_api.contrast import DENIED, compared, opposed, utmost
from business_api.passages import Candidate, Passage
from business_api.sentences import STOPWORDS, UNSPACED, sentences

DIRECTIONS = {
    "dense_top": 1,
    "dense_first": 1,
    "bm25_word": 1,
    "agreement": 1,
    "rerank_top": 1,
    "line_covers": 1,
    "names_missing": -1,
    "names_apart": -1,
    "denial_unsaid": -1,
    "denial_absent": -1,
    "denied": -1,
    "opposites": -1,
    "opposites_near": -1,
    "utmost_unsaid": -1,
}
"""Signal -> whether more of it speaks for (1) or against (-1) an answer."""

ENOUGH = 3.0
"""BM25 score per word of the question; more says nothing, because scores grow with the index."""
NAME = 2.0
"""Weight of a name or number among the words of a question, which weigh 1."""
REACH = 6
"""Words after a denial that it may deny."""
LONGEST = 2000
"""Characters of a question that are compared."""
KEPT = 512
"""Texts whose words are kept: most questions find the same few."""

WORD = re.compile(r"\w+(?:['\u2019]\w+)?")
ASKING = frozenset(
    """
    after all become became before between called during example gave give given his kind known many me much
    my name named no not off old out same such than through type us use used using very we within without
    """.split()
)
"""Words that say how a question asks, beside the stop words."""


ONE = re.compile(
    r"\b(?:who|whom|whose|which|what|where|when|how (?:many|much|long|far|old|often|large|big|high|tall))\b"
    r"|\b(why|how)\b",
    re.IGNORECASE,
)


class Asked(NamedTuple):
    """A question: its words in order, what each word weighs that carries it, which of them are names.

    `for_one` is whether it asks for one thing of many. Only there a denial or an opposite contradicts: "may
    it be opened?" is answered by "keep it closed", and "why does it not start?" by what is wrong.
    """

    words: tuple[str, ...]
    weights: dict[str, float]
    names: frozenset[str]
    for_one: bool


class Text(NamedTuple):
    """A passage: the words of each of its sentences in order, and as a set with those of its title; all."""

    lines: tuple[tuple[str, ...], ...]
    said: tuple[frozenset[str], ...]
    words: frozenset[str]


class Line(NamedTuple):
    """The sentence that covers most of a question, and how much; `near` has the words of the next one too."""

    share: float
    words: tuple[str, ...]
    near: frozenset[str]


def signals(question: str, candidates: Sequence[Candidate], passages: Sequence[Passage]) -> dict[str, float]:
    """Signals by name, as DIRECTIONS has them; those of a search that was not made are left out.

    `candidates` and `passages` best first. Nothing found gives no signals.
    """
    if not candidates or not passages:
        return {}
    asked = asked_of(question)
    texts = [_text(one.chunk.text, " ".join((one.chunk.title, *one.chunk.heading))) for one in passages]
    return _of_searches(asked, candidates) | _of_words(asked, texts)


def _of_searches(asked: Asked, candidates: Sequence[Candidate]) -> dict[str, float]:
    found: dict[str, float] = {}
    first = candidates[0]
    dense = [one.dense_score for one in candidates if one.dense_score is not None]
    bm25 = [one.bm25_score for one in candidates if one.bm25_score is not None]
    reranked = [one.rerank_score for one in candidates if one.rerank_score is not None]
    if dense:
        found["dense_top"] = max(dense)
        found["dense_first"] = min(dense) if first.dense_score is None else first.dense_score
    if bm25:
        found["bm25_word"] = min(max(bm25) / max(len(asked.weights), 1), ENOUGH)
    if dense and bm25:
        found["agreement"] = sum(1 / rank for rank in (first.dense_rank, first.bm25_rank) if rank) / 2
    if reranked:
        found["rerank_top"] = max(reranked)
    return found


def _of_words(asked: Asked, texts: Sequence[Text]) -> dict[str, float]:
    line = _best_line(asked.weights, texts)
    best = max(texts, key=lambda text: _share(asked.weights, text.words)).words
    missing = asked.weights.keys() - best
    found = {
        "line_covers": line.share,
        "names_missing": float(len(asked.names - best)),
        "names_apart": float(len(asked.names - line.near)),
        "utmost_unsaid": float(any(map(utmost, missing - line.near))),
    }
    apart = asked.weights.keys() - line.near
    denies = DENIED in asked.words
    contradictions = {
        "denial_unsaid": denies and _denial_unsaid(asked, texts),
        "denial_absent": denies and DENIED not in line.near,
        "denied": not denies and _denies(line.words, asked.weights, REACH // 2),
        "opposites": sum(opposed(word, best) for word in missing),
        "opposites_near": sum(opposed(word, line.near) for word in apart),
    }
    return found | {name: float(value) if asked.for_one else 0.0 for name, value in contradictions.items()}


def asked_of(question: str) -> Asked:
    """The words of a question. If it has nothing but stop words, these are what it is about."""
    question = question[:LONGEST]
    shown = WORD.findall(question)
    if UNSPACED.search(question):
        words = tuple(_words(question))
        return Asked(words, dict.fromkeys(words, 1.0), frozenset(), for_one=False)
    words = tuple(compared(one.lower()) for one in shown)
    about = {at for at, one in enumerate(shown) if one.lower() not in STOPWORDS and one.lower() not in ASKING}
    names = frozenset(words[at] for at in about if _names(shown[at], at)) - {DENIED}
    weights = {words[at]: NAME if words[at] in names else 1.0 for at in sorted(about) if words[at] != DENIED}
    asks = ONE.search(question)
    for_one = asks is not None and asks[1] is None and "if" not in words
    return Asked(words, weights or dict.fromkeys(words, 1.0), names, for_one)


def _names(word: str, place: int) -> bool:
    """Whether a word of a question is a name or holds a number; the first one is always written large."""
    return (place > 0 and word[0].isupper()) or any(letter.isdigit() for letter in word)


@lru_cache(KEPT)
def _text(text: str, title: str) -> Text:
    head = frozenset(_words(title))
    lines = tuple(tuple(_words(text[one.start : one.end])) for one in sentences(text))
    return Text(lines, tuple(map(head.union, lines)), head.union(*lines))


def _words(text: str) -> list[str]:
    found = [compared(word) for word in WORD.findall(text.lower())]
    return found if text.isascii() or not UNSPACED.search(text) else list(_by_letters(found))


def _by_letters(words: Iterable[str]) -> Iterator[str]:
    """Pairs of letters where a script sets no spaces."""
    for word in words:
        if UNSPACED.search(word):
            yield from (word[at : at + 2] for at in range(max(len(word) - 1, 1)))
        else:
            yield word


def _best_line(weights: dict[str, float], texts: Sequence[Text]) -> Line:
    best = Line(0.0, (), frozenset())
    for text in texts:
        for at, said in enumerate(text.said):
            share = _share(weights, said)
            if share > best.share or not best.words:
                best = Line(share, text.lines[at], said.union(*text.said[at + 1 : at + 2]))
    return best


def _denial_unsaid(asked: Asked, texts: Sequence[Text]) -> bool:
    """Whether one of the denials of the question stands in no passage."""
    for at, word in enumerate(asked.words):
        denied = [one for one in asked.words[at + 1 :] if one in asked.weights][:2] if word == DENIED else []
        if denied and not any(_denies(line, denied, REACH) for text in texts for line in text.lines):
            return True
    return False


def _denies(line: Sequence[str], words: Iterable[str], reach: int) -> bool:
    """Whether one of the words follows a denial."""
    denials = [at for at, word in enumerate(line) if word == DENIED]
    return any(not set(words).isdisjoint(line[at + 1 : at + 1 + reach]) for at in denials)


def _share(weights: dict[str, float], said: frozenset[str]) -> float:
    """How much of the weight is said."""
    whole = sum(weights.values())
    return sum(map(weights.__getitem__, said.intersection(weights))) / whole if whole else 0.0
