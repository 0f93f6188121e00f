"""Commands that show and change what is indexed, while another process has it open where that is promised."""

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from business_api.cli import cli
from business_api.ingest.reindexing import reindex
from business_api.vector_store.edge_files import lock_of
from tests.places import embedded, ingest
from tests.samples.embedder import SampleEmbedder


@pytest.fixture
def var(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A `var` whose index has two versions of two documents."""

    async def prepared() -> None:
        async with embedded(tmp_path / "index") as open_:
            store = await open_()
            await ingest(store, {"a.md": "one text", "b.md": "another text"}, tenant="default")
            await store.aclose()
            await reindex(open_.catalogue("kb"), SampleEmbedder())

    asyncio.run(prepared())
    monkeypatch.setenv("BUSINESS_API_VAR", str(tmp_path))
    return tmp_path


@pytest.fixture
def serving(var: Path) -> Iterator[None]:
    """Another process has the live version open."""
    with lock_of(var / "index" / "kb__v2_letters"):
        yield


def call(*arguments: str) -> Result:
    return CliRunner().invoke(cli, arguments)


@pytest.mark.usefixtures("serving")
def test_documents_and_versions_are_listed_while_a_service_runs(var: Path) -> None:
    documents = json.loads(call("documents", "--json").stdout)
    assert [(one["document"], one["chunks"]) for one in documents] == [("a.md", 1), ("b.md", 1)]
    versions = json.loads(call("versions", "--json").stdout)
    assert [(one["name"], one["standing"], one["chunks"]) for one in versions] == [
        ("kb__v1_letters", "previous", 2),
        ("kb__v2_letters", "live", 2),
    ]
    assert "live" in call("versions").stdout


def test_what_is_removed_is_listed_no_more_nor_after_a_rollback(var: Path) -> None:
    assert call("remove", "a.md").exit_code == 0
    assert [one["document"] for one in json.loads(call("documents", "--json").stdout)] == ["b.md"]
    done = call("rollback")
    assert "kb__v1_letters is live now" in done.stderr
    assert "BUSINESS_API_EMBEDDING__MODEL=letters" in done.stderr
    assert [one["document"] for one in json.loads(call("documents", "--json").stdout)] == ["b.md"]


@pytest.mark.usefixtures("serving")
def test_a_removal_is_refused_with_what_to_do_while_a_service_has_the_index(var: Path) -> None:
    done = call("remove", "a.md")
    assert (done.exit_code, "stop it first" in done.stderr) == (1, True)


def test_what_is_not_there_is_said_in_a_line(var: Path) -> None:
    for arguments, code, said in [
        (("remove", "c.md"), 2, "no such document: c.md"),
        (("rollback", "--collection", "none"), 2, "nothing has been ingested into 'none'"),
        (("reindex", "no/such/folder"), 2, "no such file or folder"),
        (("documents", "--collection", "none"), 0, "nothing is ingested into 'none'"),
    ]:
        done = call(*arguments)
        assert (done.exit_code, said in done.stderr) == (code, True), done.stderr
