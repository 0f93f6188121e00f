"""Where chunks and their vectors are kept: embedded in this process, or on a Qdrant server."""

from business_api.vector_store.collection import StoreLocked
from business_api.vector_store.generations import Generations
from business_api.vector_store.opening import open_catalogue, open_store, reading
from business_api.vector_store.points import ForeignHit
from business_api.vector_store.protocol import EVERYTHING, Hits, Point, StoredDocument, VectorStore, Wording
from business_api.vector_store.versions import Catalogue, IndexMismatch, Version

__all__ = [
    "EVERYTHING",
    "Catalogue",
    "ForeignHit",
    "Generations",
    "Hits",
    "IndexMismatch",
    "Point",
    "StoreLocked",
    "StoredDocument",
    "VectorStore",
    "Version",
    "Wording",
    "open_catalogue",
    "open_store",
    "reading",
]
