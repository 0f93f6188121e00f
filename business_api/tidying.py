"""Makes what an LLM wrote in a short call fit to be searched for, or finds that it is not.

Small models repeat themselves, answer instead of rewriting, or talk about something else: what looks like
that is Nonsense, and the caller goes on without it.
"""

import re
from collections.abc import Iterator

LONGEST = 400
"""Characters of a question that was rewritten; a longer one is an answer or a ramble."""

_THINKING = "<think>"
_LABEL = re.compile(
    r"^(?:[-*•>#]+|\(?\d+[.)]|(?:[\w ]{0,30}\b)?(?:question|query|rewritten|user|q)\b[\w ]{0,12}:)\s*",
    re.IGNORECASE,
)
_QUOTES = "\"'`*“”„«»\u2018\u2019 \t"
_WORD = re.compile(r"\w+")
_JOINED = re.compile(r"[\u0590-\u109f\u1780-\u17ff\u2e80-\ud7ff\uf900-\ufaff]")
"""Letters of scripts whose words run together or take particles on, from Hebrew to Chinese and Korean."""
_ASKING = ("?", "？", "؟", ";", "՞")  # noqa: RUF001 - question marks of the world
_EMPTY = frozenset(
    """
    a about an and any are as at be been but by can could did do does for from had has have how i if in
    into is it its just me more my no not of on one or other our out same should so some such than that
    the their them then there these they this those to too up us use used was we were what when where
    which who whose why will with would you your
    """.split()
)


class Nonsense(ValueError):
    """What was written cannot be used."""


def one_question(said: str, *, whole: bool) -> str:
    """The first line, without label and quotes. Not `whole`: the LLM was cut off at its last character.

    Raises Nonsense when it is cut off, empty, too long or repeats itself.
    """
    lines = [line for line in said.splitlines() if line.strip()]
    if not lines or (len(lines) == 1 and not whole):
        raise Nonsense
    text = _bare(lines[0])
    if not _reads_well(text) or len(text) > LONGEST:
        raise Nonsense
    return text


def several_questions(said: str, *, whole: bool, known: str, most: int) -> tuple[str, ...]:
    """Up to `most` lines, none twice, none that only repeats `known`. Raises Nonsense when none is left."""
    lines = [line for line in said.splitlines() if line.strip()]
    kept = {" ".join(_words(known)): ""}
    for line in lines if whole else lines[:-1]:
        text = _bare(line)
        if _reads_well(text) and len(text) <= LONGEST and asks_like(text, known):
            kept.setdefault(" ".join(_words(text)), text)
    found = [text for text in kept.values() if text]
    if not found:
        raise Nonsense
    return tuple(found[:most])


def one_passage(said: str) -> str:
    """All of it in one line; it may be cut off. Raises Nonsense when it is empty or repeats itself."""
    text = " ".join(said.split())
    if not _reads_well(text) or len(_words(text)) < 4:
        raise Nonsense
    return text


def keep_to(text: str, *, question: str, history: str) -> str:
    """`text`, if it asks what the question asks. Raises Nonsense otherwise.

    Half of its words that mean something must have been said before, one of them in the question itself,
    unless that has none. Where a question mark was there must be one.
    """
    if not asks_like(text, question):
        raise Nonsense
    said, asked = meaningful(text), meaningful(question)
    familiar = said & (asked | meaningful(history))
    if not familiar or 2 * len(familiar) < len(said) or (asked and not said & asked):
        raise Nonsense
    return text


def asks_like(text: str, question: str) -> bool:
    """Whether `text` ends as a question does if `question` does: what does not is an answer."""
    return text.endswith(_ASKING) or not question.rstrip().endswith(_ASKING)


def same(text: str, other: str) -> bool:
    """Whether both are the same words in the same order."""
    return _words(text) == _words(other)


def meaningful(text: str) -> set[str]:
    """The words that mean something, cut to five letters so that most inflected forms are equal.

    Of scripts whose words run together, each pair of neighbouring letters.
    """
    found: set[str] = set()
    for word in _words(text):
        if _JOINED.search(word):
            found.update(word[at : at + 2] for at in range(max(1, len(word) - 1)))
        elif len(word) > 1 and word not in _EMPTY:
            found.add(word[:5])
    return found


def _words(text: str) -> list[str]:
    return _WORD.findall(text.casefold())


def _bare(line: str) -> str:
    for _ in range(3):  # such as `- **Question:** "..."`
        line = _LABEL.sub("", line.strip(_QUOTES))
    return " ".join(line.strip(_QUOTES).split())


def _reads_well(text: str) -> bool:
    return bool(text) and not text.startswith(_THINKING) and any(_letters(text)) and not _repeats(text)


def _letters(text: str) -> Iterator[bool]:
    return (len(word) > 1 and not word.isdecimal() for word in _words(text))


def _repeats(text: str) -> bool:
    words = _words(text)
    return len(words) >= 6 and 2 * len(set(words)) < len(words)
