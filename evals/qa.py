"""Is it known which questions the documents answer? Questions with and without an answer, three kinds.

*answerable*: a document answers. *near_miss*: the documents speak of it and do not answer. *off_topic*: the
documents are about something else. The last kind is made: half of the subjects (titles of documents) is left
out of the index, and all questions about them are asked; then the other half.
"""

import hashlib
import random
from collections.abc import AsyncIterator, Callable, Sequence
from functools import partial
from pathlib import Path

import msgspec
import numpy as np

from business_api.abstaining import Calibration
from business_api.passages import Query
from business_api.signals import signals
from evals.calibrate import MIX, cross_validated, curve_of, features_of, fit, folds_of
from evals.indexes import COLLECTION, TENANT, as_served, indexed
from evals.parts import Parts
from evals.report import Report
from evals.selective import Case, Floats, Miss, Split, auroc, bootstrapped, misses_of, threshold_at, wrong_at
from evals.sets import BadSet, Document, Filled, once, rows
from evals.showing import shown
from evals.trials import Scores, retriever_of
from loadtests.figures import Row

LET_THROUGH = 0.9
"""Share of the questions with an answer; thresholds that let so many through are compared."""
SEED = 7
SEARCHES = ("dense_top", "dense_first", "bm25_word", "agreement")

TARGETS: dict[tuple[str, Miss, str], tuple[float | None, float | None]] = {
    ("squad2_dev_half", "near_miss", "AUROC"): (0.66, 0.75),
    ("squad2_dev_half", "off_topic", "AUROC"): (0.85, 0.93),
    ("squad2_dev_half", "off_topic", "wrong"): (0.40, 0.15),
}
"""Floor and aim by set, kind and measure."""
NO_TARGET = (None, None)
MEASURES: dict[str, Callable[[Split], float]] = {
    "AUROC": auroc,
    "wrong": partial(wrong_at, coverage=LET_THROUGH),
}
NAMES = {"AUROC": "AUROC", "wrong": "wrong answers given at 90 % of the right ones"}


class Answerable(msgspec.Struct, frozen=True):
    """A line of `qa.jsonl`: a question about a document, and whether that one answers it."""

    id: Filled
    question: Filled
    passage_id: Filled
    is_impossible: bool


class Qa(msgspec.Struct, frozen=True):
    """Documents, questions by id, the subject of each question, and the digest of all of it."""

    name: str
    documents: list[Document]
    questions: dict[str, Answerable]
    subjects: dict[str, str]
    digest: str

    @property
    def texts(self) -> dict[str, str]:
        """The questions' texts by id."""
        return {key: one.question for key, one in self.questions.items()}


class QaReport(Report, frozen=True, kw_only=True):
    """A report with what its picture is drawn from."""

    cases: list[Case]
    probabilities: list[float]


def read_qa(folder: Path) -> Qa:
    """`corpus.jsonl` and `qa.jsonl`. Raises BadSet that says where it is wrong."""
    documents = {one.id: one for _, one in once(rows(folder / "corpus.jsonl", Document), "document")}
    questions: dict[str, Answerable] = {}
    for place, one in once(rows(folder / "qa.jsonl", Answerable), "question"):
        if one.passage_id not in documents:
            raise BadSet(f"{place}: no document {one.passage_id!r} in corpus.jsonl")
        questions[one.id] = one
    if len({one.is_impossible for one in questions.values()}) < 2:
        raise BadSet(f"{folder / 'qa.jsonl'}: needs questions with and without an answer")
    subjects = {key: documents[one.passage_id].title or one.passage_id for key, one in questions.items()}
    return Qa(folder.resolve().name, list(documents.values()), questions, subjects, digest_of(folder))


def digest_of(folder: Path) -> str:
    """SHA-256 of the documents and the questions."""
    digest = hashlib.sha256()
    for name in ("corpus.jsonl", "qa.jsonl"):
        digest.update((folder / name).read_bytes())
    return digest.hexdigest()


async def collect(qa: Qa, parts: Parts, folder: Path) -> list[Case]:
    """Every question asked of all documents, and of each half of the subjects."""
    cases = [
        Case(one.id, qa.subjects[one.id], "near_miss" if one.is_impossible else "answerable", "all", said)
        async for one, said in _asked(qa, qa.documents, parts, folder / "qa-all")
    ]
    for name, half in zip(("one half", "other half"), halves(set(qa.subjects.values())), strict=True):
        documents = [one for one in qa.documents if (one.title or one.id) in half]
        async for one, said in _asked(qa, documents, parts, folder / f"qa-{name.split()[0]}"):
            subject = qa.subjects[one.id]
            if subject not in half:
                cases.append(Case(one.id, subject, "off_topic", name, said))
            elif not one.is_impossible:
                cases.append(Case(one.id, subject, "answerable", name, said))
    return cases


