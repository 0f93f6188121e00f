"""Files beside the embedded index: who has it, who may write, what it was made with."""

import asyncio
import fcntl
import json
import os
import shutil
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path
from tempfile import mkdtemp
from typing import IO, Any

from business_api.vector_store.collection import StoreLocked

POLL = 0.005
"""Seconds between two looks at a lock that somebody else has."""


def lock_of(folder: Path) -> IO[str]:
    """An open file that keeps other processes out until it is closed, however this process ends."""
    file = (folder / "lock").open("a+")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as exc:
        file.seek(0)
        holder = file.read().strip() or "unknown"
        file.close()
        raise StoreLocked(
            f"the index in {folder} is in use by another process (id {holder}): stop it first (a running "
            "`business-api serve` or `ingest`), or let several processes share a Qdrant server with "
            "BUSINESS_API_STORE__URL"
        ) from exc
    file.truncate(0)
    file.write(f"{os.getpid()}\n")
    file.flush()
    return file


@asynccontextmanager
async def writing(file: IO[str]) -> AsyncIterator[None]:
    """Nobody copies the folder of this file inside; one at a time for each open file."""
    async with _flocked(file, fcntl.LOCK_SH):
        yield


@asynccontextmanager
async def unwritten(folder: Path) -> AsyncIterator[None]:
    """Nobody writes into the folder inside."""
    with (folder / "writes").open("a") as file:
        async with _flocked(file, fcntl.LOCK_EX):
            yield


@contextmanager
def scratch(root: Path, prefix: str) -> Iterator[Path]:
    """An empty folder that is gone at the end; those that killed processes have left go, too."""
    for left in root.glob(f"{prefix}*"):
        with suppress(FileNotFoundError), _opened(left) as folder:
            if _taken(folder, fcntl.LOCK_EX):
                shutil.rmtree(left, ignore_errors=True)
    made = Path(mkdtemp(prefix=prefix, dir=root))
    with _opened(made) as folder:
        _taken(folder, fcntl.LOCK_EX)
        try:
            yield made
        finally:
            shutil.rmtree(made, ignore_errors=True)


@contextmanager
def _opened(folder: Path) -> Iterator[int]:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


@asynccontextmanager
async def _flocked(file: IO[str], kind: int) -> AsyncIterator[None]:
    while not _taken(file, kind):  # noqa: ASYNC110 - what is waited for is another process
        await asyncio.sleep(POLL)
    try:
        yield
    finally:
        fcntl.flock(file, fcntl.LOCK_UN)


def _taken(file: IO[str] | int, kind: int) -> bool:
    try:
        fcntl.flock(file, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def made_with(folder: Path) -> dict[str, Any]:
    """What the index was made with; empty when its making never finished."""
    return read(folder / "index.json")


def read(file: Path) -> dict[str, Any]:
    """The content of a file; empty when there is none."""
    try:
        content: dict[str, Any] = json.loads(file.read_text())
    except FileNotFoundError:
        return {}
    return content


def write(file: Path, content: Mapping[str, Any]) -> None:
    """Put this in the place of the file, whole or not at all, and on the disk."""
    fresh = file.with_suffix(".new")
    with fresh.open("w") as out:
        json.dump(content, out)
        out.flush()
        os.fsync(out.fileno())
    fresh.replace(file)
