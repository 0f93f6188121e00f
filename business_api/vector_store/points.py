"""What is kept of a chunk, who may see it, and how it is turned back into a passage."""

import json
import uuid
from collections.abc import Sequence
from functools import cache
from typing import TYPE_CHECKING

from business_api.exchange import Chunk, Passage
from business_api.vector_store.collection import (
    NAMESPACE,
    TENANT,
    Above,
    AtMost,
    Branch,
    Is,
    NewPoint,
    Row,
    Sparse,
    Where,
)
from business_api.vector_store.protocol import Point

if TYPE_CHECKING:
    import qdrant_edge

FOREVER = 2**53 - 1
"""`until` of what is not retired: the largest integer that a float holds exactly."""

LEXICAL_CHARACTERS = 4000
"""So much of a question is searched by its words."""


class ForeignHit(RuntimeError):
    """A search returned another tenant's chunk. This is a bug, and nothing of the answer may be shown."""


def visible(tenant: str, generation: int) -> Where:
    """THE filter of every read: this tenant's points, as they are in this generation."""
    return (Is(TENANT, tenant), AtMost("since", generation), Above("until", generation))


def chunk_point(tenant: str, generation: int, point: Point) -> NewPoint:
    """The point of a staged chunk. Its id holds the generation, so it never overwrites what is visible."""
    chunk = point.chunk
    identity = json.dumps(["chunk", tenant, chunk.id, generation])
    payload = {
        TENANT: tenant,
        "document": chunk.document,
        "content_hash": point.content_hash,
        "since": generation,
        "until": FOREVER,
        "chunk": chunk.id,
        "title": chunk.title,
        "heading": list(chunk.heading),
        "number": chunk.number,
        "start": chunk.start,
        "end": chunk.end,
        "text": chunk.text,
    }
    words = "\n".join([chunk.title, *chunk.heading, chunk.text])
    return NewPoint(
        id=str(uuid.uuid5(NAMESPACE, identity)),
        payload=payload,
        dense=point.vector,
        bm25=document_words(words),
    )


def passage_of(row: Row, tenant: str) -> Passage:
    """The passage of a hit. Raises ForeignHit when it is not this tenant's."""
    kept = row.payload
    if kept.get(TENANT) != tenant:
        raise ForeignHit("a search returned another tenant's chunk")
    chunk = Chunk(
        id=kept["chunk"],
        document=kept["document"],
        title=kept["title"],
        heading=tuple(kept["heading"]),
        number=kept["number"],
        start=kept["start"],
        end=kept["end"],
        text=kept["text"],
    )
    return Passage(chunk, row.score)


def branches(text: str, vector: Sequence[float] | None, weights: tuple[float, float]) -> tuple[Branch, ...]:
    """The searches that this question is worth: dense with a vector, BM25 with words, and a weight each."""
    dense_weight, bm25_weight = weights
    found: list[Branch] = []
    if vector is not None and dense_weight > 0:
        found.append(Branch("dense", vector, dense_weight))
    words = question_words(text)
    if words.indices and bm25_weight > 0:
        found.append(Branch("bm25", words, bm25_weight))
    return tuple(found)


def document_words(text: str) -> Sparse:
    """BM25 weights of a text to be found."""
    found = _bm25().embed_document(text)
    return Sparse(found.indices, found.values)


def question_words(text: str) -> Sparse:
    """The words of a question; empty when it has none but stop words."""
    found = _bm25().embed_query(text[:LEXICAL_CHARACTERS])
    return Sparse(found.indices, found.values)


@cache
def _bm25() -> "qdrant_edge.Bm25":
    """English stemming and stop words, k 1.2, b 0.75: made at the first use, the same for every store."""
    import qdrant_edge

    return qdrant_edge.Bm25()
