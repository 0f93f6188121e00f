"""Reads the outline of a Markdown text: its title, and its sections with their heading paths.

Headings are what CommonMark says they are: a `#` in a code fence, an indented block or a quotation is none.
"""

import re
from collections.abc import Sequence
from functools import cache
from itertools import pairwise

import msgspec
from markdown_it import MarkdownIt

_LONGEST_HEADING = 120
FRONT_MATTER = re.compile(r"---[ \t]*\n[ \t]*[\w-]+[ \t]*:.*?\n(?:---|\.\.\.)[ \t]*(?:\n|\Z)", re.DOTALL)
"""The block of `key: value` lines that a Markdown text may begin with, with its last line end."""

_FRONT_TITLE = re.compile(r"^title[ \t]*:[ \t]*(.+?)[ \t]*$", re.MULTILINE)
_ATTRIBUTES = re.compile(r"\s*\{:?\s*[#.][^{}]*\}\s*$")


class Heading(msgspec.Struct, frozen=True):
    """A heading: its line starts at `start`, what stands under it at `body` (offsets in characters)."""

    level: int
    text: str
    start: int
    body: int


class Section(msgspec.Struct, frozen=True):
    """The text from one heading to the next: `[start, end)`, the heading's own line up to `body`.

    `path` are the headings above it and its own, without the document's title.
    """

    path: tuple[str, ...]
    start: int
    body: int
    end: int


class Outline(msgspec.Struct, frozen=True):
    """The title, None if the text has none, and sections that cover the whole text in order."""

    title: str | None
    sections: tuple[Section, ...]


def outline(text: str) -> Outline:
    """Find title and sections. The title is the front matter's, the first level-1 heading, or the first."""
    matter = FRONT_MATTER.match(text)
    begin = matter.end() if matter else 0
    found = _headings(text, begin)
    named = next((heading for heading in found if heading.level == 1), found[0] if found else None)
    front = _FRONT_TITLE.search(matter[0]) if matter else None
    title = _plain(front[1].strip("\"'")) if front else None
    if title and named and named.level > 1:
        named = None
    return Outline(title or (named.text if named else None), _sections(text, found, named))


def _headings(text: str, begin: int) -> list[Heading]:
    lines = [begin]
    for line in text[begin:].split("\n"):
        lines.append(lines[-1] + len(line) + 1)
    tokens = _blocks().parse(text[begin:])
    found = []
    for opening, inline in pairwise(tokens):
        if opening.type == "heading_open" and opening.level == 0 and opening.map:
            first, after = opening.map
            body = min(lines[after], len(text))
            found.append(Heading(int(opening.tag[1:]), _plain(inline.content), lines[first], body))
    return found


def _sections(text: str, headings: Sequence[Heading], title: Heading | None) -> tuple[Section, ...]:
    first = headings[0].start if headings else len(text)
    sections = [Section((), 0, 0, first)] if first else []
    above: list[Heading] = []
    ends = [one.start for one in (*headings, Heading(1, "", len(text), len(text)))[1:]]
    for heading, end in zip(headings, ends, strict=True):
        above = [*(one for one in above if one.level < heading.level), heading]
        path = tuple(one.text for one in above if one is not title and one.text)
        sections.append(Section(path, heading.start, heading.body, end))
    return tuple(sections)


def _plain(markdown: str) -> str:
    """The words of a heading without their markup."""
    inline = _inlines().parseInline(_ATTRIBUTES.sub("", markdown)[: 2 * _LONGEST_HEADING])[0]
    words = " ".join("".join(_words(token.type, token.content) for token in inline.children or ()).split())
    return words if len(words) <= _LONGEST_HEADING else words[: _LONGEST_HEADING - 1] + "…"


def _words(kind: str, content: str) -> str:
    return " " if kind.endswith("break") else content if kind in ("text", "code_inline", "image") else ""


@cache
def _blocks() -> MarkdownIt:
    # only where blocks begin and end is asked: inline rules cost most, and normalising would move the offsets
    markdown = MarkdownIt("commonmark").enable("table")
    markdown.core.ruler.enableOnly(["block"])
    return markdown


@cache
def _inlines() -> MarkdownIt:
    return MarkdownIt("commonmark")
