"""What retrieval is asked and what it finds: queries, chunks, candidates, passages."""

import datetime
import re

import msgspec

LANGUAGE_TAG = r"^([A-Za-z]{2,3})(?:[-_][A-Za-z0-9]+)*$"


class Chunk(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """A stored piece of a document: `document_text[start:end] == text`, offsets in characters.

    `document` is the document's stable id (its path relative to the ingested folder), `heading` the path of
    headings above the chunk, `number` its position in the document from 0.
    """

    id: str
    document: str
    title: str
    heading: tuple[str, ...] = ()
    number: int
    start: int
    end: int
    text: str


class About(msgspec.Struct, frozen=True, omit_defaults=True):
    """What a document says about itself; questions can be narrowed by it. `language` as in `en`."""

    language: str | None = None
    date: datetime.date | None = None
    tags: tuple[str, ...] = ()


def primary_language(tag: str) -> str | None:
    """`en` of `en`, `EN-GB` or `en_US`: what documents are kept by. None for what is no tag of a language."""
    found = re.fullmatch(LANGUAGE_TAG, tag)
    return found[1].lower() if found else None


class Narrowing(msgspec.Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True):
    """Which of the tenant's documents are searched: all that is set must hold. It can only ever narrow.

    `documents` are ids, `tags` any of which is enough, `after` and `before` the first and the last day.
    """

    documents: tuple[str, ...] = ()
    language: str | None = None
    tags: tuple[str, ...] = ()
    after: datetime.date | None = None
    before: datetime.date | None = None


class Query(msgspec.Struct, frozen=True, omit_defaults=True):
    """What is searched for. The first of `texts` is the question by itself, the others say it differently.

    `hypothetical` is a text such as might answer it, whose vector stands in for the question's. `narrowing`
    is what the caller asked for and always holds; `narrower` is read out of the question and lies within it:
    it is dropped when nothing is found in it.
    """

    texts: tuple[str, ...]
    hypothetical: str | None = None
    narrowing: Narrowing = Narrowing()
    narrower: Narrowing | None = None

    @property
    def text(self) -> str:
        """The question by itself, understood without what was said before."""
        return self.texts[0]


class Passage(msgspec.Struct, frozen=True, gc=False):
    """A chunk as one question found it; `score` is comparable only within one answer.

    `seams` are places in the chunk's text at which chunks were joined: what lies there is not the document's.
    """

    chunk: Chunk
    score: float
    seams: tuple[int, ...] = ()


class Candidate(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, gc=False):
    """A chunk that a search brought, with its place in each stage. Ranks count from 1; None: not found there.

    `dense_score` is a cosine, `bm25_score` a BM25 sum, `score` the fusion's, `rerank_score` the reranker's.
    `fate` says why it was kept or dropped.
    """

    chunk: Chunk
    dense_rank: int | None = None
    dense_score: float | None = None
    bm25_rank: int | None = None
    bm25_score: float | None = None
    score: float = 0.0
    rerank_score: float | None = None
    fate: str = "too far down"

    @property
    def deciding_score(self) -> float:
        """What its place was decided by: the reranker's score if it read the chunk, else the fusion's."""
        return self.score if self.rerank_score is None else self.rerank_score


class Citation(msgspec.Struct, frozen=True, kw_only=True):
    """A marker of the answer tied to a verbatim quote: `document_text[start:end] == quote`.

    `by` says who set the marker: the `model`, our own `match` of the sentence with the passage, or `extract`
    where the sentence is the passage's. `supported` says whether the passage holds what the sentence says;
    None: not checked, or nothing to check.
    """

    marker: int
    document: str
    title: str
    chunk: str
    start: int
    end: int
    quote: str
    score: float
    by: str = "model"
    supported: bool | None = None
