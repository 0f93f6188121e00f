"""Holds the live version of a collection open, and changes over to the next one when there is one."""

import asyncio
import logging
import time
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Protocol

from business_api.errors import RetrievalUnavailable
from business_api.vector_store.collection import Collection, Missing
from business_api.vector_store.versions import Catalogue, IndexMismatch, open_live

_log = logging.getLogger(__name__)


class Lender(Protocol):
    """Lends a collection out; what is lent stays open until it is given back."""

    def lent(self, *, newest: bool = False) -> AbstractAsyncContextManager[Collection | None]:
        """The collection, None when there is none; `newest`: not one that was live a moment ago."""

    async def is_live(self, name: str) -> bool:
        """Whether this is the version that readers elsewhere get now, too."""

    async def aclose(self) -> None:
        """Close the collection."""


class Pinned:
    """Lends one collection, whatever is live."""

    def __init__(self, points: Collection) -> None:
        self._points = points

    @asynccontextmanager
    async def lent(self, *, newest: bool = False) -> AsyncIterator[Collection]:
        """The collection."""
        yield self._points

    async def is_live(self, name: str) -> bool:
        """Always: there is no other."""
        return True

    async def aclose(self) -> None:
        """Close the collection."""
        await self._points.aclose()


class _Held:
    """An open version and how many are at it."""

    def __init__(self, points: Collection) -> None:
        self.points = points
        self.users = 0


class Following:
    """Lends the live version of a collection that was made by `model`; `dimension` 0 is not compared.

    After a swap the next caller gets the new version, and the old one is closed when the last who was at it
    has given it back. A new version that cannot be used here, because another model made it, is left alone.
    """

    def __init__(self, catalogue: Catalogue, *, model: str, dimension: int, create: bool) -> None:
        self.catalogue = catalogue
        self._made_by = (model, dimension)
        self._create = create
        self._held: _Held | None = None
        self._looked_at = 0.0
        self._turn = asyncio.Lock()
        self._left_alone: str | None = None

    async def connect(self) -> bool:
        """Open the live version; whether there is one.

        Raises StoreLocked, IndexMismatch, OSError, RetrievalUnavailable.
        """
        async with self._turn:
            return await self._open() is not None

    @asynccontextmanager
    async def lent(self, *, newest: bool = False) -> AsyncIterator[Collection | None]:
        """The live version, None while there is none. Raises RetrievalUnavailable when it cannot be used."""
        held = await self._current(newest=newest)
        if held is None:
            yield None
            return
        held.users += 1
        try:
            yield held.points
        except Missing:
            if self._held is held:
                self._held = None
            raise
        finally:
            held.users -= 1
            if held is not self._held and not held.users:
                await held.points.aclose()

    async def is_live(self, name: str) -> bool:
        """Whether nothing was swapped away from it. Raises RetrievalUnavailable."""
        return await self.catalogue.live() == name

    async def aclose(self) -> None:
        """Close what is open."""
        if self._held is not None:
            await self._held.points.aclose()
        await self.catalogue.aclose()

    async def _current(self, *, newest: bool) -> _Held | None:
        held, age = self._held, time.monotonic() - self._looked_at
        if held is not None and not newest and age < self.catalogue.patience:
            return held
        try:
            live = await self.catalogue.live() if held is not None else None
            if held is not None and live in (held.points.name, self._left_alone, None):
                self._looked_at = time.monotonic()
                return held
            async with self._turn:
                return await (self._open() if self._held is None else self._changed(self._held, live))
        except Missing:
            return None
        except RetrievalUnavailable:
            if held is None or newest:
                raise
            return held
        except (OSError, IndexMismatch) as exc:
            name = self.catalogue.collection
            raise RetrievalUnavailable(f"the index of {name!r} cannot be opened") from exc

    async def _open(self) -> _Held | None:
        if self._held is None:
            model, dimension = self._made_by
            points = await open_live(self.catalogue, model, dimension, create=self._create)
            self._held = _Held(points) if points is not None else None
            self._looked_at = time.monotonic()
        return self._held

    async def _changed(self, held: _Held, live: str | None) -> _Held:
        """The version that is live now, if it can be used here; else the one that is held."""
        if live in (None, held.points.name):
            return held
        try:
            points = await open_live(self.catalogue, *self._made_by, create=False)
        except IndexMismatch as exc:
            _log.warning("%s stays in use here: %s", held.points.name, exc)
            self._left_alone = live
            return held
        except OSError as exc:
            _log.warning("%s stays in use for now: %s", held.points.name, exc)
            return held
        if points is None:
            return held
        self._held = _Held(points)
        self._looked_at = time.monotonic()
        if not held.users:
            await held.points.aclose()
        _log.warning("questions are answered from %s now, no longer from %s", points.name, held.points.name)
        return self._held


@asynccontextmanager
async def glanced(
    lender: Lender, collection: str, *, newest: bool = False
) -> AsyncIterator[Collection | None]:
    """What the lender lends, None when there is nothing. Raises RetrievalUnavailable when it vanishes."""
    try:
        async with lender.lent(newest=newest) as points:
            yield points
    except Missing as exc:
        raise RetrievalUnavailable(f"the collection {collection!r} has just vanished") from exc


@asynccontextmanager
async def borrowed(lender: Lender, collection: str, *, newest: bool = False) -> AsyncIterator[Collection]:
    """What the lender lends. Raises RetrievalUnavailable when there is nothing, or not any more."""
    async with glanced(lender, collection, newest=newest) as points:
        if points is None:
            raise RetrievalUnavailable(
                f"nothing has been ingested into {collection!r} yet: "
                f"run business-api ingest --collection {collection} PATH"
            )
        yield points
