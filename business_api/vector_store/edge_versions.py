"""The versions of an embedded collection: folders beside each other, and a file that names the live one."""

import asyncio
import shutil
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

from business_api.vector_store.collection import Collection, Missing, StoreLocked
from business_api.vector_store.edge import EdgeCollection
from business_api.vector_store.edge_files import lock_of, made_with, read, scratch, unwritten, write
from business_api.vector_store.versions import Version, number_of, physical_name, version_of


class EdgeCatalogue:
    """A Catalogue in the folder `root`; `root/<collection>.json` names what is live and what was before."""

    patience = 0.0

    def __init__(self, root: Path, collection: str) -> None:
        physical_name(collection, 1, "")
        self.collection = collection
        self._root = root
        self._pointer = root / f"{collection}.json"
        self._seen: tuple[tuple[int, int], str | None] | None = None

    async def live(self) -> str | None:
        """The physical name of the live version; read again only when the file is another one."""
        try:
            found = self._pointer.stat()
        except FileNotFoundError:
            return None
        mark = (found.st_mtime_ns, found.st_ino)
        if self._seen is None or self._seen[0] != mark:
            self._seen = (mark, read(self._pointer).get("collection"))
        return self._seen[1]

    async def version(self, name: str) -> Version | None:
        """What is known of a version; None when there is none of this name."""
        kept, named = made_with(self._root / name), read(self._pointer)
        if not kept:
            return None
        return version_of(self.collection, name, kept, named.get("collection"), named.get("previous"))

    async def versions(self) -> list[Version]:
        """All that are there, by number."""
        names = [folder.name for folder in self._root.glob(f"{self.collection}__v*")]
        known = [await self.version(name) for name in names if number_of(self.collection, name)]
        return sorted((one for one in known if one is not None), key=lambda one: one.number)

    async def open(self, name: str) -> Collection:
        """Open a version. Raises StoreLocked, OSError."""
        if not made_with(self._root / name):
            raise FileNotFoundError(
                f"there is no index in {self._root / name}: put that folder back, or delete {self._pointer} "
                "and ingest again"
            )
        return EdgeCollection.open(self._root / name)

    async def make(self, number: int, model: str, dimension: int) -> Collection:
        """Make an empty version that is not live; one whose making was interrupted is completed."""
        folder = self._root / physical_name(self.collection, number, model)
        return EdgeCollection.make(folder, model, dimension, time.time())

    @asynccontextmanager
    async def reading(self, name: str, *, alone: bool = False) -> AsyncIterator[Collection]:
        """A copy of the version, taken while nobody writes: another process may have it open.

        The engine opens the copy as it opens what a killed process left. With `alone` writers wait until the
        end, and find then that the version they write is not live any more.
        """
        folder = self._root / name
        if not made_with(folder):
            raise Missing(name)
        async with AsyncExitStack() as opened:
            copy = opened.enter_context(scratch(self._root, f".{self.collection}."))
            async with AsyncExitStack() as still:
                await still.enter_async_context(unwritten(folder))
                await asyncio.to_thread(shutil.copytree, folder, copy / name)
                if alone:
                    opened.push_async_exit(still.pop_all())
            points = EdgeCollection.open(copy / name)
            opened.push_async_callback(points.aclose)
            yield points

    async def swap(self, name: str, before: str | None) -> None:
        """Make this version live, in one atomic step. Raises StoreLocked when another swap was first."""
        named = read(self._pointer)
        if named.get("collection") != before:
            raise StoreLocked(f"{self.collection!r} was changed over meanwhile: run it again")
        write(self._pointer, {"collection": name, "previous": before})

    async def drop(self, name: str) -> None:
        """Delete a version. Raises StoreLocked when another process has it."""
        folder = self._root / name
        lock = lock_of(folder)
        try:
            # without this file it counts as never finished, whatever happens to the rest
            (folder / "index.json").unlink(missing_ok=True)
            await asyncio.to_thread(shutil.rmtree, folder, ignore_errors=True)
        finally:
            lock.close()

    async def aclose(self) -> None:
        """Nothing is open."""
