"""Finds the documents under the paths that were given, and names them. Reads no document.

A document's id is its path relative to the parent of the path given: `docs/guide.md` for anything called
`docs`, `README.md` for a file of that name, from whatever working directory. What a run may remove follows
from the same names: a stored document vanishes only if it lies under a folder given *now* (`docs/...`), is
no longer there, and the folder it lay in could be listed. A file given by itself removes nothing.
"""

import os
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import Literal

import msgspec

from business_api.errors import InvalidRequest

Kind = Literal["markdown", "text", "html", "pdf", "docx"]

KINDS: dict[str, Kind] = {
    ".md": "markdown",
    ".markdown": "markdown",
    ".mdx": "markdown",
    ".txt": "text",
    ".text": "text",
    ".rst": "text",
    ".html": "html",
    ".htm": "html",
    ".xhtml": "html",
    ".pdf": "pdf",
    ".docx": "docx",
}
"""What is read, by suffix (in lower case)."""

_NEVER_ENTERED = {"node_modules", "__pycache__"}


class DocumentFile(msgspec.Struct, frozen=True):
    """A file that is to become a document; `size` in bytes."""

    document: str
    path: Path
    kind: Kind
    size: int


class PassedOver(msgspec.Struct, frozen=True):
    """Something under the given paths that is not read, and why. `failed` if it should have been."""

    document: str
    path: Path
    reason: str
    failed: bool = False


class Found(msgspec.Struct, frozen=True):
    """Everything under the given paths. `scopes` are the ids of the folders given, each ending in `/`."""

    documents: tuple[DocumentFile, ...]
    passed_over: tuple[PassedOver, ...]
    scopes: tuple[str, ...]

    def vanished(self, stored: Collection[str]) -> list[str]:
        """Ids of the stored documents that lay under the given folders and are no longer there."""
        here = {file.document for file in self.documents}
        unseen = tuple(entry.document for entry in self.passed_over if entry.failed)
        return sorted(
            document
            for document in stored
            if document.startswith(self.scopes)
            and document not in here
            and not any(document == one or document.startswith(f"{one}/") for one in unseen)
        )


def find(paths: Sequence[Path]) -> Found:
    """List every document under the paths, in a stable order.

    Raises InvalidRequest when there is no path, one does not exist or cannot be listed, one lies inside
    another, or two would give the same ids.
    """
    roots = _roots(paths)
    documents: list[DocumentFile] = []
    passed_over: list[PassedOver] = []
    for root in roots:
        entries = _walk(root) if root.is_dir() else iter([_judge(root, root.name)])
        for entry in entries:
            (documents if isinstance(entry, DocumentFile) else passed_over).append(entry)  # type: ignore[arg-type]
    documents, twice = _without_links(documents)
    scopes = tuple(f"{root.name}/" for root in roots if root.is_dir())
    return Found(tuple(documents), tuple(passed_over + twice), scopes)


def _roots(paths: Sequence[Path]) -> list[Path]:
    if not paths:
        raise InvalidRequest("give at least one file or folder to ingest", param="paths")
    # abspath, not resolve: a folder is called what the caller calls it, link or not
    roots = list(dict.fromkeys(Path(os.path.abspath(path)) for path in paths))  # noqa: PTH100
    for root in roots:
        if not (root.is_dir() or root.is_file()):
            what = "is neither a file nor a folder" if root.exists() else "does not exist"
            raise InvalidRequest(f"{root} {what}; nothing was ingested", param="paths")
        if root.is_dir() and not os.access(root, os.R_OK | os.X_OK):
            raise InvalidRequest(f"{root} cannot be listed; nothing was ingested", param="paths")
    _refuse_overlaps(roots)
    return roots


def _refuse_overlaps(roots: Sequence[Path]) -> None:
    by_name: dict[str, Path] = {}
    for root in roots:
        above = next((other for other in roots if other in root.parents), None)
        if above:
            raise InvalidRequest(f"{root} lies inside {above}; give only one of them", param="paths")
        other = by_name.setdefault(root.name, root)
        if other != root:
            message = f"documents of {other} and {root} would have the same ids; rename one of them"
            raise InvalidRequest(message, param="paths")


def _walk(root: Path) -> Iterator[DocumentFile | PassedOver]:
    folders = [(root, root.name)]
    while folders:
        folder, name = folders.pop()
        try:
            entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
        except OSError:
            yield PassedOver(name, folder, "the folder cannot be listed", failed=True)
            continue
        below: list[tuple[Path, str]] = []
        for entry in entries:
            path, document = Path(entry.path), f"{name}/{entry.name}"
            if entry.is_dir(follow_symlinks=False) and not _reason_to_stay_out(entry.name):
                below.append((path, document))
            else:
                yield _entry(path, document, root)
        folders.extend(reversed(below))


def _entry(path: Path, document: str, root: Path) -> DocumentFile | PassedOver:
    """What to do with something found inside a folder that was given."""
    if path.is_symlink():
        target = Path(os.path.realpath(path))
        if not target.is_relative_to(os.path.realpath(root)):
            return PassedOver(document, path, "link out of the folder")
        if not target.is_file():
            return PassedOver(document, path, "link to a folder" if target.is_dir() else "broken link")
    if path.is_dir():
        return PassedOver(document, path, _reason_to_stay_out(path.name))
    if path.name.startswith("."):
        return PassedOver(document, path, "hidden file")
    return _judge(path, document)


def _reason_to_stay_out(name: str) -> str:
    return "hidden folder" if name.startswith(".") else f"{name} folder" if name in _NEVER_ENTERED else ""


def _judge(path: Path, document: str) -> DocumentFile | PassedOver:
    shown = document.encode(errors="backslashreplace").decode()
    if shown != document:
        return PassedOver(shown, path, "the file's name is not UTF-8", failed=True)
    kind = KINDS.get(path.suffix.lower())
    if kind is None:
        return PassedOver(document, path, f"unknown type {path.suffix}" if path.suffix else "no file type")
    try:
        if not path.is_file():
            return PassedOver(document, path, "not a regular file")
        return DocumentFile(document, path, kind, path.stat().st_size)
    except OSError:
        return PassedOver(document, path, "the file cannot be read", failed=True)


def _without_links(documents: Sequence[DocumentFile]) -> tuple[list[DocumentFile], list[PassedOver]]:
    """Drop links to files that are documents anyway: the same text twice only crowds the search."""
    real = {os.path.realpath(file.path): file for file in documents if not file.path.is_symlink()}
    kept, twice = [], []
    for file in documents:
        original = real.get(os.path.realpath(file.path))
        if original and original is not file and file.path.is_symlink():
            twice.append(PassedOver(file.document, file.path, f"link to {original.document}"))
        else:
            kept.append(file)
    return kept, twice
