"""Our words for queries and points, said in the embedded engine's."""

from collections.abc import Sequence
from typing import Any

import qdrant_edge as edge

from business_api.vector_store.collection import (
    BM25,
    DENSE,
    INTEGERS,
    KEYWORDS,
    OF_SOME,
    TENANT,
    Above,
    AtMost,
    Condition,
    Is,
    Itself,
    NewPoint,
    OneOf,
    Sparse,
    Vector,
    Where,
)


def layout(dimension: int) -> edge.EdgeConfig:
    """Vectors of a new collection. One search thread: questions come in one at a time anyway.

    Eight bits a component: a scan costs half of what half precision does (0.8 for 1.4 ms over 10,000 vectors
    of 384), 99 % of the 48 nearest of random vectors are the same; docs/evaluation.md was measured with it.
    """
    dense = edge.EdgeVectorParams(
        dimension,
        edge.Distance.Cosine,
        memory=edge.Memory.Cold,  # mapped, not read ahead: the engine makes room for 32 MB at a time
        datatype=edge.VectorStorageDatatype.Turbo8,
    )
    return edge.EdgeConfig(
        vectors={DENSE: dense},
        sparse_vectors={BM25: edge.EdgeSparseVectorParams(modifier=edge.Modifier.Idf)},
        max_search_threads=1,
    )


def indexes() -> list[edge.UpdateOperation]:
    """The payload indexes that every collection has; they are made before the first point is."""
    return [index_of(key) for key in (TENANT, *KEYWORDS, *INTEGERS) if key not in OF_SOME]


def index_of(key: str) -> edge.UpdateOperation:
    """The payload index of a field. Each takes 3 to 5 MB of memory, however little is in it."""
    if key in INTEGERS:
        schema: Any = edge.IntegerIndexParams(lookup=False, range=True)
    else:
        schema = edge.KeywordIndexParams(is_tenant=key == TENANT or None)
    return edge.UpdateOperation.create_field_index(key, schema)


def filter_of(where: Where) -> edge.Filter:
    """A filter that holds when all conditions do."""
    return edge.Filter(must=[_condition(one) for one in where])


def _condition(one: Condition) -> edge.FieldCondition | edge.HasIdCondition:
    match one:
        case Itself(point):
            return edge.HasIdCondition({point})
        case OneOf(key, values):
            return edge.FieldCondition(key, match=edge.MatchAny(list(values)))
        case Is(key, value):
            return edge.FieldCondition(key, match=edge.MatchValue(value))
        case AtMost(key, value):
            return edge.FieldCondition(key, range=edge.RangeFloat(lte=value))
        case Above(key, value):
            return edge.FieldCondition(key, range=edge.RangeFloat(gt=value))


def point_of(point: NewPoint) -> edge.Point:
    """A point with those of its vectors that it has."""
    vectors: dict[str, Any] = {}
    if point.dense is not None:
        vectors[DENSE] = [float(x) for x in point.dense]
    if point.bm25 is not None:
        vectors[BM25] = edge.SparseVector(point.bm25.indices, point.bm25.values)
    return edge.Point(point.id, vectors, point.payload)


def requests_of(
    vectors: Sequence[Vector], where: Where, corpus: Where | None, limit: int, fields: Sequence[str]
) -> edge.QueryBatchRequest:
    """One request for all vectors; the rarity of words is counted among the `corpus`, None: all points."""
    params = edge.SearchParams(idf=edge.IdfParams(corpus=filter_of(corpus))) if corpus else None
    requests = [
        edge.QueryRequest(
            limit,
            query=_nearest(vector),
            filter=filter_of(where),
            params=params if isinstance(vector, Sparse) else None,
            with_payload=list(fields) or False,
            with_vector=False,
        )
        for vector in vectors
    ]
    return edge.QueryBatchRequest(requests)


def _nearest(vector: Vector) -> Any:
    if isinstance(vector, Sparse):
        return edge.Query.Nearest(edge.SparseVector(vector.indices, vector.values), using=BM25)
    return edge.Query.Nearest([float(x) for x in vector], using=DENSE)
