"""Shorter passages that are still verbatim."""

from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from business_api.compressing import SHORT, compress
from business_api.passages import Chunk, Passage

FILLER = "Bananas are yellow and grow in bunches on tall plants. "
DOCUMENT = f"{FILLER * 6}The LLM server listens on port 8001. It can be set. {FILLER * 6}"


def whole(text: str, start: int = 0, seams: tuple[int, ...] = ()) -> Passage:
    chunk = Chunk(id="c", document="d", title="", number=0, start=start, end=start + len(text), text=text)
    return Passage(chunk, 0.7, seams)


def test_a_passage_keeps_the_stretch_that_holds_the_question_and_its_place_in_the_document() -> None:
    (cut,) = compress("Which port does the LLM server listen on?", [whole(DOCUMENT)], 0.3)
    assert "port 8001" in cut.chunk.text
    assert len(cut.chunk.text) <= max(SHORT, 0.3 * len(DOCUMENT))
    assert DOCUMENT[cut.chunk.start : cut.chunk.end] == cut.chunk.text
    assert (cut.chunk.id, cut.score) == ("c", 0.7)


def test_a_short_passage_stays_as_it_is() -> None:
    short = whole("The LLM server listens on port 8001.")
    assert compress("Which port?", [short], 0.1) == (short,)


def test_a_passage_found_by_its_meaning_keeps_its_beginning() -> None:
    (cut,) = compress("Quel fruit?", [whole(DOCUMENT)], 0.5)
    assert cut.chunk.start == 0


def test_a_row_keeps_the_bar_before_it() -> None:
    rows = "".join(f"| `setting_{number}` | what it is {number} |\n" for number in range(40))
    (cut,) = compress("What is setting_27?", [whole(rows)], 0.1)
    assert cut.chunk.text.startswith("| `setting_")


texts = st.lists(
    st.sampled_from(["A port. ", "- b\n", "\n\n", "| c |\n", "```\n", "So on and on "]), min_size=1
)


@settings(deadline=None)
@given(texts.map(lambda parts: "".join(parts) * 9), st.integers(0, 400), st.floats(0.1, 0.9))
def test_whatever_is_cut_is_verbatim_and_keeps_its_seams(text: str, seam: int, share: float) -> None:
    passage = whole(text, 100, (seam,) if seam < len(text) else ())
    (cut,) = compress("Which port?", [passage], share)
    begun = cut.chunk.start - 100
    assert text[begun : cut.chunk.end - 100] == cut.chunk.text
    assert cut.chunk.text
    assert all(0 < one < len(cut.chunk.text) and begun + one == seam for one in cut.seams) or cut == passage
    assert replace(cut, chunk=passage.chunk, seams=passage.seams) == passage
