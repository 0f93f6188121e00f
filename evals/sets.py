"""Reads evaluation sets. What is wrong with one is said in a line, with file and line number.

A folder may hold several kinds: documents to be ranked (`corpus.jsonl`, `queries.jsonl`, `qrels/*.tsv`: the
layout of BEIR), spans to be found (`corpora/*.md`, `questions.jsonl`), answers to be judged (`qa.jsonl`).
"""

from collections.abc import Iterable, Iterator
from enum import StrEnum
from pathlib import Path
from typing import Annotated, TypeVar

import msgspec

from business_api.errors import InvalidRequest

Filled = Annotated[str, msgspec.Meta(min_length=1)]
T = TypeVar("T")


class Kind(StrEnum):
    """A kind of evaluation."""

    DOCUMENTS = "documents"
    SPANS = "spans"
    QA = "qa"


MARKS: dict[Kind, tuple[str, ...]] = {
    Kind.DOCUMENTS: ("corpus.jsonl", "queries.jsonl", "qrels"),
    Kind.SPANS: ("questions.jsonl", "corpora"),
    Kind.QA: ("qa.jsonl",),
}
"""What a folder holds for each kind of evaluation."""


class BadSet(InvalidRequest):
    """The set cannot be evaluated; the message says where it is wrong, and how."""


class Document(msgspec.Struct, frozen=True, kw_only=True):
    """A text to find something in."""

    id: Filled = msgspec.field(name="_id")
    title: str = ""
    text: str
    markdown: bool = False


class Asked(msgspec.Struct, frozen=True):
    """A question of a set."""

    id: Filled = msgspec.field(name="_id")
    text: Filled


class Ranking(msgspec.Struct, frozen=True):
    """Documents, questions by id, and the grade of each relevant document by question: `judged[q][d] > 0`."""

    name: str
    documents: list[Document]
    questions: dict[str, str]
    judged: dict[str, dict[str, int]]


class Reference(msgspec.Struct, frozen=True):
    """A span of a text that answers: offsets in characters, end exclusive."""

    start_index: Annotated[int, msgspec.Meta(ge=0)]
    end_index: int
    content: str = ""


class Spanning(msgspec.Struct, frozen=True):
    """A question that the `references` of one text answer."""

    id: Filled
    question: Filled
    corpus_id: Filled
    references: Annotated[tuple[Reference, ...], msgspec.Meta(min_length=1)]


class Spans(msgspec.Struct, frozen=True):
    """Texts by name, and questions with the spans that answer them."""

    name: str
    texts: dict[str, Document]
    questions: list[Spanning]


def kinds_of(folder: Path) -> list[Kind]:
    """What can be evaluated with this folder. Raises BadSet when there is nothing."""
    if not folder.is_dir():
        raise BadSet(f"{folder}: no such folder")
    found = [kind for kind, marks in MARKS.items() if all((folder / mark).exists() for mark in marks)]
    if not found:
        wanted = "; or ".join(" + ".join(marks) for marks in MARKS.values())
        raise BadSet(f"{folder}: nothing to evaluate here; expected {wanted}")
    return found


def rows(path: Path, kind: type[T]) -> Iterator[tuple[str, T]]:
    """Each line of a JSONL file with its place, `file:line`. Raises BadSet at the first bad one."""
    decoder = msgspec.json.Decoder(kind)
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            if not line.strip():
                continue
            try:
                yield f"{path}:{number}", decoder.decode(line)
            except (msgspec.DecodeError, UnicodeDecodeError) as exc:
                raise BadSet(f"{path}:{number}: {exc}") from exc


def read_ranking(folder: Path, split: str) -> Ranking:
    """Documents, and the questions that have a relevant one in `qrels/<split>.tsv`. Raises BadSet."""
    documents = {one.id: one for _, one in once(rows(folder / "corpus.jsonl", Document))}
    if not documents:
        raise BadSet(f"{folder / 'corpus.jsonl'}: no document")
    questions = {one.id: one.text for _, one in once(rows(folder / "queries.jsonl", Asked))}
    judged = _judgements(folder / "qrels", split, documents.keys(), questions.keys())
    asked = {one: questions[one] for one in judged}
    return Ranking(folder.resolve().name, list(documents.values()), asked, judged)


def read_spans(folder: Path) -> Spans:
    """Texts and questions. Raises BadSet, also for a span that is not in its text."""
    texts = {path.stem: _markdown(path) for path in sorted((folder / "corpora").glob("*.md"))}
    if not texts:
        raise BadSet(f"{folder / 'corpora'}: no text (*.md)")
    questions: list[Spanning] = []
    for place, question in once(rows(folder / "questions.jsonl", Spanning), "question"):
        if question.corpus_id not in texts:
            raise BadSet(f"{place}: no text {question.corpus_id!r} in corpora")
        text = texts[question.corpus_id].text
        for one in question.references:
            if not one.start_index < one.end_index <= len(text):
                raise BadSet(f"{place}: the span {one.start_index}-{one.end_index} is not in the text")
            if one.content and text[one.start_index : one.end_index] != one.content:
                raise BadSet(f"{place}: the text at {one.start_index} is not the span's content")
        questions.append(question)
    if not questions:
        raise BadSet(f"{folder / 'questions.jsonl'}: no question")
    return Spans(folder.resolve().name, texts, questions)


def once(found: Iterable[tuple[str, T]], what: str = "one with the id") -> Iterator[tuple[str, T]]:
    """The same rows. Raises BadSet at an `id` that was there before; `what` names such a row."""
    seen: set[str] = set()
    for place, one in found:
        key: str = one.id  # type: ignore[attr-defined]
        if key in seen:
            raise BadSet(f"{place}: a second {what} {key!r}")
        seen.add(key)
        yield place, one


def _judgements(
    folder: Path, split: str, documents: Iterable[str], questions: Iterable[str]
) -> dict[str, dict[str, int]]:
    path = folder / f"{split}.tsv"
    if not path.exists():
        splits = ", ".join(sorted(one.stem for one in folder.glob("*.tsv"))) or "none"
        raise BadSet(f"{path}: no such split; there are: {splits}")
    known, asked = set(documents), set(questions)
    judged: dict[str, dict[str, int]] = {}
    for number, line in enumerate(path.read_text().splitlines(), 1):
        cells = line.split("\t")
        if not line.strip() or (number == 1 and cells[-1] == "score"):
            continue
        if len(cells) != 3 or not cells[2].strip().lstrip("-").isdigit():
            raise BadSet(f"{path}:{number}: expected question, document and a whole number, between tabs")
        question, document, grade = cells[0], cells[1], int(cells[2])
        if question not in asked:
            raise BadSet(f"{path}:{number}: no question {question!r} in queries.jsonl")
        if document not in known:
            raise BadSet(f"{path}:{number}: no document {document!r} in corpus.jsonl")
        if grade > 0:
            judged.setdefault(question, {})[document] = grade
    if not judged:
        raise BadSet(f"{path}: no relevant document for any question")
    return judged


def _markdown(path: Path) -> Document:
    try:
        # as it is: a translated line end would move every offset behind it
        text = path.read_bytes().decode()
    except UnicodeDecodeError as exc:
        raise BadSet(f"{path}: not UTF-8 at byte {exc.start}") from exc
    return Document(id=path.stem, title=path.stem, text=text, markdown=True)
