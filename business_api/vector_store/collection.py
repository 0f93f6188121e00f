"""What a store does with points, in words that the embedded engine and the server share.

Knows nothing of tenants, generations or documents: that is `generations`.
"""

import uuid
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any, Protocol

import msgspec

DENSE = "dense"
BM25 = "bm25"
KEYWORDS = ("document", "language", "tags")
INTEGERS = ("since", "until", "date", "generation")
OF_SOME = ("language", "tags", "date")
"""Those of these fields that a document need not have."""
TENANT = "tenant"
NAMESPACE = uuid.UUID("0b5d6a1e-7c3f-5a44-9e0d-5f4f0c2f6b11")


class StoreLocked(OSError):
    """Another process holds the embedded index."""


class Missing(Exception):
    """The collection is not there (any more)."""


class Is(msgspec.Struct, frozen=True):
    """The payload field has this value."""

    key: str
    value: str


class OneOf(msgspec.Struct, frozen=True):
    """The payload field has one of these values."""

    key: str
    values: tuple[str, ...]


class AtMost(msgspec.Struct, frozen=True):
    """The payload field is a number <= `value`."""

    key: str
    value: int


class Above(msgspec.Struct, frozen=True):
    """The payload field is a number > `value`."""

    key: str
    value: int


class Itself(msgspec.Struct, frozen=True):
    """The point has this id, a UUID."""

    id: str


Condition = Is | OneOf | AtMost | Above | Itself
Where = tuple[Condition, ...]
"""All of the conditions hold."""


class Sparse(msgspec.Struct, frozen=True):
    """A sparse vector: term ids and their weights, equally long."""

    indices: list[int]
    values: list[float]


class NewPoint(msgspec.Struct, frozen=True):
    """A point to write; `id` is a UUID. Without vectors it can be read but not found."""

    id: str
    payload: dict[str, Any]
    dense: Sequence[float] | None = None
    bm25: Sparse | None = None


class Row(msgspec.Struct, frozen=True, gc=False):
    """A point as it was read; `id` is the UUID, or its number. The payload is empty when not asked for."""

    id: str | int
    payload: Mapping[str, Any]
    score: float = 0.0


Vector = Sequence[float] | Sparse
"""What is searched by: a dense vector or the words of a question."""


class Collection(Protocol):
    """One physical collection. Writes are in place when the call returns, each one atomic for a reader.

    Every call raises RetrievalUnavailable when the store cannot do it, and Missing when there is no such
    collection.
    """

    name: str
    fetches_apart: bool
    """Whether payloads that are known need not be read again: reading them costs more than a second call."""

    async def get(self, point: str) -> Mapping[str, Any] | None:
        """The payload of the point with this id."""

    async def nearest(
        self, vectors: Sequence[Vector], where: Where, *, corpus: Where, limit: int, fields: Sequence[str]
    ) -> list[list[Row]]:
        """For each vector the best points, best first, all in one call; equal scores in any order.

        `corpus` are the points among which a word's rarity is counted; without `fields` no payload is read.
        """

    async def fetch(self, ids: Sequence[str | int], fields: Sequence[str]) -> list[Row]:
        """The points with these ids, as far as they are there, with these payload fields, in any order."""

    def rows(self, where: Where, fields: Sequence[str]) -> AsyncIterator[Row]:
        """All points that match, with these payload fields, in any order, page by page."""

    async def count(self, where: Where) -> int:
        """How many points match, exactly."""

    async def values(self, key: str, where: Where, limit: int) -> list[str]:
        """The values that this keyword has in the points that match, those in most points first."""

    async def put(self, points: Sequence[NewPoint]) -> None:
        """Write or overwrite points."""

    async def change(self, where: Where, payload: Mapping[str, Any]) -> None:
        """Set these payload fields of all points that match, in one step."""

    async def delete(self, where: Where) -> None:
        """Delete all points that match."""

    async def sync(self) -> None:
        """Return when everything written so far survives a power cut."""

    async def aclose(self) -> None:
        """Give the store back."""
