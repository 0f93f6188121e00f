"""Builds the next version of a collection beside the live one, makes sure of it, and changes over.

What is stored is enough: a document is put together again from its chunks, cut and embedded as the settings
say now. Readers see the live version until the swap, and the new one after it; whatever breaks before leaves
the live one as it is, and the one before the swap stays for a rollback.
"""

import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from business_api.errors import InvalidRequest
from business_api.ingest.carrying import Carrier
from business_api.ingest.pipeline import ingest
from business_api.ingest.summary import Summary
from business_api.ingest.watching import Unwatched, Watch
from business_api.vector_store import Catalogue, StoreLocked, Version
from business_api.vector_store.collection import Collection

if TYPE_CHECKING:
    from business_api.embedding import Embedder


class Reindexed(msgspec.Struct, frozen=True, kw_only=True):
    """What a reindex did: the account of every document, how many questions were asked, what was dropped."""

    version: str
    before: str
    summary: Summary
    questions: int
    dropped: tuple[str, ...]


async def reindex(
    catalogue: Catalogue,
    embedder: "Embedder",
    *,
    tenant: str = "",
    paths: Sequence[Path] = (),
    watch: Watch | None = None,
) -> Reindexed:
    """Build the next version for all tenants, bring `tenant`'s up to date with the paths, check, swap.

    Raises InvalidRequest when there is nothing to reindex, Unsound when the new version does not hold or
    find what it should, StoreLocked when another reindex was first, RetrievalUnavailable. Nothing has
    changed for readers then.
    """
    started = time.perf_counter()
    live = await _live(catalogue)
    number = 1 + max(one.number for one in await catalogue.versions())
    fresh = await catalogue.make(number, embedder.name, embedder.dimension)
    carrier = Carrier(fresh, embedder, watch or Unwatched())
    try:
        async with catalogue.reading(live) as stored:
            await carrier.carry(stored)
        if paths:
            await ingest(paths, tenant=tenant, store=carrier.store, embedder=embedder, watch=watch)
        questions = await carrier.ask()
        await _change_over(catalogue, carrier, fresh, live)
    except BaseException:
        await fresh.aclose()
        if await catalogue.live() != fresh.name:
            await catalogue.drop(fresh.name)
        raise
    dropped = await _drop_what_is_left(catalogue)
    summary = carrier.summary(time.perf_counter() - started)
    return Reindexed(version=fresh.name, before=live, summary=summary, questions=questions, dropped=dropped)


async def _change_over(catalogue: Catalogue, carrier: Carrier, fresh: Collection, live: str) -> None:
    """Carry what was published since, and swap; nobody can publish until the swap is done."""
    async with catalogue.reading(live, alone=True) as stored:
        await carrier.carry(stored)
        await fresh.aclose()
        await catalogue.swap(fresh.name, live)


async def rollback(catalogue: Catalogue) -> Version:
    """Make the version before the live one live again, at once; doing it twice leads back.

    Raises InvalidRequest when there is none, StoreLocked when a reindex was first.
    """
    live = await _live(catalogue)
    before = next((one for one in await catalogue.versions() if one.standing == "previous"), None)
    if before is None:
        raise InvalidRequest(f"there is no version before {live}")
    await catalogue.swap(before.name, live)
    return before


async def _live(catalogue: Catalogue) -> str:
    live = await catalogue.live()
    if live is None:
        raise InvalidRequest(f"nothing has been ingested into {catalogue.collection!r} yet")
    return live


async def _drop_what_is_left(catalogue: Catalogue) -> tuple[str, ...]:
    """Drop the versions that are neither live nor previous, as far as nobody has them open."""
    dropped = []
    for version in await catalogue.versions():
        if version.standing == "unfinished":
            with suppress(StoreLocked):
                await catalogue.drop(version.name)
                dropped.append(version.name)
    return tuple(dropped)
