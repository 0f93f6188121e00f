"""Markers in deltas and the passages they stand for."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from business_api.assistants import Support
from business_api.citations import Citing
from tests.fakes import passage

PORTS = passage("# Ports\n\nThe LLM server listens on 127.0.0.1:8001 by default. Set a port to change it.\n")
PLANES = passage("Planes land on a runway, ships in a harbour.", "docs/planes.md")


async def cited(
    answer: str, *, cut: int = 1, attribute: bool = True, support: Support = "flag"
) -> tuple[str, Citing]:
    """The answer as shown when it arrives `cut` characters at a time."""
    citing = Citing([PORTS, PLANES], attribute=attribute, support=support)
    pieces = [answer[i : i + cut] for i in range(0, len(answer), cut)]
    return "".join([await citing.feed(piece) for piece in pieces] + [await citing.end()]), citing


async def test_a_marker_of_the_model_becomes_a_citation_with_a_verbatim_quote() -> None:
    shown, citing = await cited("It listens on port 8001 [1].")
    assert shown == "It listens on port 8001 [1]."
    (citation,) = citing.citations
    assert (citation.by, citation.supported) == ("model", True)
    assert citation.quote == "The LLM server listens on 127.0.0.1:8001 by default."
    assert PORTS.chunk.text[citation.start : citation.end] == citation.quote


async def test_a_supported_sentence_without_a_marker_gets_one() -> None:
    shown, citing = await cited("The LLM server listens on port 8001. Ships land in a harbour.")
    assert shown == "The LLM server listens on port 8001. [1] Ships land in a harbour. [2]"
    assert [(c.by, c.supported) for c in citing.citations] == [("match", True), ("match", True)]


@pytest.mark.parametrize(
    "said",
    [
        "Bananas are yellow and grow in bunches.",
        "The LLM server listens on port 9001.",
        "The LLM server does not listen on port 8001.",
        "Does the LLM server listen on port 8001?",
        "# The LLM server listens on port 8001\n",
        "| LLM server | listens on port 8001 |\n",
    ],
)
async def test_what_no_passage_says_and_what_states_nothing_gets_no_marker(said: str) -> None:
    shown, citing = await cited(said)
    assert shown == said
    assert citing.citations == []


async def test_each_line_of_a_list_is_matched_by_itself() -> None:
    shown, _ = await cited("- The LLM server listens on port 8001\n- Bananas are yellow fruit\n")
    assert shown == "- The LLM server listens on port 8001 [1]\n- Bananas are yellow fruit\n"


@pytest.mark.parametrize("marker", ["[7]", "[0]", "[99]", "[7, 9]", "【7】", "[[7]]"])
async def test_an_unknown_marker_is_removed_with_its_space_and_flagged(marker: str) -> None:
    shown, citing = await cited(f"Bananas are yellow {marker}. More", attribute=False)
    assert shown == "Bananas are yellow. More"
    assert citing.unknown
    assert citing.citations == []


async def test_words_around_a_removed_marker_stay_apart() -> None:
    assert (await cited("one [7] two [9]three", attribute=False))[0] == "one two three"


async def test_a_marker_behind_the_full_stop_belongs_to_the_sentence_before() -> None:
    shown, citing = await cited("The LLM server listens on port 8001. [1] And so on.")
    assert shown == "The LLM server listens on port 8001. [1] And so on."
    assert [(c.marker, c.by) for c in citing.citations] == [(1, "model")]


async def test_a_marker_alone_in_its_line_belongs_to_the_line_before() -> None:
    shown, citing = await cited("The LLM server listens on port 8001.\n[1]\n")
    assert shown == "The LLM server listens on port 8001.\n[1]\n"
    assert [(c.marker, c.supported) for c in citing.citations] == [(1, True)]


@pytest.mark.parametrize(
    ("said", "shown"),
    [
        ("Both say so [1, 2] and 【1】.", "Both say so [1][2] and [1]."),
        ("Both [1; 2], [[1]], 【2†source 9】 and [1][1].", "Both [1][2], [1], [2] and [1]."),
        ("\uff3b1\uff3d says so.", "[1] says so."),
    ],
)
async def test_all_forms_of_a_marker_are_understood(said: str, shown: str) -> None:
    assert (await cited(said, attribute=False, support="off"))[0] == shown


CODE = "```\na[7] = 1. The LLM server listens on port 8001.\n```\n"


@pytest.mark.parametrize(
    "said",
    [
        f"Use `ports[9]` and\n{CODE}",
        f"Run ```python\n{CODE.removeprefix('```')}",
        f"  {CODE}Then [1] it.",
        "```\n[7] never closed",
        "Take names[0] and 【注意】 as they are.",
        "A [link](docs/a.md), a [range 1-3], an array [ 1, 2 ], a [7](docs/a.md) and a \\[7].",
    ],
)
async def test_code_and_brackets_that_are_no_markers_pass_unchanged(said: str) -> None:
    shown, citing = await cited(said, support="off")
    assert shown == said
    assert not citing.unknown


@pytest.mark.parametrize("stray", ["`", "``", "it`s"])
async def test_a_stray_backtick_does_not_hide_the_markers_behind_it(stray: str) -> None:
    shown, citing = await cited(f"A tick {stray} and [9] text [1].\nMore [9] `a[9]`.", attribute=False)
    assert shown == f"A tick {stray} and text [1].\nMore `a[9]`."
    assert citing.unknown


async def test_a_sentence_before_code_gets_its_marker_before_the_code() -> None:
    shown, _ = await cited(f"The LLM server listens on port 8001.\n{CODE}")
    assert shown == f"The LLM server listens on port 8001. [1]\n{CODE}"


async def test_a_long_run_of_whitespace_costs_no_more_than_its_length() -> None:
    shown, _ = await cited("a" + " " * 200_000 + "x", cut=100_000, attribute=False)
    assert len(shown) == 200_002


async def test_a_marker_is_never_shown_half() -> None:
    citing = Citing([PORTS])
    assert await citing.feed("on port 8001 [") == "on port 8001"
    assert await citing.feed("1") == ""
    assert await citing.feed("] and") == " [1] and"


async def test_a_flagged_citation_is_shown_and_says_that_it_is_not_supported() -> None:
    shown, citing = await cited("The LLM server listens on port 9999 [1].")
    assert shown == "The LLM server listens on port 9999 [1]."
    assert [c.supported for c in citing.citations] == [False]
    assert citing.unsupported
    assert citing.support_rate == 0.0


async def test_enforced_support_leaves_a_marker_out_with_its_citation() -> None:
    said = "The LLM server listens on port 9999 [1]. Ships land in a harbour [1, 2]."
    shown, citing = await cited(said, support="enforce")
    assert shown == "The LLM server listens on port 9999. Ships land in a harbour [2]."
    assert [(c.marker, c.supported) for c in citing.citations] == [(2, True)]
    assert citing.unsupported
    assert citing.support_rate == 0.5


async def test_a_sentence_whose_marker_is_left_out_may_get_the_one_that_supports_it() -> None:
    shown, citing = await cited("Planes land on a runway [1].", support="enforce")
    assert shown == "Planes land on a runway. [2]"
    assert [(c.marker, c.by) for c in citing.citations] == [(2, "match")]


@pytest.mark.parametrize(("port", "marker"), [(8001, " [1]"), (9999, "")])
async def test_a_marker_before_its_claim_waits_for_it_when_support_is_enforced(
    port: int, marker: str
) -> None:
    citing = Citing([PORTS], support="enforce")
    claim = f", the LLM server listens on port {port}"
    assert await citing.feed("By [1]" + claim) == "By"
    assert await citing.feed(". Next") + await citing.end() == f"{marker}{claim}. Next"


async def test_with_support_off_nothing_is_checked() -> None:
    shown, citing = await cited("The LLM server listens on port 9999 [1].", support="off")
    assert shown.endswith("[1].")
    assert [c.supported for c in citing.citations] == [None]
    assert (citing.unsupported, citing.support_rate) == (False, None)


async def test_a_marker_of_what_says_nothing_is_shown_unchecked() -> None:
    shown, citing = await cited("Yes [1].", support="enforce")
    assert shown == "Yes [1]."
    assert [c.supported for c in citing.citations] == [None]


@settings(deadline=None)
@given(st.text(max_size=80), st.sampled_from(["flag", "enforce"]))
async def test_without_brackets_and_support_an_answer_passes_unchanged(answer: str, support: Support) -> None:
    answer = answer.translate(str.maketrans("", "", "[]【】\uff3b\uff3d"))
    assert (await cited(answer, cut=3, attribute=False, support=support))[0] == answer


@pytest.mark.parametrize("answer", ["[1", "[", "text [1, ", "text. ", "a `b", "``` ", "```\nx\n``"])
async def test_what_is_held_back_comes_out_at_the_end(answer: str) -> None:
    assert (await cited(answer, attribute=False))[0] == answer


async def test_the_number_of_an_item_is_no_sentence_and_gets_no_marker() -> None:
    one = passage("Callers without a key share one limit. The two services start.")
    citing = Citing([one], support="enforce")
    said = "1. Restart the server.\n2. Wait.\n3)\n"
    assert await citing.feed(said) + await citing.end() == said
    assert citing.citations == []
    shown, cites = await cited("1. The LLM server listens on port 8001.\n2. Ships land in a harbour.")
    assert shown == "1. The LLM server listens on port 8001. [1]\n2. Ships land in a harbour. [2]"
    assert len(cites.citations) == 2
