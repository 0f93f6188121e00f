"""The figures of the evaluation: known answers, intervals, chance, and what the bundled set must reach."""

import itertools
import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from business_api.assistants import Assistants
from business_api.cli import cli
from business_api.embedding import open_embedder
from business_api.exchange import Found
from business_api.passages import Candidate, Passage
from business_api.settings import Settings
from evals.documents import HYBRID, evaluate_documents
from evals.kept_vectors import KeptVectors
from evals.measures import difference, interval, score_rankings
from evals.parts import Parts
from evals.sets import Document, Reference, Spanning, read_ranking
from evals.spans import merged, score_spans
from evals.windows import in_windows
from tests.places import chunk
from tests.programs import MODELS

SET = Path(__file__).parent / "samples/evaluation"
FLOORS = {"nDCG@10": 0.93, "Recall@10": 0.97, "MRR@10": 0.91, HYBRID: -0.01}
"""A little below what is reached with the embedded model."""


def test_rankings_are_scored_as_trec_eval_does() -> None:
    judged = {"a": {"x": 1}, "b": {"y": 2, "z": 1}, "c": {"x": 1}}
    ranked = {"a": ["w", "x"], "b": ["z", "y"]}
    found = score_rankings(judged, ranked)

    assert found["nDCG@10"]["a"] == pytest.approx(0.6309, abs=1e-4)  # 1 / log2(3)
    assert found["nDCG@10"]["b"] == pytest.approx(0.8597, abs=1e-4)  # (1 + 2/log2 3) / (2 + 1/log2 3)
    assert found["MRR@10"] == {"a": 0.5, "b": 1.0, "c": 0.0}
    assert found["Recall@10"] == {"a": 1.0, "b": 1.0, "c": 0.0}


def test_a_relevant_document_behind_the_tenth_counts_for_recall_at_100_only() -> None:
    ranked = {"a": [f"other{place}" for place in range(10)] + ["x"]}
    found = score_rankings({"a": {"x": 1}}, ranked)
    assert {measure: scores["a"] for measure, scores in found.items()} == {
        "nDCG@10": 0.0,
        "Recall@10": 0.0,
        "Recall@100": 1.0,
        "MRR@10": 0.0,
    }


@settings(deadline=None, max_examples=25)
@given(st.lists(st.floats(0, 1), min_size=1, max_size=30))
def test_an_interval_holds_the_mean(values: list[float]) -> None:
    found = interval(values)
    assert found.low - 1e-9 <= found.mean <= found.high + 1e-9


def test_a_difference_is_told_from_chance() -> None:
    weak = {str(number): (number % 10) / 10 for number in range(60)}
    strong = {key: score + 0.05 + int(key) % 3 / 100 for key, score in weak.items()}
    shuffled = {key: weak[str((int(key) + 1) % 60)] for key in weak}

    assert difference(strong, weak).mean == pytest.approx(0.06, abs=1e-3)
    assert difference(strong, weak).p < 0.001
    assert difference(shuffled, weak).p > 0.2
    assert difference(weak, weak).p == 1.0
    with pytest.raises(ValueError, match="no question in common"):
        difference({"a": 1.0}, {"b": 1.0})


def test_spans_are_counted_in_characters_and_once_for_recall() -> None:
    question = Spanning("1", "which port", "text", (Reference(10, 20), Reference(30, 40)))
    found = [("text", 5, 15), ("text", 10, 20), ("other", 30, 40)]
    chunks = [chunk(document, "", start=start, end=end) for document, start, end in found]
    passages = tuple(Passage(one, 1.0) for one in chunks)
    scores = score_spans(question, Found(passages=passages, index="", timings_ms={}))
    # all of the first span and nothing of the second; 30 characters taken, 10 missed
    assert scores == {"recall": 0.5, "precision": pytest.approx(1 / 3), "IoU": pytest.approx(10 / 40)}


def test_a_text_found_in_one_place_is_found_where_it_stands_again() -> None:
    question = Spanning("1", "which port", "text", (Reference(104, 108),))
    first = chunk("text", "0123456789", start=0, end=10)
    again = chunk("text", "0123456789", number=9, start=100, end=110)
    candidates = (
        Candidate(chunk=first, fate="kept"),
        Candidate(chunk=again, fate=f"duplicate of {first.id}"),
        Candidate(chunk=chunk("text", "other", number=5, start=50, end=55)),
    )
    for start, recall in ((0, 1.0), (6, 0.5)):
        cut = chunk("text", first.text[start:], start=start, end=10)
        found = Found(passages=(Passage(cut, 1.0),), index="", timings_ms={}, candidates=candidates)
        assert score_spans(question, found)["recall"] == recall


def test_spans_that_touch_are_one() -> None:
    assert merged([(5, 9), (0, 3), (3, 4), (8, 12)]) == [(0, 4), (5, 12)]


def test_windows_overlap_and_leave_no_token_out() -> None:
    from tokenizers import Tokenizer

    text = " ".join(f"word{number}" for number in range(300))
    tokenizer = Tokenizer.from_file(str(MODELS / "tokenizer.json"))
    tokenizer.no_truncation()
    pieces = in_windows(tokenizer, 64, 16).cut(Document(id="a", text=text))

    assert (pieces[0].chunk.start, pieces[-1].chunk.end) == (0, len(text))
    for one, other in itertools.pairwise(pieces):
        assert one.chunk.start < other.chunk.start < one.chunk.end < other.chunk.end
        assert text[one.chunk.start : one.chunk.end] == one.chunk.text == one.embedded


def test_two_result_files_are_compared_question_by_question(tmp_path: Path) -> None:
    for name, add in (("a", 0.0), ("b", 0.1)):
        scores = {str(number): number % 5 / 10 + add for number in range(40)}
        kept = {"assistant": "x@1", "split": "test", "scores": {"assistant": {"nDCG@10": scores}}}
        (tmp_path / f"{name}.scores.json").write_text(json.dumps(kept))
    one, other = str(tmp_path / "a.json"), str(tmp_path / "b.json")

    compared = CliRunner().invoke(cli, ["eval", "--compare", one, other])
    assert compared.exit_code == 0
    assert "+0.1000" in compared.output
    assert "better" in compared.output
    unknown = CliRunner().invoke(cli, ["eval", "--compare", one, f"{other}:BM25"])
    assert unknown.exit_code == 2
    assert "no system 'BM25'; there are: assistant" in unknown.output


async def test_retrieval_reaches_on_the_bundled_set_what_it_has_reached(tmp_path: Path) -> None:
    plain = await open_embedder(Settings())
    assistants = Assistants.load(Settings().assistants)
    kept = KeptVectors(plain, tmp_path)
    parts = Parts(Settings(), assistants.get(assistants.default), kept, plain)
    report = await evaluate_documents(read_ranking(SET, "test"), parts, tmp_path / "index")
    await kept.aclose()

    reached = {row.name: row.value for row in report.rows}
    assert {name: reached[name] for name, floor in FLOORS.items() if reached[name] < floor} == {}