def halves(subjects: set[str]) -> tuple[set[str], set[str]]:
    """Two halves, the same in each run. Raises BadSet when there are too few to hold some out."""
    if len(subjects) < 4:
        raise BadSet("the documents have less than four titles: nothing can be left out or held out")
    shuffled = sorted(subjects)
    random.Random(SEED).shuffle(shuffled)  # noqa: S311 - the same halves each time
    middle = len(shuffled) // 2
    return set(shuffled[:middle]), set(shuffled[middle:])


async def _asked(
    qa: Qa, documents: list[Document], parts: Parts, folder: Path
) -> AsyncIterator[tuple[Answerable, dict[str, float]]]:
    """The signals of each question; what was found is not kept, it would fill the memory."""
    cutting = as_served(parts.embedder)
    assistant = msgspec.structs.replace(parts.assistant, collection=COLLECTION)
    async with indexed(documents, cutting, parts.embedder, parts.settings, folder) as store:
        retriever = retriever_of(store, parts.embedder, parts.reranker)
        await parts.embedder.embed([one.question for one in qa.questions.values()])
        for one in shown(list(qa.questions.values()), f"{qa.name}: {folder.name}"):
            found = await retriever.retrieve(Query((one.question,)), TENANT, assistant)
            yield one, signals(one.question, found.candidates, found.passages)


async def calibrated(qa: Qa, parts: Parts, folder: Path) -> Calibration:
    """A calibration for the embedder in use. Raises BadSet."""
    cases = await collect(qa, parts, folder)
    how = ("fusion", "dense_weight", "bm25_weight", "candidates", "passages", "rerank", "join_neighbours")
    made = {"set": qa.name, "retrieval": {name: getattr(parts.assistant, name) for name in how}}
    return fit(cases, embedder=parts.embedder.name, data=qa.digest, made=made)


async def evaluate_qa(qa: Qa, parts: Parts, calibration: Calibration | None, folder: Path) -> QaReport:
    """How well the calibration in use tells which questions the documents answer.

    Without one, or when it was fitted on this very set, probabilities are those of models that have not seen
    the subject asked about.
    """
    cases = await collect(qa, parts, folder)
    seen = calibration is None or calibration.data == qa.digest
    if calibration is None or seen:
        probabilities = cross_validated(cases, features_of(cases))
    else:
        probabilities = np.array([calibration.probability(case.signals) for case in cases])
    note = f"subjects held out, {folds_of(cases)} folds" if seen else "fitted on another set"
    return QaReport(
        name=qa.name,
        kind="qa",
        rows=[*_quality_rows(qa.name, cases, probabilities, note), _risk_row(cases, probabilities)],
        scores={"assistant": _scores(cases, probabilities)},
        said=f"{len(qa.documents):,} documents, {len(qa.questions):,} questions; {note}",
        cases=cases,
        probabilities=probabilities.tolist(),
    )


def _quality_rows(name: str, cases: Sequence[Case], probabilities: Floats, note: str) -> list[Row]:
    """AUROC and wrong answers of both kinds, beside those of one score and of the searches alone."""
    rivals = {
        "dense score": np.array([case.signals.get("dense_top", 0.0) for case in cases]),
        "searches only": cross_validated(cases, [one for one in SEARCHES if one in features_of(cases)]),
    }
    found = []
    for miss in misses_of(cases):
        split = Split.of(cases, probabilities, miss)
        others = {rival: Split.of(cases, one, miss) for rival, one in rivals.items()}
        for what, measure in MEASURES.items():
            spread = bootstrapped(split, measure)
            floor, aim = TARGETS.get((name, miss, what), NO_TARGET)
            peers = {rival: measure(one) for rival, one in others.items()}
            found.append(
                Row(
                    name=f"{miss.replace('_', '-')}: {NAMES[what]}",
                    unit="",
                    better="higher" if what == "AUROC" else "lower",
                    value=spread.mean,
                    low=spread.low,
                    high=spread.high,
                    baseline=peers["dense score"],
                    peers=peers,
                    floor=floor,
                    aim=aim,
                    note=note,
                )
            )
    return found


def _risk_row(cases: Sequence[Case], probabilities: Floats) -> Row:
    at = min(curve_of(cases, probabilities), key=lambda point: abs(point.coverage - LET_THROUGH))
    return Row(
        name="risk at 90 % coverage",
        unit="",
        better="lower",
        value=at.risk,
        low=at.risk,
        high=at.risk,
        note="share of wrong answers among those given; "
        + ", ".join(f"{share:.0%} {kind.replace('_', '-')}" for kind, share in MIX.items()),
    )


def _scores(cases: Sequence[Case], probabilities: Floats) -> Scores:
    """Whether each question without an answer is left unanswered while nine of ten others are answered."""
    scores: Scores = {}
    for miss in misses_of(cases):
        threshold = threshold_at(Split.of(cases, probabilities, miss).right, LET_THROUGH)
        scores[f"{miss.replace('_', '-')}: left unanswered"] = {
            case.question: float(p < threshold)
            for case, p in zip(cases, probabilities, strict=True)
            if case.kind == miss
        }
    return scores
