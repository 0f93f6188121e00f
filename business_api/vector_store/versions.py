"""Versions of a collection: physical collections beside each other, of which one is live.

`kb` is a name; `kb__v2_all-minilm-l6-v2` is its second version. A swap makes another version live, in one
atomic step, and keeps the one before as `previous`. What is neither live nor previous was never finished, or
is not needed any more.
"""

import re
from collections.abc import Mapping
from contextlib import AbstractAsyncContextManager
from typing import Any, Literal, Protocol

import msgspec

from business_api.vector_store.collection import Collection

Standing = Literal["live", "previous", "unfinished"]


class IndexMismatch(ValueError):
    """The collection was indexed with another embedding model than the settings name."""


class Version(msgspec.Struct, frozen=True, kw_only=True):
    """One physical collection; `made_at` in seconds since the epoch, 0.0 when it is not known."""

    name: str
    number: int
    model: str
    dimension: int
    made_at: float
    standing: Standing


class Catalogue(Protocol):
    """All versions of one collection.

    Every call raises RetrievalUnavailable when the store cannot do it. `patience` is how long, in seconds,
    a reader may go on with the version it holds before it asks which one is live.
    """

    collection: str
    patience: float

    async def live(self) -> str | None:
        """The physical name of the live version; None before there is one."""

    async def version(self, name: str) -> Version | None:
        """What is known of a version; None when there is none of this name."""

    async def versions(self) -> list[Version]:
        """All that are there, by number."""

    async def open(self, name: str) -> Collection:
        """Open a version. Raises StoreLocked when another process has it, OSError when it cannot be read."""

    async def make(self, number: int, model: str, dimension: int) -> Collection:
        """Make an empty version that is not live; one whose making was interrupted is completed."""

    def reading(self, name: str, *, alone: bool = False) -> AbstractAsyncContextManager[Collection]:
        """A version to read from, whoever else has it open. Raises Missing.

        `alone`: what writers elsewhere publish meanwhile fails and does not show.
        """

    async def swap(self, name: str, before: str | None) -> None:
        """Make this version live and the one that was it `previous`.

        Raises StoreLocked when `before` is not the live one any more.
        """

    async def drop(self, name: str) -> None:
        """Delete a version. Raises StoreLocked when another process has it."""

    async def aclose(self) -> None:
        """Give back what the catalogue itself holds."""


def physical_name(collection: str, number: int, model: str) -> str:
    """`kb`, 1 and `all-MiniLM-L6-v2` -> `kb__v1_all-minilm-l6-v2`. Raises ValueError for an unusable name."""
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}", collection):
        raise ValueError(f"collection {collection[:80]!r}: use up to 64 letters, digits, '_' and '-'")
    return f"{collection}__v{number}_{re.sub(r'[^a-z0-9.]+', '-', model.lower()).strip('-.')[:100]}"


def number_of(collection: str, name: str) -> int | None:
    """2 for `kb__v2_all-minilm-l6-v2`; None when that is no version of this collection."""
    found = re.fullmatch(rf"{re.escape(collection)}__v(\d+)_[a-z0-9.-]*", name)
    return int(found[1]) if found else None


def version_of(
    collection: str, name: str, kept: Mapping[str, Any], live: str | None, previous: str | None
) -> Version:
    """The version with what was kept with it when it was made."""
    return Version(
        name=name,
        number=number_of(collection, name) or 0,
        model=str(kept.get("model")),
        dimension=int(kept.get("dimension") or 0),
        made_at=float(kept.get("made_at") or 0.0),
        standing="live" if name == live else "previous" if name == previous else "unfinished",
    )


async def open_live(catalogue: Catalogue, model: str, dimension: int, *, create: bool) -> Collection | None:
    """Open the live version; the first one is made if `create`, else None says that there is none.

    Raises IndexMismatch when it was made by another model, and all that `Catalogue.open` raises.
    """
    name = await catalogue.live()
    if name is None and not create:
        return None
    if name is None:
        made = await catalogue.make(1, model, dimension)
        await catalogue.swap(made.name, None)
        return made
    kept = await catalogue.version(name)
    if kept is not None:
        check_model(catalogue.collection, kept, model, dimension)
    return await catalogue.open(name)


def check_model(collection: str, kept: Version, model: str, dimension: int) -> None:
    """Raise IndexMismatch unless the version was made by this model; dimension 0 is not compared."""
    if kept.model == model and dimension in (0, kept.dimension):
        return
    raise IndexMismatch(
        f"collection {collection!r} was indexed with the embedding model {kept.model!r} "
        f"({kept.dimension} dimensions), the settings say {model!r}"
        f"{f' ({dimension} dimensions)' if dimension else ''}: "
        f"run business-api reindex --collection {collection} to build its next version with these settings, "
        "or set BUSINESS_API_EMBEDDING__MODEL back"
    )
