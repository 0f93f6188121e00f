"""Ties what an answer says to the passages it rests on, while the deltas flow.

Markers such as `[1]` that the model sets are checked against the passages of this exchange: unknown ones are
removed, and what stands before a known one is held against the passages it names (`supporting`). A sentence
without a marker gets one when the words of one passage support it (`by: "match"`). Every citation carries the
verbatim span of the passage that best supports its sentence.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from business_api.assistants import Support
from business_api.marking import Marking, Piece
from business_api.passages import Citation, Passage
from business_api.supporting import Claim, Grounds, Similarity

ITEM_NUMBER = re.compile(r"[-*+]?\s*\(?\d{1,3}[.)]")
FOLLOWS = 400
"""Characters behind a marker that are read for what it marks, when nothing stands before it."""


@dataclass
class _Waiting:
    """Markers whose claim follows them: where they are shown, and their place among the citations."""

    numbers: list[int]
    lead: str
    glued: bool
    shown: int
    cited: int


class Citing:
    """Reads an answer delta by delta; `citations` grows with it, one for each marker that is shown.

    `passages` are numbered from 1, as the prompt showed them. With `attribute`, sentences that a passage
    supports get a marker when the model set none. `unknown`: a marker of no passage was removed;
    `unsupported`: a passage did not say what was marked with its number. `support` says what becomes of such
    a marker: `off` nothing is checked, `flag` it is shown and its citation says so, `enforce` it is left out.
    """

    def __init__(
        self,
        passages: Sequence[Passage],
        *,
        attribute: bool = True,
        support: Support = "flag",
        similarity: Similarity | None = None,
    ) -> None:
        self._count = len(passages)
        self._grounds = Grounds(passages)
        self._attribute = attribute
        self._support = support
        self._similarity = similarity
        self._marking = Marking(self._count)
        self._out: list[str] = []
        self._sentence = ""
        self._clause = 0
        self._before = ""
        self._marked: list[int] = []
        self._waiting: _Waiting | None = None
        self._verdicts: list[bool] = []
        self.citations: list[Citation] = []
        self.unknown = False
        self.unsupported = False

    @property
    def support_rate(self) -> float | None:
        """Share of the cited sentences that are supported, markers left out included; None without any."""
        return sum(self._verdicts) / len(self._verdicts) if self._verdicts else None

    async def feed(self, text: str) -> str:
        """The part of the answer that may be shown now; what may become a marker is held back."""
        return await self._shown(self._marking.feed(text))

    async def end(self) -> str:
        """What remains to be shown when the answer has ended."""
        return await self._shown([*self._marking.end(), Piece("end")])

    async def _shown(self, pieces: Sequence[Piece]) -> str:
        for piece in pieces:
            if piece.kind == "marks":
                await self._mark(piece)
            elif piece.kind == "end":
                await self._end_sentence()
            else:
                self._out.append(piece.text)
                if piece.kind != "block":
                    self._sentence += piece.text
            if self._waiting and len(self._sentence) - self._clause > FOLLOWS:
                await self._settle()
        ready = len(self._out)
        if self._waiting and self._support == "enforce":
            ready = self._waiting.shown
            self._waiting.shown = 0
        shown = "".join(self._out[:ready])
        del self._out[:ready]
        return shown

    async def _mark(self, piece: Piece) -> None:
        """Markers as they come: those of no passage go, the others are judged by what they stand behind."""
        if self._waiting:
            await self._settle()
        numbers = [number for number in piece.numbers if 1 <= number <= self._count]
        self.unknown |= len(numbers) < len(piece.numbers)
        lead = piece.text[: len(piece.text) - len(piece.text.lstrip())]
        if not numbers:
            self._out.append(_spaced(lead, [], glued=piece.glued))
            return
        clause, sentence = Claim(self._sentence[self._clause :]), Claim(self._sentence)
        self._clause = len(self._sentence)
        if not sentence.says_something:
            shown = [] if self._support == "enforce" else numbers
            self._waiting = _Waiting(numbers, lead, piece.glued, len(self._out), len(self.citations))
        elif clause.says_something:
            shown = await self._judge(clause, numbers)
        else:
            shown = await self._judge(sentence, numbers, beside=self._marked)
        self._out.append(_spaced(lead, shown, glued=piece.glued))
        self._marked += shown

    async def _settle(self) -> None:
        """Judge the markers that waited for what follows them; alone in a line they mark what was before."""
        waiting, self._waiting = self._waiting, None
        assert waiting is not None
        following = Claim(self._sentence[self._clause :][:FOLLOWS])
        later = self.citations[waiting.cited :]
        del self.citations[waiting.cited :]
        claim = following if following.says_something else Claim(self._before)
        shown = await self._judge(claim, waiting.numbers)
        self.citations += later
        if self._support == "enforce":
            self._out[waiting.shown] = _spaced(waiting.lead, shown, glued=waiting.glued)
            self._marked += shown

    async def _judge(self, claim: Claim, numbers: list[int], beside: Sequence[int] = ()) -> list[int]:
        """Cite the passages for a claim, as far as they may be; the numbers to show."""
        verdicts: dict[int, bool] | None = None
        if self._support != "off":
            together = list(dict.fromkeys([*numbers, *beside]))
            verdicts = await self._grounds.supported(claim, together, self._similarity)
        if verdicts is not None:
            self._verdicts.append(any(verdicts.values()))
            self.unsupported |= not all(verdicts[number] for number in numbers)
        said = (
            dict.fromkeys(numbers) if verdicts is None else {number: verdicts[number] for number in numbers}
        )
        shown = [n for n, verdict in said.items() if verdict is not False or self._support == "flag"]
        self.citations += [self._citation(number, claim, "model", said[number]) for number in shown]
        return shown

    async def _end_sentence(self) -> None:
        """A sentence is over: if nothing marks it, find the passage that says it."""
        if self._waiting:
            await self._settle()
        sentence, marked = self._sentence, self._marked
        self._sentence, self._clause, self._marked = "", 0, []
        if not sentence.strip():
            return
        self._before = sentence
        if marked or not self._attribute or not _states(sentence):
            return
        claim = Claim(sentence)
        found = self._grounds.best(claim)
        if found is not None:
            checked = None if self._support == "off" else True
            self._verdicts += [] if checked is None else [checked]
            self._out.append(f" [{found}]")
            self.citations.append(self._citation(found, claim, "match", checked))

    def _citation(self, number: int, claim: Claim, by: str, supported: bool | None) -> Citation:
        span = self._grounds.quote(claim, number)
        return citation(self._grounds.passages[number - 1], number, span, by=by, supported=supported)


def citation(
    passage: Passage, number: int, span: tuple[int, int], *, by: str, supported: bool | None
) -> Citation:
    """What is cited of a passage: `span` is a start and an end in its text."""
    chunk, (start, end) = passage.chunk, span
    return Citation(
        marker=number,
        document=chunk.document,
        title=chunk.title,
        chunk=chunk.id,
        start=chunk.start + start,
        end=chunk.start + end,
        quote=chunk.text[start:end],
        score=round(passage.score, 4),
        by=by,
        supported=supported,
    )


def _spaced(lead: str, numbers: Sequence[int], *, glued: bool) -> str:
    """Markers after the whitespace before them; where none is left the space goes, if it parts no words."""
    if not numbers and not glued and "\n" not in lead:
        return ""
    return lead + "".join(f"[{number}]" for number in numbers)


def _states(sentence: str) -> bool:
    """Whether a marker may be set behind it: not behind questions, headings, rows, the number of an item."""
    sentence = sentence.strip()
    if ITEM_NUMBER.fullmatch(sentence):
        return False
    return not sentence.startswith(("#", "|")) and not sentence.endswith(("?", ":"))
