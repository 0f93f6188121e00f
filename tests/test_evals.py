"""The evaluation: what it reads, what it refuses, and that it counts right."""

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
import pytest
from typer.testing import CliRunner

from business_api.assistants import Assistant
from business_api.cli import cli
from business_api.errors import InvalidRequest
from business_api.settings import Settings
from evals.ablation import AS_IS, ablate_documents, ablate_spans
from evals.documents import HYBRID, evaluate_documents
from evals.indexes import as_served, indexed
from evals.kept_vectors import KeptVectors
from evals.parts import Parts, assistant_of
from evals.report import scores_of, write
from evals.sets import BadSet, Document, kinds_of, read_ranking, read_spans
from evals.spans import evaluate_spans
from loadtests.figures import Results
from tests.fakes import LetterEmbedder

CORPUS = [
    {"_id": "ports", "title": "Ports", "text": "The LLM server listens on port 8001."},
    {"_id": "codes", "title": "Codes", "text": "E-4711 says that the queue is full."},
    {"_id": "fruit", "title": "Fruit", "text": "Bananas are yellow, limes are green."},
]
QUERIES = [{"_id": "1", "text": "LLM server port"}, {"_id": "2", "text": "E-4711"}]
JUDGED = ["query-id\tcorpus-id\tscore", "1\tports\t1", "2\tcodes\t1"]
TEXT = "# Ports\n\nThe LLM server listens on port 8001.\n\n# Fruit\n\nBananas are yellow.\n"


def jsonl(path: Path, rows: Sequence[Any]) -> None:
    path.write_text("".join(row if isinstance(row, str) else json.dumps(row) + "\n" for row in rows))


def beir(folder: Path, **other: Sequence[Any]) -> Path:
    rows: dict[str, Sequence[Any]] = {"corpus": CORPUS, "queries": QUERIES, "judged": JUDGED, **other}
    (folder / "qrels").mkdir(parents=True)
    jsonl(folder / "corpus.jsonl", rows["corpus"])
    jsonl(folder / "queries.jsonl", rows["queries"])
    (folder / "qrels/test.tsv").write_text("\n".join(rows["judged"]))
    return folder


def spanning(folder: Path, **other: Any) -> Path:
    start = TEXT.index("port 8001")
    reference = {"start_index": start, "end_index": start + 9, "content": "port 8001"}
    question = {"id": "1", "question": "which port", "corpus_id": "text", "references": [reference]} | other
    (folder / "corpora").mkdir(parents=True)
    (folder / "corpora/text.md").write_text(TEXT)
    jsonl(folder / "questions.jsonl", [question])
    return folder


def parts(folder: Path, embedder: LetterEmbedder | None = None) -> Parts:
    plain = embedder or LetterEmbedder()
    assistant = Assistant(name="tandem", collection="kb")
    return Parts(Settings(var=folder), assistant, KeptVectors(plain, folder / "eval"), plain)


async def test_a_ranking_is_scored_beside_each_search_by_itself(tmp_path: Path) -> None:
    ranking = read_ranking(beir(tmp_path / "set"), "test")
    report = await evaluate_documents(ranking, parts(tmp_path), tmp_path / "index")
    rows = {row.name: row for row in report.rows}

    assert rows["nDCG@10"].value == rows["MRR@10"].value == rows["Recall@100"].value == 1.0
    assert set(rows["nDCG@10"].peers) == {"dense", "BM25", "RRF", "DBSF"}
    assert rows[HYBRID].value >= 0
    assert report.scores["assistant"]["nDCG@10"] == {"1": 1.0, "2": 1.0}


async def test_a_question_that_finds_nothing_scores_nothing_and_breaks_nothing(tmp_path: Path) -> None:
    foreign = [QUERIES[0], {"_id": "2", "text": "הַשָּׁעוֹן אֵינֶנּוּ"}]
    ranking = read_ranking(beir(tmp_path / "set", queries=foreign), "test")
    report = await evaluate_documents(ranking, parts(tmp_path), tmp_path / "index")

    assert report.scores["BM25"]["nDCG@10"] == {"1": 1.0, "2": 0.0}


async def test_spans_are_scored_for_our_chunks_and_each_text(tmp_path: Path) -> None:
    spans = read_spans(spanning(tmp_path / "set"))
    report = await evaluate_spans(spans, parts(tmp_path), tmp_path / "index")
    rows = {row.name: row for row in report.rows}

    assert rows["recall"].value == rows["recall, text"].value == 1.0
    assert 0 < rows["IoU"].value < 1


async def test_each_technique_is_told_with_what_it_brings_and_costs(tmp_path: Path) -> None:
    ranking, spans = read_ranking(beir(tmp_path / "set"), "test"), read_spans(spanning(tmp_path / "spans"))
    for report in (
        await ablate_documents(ranking, parts(tmp_path), tmp_path / "one"),
        await ablate_spans(spans, parts(tmp_path), tmp_path / "two"),
    ):
        assert next(iter(report.scores)) == AS_IS
        assert {"fusion: RRF", "dense only", "BM25 only", "neighbours joined"} < set(report.scores)
        assert {"BM25 only: ms", "BM25 only: CPU ms"} < {row.name for row in report.rows}


async def test_an_index_is_made_once_and_again_when_a_document_changes(tmp_path: Path) -> None:
    embedder = LetterEmbedder()
    made = parts(tmp_path, embedder)
    embedded = []
    for text in ("one port", "one port", "another port"):
        documents = [Document(id="a", text=text), Document(id="b", text="the same")]
        async with indexed(
            documents, as_served(embedder), made.embedder, made.settings, tmp_path / "index"
        ) as store:
            assert await store.count("evaluation") == 2
        embedded.append(len(embedder.seen))
    assert embedded == [2, 2, 3]


