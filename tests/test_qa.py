"""Questions with and without an answer: what is read, what is refused, that subjects are held out."""

import json
from collections import Counter
from pathlib import Path

import msgspec
import pytest

from business_api.assistants import Assistant
from business_api.settings import Settings
from evals.kept_vectors import KeptVectors
from evals.parts import Parts
from evals.qa import calibrated, evaluate_qa, halves, read_qa
from evals.risk_plot import draw_risk
from evals.sets import BadSet
from tests.fakes import LetterEmbedder

DOCUMENTS = {
    "Kilns": "The kiln stops at 1300 degrees. Ada built it in 1998.",
    "Glazes": "Glaze is kept in the cellar. Ben mixes it on Mondays.",
    "Clay": "Clay comes from Ulm in bags of ten kilos.",
    "Wheels": "The wheel turns at 240 rounds. Carla oils it every week.",
}
ASKED = {
    "Kilns": ("At how many degrees does the kiln stop?", "Who sold the kiln in 1875?"),
    "Glazes": ("Where is the glaze kept?", "Who never mixes the glaze on Fridays?"),
    "Clay": ("In what bags does the clay come?", "Who digs the clay of Rome?"),
    "Wheels": ("Who oils the wheel?", "Why did Dora stop the wheel?"),
}


def qa_folder(folder: Path, *more: str) -> Path:
    corpus = [{"_id": title, "title": title, "text": text} for title, text in DOCUMENTS.items()]
    questions = [
        {
            "id": f"{title}{place}",
            "question": question,
            "passage_id": title,
            "is_impossible": bool(place),
            "answers": [],
        }
        for title, both in ASKED.items()
        for place, question in enumerate(both)
    ]
    folder.mkdir()
    (folder / "corpus.jsonl").write_text("".join(json.dumps(row) + "\n" for row in corpus))
    (folder / "qa.jsonl").write_text("".join([*(json.dumps(row) + "\n" for row in questions), *more]))
    return folder


def parts(tmp_path: Path) -> Parts:
    embedder = LetterEmbedder()
    return Parts(
        Settings(var=tmp_path), Assistant(name="tandem"), KeptVectors(embedder, tmp_path / "kept"), embedder
    )


async def test_a_set_is_measured_with_its_questions_held_out(tmp_path: Path) -> None:
    qa, these = read_qa(qa_folder(tmp_path / "ours")), parts(tmp_path)
    report = await evaluate_qa(qa, these, None, tmp_path / "index")
    assert Counter(case.kind for case in report.cases) == {"answerable": 8, "near_miss": 4, "off_topic": 8}
    rows = {row.name: row for row in report.rows}
    assert rows["off-topic: AUROC"].value > 0.9
    assert rows["off-topic: AUROC"].floor is None
    assert "held out" in rows["near-miss: AUROC"].note
    assert set(report.scores["assistant"]) == {"near-miss: left unanswered", "off-topic: left unanswered"}
    assert draw_risk(report, tmp_path / "ours.json").stat().st_size > 10_000
    await these.embedder.aclose()


async def test_a_calibration_of_this_very_set_is_not_asked_about_it(tmp_path: Path) -> None:
    qa, these = read_qa(qa_folder(tmp_path / "ours")), parts(tmp_path)
    made = await calibrated(qa, these, tmp_path / "index")
    own = await evaluate_qa(qa, these, made, tmp_path / "index")
    other = await evaluate_qa(qa, these, msgspec.structs.replace(made, data="other"), tmp_path / "index")
    assert "held out" in own.said
    assert "fitted on another set" in other.said
    assert own.probabilities != other.probabilities
    assert made.made["retrieval"]["fusion"] == these.assistant.fusion
    await these.embedder.aclose()


async def test_what_is_calibrated_can_judge(tmp_path: Path) -> None:
    qa, these = read_qa(qa_folder(tmp_path / "ours")), parts(tmp_path)
    made = await calibrated(qa, these, tmp_path / "index")
    await these.embedder.aclose()
    assert made.embedder == "letters"
    assert made.data == qa.digest
    assert made.threshold_for(1.0) == made.curve[0].threshold


def test_halves_share_nothing_and_are_the_same_each_time() -> None:
    one, other = halves({"a", "b", "c", "d", "e"})
    assert one | other == {"a", "b", "c", "d", "e"}
    assert not one & other
    assert halves({"e", "d", "c", "b", "a"}) == (one, other)
    with pytest.raises(BadSet, match="less than four titles"):
        halves({"a", "b", "c"})


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ('{"id": "1", "question": "Q?", "passage_id": "no", "is_impossible": true}', "no document 'no'"),
        (
            '{"id": "Clay0", "question": "Q?", "passage_id": "Clay", "is_impossible": true}',
            "a second question",
        ),
        ('{"id": "1", "question": "", "passage_id": "Clay", "is_impossible": true}', "qa.jsonl:9"),
    ],
)
def test_a_broken_set_is_refused_with_the_line(tmp_path: Path, line: str, said: str) -> None:
    with pytest.raises(BadSet, match=said):
        read_qa(qa_folder(tmp_path / "ours", line))


def test_a_set_without_unanswerable_questions_is_refused(tmp_path: Path) -> None:
    folder = qa_folder(tmp_path / "ours")
    lines = (folder / "qa.jsonl").read_text().splitlines()
    (folder / "qa.jsonl").write_text("\n".join(line for line in lines if '"is_impossible": false' in line))
    with pytest.raises(BadSet, match="with and without an answer"):
        read_qa(folder)
