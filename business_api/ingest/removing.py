"""Removes single documents from a collection, for good."""

import asyncio
from collections.abc import Sequence

from business_api.errors import InvalidRequest
from business_api.vector_store import Catalogue, Generations
from business_api.vector_store.following import Pinned


async def remove(
    catalogue: Catalogue, documents: Sequence[str], *, tenant: str, grace: float
) -> dict[str, int]:
    """Remove the documents from the live version and from the one before; chunks that each had, by id.

    The next question does not find them; they are deleted `grace` seconds later, when no reader elsewhere can
    be at them any more. A rollback does not bring them back. Raises
    InvalidRequest, before anything is done, for a document that is not there.
    """
    removed: dict[str, int] = {}
    kept = sorted(
        (one for one in await catalogue.versions() if one.standing != "unfinished"),
        key=lambda one: one.standing,
    )
    for version in kept:
        points = await catalogue.open(version.name)
        store = Generations(catalogue.collection, Pinned(points), grace=grace)
        try:
            there = await store.documents(tenant)
            if version.standing == "live":
                unknown = [one for one in documents if one not in there]
                if unknown:
                    raise InvalidRequest(f"no such document: {', '.join(unknown)}")
                removed = {one: there[one].chunks for one in documents}
            generation = await store.begin(tenant)
            await store.retire(tenant, generation, documents)
            await store.publish(tenant, generation)
            if grace:
                await asyncio.sleep(grace)
            await store.vacuum(tenant)
        finally:
            await points.aclose()
    return removed
