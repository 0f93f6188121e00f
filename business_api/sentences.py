"""Where the sentences of a text stand, and which words they are made of. Knows no passages and no answers."""

import re
from collections.abc import Iterator, Sequence
from functools import lru_cache
from itertools import pairwise
from typing import Literal, NamedTuple

Kind = Literal["prose", "item", "row", "code", "heading"]

END = re.compile(
    r"[.!?]+[\"'\u201d\u2019\u00bb)\]*_]*(?=\s|$)|[\u3002\uff01\uff1f]+[\u201d\u2019\u300d\u300f\uff09]*"
)
"""The end of a sentence; after an abbreviation it is none (`ends`)."""
ABBREVIATED = re.compile(r"(?:^|[\s(])(?:[A-Za-z]|e\.g|i\.e|cf|vs|etc|approx|Dr|Mr|Mrs|Ms|St|No|Fig|Eq|al)$")
FENCE = re.compile(r"\s*(?:```|~~~)")
HEADING = re.compile(r"\s*#{1,6}\s")
ROW = re.compile(r"\s*\|")
ITEM = re.compile(r"\s*(?:[-*+]|\d{1,3}[.)])\s+")
QUOTED = re.compile(r"\s*>\s?")
RULER = re.compile(r"[\s|:=+*_-]+$")
LONGEST = 600
"""Characters; a longer sentence ends at the end of its line."""

WORD = re.compile(r"\w+(?:[._/'\u2019-]\w+)*")
PART = re.compile(r"[._/'\u2019-]")
UNSPACED = re.compile(r"[\u0e00-\u0eff\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff]")
"""Letters of scripts that set no spaces between words."""
STOPWORDS = frozenset(
    """
    a about also an and any are as at be because been being both but by can could did do does each for from
    had has have he her his how i if in into is it its just may more most of on only or other our over she
    should so some such than that the their them then there these they this those to under up was we were what
    when where which while who whom whose why will with would you your
    """.split()
)
NUMBER_WORDS = {
    word: str(number)
    for number, word in enumerate(
        "zero one two three four five six seven eight nine ten eleven twelve".split()
    )
}
ENDING = re.compile(
    r"(?<=\w{3})(?:ations?|ingly|edly|ments?|ity|ities|ions?|ings?|ies|ied|ers?|est|es|ed|ly|al|s|e|y)\Z"
)
COMMA = re.compile(r"(?<=\d),(?=\d{3}\b)")
"""Between the thousands of a number."""


class Sentence(NamedTuple):
    """Where a sentence, or a line that stands for itself, is in its text."""

    start: int
    end: int
    kind: Kind


def ends(before: str, end: re.Match[str]) -> bool:
    """Whether a match of END ends the sentence whose text up to there is `before`."""
    return end[0][0] != "." or not ABBREVIATED.search(before[-12:])


def sentences(text: str, seams: Sequence[int] = ()) -> list[Sentence]:
    """The sentences of a text in Markdown or without markup, in order.

    Rows of tables, lines of code and headings are one each; the lines of a paragraph belong together. Marks
    of lists and quotes and the outer bars of a row are left out. No sentence reaches over one of the `seams`.
    """
    found: list[Sentence] = []
    edges = [0, *seams, len(text)]
    for start, end in pairwise(edges):
        for block_start, block_end, kind in _blocks(text, start, end):
            found += _cut(text, block_start, block_end, kind)
    return found


def _blocks(text: str, start: int, end: int) -> Iterator[Sentence]:
    """Paragraphs, items, rows, headings and lines of code between two places."""
    fenced = False
    block: Sentence | None = None
    for line in re.finditer(r"[^\n]*\n?", text[start:end]):
        shown = line[0]
        mark = ITEM.match(shown) or QUOTED.match(shown)
        kind = _kind(shown, fenced, mark)
        if FENCE.match(shown):
            fenced = not fenced
        first = start + line.start() + (mark.end() if mark and kind == "item" else 0)
        last = start + line.end()
        if block and kind == "prose" and block.kind in ("prose", "item"):
            block = Sentence(block.start, last, block.kind)
            continue
        if block:
            # the row above a table's ruler names its columns
            names_columns = block.kind == "row" and "|" in shown and RULER.match(shown)
            yield block._replace(kind="heading") if names_columns else block
        block = Sentence(first, last, kind) if kind else None
    if block:
        yield block


