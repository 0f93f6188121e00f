import random
from functools import cache
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer

from business_api.ingest.chunking import CHUNK_CHARACTERS, Chunker, Piece
from business_api.ingest.outline import outline
from business_api.ingest.reading import Text
from tests.samples.documents import letter_tokenizer

MODEL = Path(__file__).parents[1] / "var/models/all-minilm-l6-v2/tokenizer.json"

PAGE = """---
title: "The *guide*"
tags: [a]
---
Before any heading.

## Install

Text of install, long enough to say something.

### From source

```sh
# not a heading
make
```

> # nor this

    # nor that

Set
ext
===

The end.
"""


@cache
def letters() -> Tokenizer:
    return letter_tokenizer()


def cut(text: str, *, markdown: bool = True, tokenizer: Tokenizer | None = None) -> list[Piece]:
    chunker = Chunker(tokenizer, 256)
    read = Text(text, markdown=markdown)
    return chunker.cut(read, tenant="default", document="docs/page.md", content_hash="abc")


def check(text: str, pieces: list[Piece], tokenizer: Tokenizer | None = None) -> None:
    """Nothing is lost, nothing doubled, every span exact, everything fits the embedder."""
    rest, end = "", 0
    for number, piece in enumerate(pieces):
        chunk = piece.chunk
        assert text[chunk.start : chunk.end] == chunk.text
        assert chunk.text == chunk.text.strip() != ""
        assert chunk.number == number
        assert len(chunk.text) <= CHUNK_CHARACTERS
        assert piece.embedded.endswith(f"\n\n{chunk.text}")
        assert tokenizer is None or len(tokenizer.encode(piece.embedded)) <= 256
        rest += text[end : chunk.start]
        end = chunk.end
    assert not (rest + text[end:]).strip()
    assert len({piece.chunk.id for piece in pieces}) == len(pieces)


words = st.one_of(
    st.text(st.characters(codec="utf-8"), min_size=1, max_size=12),
    st.sampled_from(
        ["the", "port", "8001", "שלום", "عربي", "汉字", "👩‍👩‍👧", "é", "**bold**", "`x`", "\u2028", "a" * 300]
    ),
)
lines = st.lists(words, min_size=1, max_size=40).map(" ".join)
blocks = st.one_of(
    lines,
    st.tuples(st.integers(1, 7), lines).map(lambda pair: f"{'#' * pair[0]} {pair[1]}"),
    st.tuples(lines, st.sampled_from("=-")).map(lambda pair: f"{pair[0]}\n{pair[1] * 3}"),
    st.lists(lines, max_size=60).map(lambda code: "```python\n" + "\n".join(code) + "\n```"),
    st.lists(st.tuples(st.integers(0, 9), words), max_size=30).map(
        lambda items: "\n".join(f"{'  ' * depth}- {word}" for depth, word in items)
    ),
    st.lists(st.lists(words, min_size=3, max_size=3), max_size=20).map(
        lambda rows: "|a|b|c|\n|-|-|-|\n" + "\n".join(f"|{'|'.join(row)}|" for row in rows)
    ),
    st.integers(0, 5000).map(lambda size: "x1" * size),
    st.sampled_from(
        ["---", "> quoted\n> # no", "<div>\n", "```", "---\nkey: v\n---", "\t\t", "[a]: b", "😀" * 999]
    ),
)
pages = st.lists(blocks, max_size=12).flatmap(
    lambda parts: st.sampled_from(["\n\n", "\n", "\n \n\n"]).map(lambda between: between.join(parts))
)


@settings(max_examples=80, deadline=None, suppress_health_check=list(HealthCheck))
@given(text=pages, markdown=st.booleans(), counted=st.booleans())
def test_no_character_but_whitespace_is_lost_whatever_the_page(
    text: str, markdown: bool, counted: bool
) -> None:
    tokenizer = letters() if counted else None
    check(text, cut(text, markdown=markdown, tokenizer=tokenizer), tokenizer)


