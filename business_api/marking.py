"""Reads an answer that arrives in deltas: text, code, markers, ends of sentences. Knows no passages.

What is read does not depend on where the deltas were cut: what may yet become something else is held back.
"""

import re
from collections.abc import Iterator
from typing import Literal, NamedTuple

from business_api.sentences import ABBREVIATED

NUMBERS = r"\d{1,3}(?:\s?[,;]\s?\d{1,3}){0,8}"
MARK = rf"(?:\[\[{NUMBERS}\]\]|\[{NUMBERS}\]|\u3010\d{{1,3}}[^\u3011\n]{{0,16}}\u3011|\uff3b\d{{1,3}}\uff3d)"
"""`[1]`, `[1, 2]`, `[[1]]`, and with wide brackets, within which some models name the source too."""
BEGUN = re.compile(
    r"[ \t]{0,2}(?:\[\[?(?:\d[\d,;\s]{0,44}\]?)?|\u3010(?:\d{1,3}[^\u3011\n]{0,16})?|\uff3b\d{0,3})\Z"
)
STOP = r"[.!?]{1,8}[\"'\u2019\u201d\u00bb)*_]{0,4}(?=[\s\[\u3010\uff3b]|\Z)"
WIDE_STOP = r"[\u3002\uff01\uff1f]{1,8}[\u201d\u2019\u300d\u300f\uff09]{0,4}"
PLACE = re.compile(
    rf"(?:(?P<stop>{STOP})|(?P<wide>{WIDE_STOP}))?(?P<gap>\s{{0,16}})"
    rf"(?P<marks>{MARK}(?:[ \t]{{0,2}}{MARK}){{0,7}})?"
)
"""Where a sentence may end and markers may stand."""
SPECIAL = re.compile(r"[`.!?\u3002\uff01\uff1f\[\u3010\uff3b\n]|\s{1,16}(?=[\[\u3010\uff3b\n]|\Z)")
TICKS = re.compile(r"`+")
LINE_REST = re.compile(r"[ \t]{0,16}(?=\n|\Z)")
FENCE_OPENS = re.compile(r"[\w+#.-]{0,24}[ \t]*\n")
FENCE_MAY_CLOSE = re.compile(r"[ \t]*`*[ \t]*\n?")
CODE_SPAN = 160
"""Characters within which, and in whose line, a backtick must find its end to be more than a letter."""
PAST = 24


class Piece(NamedTuple):
    """What was read. `end` has no text; the text of `marks` begins with the whitespace before them.

    `glued`: a letter follows the markers at once.
    """

    kind: Literal["text", "code", "block", "marks", "end"]
    text: str = ""
    numbers: tuple[int, ...] = ()
    glued: bool = False


