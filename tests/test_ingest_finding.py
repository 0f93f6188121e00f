import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from business_api.errors import InvalidRequest
from business_api.ingest.finding import find


def write(root: Path, *names: str, content: bytes = b"text") -> Path:
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return root


def ids(*paths: Path) -> list[str]:
    return [file.document for file in find(paths).documents]


def reasons(*paths: Path) -> dict[str, str]:
    return {entry.document: entry.reason for entry in find(paths).passed_over}


def test_ids_are_the_same_from_any_working_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    docs = write(tmp_path / "docs", "b.md", "a/x.md", "a/z/y.MD")
    expected = ["docs/b.md", "docs/a/x.md", "docs/a/z/y.MD"]
    assert sorted(ids(docs)) == sorted(expected)
    monkeypatch.chdir(tmp_path)
    assert ids(Path("docs")) == ids(Path("docs/")) == ids(docs, Path("docs"))
    monkeypatch.chdir(docs)
    assert ids(Path()) == ids(Path("../docs")) == ids(docs)
    assert ids(Path("b.md")) == ["b.md"]


def test_only_documents_are_read_and_all_else_is_named_with_a_reason(tmp_path: Path) -> None:
    docs = write(
        tmp_path / "docs",
        "a.md", "b.exe", "noext", ".hidden.md", ".git/x.md", "node_modules/x.md", "in/__pycache__/x.md",
    )  # fmt: skip
    os.mkfifo(docs / "pipe.txt")
    assert ids(docs) == ["docs/a.md"]
    assert reasons(docs) == {
        "docs/b.exe": "unknown type .exe",
        "docs/noext": "no file type",
        "docs/.hidden.md": "hidden file",
        "docs/.git": "hidden folder",
        "docs/node_modules": "node_modules folder",
        "docs/in/__pycache__": "__pycache__ folder",
        "docs/pipe.txt": "not a regular file",
    }


def test_links_are_followed_inside_the_folder_only(tmp_path: Path) -> None:
    write(tmp_path, "secret.md", "other/x.md")
    docs = write(tmp_path / "docs", "a.md", ".data/config.md")
    (docs / "out.md").symlink_to(tmp_path / "secret.md")
    (docs / "up").symlink_to(tmp_path / "other")
    (docs / "loop").symlink_to(docs)
    (docs / "broken.md").symlink_to(docs / "gone.md")
    (docs / "again.md").symlink_to("a.md")
    (docs / "config.md").symlink_to(".data/config.md")
    assert sorted(ids(docs)) == ["docs/a.md", "docs/config.md"]
    assert reasons(docs) == {
        "docs/.data": "hidden folder",
        "docs/out.md": "link out of the folder",
        "docs/up": "link out of the folder",
        "docs/loop": "link to a folder",
        "docs/broken.md": "broken link",
        "docs/again.md": "link to docs/a.md",
    }


def test_a_folder_given_as_a_link_is_called_what_the_caller_calls_it(tmp_path: Path) -> None:
    write(tmp_path / "docs-v2", "a.md")
    (tmp_path / "docs").symlink_to("docs-v2")
    assert ids(tmp_path / "docs") == ["docs/a.md"]


def test_paths_that_cannot_be_ingested_are_refused_before_any_work(tmp_path: Path) -> None:
    write(tmp_path, "a/docs/x.md", "b/docs/x.md", "a/x.md", "b/x.md")
    os.mkfifo(tmp_path / "pipe")
    refused = {
        (): "at least one",
        (tmp_path / "gone",): "does not exist",
        (tmp_path / "pipe",): "neither a file nor a folder",
        (tmp_path / "a/docs", tmp_path / "b/docs"): "same ids",
        (tmp_path / "a/x.md", tmp_path / "b/x.md"): "same ids",
        (tmp_path / "a/docs/x.md", tmp_path / "a"): "inside",
    }
    for paths, message in refused.items():
        with pytest.raises(InvalidRequest, match=message) as refusal:
            find(paths)
        assert refusal.value.param == "paths"


def test_a_file_name_that_is_not_utf8_is_reported(tmp_path: Path) -> None:
    write(tmp_path / "docs", os.fsdecode(b"caf\xe9.md"))
    [entry] = find([tmp_path / "docs"]).passed_over
    assert entry.failed
    assert entry.document == "docs/caf\\udce9.md"


def test_only_what_lay_under_the_folders_given_now_vanishes(tmp_path: Path) -> None:
    write(tmp_path, "docs/a.md", "README.md")
    found = find([tmp_path / "docs", tmp_path / "README.md"])
    stored = ["docs/a.md", "docs/gone.md", "docs-old/x.md", "README.md", "README.md/x.md", "other/y.md"]
    assert found.vanished(stored) == ["docs/gone.md"]


@pytest.fixture
def deep(tmp_path: Path) -> Iterator[Path]:
    """A folder so deep that its path is too long to be listed, even by root."""
    docs = write(tmp_path / "docs", "a.md")
    here = os.getcwd()  # noqa: PTH109
    os.chdir(docs)
    for _ in range(25):
        Path("d" * 200).mkdir()
        os.chdir("d" * 200)
    os.chdir(here)
    yield docs
    # too deep for shutil as well: taken apart from above
    while (docs / ("d" * 200)).exists():
        below = docs / ("d" * 200) / ("d" * 200)
        if below.exists():
            below.rename(docs / "next")
        (docs / ("d" * 200)).rmdir()
        if (docs / "next").exists():
            (docs / "next").rename(docs / ("d" * 200))


def test_nothing_vanishes_from_a_folder_that_cannot_be_listed(deep: Path) -> None:
    found = find([deep])
    [unlisted] = found.passed_over
    assert unlisted.failed
    assert found.vanished([f"{unlisted.document}/x.md", "docs/gone.md", "docs/a.md"]) == ["docs/gone.md"]
