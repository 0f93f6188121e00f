"""What is kept of a chunk, who may see it, and how it is turned back into a passage."""

import datetime
import json
import uuid
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from operator import itemgetter
from typing import TYPE_CHECKING, Any

from business_api.passages import About, Chunk, Narrowing, Passage
from business_api.vector_store.collection import (
    NAMESPACE,
    TENANT,
    Above,
    AtMost,
    Condition,
    Is,
    NewPoint,
    OneOf,
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


FIELDS = (TENANT, "document", "since", "until", "chunk", "title", "heading", "number", "start", "end", "text")
"""What a search reads of a point."""

KEPT = (*FIELDS, "content_hash", "language", "tags", "date", "before", "after")
"""What is read to store the point again."""


class ForeignHit(RuntimeError):
    """A search returned another tenant's chunk. This is a bug, and nothing of the answer may be shown."""


def visible(tenant: str, generation: int) -> Where:
    """Conditions of this tenant's points, as they are in this generation."""
    return (*belonging(tenant), AtMost("since", generation), Above("until", generation))


def belonging(tenant: str) -> Where:
    """THE condition of every read: this tenant's points."""
    return (Is(TENANT, tenant),)


def narrowed(narrowing: Narrowing) -> Where:
    """Conditions that are added to those of every read, never put in their place."""
    conditions: list[Condition] = []
    if narrowing.documents:
        conditions.append(OneOf("document", narrowing.documents))
    if narrowing.language:
        conditions.append(Is("language", narrowing.language))
    if narrowing.tags:
        conditions.append(OneOf("tags", narrowing.tags))
    if narrowing.after:
        conditions.append(Above("date", narrowing.after.toordinal() - 1))
    if narrowing.before:
        conditions.append(AtMost("date", narrowing.before.toordinal()))
    return tuple(conditions)


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
    about = point.about
    known: dict[str, object] = {
        "language": about.language,
        "tags": list(about.tags),
        "date": about.date.toordinal() if about.date else None,
        "before": point.before.strip("\n") and point.before,  # line ends only: the offsets say how many
        "after": point.after,
    }
    payload |= {key: value for key, value in known.items() if value}
    words = "\n".join([chunk.title, *chunk.heading, chunk.text])
    return NewPoint(
        id=str(uuid.uuid5(NAMESPACE, identity)),
        payload=payload,
        dense=point.vector,
        bm25=document_words(words),
    )


def visible_chunks(rows: Iterable[Row], tenant: str, generation: int) -> dict[str | int, Chunk]:
    """The chunks of the points that are visible, by point id. Raises ForeignHit for another tenant's."""
    return {
        row.id: _chunk(row.payload, tenant)
        for row in rows
        if row.payload["since"] <= generation < row.payload["until"]
    }


def passages_of(rows: Sequence[Row], chunks: Mapping[str | int, Chunk], limit: int) -> tuple[Passage, ...]:
    """The `limit` best of those whose chunk is there, equal ones by chunk id."""
    found = [(-round(row.score, 6), chunks[row.id].id, row) for row in rows if row.id in chunks]
    found.sort(key=itemgetter(0, 1))
    return tuple([Passage(chunks[row.id], row.score) for _, _, row in found[:limit]])


def _chunk(kept: Mapping[str, Any], tenant: str) -> Chunk:
    if kept[TENANT] != tenant:
        raise ForeignHit("a search returned another tenant's chunk")
    return Chunk(
        id=kept["chunk"],
        document=kept["document"],
        title=kept["title"],
        heading=tuple(kept["heading"]),
        number=kept["number"],
        start=kept["start"],
        end=kept["end"],
        text=kept["text"],
    )


def stored_point(row: Row) -> Point:
    """The point that was stored, without its vector."""
    kept = row.payload
    date = kept.get("date")
    about = About(
        language=kept.get("language"),
        date=datetime.date.fromordinal(date) if date else None,
        tags=tuple(kept.get("tags", ())),
    )
    chunk = _chunk(kept, kept[TENANT])
    return Point(chunk, (), kept["content_hash"], about, kept.get("before", ""), kept.get("after", ""))


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