class Marking:
    """Reads one answer. Links and escaped brackets are text; so are markers above `last` at a name."""

    def __init__(self, last: int) -> None:
        self._last = last
        self._held = ""
        self._fence = 0
        self._inside_line = False
        self._past = "\n"

    def feed(self, text: str) -> list[Piece]:
        """The pieces that are certain now."""
        return list(self._read(self._held + text, final=False))

    def end(self) -> list[Piece]:
        """The pieces that remain when the answer has ended."""
        return list(self._read(self._held, final=True))

    def _read(self, text: str, *, final: bool) -> Iterator[Piece]:
        place = 0
        while place < len(text):
            pieces, reached = (self._in_fence if self._fence else self._in_prose)(text, place, final)
            if reached == place:
                break
            self._past = (self._past + text[place:reached])[-PAST:]
            place = reached
            yield from pieces
        self._held = text[place:]

    def _in_prose(self, text: str, place: int, final: bool) -> tuple[list[Piece], int]:
        """Up to the next place of interest, or that place itself; no further if it must wait."""
        found = SPECIAL.search(text, place)
        if found is None:
            return [Piece("text", text[place:])], len(text)
        if found.start() > place:
            return [Piece("text", text[place : found.start()])], found.start()
        if text[place] == "`":
            return self._at_ticks(text, place, final)
        return self._at_place(text, place, final)

    def _at_place(self, text: str, place: int, final: bool) -> tuple[list[Piece], int]:
        found = PLACE.match(text, place)
        assert found is not None
        rest = LINE_REST.match(text, found.end())
        open_ended = BEGUN.match(text, found.end()) or (rest is not None and rest.end() == len(text))
        if open_ended and not final:
            return [], place
        if found["marks"]:
            return self._at_marks(found, alone=rest is not None), found.end()
        if found.end() == place:
            return [Piece("text", text[place])], place + 1
        stop = found["wide"] or found["stop"] or ""
        over = "\n" in found["gap"] or (self._ends(found) and (found["wide"] or found["gap"]))
        pieces = [Piece("text", stop), *([Piece("end")] if over else []), Piece("text", found["gap"])]
        return pieces, found.end()

    def _ends(self, found: re.Match[str]) -> bool:
        """Whether a sentence ends here; behind an abbreviation it does not."""
        dot = found["stop"] == "."
        return bool(found["wide"] or found["stop"]) and not (dot and ABBREVIATED.search(self._past[-12:]))

    def _at_marks(self, found: re.Match[str], *, alone: bool) -> list[Piece]:
        """Markers belong to the text before them, but at the start of a line that says more to that line."""
        stop, gap, marks = found["wide"] or found["stop"] or "", found["gap"], found["marks"]
        numbers = tuple(dict.fromkeys(int(number) for number in re.findall(r"\d+", _named(marks))))
        unknown = not any(1 <= number <= self._last for number in numbers)
        before, behind = (
            found.string[: found.start("marks")][-1:] or self._past[-1:],
            found.string[found.end() :],
        )
        if before == "\\" or behind[:1] == "(" or (unknown and before.isalnum()):
            return [Piece("text", found[0])]
        glued = behind[:1].isalnum()
        said = [Piece("text", stop)] if stop else []
        if "\n" in gap and not alone:
            return [*said, Piece("end"), Piece("text", gap), Piece("marks", marks, numbers, glued)]
        closing = [Piece("end")] if self._ends(found) or "\n" in gap else []
        return [*said, Piece("marks", gap + marks, numbers, glued), *closing]

    def _at_ticks(self, text: str, place: int, final: bool) -> tuple[list[Piece], int]:
        ticks = TICKS.match(text, place)
        assert ticks is not None
        begun, count = ticks.end(), len(ticks[0])
        limit = begun + CODE_SPAN
        line_end = text.find("\n", begun, limit)
        same = re.compile(rf"(?<!`)`{{{count}}}(?!`)")
        closing = same.search(text, begun, line_end if line_end >= 0 else limit)
        certain = final or line_end >= 0 or len(text) > limit
        if not certain and (closing is None or closing.end() == len(text)):
            return [], place
        if closing is not None:
            return [Piece("code", text[place : closing.end()])], closing.end()
        at_start = not self._past[self._past.rfind("\n") + 1 :].strip()
        if count >= 3 and line_end >= 0 and (at_start or FENCE_OPENS.match(text, begun)):
            self._fence, self._inside_line = count, False
            return [Piece("end"), Piece("block", text[place : line_end + 1])], line_end + 1
        return [Piece("text", ticks[0])], begun

    def _in_fence(self, text: str, place: int, final: bool) -> tuple[list[Piece], int]:
        """A line of code, or what there is of it when it cannot be the end of the code."""
        line_end = text.find("\n", place) + 1
        line = text[place : line_end or len(text)]
        may_close = not self._inside_line and FENCE_MAY_CLOSE.fullmatch(line)
        if may_close and not line_end and not final:
            return [], place
        self._inside_line = not line_end
        if may_close and line.count("`") >= self._fence:
            self._fence = 0
        return [Piece("block", line)], place + len(line)


def _named(marks: str) -> str:
    """Only the numbers that are markers: what a wide bracket says behind its number is left out."""
    return re.sub(r"\u3010(\d{1,3})[^\u3011]*\u3011", r"[\1]", marks)
