"""Cuts a document into chunks that the embedder can take in whole, and that lose nothing.

Every chunk is a verbatim span: `text[start:end] == chunk.text`. Chunks do not overlap; what lies between
them is whitespace. A heading stands with the text below it, and what is too small to mean anything alone
joins its neighbour.
"""

import math
import uuid
from collections.abc import Iterator, Sequence
from pathlib import PurePosixPath
from typing import TYPE_CHECKING

import msgspec
from semantic_text_splitter import MarkdownSplitter, TextSplitter

from business_api.ingest.outline import Section, outline
from business_api.ingest.reading import Text
from business_api.passages import Chunk

if TYPE_CHECKING:
    from tokenizers import Tokenizer

VERSION = "1"
"""Part of every content hash: raise it when the same text would be cut or embedded differently."""

CHUNK_TOKENS = 256
"""Longest chunk, even if the embedder takes more: few passages must fit into a prompt."""

CHUNK_CHARACTERS = 2000
"""Longest chunk in characters: a tokenizer counts any long word it does not know as one token."""

_BYTES_PER_TOKEN = 3
_NAMESPACE = uuid.UUID("6f3c1a52-9b1e-5d0f-8a53-2f3e1c7b9d40")


class Piece(msgspec.Struct, frozen=True):
    """A chunk and the text that is embedded for it: title and headings in one line, then the chunk.

    `before` is the whitespace between this chunk and the one before, `after` that behind the last chunk.
    """

    chunk: Chunk
    embedded: str
    before: str = ""
    after: str = ""


class _Span(msgspec.Struct, frozen=True):
    start: int
    end: int
    tokens: int
    path: tuple[str, ...]


