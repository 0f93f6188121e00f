"""Signals: what the searches found, and what the sentences of the passages say of the question."""

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from business_api.contrast import OPPOSITES, compared, opposed
from business_api.signals import DIRECTIONS, signals
from tests.samples.found import found

KILN = "The kiln stops at 1300 degrees. Ada Meyer built it in 1998 and Ben Ott painted the door."
OTHER = "Pots are glazed on Mondays. The glaze must not freeze."


def signals_of(question: str, *texts: str, **scores: Any) -> dict[str, float]:
    here = found(*(texts or (KILN, OTHER)), **scores)
    return signals(question, here.candidates, here.passages)


def test_a_question_that_a_sentence_repeats_is_covered() -> None:
    said = signals_of("At how many degrees does the kiln stop?")
    assert said["line_covers"] == 1.0
    assert said["names_missing"] == said["opposites"] == said["denial_unsaid"] == 0.0


def test_a_name_that_no_passage_says_is_missing() -> None:
    assert signals_of("When was the kiln of Carla built?")["names_missing"] == 1.0
    assert signals_of("When was the kiln of Ada built?")["names_missing"] == 0.0


def test_a_name_elsewhere_in_the_passage_stands_apart_from_the_sentence() -> None:
    text = "Ada painted the kiln and the shed in 1998. It was cold then. It rained. Later Ben left."
    said = signals_of("When did Ben paint the kiln and the shed?", text)
    assert (said["names_missing"], said["names_apart"]) == (0.0, 1.0)


def test_a_number_is_a_name() -> None:
    assert signals_of("Who built a kiln in 1875?")["names_missing"] == 1.0


@pytest.mark.parametrize("question", ["Who did not build the kiln?", "Who didn\u2019t build the kiln?"])
def test_a_denial_that_nobody_made_is_unsaid(question: str) -> None:
    said = signals_of(question)
    assert said["denial_unsaid"] == said["denial_absent"] == 1.0


def test_a_denial_that_a_passage_makes_is_said() -> None:
    said = signals_of("What must not freeze?")
    assert said["denial_unsaid"] == said["denial_absent"] == 0.0


def test_a_sentence_that_denies_what_is_asked_is_seen() -> None:
    assert signals_of("When does the glaze freeze?")["denied"] == 1.0
    assert signals_of("When does the kiln stop?")["denied"] == 0.0


@pytest.mark.parametrize(
    "question",
    ["May the glaze freeze?", "Why does the kiln not work?", "What happens if the kiln does not stop?"],
)
def test_only_a_question_for_one_thing_of_many_can_be_contradicted(question: str) -> None:
    said = signals_of(question)
    assert said["denied"] == said["denial_unsaid"] == said["denial_absent"] == 0.0


def test_the_opposite_word_is_seen() -> None:
    text = "The northern furnace was closed in 1998."
    assert signals_of("When was the southern furnace opened?", text)["opposites"] == 2.0
    assert signals_of("When was the northern furnace closed?", text)["opposites"] == 0.0


def test_a_superlative_that_is_not_said_is_seen() -> None:
    text = "The large furnace stands in Ulm."
    assert signals_of("Where is the largest furnace?", text)["utmost_unsaid"] == 1.0
    assert signals_of("Where is the large furnace?", text)["utmost_unsaid"] == 0.0


def test_words_of_the_title_count_as_said() -> None:
    assert signals_of("Who built kilns?", "Ada built them.")["line_covers"] == 1.0


def test_a_search_that_was_not_made_gives_no_signals() -> None:
    assert not {"dense_top", "agreement"} & signals_of("Who built it?", dense=()).keys()
    assert not {"bm25_word", "agreement"} & signals_of("Who built it?", bm25=()).keys()


def test_a_reranker_is_a_signal_when_there_is_one() -> None:
    here = found(KILN, OTHER)
    ranked = [
        msgspec.structs.replace(one, rerank_score=score)
        for one, score in zip(here.candidates, (0.9, 0.1), strict=True)
    ]
    assert signals("Who built it?", ranked, here.passages)["rerank_top"] == 0.9
    assert "rerank_top" not in signals("Who built it?", here.candidates, here.passages)


def test_nothing_found_gives_no_signals() -> None:
    assert signals("Who?", (), ()) == {}


@given(st.text(max_size=80), st.lists(st.text(max_size=120), min_size=1, max_size=3))
def test_any_text_gives_signals_that_have_a_direction(question: str, texts: list[str]) -> None:
    said = signals_of(question, *texts)
    assert said.keys() <= DIRECTIONS.keys()
    assert all(abs(value) < 1e6 for value in said.values())
    assert 0.0 <= said["line_covers"] <= 1.0


def test_of_an_endless_question_the_beginning_counts() -> None:
    question = "At how many degrees does the kiln stop? "
    assert signals_of(question * 5000) == signals_of(question * 100)


def test_a_script_without_spaces_is_compared_by_pairs_of_letters() -> None:
    text = "\u7a91\u5728\u4e00\u5343\u4e09\u767e\u5ea6\u505c\u6b62"
    assert signals_of(text[:4], text)["line_covers"] == 1.0
    assert signals_of("\u8c01\u753b\u4e86\u95e8", text)["line_covers"] == 0.0


def test_opposites_are_mutual_and_never_the_word_itself() -> None:
    for word, others in OPPOSITES.items():
        assert word not in others
        assert all(word in OPPOSITES[other] for other in others)
    assert opposed(compared("unstable"), frozenset({compared("stable")}))
    assert not opposed(compared("stable"), frozenset({compared("stables")}))