@pytest.mark.skipif(not MODEL.exists(), reason="needs the embedded models: make models")
def test_everything_fits_the_real_embedder() -> None:
    tokenizer = Tokenizer.from_file(str(MODEL))
    tokenizer.no_truncation()
    tokenizer.no_padding()
    shuffled = random.Random(7)
    parts = [
        "# Title",
        "## Part",
        "```sh\nmake run\n```",
        "words and words " * 40,
        "- item\n" * 30,
        "汉字" * 400,
    ]
    text = "\n\n".join(shuffled.choice(parts) for _ in range(60))
    check(text, cut(text, tokenizer=tokenizer), tokenizer)


def test_the_outline_finds_title_and_heading_paths_but_no_code() -> None:
    found = outline(PAGE)
    assert found.title == "The guide"
    assert [section.path for section in found.sections] == [
        (), ("Install",), ("Install", "From source"), (),
    ]  # fmt: skip
    assert "".join(PAGE[section.start : section.end] for section in found.sections) == PAGE


@pytest.mark.parametrize(
    ("text", "title"),
    [
        ("# One { #one }\n\n# Two", "One"),
        ("## Low\n\n# High\n", "High"),
        ("## Only [a link](http://x) and `code`", "Only a link and code"),
        ("nothing", "page.md"),
        ("", "page.md"),
        ("# " + "long " * 100, ("long " * 100)[:119] + "…"),
    ],
)
def test_the_title_is_the_first_heading_or_the_file_name(text: str, title: str) -> None:
    pieces = cut(f"{text}\n\nbody")
    assert pieces[0].chunk.title == title


def test_a_chunk_knows_the_headings_above_it() -> None:
    filler = "Some words that fill the section until it cannot be joined with another one. " * 6
    text = f"# T\n\n{filler}\n\n## A\n\n{filler}\n\n### B\n\n{filler}\n\n## C\n\n{filler}"
    pieces = cut(text, tokenizer=None)
    assert {piece.chunk.heading for piece in pieces} == {(), ("A",), ("A", "B"), ("C",)}
    assert any(piece.embedded.startswith("T > A > B\n\n") for piece in pieces)


def test_a_heading_never_stands_alone() -> None:
    code = "```\n" + "value = compute(1234567)\n" * 80 + "```"
    text = f"# Title\n\n## Empty\n\n### Code\n\n{code}\n\n## Tail\n\nShort.\n\n## Last"
    pieces = cut(text, tokenizer=letters())
    check(text, pieces, letters())
    for piece in pieces:
        assert any(not line.startswith("#") for line in piece.chunk.text.split("\n") if line)


def test_small_neighbours_share_a_chunk_under_their_common_heading() -> None:
    pieces = cut("# T\n\n## A\n\none\n\n### A1\n\ntwo\n\n### A2\n\nthree")
    assert [piece.chunk.heading for piece in pieces] == [("A",)]


def test_chunk_ids_are_stable_and_belong_to_tenant_document_and_content() -> None:
    chunker, read = Chunker(None, 256), Text("# T\n\nbody", markdown=True)
    owners = [("a", "d", "h"), ("b", "d", "h"), ("a", "e", "h"), ("a", "d", "i")]
    ids = [chunker.cut(read, tenant=t, document=d, content_hash=h)[0].chunk.id for t, d, h in owners * 2]
    assert ids[:4] == ids[4:]
    assert len(set(ids)) == 4


def test_an_embedder_too_small_for_any_chunk_is_refused() -> None:
    with pytest.raises(ValueError, match="too small"):
        Chunker(None, 20)


@pytest.mark.parametrize(
    "text",
    [
        ">" * 20_000,
        "- " * 20_000,
        "[" * 20_000,
        "#" * 20_000,
        "# a\n" * 2_000,
        "`" * 20_000,
        "汉" * 10_000,
    ],
    ids=["quotes", "lists", "brackets", "hashes", "headings", "ticks", "han"],
)
def test_hostile_markdown_is_cut_like_any_other(text: str) -> None:
    check(text, cut(text, tokenizer=letters()), letters())
