"""Whatever an answer says and however it arrives: markers resolve, quotes are verbatim, text is not lost."""

import re
from collections.abc import Sequence

from hypothesis import given, settings
from hypothesis import strategies as st

from business_api.assistants import Support
from business_api.citations import Citing
from business_api.passages import Candidate, Chunk, Passage
from business_api.sifting import joined

LINES = [
    "The LLM server listens on 127.0.0.1:8001 by default.",
    "As shown in [1] and [7], ships land in a harbour.",
    "# Ports of [2]",
    "| port | 8001 |",
    "|---|---|",
    "- Set `ports[9]` to change it",
    "```",
    "a[7] = 1  # stray ` tick",
    "A sentence that goes on\nin the next line, e.g. here. And",
    "これは文です。次の文。",
    "",
]
SAID = [
    *LINES,
    "The LLM server listens on port 8001",
    "The LLM server does not listen on port 9001",
    "Ships land",
    *(
        "[1]",
        "[2, 1]",
        "[9]",
        "[0]",
        "[99]",
        "[[1]]",
        "【1】",
        "【2†source】",
        "\uff3b1\uff3d",
        "[1;",
        "[",
        "]",
        "1",
    ),
    *(".", "! ", "? ", " ", "\n", "\n\n", "`", "```", ",", ":", "。"),
]

documents = st.lists(st.sampled_from(LINES), min_size=1, max_size=8).map("\n".join)
answers = st.lists(st.sampled_from(SAID) | st.text(max_size=6), max_size=24).map("".join)
kinds = st.sampled_from(["off", "flag", "enforce"])
MARKERS = re.compile(r"\[\[?[\d\s,;]*\]?\]?|【\d[^】\n]*】|\uff3b\d*\uff3d")


def whole(text: str, number: int) -> Passage:
    """A passage that is the end of a longer document."""
    name = f"d{number}.md"
    chunk = Chunk(id=name, document=name, title="", number=0, start=7, end=7 + len(text), text=text)
    return Passage(chunk, 1.0)


async def shown(
    answer: str, cut: int, passages: Sequence[Passage], support: Support, *, attribute: bool = True
) -> tuple[str, Citing]:
    citing = Citing(passages, support=support, attribute=attribute)
    pieces = [answer[at : at + cut] for at in range(0, len(answer), cut)]
    return "".join([await citing.feed(piece) for piece in pieces] + [await citing.end()]), citing


@settings(max_examples=100, deadline=None)
@given(st.lists(documents, min_size=1, max_size=3), answers, st.integers(1, 9), kinds)
async def test_every_citation_is_verbatim_and_every_shown_marker_has_one(
    texts: list[str], answer: str, cut: int, support: Support
) -> None:
    passages = [whole(text, number) for number, text in enumerate(texts, 1)]
    said, citing = await shown(answer, cut, passages, support)
    for citation in citing.citations:
        chunk = passages[citation.marker - 1].chunk
        assert citation.document == chunk.document
        assert f"-------{chunk.text}"[citation.start : citation.end] == citation.quote
        assert citation.quote or not chunk.text.strip()
        assert f"[{citation.marker}]" in said
    if support == "enforce":
        assert all(citation.supported is not False for citation in citing.citations)


@settings(max_examples=100, deadline=None)
@given(answers, st.integers(1, 9), kinds)
async def test_what_is_shown_does_not_depend_on_how_the_answer_was_cut(
    answer: str, cut: int, support: Support
) -> None:
    passages = [whole(LINES[0], 1), whole(LINES[1], 2)]
    at_once, one = await shown(answer, len(answer) or 1, passages, support)
    in_parts, other = await shown(answer, cut, passages, support)
    assert in_parts == at_once
    assert one.citations == other.citations
    assert (one.unknown, one.unsupported, one.support_rate) == (
        other.unknown,
        other.unsupported,
        other.support_rate,
    )


@settings(max_examples=100, deadline=None)
@given(answers, st.integers(1, 9), kinds)
async def test_nothing_but_markers_and_the_space_before_them_is_ever_changed(
    answer: str, cut: int, support: Support
) -> None:
    said, _ = await shown(answer, cut, [whole(LINES[0], 1), whole(LINES[1], 2)], support)

    def bare(text: str) -> str:
        return re.sub(r"[\s\[\]]", "", MARKERS.sub("", text))

    assert bare(said) == bare(answer)


@given(
    st.lists(documents, min_size=2, max_size=4), st.lists(st.sampled_from([" ", "\n", " \n\n"]), min_size=4)
)
async def test_no_quote_crosses_the_seam_of_a_joined_passage(texts: list[str], gaps: list[str]) -> None:
    document, candidates = "", []
    for number, (text, gap) in enumerate(zip((t.strip() or "x" for t in texts), gaps, strict=False)):
        start = len(document)
        document += text + gap
        chunk = Chunk(
            id=str(number),
            document="d",
            title="",
            number=number,
            start=start,
            end=start + len(text),
            text=text,
        )
        candidates.append(Candidate(chunk=chunk, fate="kept"))
    (passage,) = joined(candidates)
    for text in texts:
        _, citing = await shown(f"{text} [1]", 5, [passage], "flag")
        for citation in citing.citations:
            assert document[citation.start : citation.end] == citation.quote
