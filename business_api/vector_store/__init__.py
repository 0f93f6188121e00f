"""Where chunks and their vectors are kept: embedded in this process, or on a Qdrant server."""

from business_api.vector_store.collection import IndexMismatch, StoreLocked
from business_api.vector_store.generations import Generations
from business_api.vector_store.opening import open_store
from business_api.vector_store.points import ForeignHit
from business_api.vector_store.protocol import EVERYTHING, Hits, Point, StoredDocument, VectorStore, Wording

__all__ = [
    "EVERYTHING",
    "ForeignHit",
    "Generations",
    "Hits",
    "IndexMismatch",
    "Point",
    "StoreLocked",
    "StoredDocument",
    "VectorStore",
    "Wording",
    "open_store",
]