async def test_what_was_embedded_once_is_not_embedded_again(tmp_path: Path) -> None:
    first, second = LetterEmbedder(), LetterEmbedder()
    vectors = await KeptVectors(first, tmp_path).embed(["a", "b", "a"])
    again = KeptVectors(second, tmp_path)

    assert (await again.embed(["b", "a", "a"])).tolist() == [vectors[1].tolist(), *[vectors[0].tolist()] * 2]
    assert (first.seen, second.seen) == (["a", "b"], [])
    assert (await again.embed([])).shape == (0, 32)


async def test_results_are_kept_in_the_projects_form_with_the_scores_beside_them(tmp_path: Path) -> None:
    ranking = read_ranking(beir(tmp_path / "set"), "test")
    report = await evaluate_documents(ranking, parts(tmp_path), tmp_path / "index")
    path = write(report, tmp_path / "results", assistant="tandem@1", split="test")

    kept = msgspec.json.decode(path.read_bytes(), type=Results)
    assert [row.name for row in kept.rows] == [row.name for row in report.rows]
    assert json.loads(scores_of(path).read_text())["scores"] == report.scores


@pytest.mark.parametrize(
    ("other", "said"),
    [
        ({"corpus": []}, "corpus.jsonl: no document"),
        ({"corpus": [*CORPUS, CORPUS[0]]}, "corpus.jsonl:4: a second one with the id 'ports'"),
        ({"corpus": [CORPUS[0], "{oops\n"]}, "corpus.jsonl:2: JSON is malformed"),
        ({"corpus": [CORPUS[0], {"_id": "x"}]}, "corpus.jsonl:2: Object missing required field `text`"),
        ({"queries": [*QUERIES, QUERIES[1]]}, "queries.jsonl:3: a second one with the id '2'"),
        ({"judged": [*JUDGED, "1\tnowhere\t1"]}, "test.tsv:4: no document 'nowhere'"),
        ({"judged": [*JUDGED, "9\tports\t1"]}, "test.tsv:4: no question '9'"),
        ({"judged": [*JUDGED, "1 ports 1"]}, "test.tsv:4: expected question, document and a whole number"),
        ({"judged": JUDGED[:1]}, "test.tsv: no relevant document"),
    ],
)
def test_a_bad_ranking_is_refused_with_file_and_line(
    tmp_path: Path, other: dict[str, Sequence[Any]], said: str
) -> None:
    with pytest.raises(BadSet) as caught:
        read_ranking(beir(tmp_path / "set", **other), "test")
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("other", "said"),
    [
        ({"corpus_id": "nowhere"}, "questions.jsonl:1: no text 'nowhere'"),
        ({"references": []}, "questions.jsonl:1: Expected `array` of length >= 1"),
        ({"references": [{"start_index": 5, "end_index": 5}]}, "questions.jsonl:1: the span 5-5 is not in"),
        ({"references": [{"start_index": 5, "end_index": 9999}]}, "questions.jsonl:1: the span 5-9999"),
        (
            {"references": [{"start_index": 5, "end_index": 7, "content": "no"}]},
            "questions.jsonl:1: the text at 5 is not the span's content",
        ),
    ],
)
def test_bad_spans_are_refused_with_file_and_line(tmp_path: Path, other: dict[str, Any], said: str) -> None:
    with pytest.raises(BadSet) as caught:
        read_spans(spanning(tmp_path / "set", **other))
    assert said in str(caught.value)


async def test_documents_without_any_text_are_refused(tmp_path: Path) -> None:
    made = parts(tmp_path)
    blank = [Document(id="a", text=" \n")]
    with pytest.raises(BadSet, match="no text"):
        async with indexed(
            blank, as_served(made.plain_embedder), made.embedder, made.settings, tmp_path / "index"
        ):
            pass


def test_a_folder_without_a_set_or_split_is_refused_with_what_there_could_be(tmp_path: Path) -> None:
    with pytest.raises(BadSet, match="no such folder"):
        kinds_of(tmp_path / "away")
    with pytest.raises(BadSet, match=r"corpus\.jsonl"):
        kinds_of(tmp_path)
    with pytest.raises(BadSet, match="there are: test"):
        read_ranking(beir(tmp_path / "set"), "train")


def test_an_assistant_can_be_changed_for_an_evaluation_but_not_into_anything() -> None:
    changed = assistant_of(Settings(), None, ["fusion=rrf", "candidates=100", "join_neighbours=true"])
    assert (changed.fusion, changed.candidates, changed.join_neighbours) == ("rrf", 100, True)
    for wrong in ("fusion=best", "colour=red", "candidates", "dense_weight=-1"):
        with pytest.raises(InvalidRequest, match=wrong.partition("=")[0]):
            assistant_of(Settings(), None, [wrong])


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "no folder to evaluate"),
        (["/nowhere/at/all"], "/nowhere/at/all: no such folder"),
        (["--compare", "/nowhere/a.json", "/nowhere/b.json"], "/nowhere/a.scores.json: no such file"),
        (["--only", "weather", "."], "weather"),
    ],
)
def test_the_command_says_what_is_wrong_and_leaves_with_2(arguments: list[str], said: str) -> None:
    ended = CliRunner().invoke(cli, ["eval", *arguments])
    assert ended.exit_code == 2
    assert said in ended.output


def test_without_the_evaluations_the_command_says_how_to_get_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "evals.commands", None)
    ended = CliRunner().invoke(cli, ["eval", "--help"])
    assert ended.exit_code == 2
    assert "make eval" in ended.output
