"""Who owns which segments of the spool: a lock file for each process, locked as long as it lives."""

import fcntl
import os
import secrets
from dataclasses import dataclass
from pathlib import Path

_LOCK, _SEGMENT = ".lock", ".segment"


@dataclass(frozen=True)
class Claim:
    """The right to the segments of one owner, dead or ourselves. The kernel ends it with the process."""

    folder: Path
    owner: str
    file: int

    def segment(self, number: int) -> Path:
        """Where this owner's segment of this number lies."""
        return self.folder / f"{self.owner}.{number:08d}{_SEGMENT}"

    def segments(self) -> list[Path]:
        """This owner's segments, oldest first."""
        return sorted(self.folder.glob(f"{self.owner}.*{_SEGMENT}"))

    def release(self) -> None:
        """Let others have what is left; nothing of the owner stays when there is nothing left."""
        if not self.segments():
            (self.folder / (self.owner + _LOCK)).unlink(missing_ok=True)
        os.close(self.file)


def claim(folder: Path) -> Claim:
    """A claim of our own, under a name that nobody had before. Raises OSError."""
    while True:
        owner = f"{os.getpid()}-{secrets.token_hex(4)}"
        held = _try(folder, owner)
        if held is None:
            continue
        if _still_there(held):
            return held
        os.close(held.file)


def adopt(folder: Path) -> list[Claim]:
    """Claims to all that dead processes left, in the order in which these began to write."""
    owners = {path.name.partition(".")[0] for path in folder.iterdir() if path.suffix in (_LOCK, _SEGMENT)}
    held = [found for owner in owners if (found := _try(folder, owner))]
    for empty in [found for found in held if not found.segments()]:
        empty.release()
        held.remove(empty)
    return sorted(held, key=lambda found: found.segments()[0].stat().st_mtime)


def _try(folder: Path, owner: str) -> Claim | None:
    file = os.open(folder / (owner + _LOCK), os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(file)
        return None
    return Claim(folder, owner, file)


def _still_there(held: Claim) -> bool:
    """Whether no starting process took our fresh lock file for a dead one's and removed it."""
    try:
        return (held.folder / (held.owner + _LOCK)).stat().st_ino == os.fstat(held.file).st_ino
    except FileNotFoundError:
        return False
