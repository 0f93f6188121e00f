"""What is prepared from what: `sources.toml` as values, and digests to hold files against it."""

import hashlib
import tomllib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

SOURCES = Path(__file__).with_name("sources.toml")
PIECE_BYTES = 4 * 1024 * 1024

Advance = Callable[[float], None]
"""Called with the share (0 to 1) of the work that was done since the last call."""


class PrepareError(Exception):
    """The files cannot be prepared; the text says what to do about it."""


@dataclass(frozen=True)
class Target:
    """One folder to make. `inputs` and `outputs` map relative paths to sha256 digests (hex)."""

    folder: str
    recipe: str
    licence: str
    on_request: bool
    inputs: Mapping[str, str]
    outputs: Mapping[str, str]


def targets(path: Path = SOURCES) -> Iterator[Target]:
    """The targets of a sources file, in its order."""
    for folder, table in tomllib.loads(path.read_text()).items():
        yield Target(
            folder=folder,
            recipe=table["recipe"],
            licence=table["licence"],
            on_request=table.get("on_request", False),
            inputs=table["inputs"],
            outputs=table["outputs"],
        )


def sha256(path: Path) -> str:
    """Hex digest of a file's content."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while piece := file.read(PIECE_BYTES):
            digest.update(piece)
    return digest.hexdigest()


def check(folder: Path, pinned: Mapping[str, str], advice: str) -> None:
    """Hold every file against its digest. Raises PrepareError that names the file, ending in `advice`."""
    for name, expected in pinned.items():
        path = folder / name
        if not path.is_file():
            raise PrepareError(f"{path} is missing; {advice}")
        found = sha256(path)
        if found != expected:
            raise PrepareError(f"{path} has the wrong digest {found}, not {expected}; {advice}")