class Chunker:
    """Cuts for one embedder: its `tokenizer` counts (None: bytes are counted), `max_tokens` is its limit."""

    def __init__(self, tokenizer: "Tokenizer | None", max_tokens: int) -> None:
        self._tokenizer = tokenizer
        special = tokenizer.num_special_tokens_to_add(is_pair=False) if tokenizer else 2
        self._limit = min(max_tokens, CHUNK_TOKENS) - special
        if self._limit < 32:
            raise ValueError(f"an embedder that takes {max_tokens} tokens is too small for chunks")
        # a quarter for title and headings; what is shorter than a quarter joins its neighbour
        self._quarter = self._limit // 4

    def tokens(self, text: str) -> int:
        """How many tokens the embedder makes of this text, without its special ones."""
        if self._tokenizer is None:
            return math.ceil(len(text.encode(errors="replace")) / _BYTES_PER_TOKEN)
        return len(self._tokenizer.encode(text, add_special_tokens=False))

    def cut(self, read: Text, *, tenant: str, document: str, content_hash: str) -> list[Piece]:
        """All chunks of a document, in order. An empty list if there is nothing but whitespace."""
        title, sections = self._outline(read, document)
        spans: list[_Span] = []
        for section in _with_something_below(read.text, sections):
            spans.extend(self._split(read, title, section))
        spans = self._joined(read.text, title, spans)
        _assert_nothing_lost(read.text, spans)
        pieces = []
        ends = [0, *(span.end for span in spans)]
        for number, span in enumerate(spans):
            chunk = Chunk(
                id=str(uuid.uuid5(_NAMESPACE, f"{tenant}/{document}/{content_hash}/{number}")),
                document=document,
                title=title,
                heading=span.path,
                number=number,
                start=span.start,
                end=span.end,
                text=read.text[span.start : span.end],
            )
            before = read.text[ends[number] : span.start]
            after = read.text[span.end :] if number == len(spans) - 1 else ""
            pieces.append(Piece(chunk, self._prefix(title, span.path) + chunk.text, before, after))
        return pieces

    def _outline(self, read: Text, document: str) -> tuple[str, Sequence[Section]]:
        name = PurePosixPath(document).name
        if not read.markdown:
            return (read.title or name)[:120], [Section((), 0, 0, len(read.text))]
        found = outline(read.text)
        return found.title or (read.title or name)[:120], found.sections

    def _prefix(self, title: str, path: tuple[str, ...]) -> str:
        line = " > ".join((title, *path))
        while self.tokens(line) > self._quarter:
            line = line[: len(line) * 3 // 4]
        return f"{line}\n\n"

    def _room(self, title: str, path: tuple[str, ...]) -> int:
        return self._limit - self.tokens(self._prefix(title, path))

    def _split(self, read: Text, title: str, section: Section) -> Iterator[_Span]:
        """Cut one section into spans of about the same length; the first one has the heading's line."""
        room = self._room(title, section.path)
        below = read.text[section.body : section.end]
        body = section.body + len(below) - len(below.lstrip())
        heading = self.tokens(read.text[section.start : body])
        if heading * 2 > room or body - section.start > CHUNK_CHARACTERS // 2:
            heading, body = 0, section.start
        longest = CHUNK_CHARACTERS - (body - section.start)
        text = read.text[body : section.end]
        start = section.start
        for offset, piece in self._splitter(read.markdown, room - heading, longest, text).chunk_indices(text):
            end = body + offset + len(piece)
            yield self._span(read.text, start, end, section.path)
            start = end
        if read.text[start : section.end].strip():
            yield self._span(read.text, start, section.end, section.path)

    def _splitter(
        self, markdown: bool, room: int, longest: int, text: str
    ) -> MarkdownSplitter | TextSplitter:
        def count(piece: str) -> int:
            # too long whatever its tokens are: counting these again and again would cost most of the time
            return self.tokens(piece) if len(piece) <= longest else room + len(piece)

        pieces = math.ceil(self.tokens(text) / room) if len(text) <= 10 * longest else 1
        even = math.ceil(self.tokens(text) / pieces) if pieces > 1 else room
        kind = MarkdownSplitter if markdown else TextSplitter
        return kind.from_callback(count, (min(even, room), room))

    def _span(self, text: str, start: int, end: int, path: tuple[str, ...]) -> _Span:
        piece = text[start:end]
        end -= len(piece) - len(piece.rstrip())
        start += len(piece) - len(piece.lstrip())
        return _Span(start, end, self.tokens(text[start:end]), path)

    def _joined(self, text: str, title: str, spans: Sequence[_Span]) -> list[_Span]:
        joined: list[_Span] = []
        for span in spans:
            both = self._union(text, title, joined[-1], span) if joined else None
            if both:
                joined[-1] = both
            else:
                joined.append(span)
        return joined

    def _union(self, text: str, title: str, one: _Span, other: _Span) -> _Span | None:
        if min(one.tokens, other.tokens) >= self._quarter or other.end - one.start > CHUNK_CHARACTERS:
            return None
        union = self._span(text, one.start, other.end, _shared(one.path, other.path))
        return union if union.tokens <= self._room(title, union.path) else None


def _with_something_below(text: str, sections: Sequence[Section]) -> Iterator[Section]:
    """Join headings that have no text of their own with the section that follows."""
    waiting: Section | None = None
    for section in sections:
        start = waiting.start if waiting else section.start
        merged = Section(section.path, start, section.body, section.end)
        if text[section.body : section.end].strip() or section is sections[-1]:
            waiting = None
            yield merged
        else:
            waiting = merged


def _shared(one: tuple[str, ...], other: tuple[str, ...]) -> tuple[str, ...]:
    same = [a == b for a, b in zip(one, other, strict=False)]
    return one[: (*same, False).index(False)]


def _assert_nothing_lost(text: str, spans: Sequence[_Span]) -> None:
    end = 0
    for span in spans:
        assert span.start >= end, "chunks overlap"
        assert not text[end : span.start].strip(), "text lies between chunks"
        end = span.end
    assert not text[end:].strip(), "text lies after the last chunk"