def _kind(line: str, fenced: bool, mark: re.Match[str] | None) -> Kind | None:
    """What a line is; None when it says nothing."""
    if FENCE.match(line) or RULER.match(line) or not line.strip():
        return None
    if fenced:
        return "code"
    if HEADING.match(line):
        return "heading"
    if ROW.match(line):
        return "row"
    return "item" if mark else "prose"


def _cut(text: str, start: int, end: int, kind: Kind) -> Iterator[Sentence]:
    """One block, cut into sentences where it is prose."""
    begun = start
    if kind in ("prose", "item"):
        for stop in _stops(text, start, end):
            yield from _trimmed(text, begun, stop, kind)
            begun = stop
    yield from _trimmed(text, begun, end, kind)


def _stops(text: str, start: int, end: int) -> Iterator[int]:
    begun = start
    for found in END.finditer(text, start, end):
        if ends(text[begun : found.start()], found):
            begun = found.end()
            yield begun
        elif found.end() - begun > LONGEST and (line := text.rfind("\n", begun, found.start())) > 0:
            begun = line
            yield begun


def _trimmed(text: str, start: int, end: int, kind: Kind) -> Iterator[Sentence]:
    """Without whitespace around it, a row without its outer bars; nothing if there is no word in it."""
    edge = " \t\r\n|" if kind == "row" else None
    piece = text[start:end]
    start, end = end - len(piece.lstrip(edge)), start + len(piece.rstrip(edge))
    if WORD.search(text, start, end):
        yield Sentence(start, end, kind)


def words(text: str) -> list[str]:
    """The words of a text as they are compared: lower case, without endings, numbers without commas.

    A compound (`127.0.0.1`, `llm-server`) is there whole and in its parts. A script without spaces gives
    pairs of letters.
    """
    found: list[str] = []
    for word in WORD.findall(COMMA.sub("", text)):
        lower = word.lower()
        found.append(stem(lower))
        if UNSPACED.search(lower):
            found += [lower[at : at + 2] for at in range(len(lower) - 1)]
        elif len(parts := PART.split(lower)) > 1:
            found += [stem(part) for part in parts if part]
    return found


@lru_cache(maxsize=16384)
def stem(word: str) -> str:
    """A lower-case word without an English ending; a number word as its digits."""
    if word in NUMBER_WORDS:
        return NUMBER_WORDS[word]
    word = word.removesuffix("'s").removesuffix("\u2019s")
    if any(c.isdigit() for c in word):
        return re.sub(r"(?<=\d)(?:st|nd|rd|th)$", "", word)
    ending = ENDING.search(word)
    return _undoubled(word[: ending.start()]) if ending else word


def _undoubled(word: str) -> str:
    """`stopp` -> `stop`, and `mak` for all of `make`, `makes`, `making`."""
    doubled = len(word) > 3 and word[-1] == word[-2] and word[-1] not in "aeiou"
    return word[:-1] if doubled else word.rstrip("e")


def weighted(text: str) -> dict[str, float]:
    """The content words of a text with what they weigh: identifiers, numbers and names double."""
    found: dict[str, float] = {}
    for at in WORD.finditer(COMMA.sub("", text)):
        word = at[0]
        if word.lower() in STOPWORDS:
            continue
        if UNSPACED.search(word):
            found |= dict.fromkeys(words(word), 1.0)
        else:
            found[stem(word.lower())] = 2.0 if _names(word, at.start()) else 1.0
    return found


def _names(word: str, place: int) -> bool:
    """Whether a word stands for one thing only: a number, an identifier, a name inside the sentence."""
    return any(c.isdigit() or c in "._/-" for c in word) or (place > 0 and any(c.isupper() for c in word))
