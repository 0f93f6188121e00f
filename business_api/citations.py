"""Ties what an answer says to the passages it rests on, while the deltas flow.

Markers such as `[1]` that the model sets are checked against the passages of this exchange; unknown ones are
removed. A sentence without a marker gets one when the words of one passage cover it (`by: "match"`). Every
citation carries the verbatim span of the passage that best supports its sentence.
"""

import re
from collections.abc import Iterator, Sequence

from business_api.exchange import Citation
from business_api.passages import Passage

MARKER = re.compile(r"\[(\d{1,3}(?:\s?,\s?\d{1,3}){0,4})\]")
WIDE = re.compile(r"【(\d{1,3})[^】\n]{0,16}】")
"""How some models write a marker: 【1】, 【1†source】."""
BEGUN = re.compile(r"(?:\[[\d,\s]{0,32}|【(?:\d{1,3}[^】\n]{0,16})?)$")
HELD = 40
"""Most characters that a marker which has only begun may have."""
SENTENCE_END = re.compile(r"(?<=[.!?:\]])(?=\s)(?!\s*\[\d)|(?=\n)")
LEADING_MARKER = re.compile(r"\s*\[\d")
QUOTABLE = re.compile(r"[^\n]*?(?:[.!?](?=\s)|\n|$)|[^\n]+")
WORD = re.compile(r"\w+(?:[._/-]\w+)*")
COVERED = 0.6
"""Share of a sentence's weighted words that one passage must hold to be cited without the model's marker."""
STOPWORDS = frozenset(
    """
    a an and are as at be but by can could do does for from has have how if in into is it its may more most no
    not of on only or other our should so such than that the their them then there these they this to was we
    were what when where which while who will with would you your
    """.split()
)


class Citing:
    """Reads an answer delta by delta; `citations` and `unknown` (a marker was removed) grow with it.

    `passages` are numbered from 1, as the prompt showed them. With `attribute`, sentences that a passage
    supports get a marker when the model set none.
    """

    def __init__(self, passages: Sequence[Passage], *, attribute: bool = True) -> None:
        self._passages = passages
        self._attribute = attribute
        self._held = ""
        self._sentence = ""
        self._marked: list[int] = []
        self._in_code = False
        self.citations: list[Citation] = []
        self.unknown = False

    def feed(self, text: str) -> str:
        """The part of the answer that may be shown now; a marker that has only begun is held back."""
        text = self._held + text
        begun = BEGUN.search(text, max(0, len(text) - HELD))
        # the space before a marker waits with it: its sentence has not ended
        cut = len((text[: begun.start()] if begun else text).rstrip())
        self._held = text[cut:]
        return self._shown(text[:cut])

    def end(self) -> str:
        """What remains to be shown when the answer has ended."""
        rest, self._held = self._held, ""
        return self._shown(rest) + self._close_sentence()

    def _shown(self, text: str) -> str:
        shown = []
        for piece in re.split(r"(`)", text):
            if piece == "`":
                self._in_code = not self._in_code
            shown.append(piece if self._in_code or piece == "`" else "".join(self._prose(piece)))
            if self._in_code or piece == "`":
                self._sentence += piece
        return "".join(shown)

    def _prose(self, text: str) -> Iterator[str]:
        """Text outside code: markers checked, sentences closed where they end."""
        text = WIDE.sub(r"[\1]", text)
        for part in SENTENCE_END.split(text) if text else ():
            if part[:1].isspace() and self._ended() and not LEADING_MARKER.match(part):
                yield self._close_sentence()
            yield MARKER.sub(self._checked, part)
            self._sentence += MARKER.sub("", part)

    def _ended(self) -> bool:
        return self._sentence.rstrip().endswith((".", "!", "?"))

    def _checked(self, found: re.Match[str]) -> str:
        numbers = [int(n) for n in found[1].split(",")]
        known = [n for n in numbers if 1 <= n <= len(self._passages)]
        before = (self._sentence + found.string[: found.start()])[-1:]
        if not known and before.isalnum():
            return found[0]  # names[0] is no marker
        self.unknown |= len(known) < len(numbers)
        self._marked.extend(known)
        return "".join(f"[{n}]" for n in known)

    def _close_sentence(self) -> str:
        """End the sentence: cite what the model marked, or find the passage that says it."""
        sentence, marked = self._sentence, self._marked
        self._sentence, self._marked = "", []
        for number in dict.fromkeys(marked):
            self._cite(number, sentence, "model")
        if marked or not self._attribute:
            return ""
        found = best_supporting(sentence, self._passages)
        if found is None:
            return ""
        self._cite(found, sentence, "match")
        return f" [{found}]"

    def _cite(self, number: int, sentence: str, by: str) -> None:
        passage = self._passages[number - 1]
        chunk = passage.chunk
        start, end = quote_span(sentence, chunk.text)
        if any((c.marker, c.start) == (number, chunk.start + start) for c in self.citations):
            return
        self.citations.append(
            Citation(
                marker=number,
                document=chunk.document,
                title=chunk.title,
                chunk=chunk.id,
                start=chunk.start + start,
                end=chunk.start + end,
                quote=chunk.text[start:end],
                score=round(passage.score, 4),
                by=by,
            )
        )


def best_supporting(sentence: str, passages: Sequence[Passage]) -> int | None:
    """Number (from 1) of the passage whose words cover the sentence best, None below COVERED."""
    words = _weighted(sentence)
    if sentence.rstrip().endswith(("?", ":")) or not _says_something(words):
        return None
    shares = [_share(words, _words(passage.chunk.text)) for passage in passages]
    best = max(range(len(shares)), key=shares.__getitem__, default=-1)
    return best + 1 if best >= 0 and shares[best] >= COVERED else None


def _says_something(words: dict[str, int]) -> bool:
    """Three content words, or a number or identifier: less is found in any passage."""
    return len(words) > 2 or 2 in words.values()


def quote_span(sentence: str, text: str) -> tuple[int, int]:
    """Start and end in `text` of the line or sentence that shares most with `sentence`."""
    words = _weighted(sentence)
    spans = [_trimmed(text, m.start(), m.end()) for m in QUOTABLE.finditer(text) if m[0].strip()]
    spans = [span for span in spans if not text.startswith("#", span[0])] or spans
    if not spans:
        return 0, len(text)
    return max(spans, key=lambda span: _share(words, _words(text[span[0] : span[1]])))


def _trimmed(text: str, start: int, end: int) -> tuple[int, int]:
    piece = text[start:end]
    return start + len(piece) - len(piece.lstrip()), end - (len(piece) - len(piece.rstrip()))


def _words(text: str) -> set[str]:
    """Lower-case words, and the parts of compound ones (`127.0.0.1:8001`, `llm-server`)."""
    whole = [word.lower() for word in WORD.findall(text)]
    return {*whole, *(part for word in whole for part in re.split(r"[._/-]", word) if part)}


def _weighted(sentence: str) -> dict[str, int]:
    """Content words of a sentence; numbers and identifiers count double."""
    words = {word.lower() for word in WORD.findall(sentence)} - STOPWORDS
    return {word: 2 if any(c.isdigit() or c in "._/-" for c in word) else 1 for word in words}


def _share(wanted: dict[str, int], present: set[str]) -> float:
    total = sum(wanted.values())
    return sum(weight for word, weight in wanted.items() if word in present) / total if total else 0.0
