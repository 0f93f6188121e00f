"""Markers in deltas and the passages they stand for."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from business_api.citations import Citing
from tests.fakes import passage

PORTS = passage("# Ports\n\nThe LLM server listens on 127.0.0.1:8001 by default. Set a port to change it.\n")
PLANES = passage("Planes land on a runway, ships in a harbour.", "docs/planes.md")


def cited(answer: str, *, cut: int = 1, attribute: bool = True) -> tuple[str, Citing]:
    """The answer as shown when it arrives `cut` characters at a time."""
    citing = Citing([PORTS, PLANES], attribute=attribute)
    pieces = [answer[i : i + cut] for i in range(0, len(answer), cut)]
    return "".join([citing.feed(piece) for piece in pieces] + [citing.end()]), citing


def test_a_marker_of_the_model_becomes_a_citation_with_a_verbatim_quote() -> None:
    shown, citing = cited("It listens on port 8001 [1].")
    assert shown == "It listens on port 8001 [1]."
    (citation,) = citing.citations
    assert citation.by == "model"
    assert citation.quote == "The LLM server listens on 127.0.0.1:8001 by default."
    assert PORTS.chunk.text[citation.start : citation.end] == citation.quote


def test_a_supported_sentence_without_a_marker_gets_one() -> None:
    shown, citing = cited("The LLM server listens on port 8001. Ships land in a harbour.")
    assert shown == "The LLM server listens on port 8001. [1] Ships land in a harbour. [2]"
    assert [c.by for c in citing.citations] == ["match", "match"]


def test_an_unsupported_sentence_gets_none() -> None:
    shown, citing = cited("Bananas are yellow and grow in bunches.")
    assert shown == "Bananas are yellow and grow in bunches."
    assert citing.citations == []


def test_an_unknown_marker_is_removed_and_flagged() -> None:
    shown, citing = cited("Bananas are yellow [7].", attribute=False)
    assert "[7]" not in shown
    assert citing.unknown
    assert citing.citations == []


def test_a_marker_behind_the_full_stop_belongs_to_the_sentence_before() -> None:
    shown, citing = cited("The LLM server listens on port 8001. [1] And so on.")
    assert shown == "The LLM server listens on port 8001. [1] And so on."
    assert [(c.marker, c.by) for c in citing.citations] == [(1, "model")]


def test_lists_of_markers_and_wide_brackets_are_understood() -> None:
    shown, citing = cited("Both say so [1, 2] and 【1】.", attribute=False)
    assert shown == "Both say so [1][2] and [1]."
    assert [c.marker for c in citing.citations] == [1, 2]


def test_brackets_in_code_are_left_alone() -> None:
    shown, citing = cited("Use `ports[9]` and\n```\na[7] = 1\n```\n", attribute=False)
    assert "ports[9]" in shown
    assert "a[7]" in shown
    assert not citing.unknown


def test_an_index_behind_a_name_and_wide_brackets_around_words_are_text() -> None:
    said = "Take names[0] and 【注意】 as they are."
    assert cited(said, attribute=False)[0] == said


def test_a_long_run_of_whitespace_costs_no_more_than_its_length() -> None:
    shown, _ = cited("a" + " " * 200_000 + "x", cut=100_000, attribute=False)
    assert len(shown) == 200_002


def test_a_marker_is_never_shown_half() -> None:
    citing = Citing([PORTS])
    assert citing.feed("on port 8001 [") == "on port 8001"
    assert citing.feed("1") == ""
    assert citing.feed("] and") == " [1] and"


WORDS = [
    "The LLM server listens on port 8001",
    "Ships in a harbour",
    "ab",
    "[1]",
    "[2, 1]",
    "[9]",
    "[",
    "1",
    "]",
]
ENDS = [".", "! ", "? ", " ", "\n", "`", ",", ":"]


@given(st.lists(st.sampled_from([*WORDS, *ENDS]), max_size=24).map("".join), st.integers(1, 7))
def test_what_is_shown_does_not_depend_on_how_the_answer_was_cut(answer: str, cut: int) -> None:
    whole, one = cited(answer, cut=len(answer) or 1)
    parts, other = cited(answer, cut=cut)
    assert parts == whole
    assert one.citations == other.citations


@given(st.text(max_size=80))
def test_without_brackets_and_support_an_answer_passes_unchanged(answer: str) -> None:
    answer = answer.translate(str.maketrans("", "", "[]【】"))
    assert cited(answer, cut=3, attribute=False)[0] == answer


@pytest.mark.parametrize("answer", ["[1", "[", "text [1, ", "text. "])
def test_what_is_held_back_comes_out_at_the_end(answer: str) -> None:
    assert cited(answer, attribute=False)[0] == answer
