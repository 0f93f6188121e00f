"""What is true of the embedded index only: one process at a time, and nothing lost when that is killed."""

import asyncio
import os
import signal
import sys
from asyncio.subprocess import PIPE, Process
from pathlib import Path

import msgspec
import pytest

from business_api.passages import About
from business_api.settings import Settings
from business_api.vector_store import ForeignHit, StoreLocked, open_catalogue, open_store, reading
from business_api.vector_store.collection import Row
from business_api.vector_store.points import chunk_point, visible_chunks
from tests.places import chunk, embedded, ingest, points
from tests.vector_store_fixtures import find, found

ROOT = Path(__file__).resolve().parent.parent

WRITES_FOREVER = """
import asyncio, sys
from pathlib import Path
from tests.places import embedded, ingest

async def main() -> None:
    async with embedded(Path(sys.argv[1])) as open_:
        store = await open_()
        version = len(await store.documents("versions"))
        while True:
            version += 1
            texts = {f"{number}.md": f"version {version} of {number}" for number in range(40)}
            await ingest(store, texts, content_hash=str(version))
            await ingest(store, {f"{version}.md": "seen"}, tenant="versions")
            print(version, flush=True)

asyncio.run(main())
"""


async def writer(folder: Path) -> Process:
    """A process that ingests one version after the other, and says each that is published."""
    return await asyncio.create_subprocess_exec(
        sys.executable, "-c", WRITES_FOREVER, str(folder), stdout=PIPE, cwd=ROOT
    )


async def heard(process: Process) -> int:
    assert process.stdout is not None
    return int(await process.stdout.readline())


async def killed(process: Process) -> int:
    """The last version that the process said, after it was killed."""
    process.send_signal(signal.SIGKILL)
    assert process.stdout is not None
    said = (await process.stdout.read()).split(b"\n")[:-1]
    await process.wait()
    return int(said[-1]) if said else 0


async def test_a_killed_writer_loses_nothing_it_published_and_leaves_nothing_half(tmp_path: Path) -> None:
    published = 0
    for wait in (0.05, 0.11, 0.0):
        process = await writer(tmp_path)
        published = max(await heard(process), await heard(process))
        await asyncio.sleep(wait)
        published = max(published, await killed(process))

        async with embedded(tmp_path) as open_:
            store = await open_()
            documents = await store.documents("acme")
            versions = {document.content_hash for document in documents.values()}
            assert len(documents) == await store.count("acme") == 40
            assert len(versions) == 1
            assert int(versions.pop()) - published in (0, 1)
            await ingest(store, {"0.md": "goes on"}, content_hash="x")
            assert await store.count("acme") == 40
            await store.aclose()


async def test_a_second_process_is_told_who_has_the_index_and_what_to_do(tmp_path: Path) -> None:
    process = await writer(tmp_path)
    await heard(process)
    try:
        async with embedded(tmp_path) as open_:
            with pytest.raises(StoreLocked, match="BUSINESS_API_STORE__URL") as caught:
                await open_()
    finally:
        await killed(process)
    assert str(tmp_path / "kb__v1_letters") in str(caught.value)
    assert f"id {process.pid}" in str(caught.value)


async def test_the_folder_is_free_again_after_closing(tmp_path: Path) -> None:
    async with embedded(tmp_path) as open_:
        first = await open_()
        with pytest.raises(StoreLocked, match=f"id {os.getpid()}"):
            await open_()
        await first.aclose()
        await (await open_()).aclose()


async def test_an_index_whose_making_was_interrupted_is_made_again(tmp_path: Path) -> None:
    async with embedded(tmp_path) as open_:
        await (await open_()).aclose()
        (tmp_path / "kb__v1_letters" / "index.json").unlink()
        (tmp_path / "kb.json").unlink()

        store = await open_()
        await ingest(store, {"a.md": "text"})
        assert await store.count("acme") == 1
        await store.aclose()


async def test_a_copy_taken_while_another_process_writes_is_whole(tmp_path: Path) -> None:
    process = await writer(tmp_path)
    try:
        async with embedded(tmp_path) as open_:
            for _ in range(4):
                published = await heard(process)
                async with reading(open_.catalogue("kb"), "kb__v1_letters") as store:
                    documents = await store.documents("acme")
                    versions = {document.content_hash for document in documents.values()}
                    assert len(documents) == await store.count("acme") == 40
                    assert len(versions) == 1
                    assert int(versions.pop()) >= published
    finally:
        await killed(process)


def copies(folder: Path) -> int:
    return len(list(folder.glob(".kb.*")))


async def test_copies_that_a_killed_process_left_are_removed_and_those_in_use_are_not(tmp_path: Path) -> None:
    async with embedded(tmp_path) as open_:
        await (await open_()).aclose()
        (tmp_path / ".kb.left").mkdir()
        catalogue = open_.catalogue("kb")
        async with reading(catalogue, "kb__v1_letters") as one, reading(catalogue, "kb__v1_letters") as two:
            assert await one.count("acme") == await two.count("acme") == 0
            assert copies(tmp_path) == 2
        assert copies(tmp_path) == 0


async def test_an_unreadable_index_says_what_to_delete(tmp_path: Path) -> None:
    async with embedded(tmp_path) as open_:
        store = await open_()
        await ingest(store, {"a.md": "text"})
        await store.aclose()
        (tmp_path / "kb__v1_letters" / "shard" / "edge_config.json").write_text("{")

        with pytest.raises(OSError, match="delete that folder and ingest again"):
            await open_()
        with pytest.raises(OSError, match="delete that folder and ingest again"):
            await open_()  # and not: locked


async def test_a_chunk_that_was_read_before_is_not_shown_when_it_has_changed_or_gone(tmp_path: Path) -> None:
    async with embedded(tmp_path) as open_:
        store = await open_()
        for text in ("one word", "another word"):
            await ingest(store, {"a.md": text, "b.md": "some word"})
            await store.vacuum("acme")
            for _ in range(2):
                passages = await find(store, "word")
                assert {passage.chunk.text for passage in passages} == {text, "some word"}
        generation = await store.begin("acme")
        await store.retire("acme", generation, ["a.md"])
        await store.publish("acme", generation)
        await store.vacuum("acme")
        assert await found(store, "word") == ["b.md"]
        await store.aclose()


async def test_what_a_broken_writer_left_is_cleaned_up_when_the_index_is_opened(tmp_path: Path) -> None:
    settings = Settings(var=tmp_path)
    store = await open_store(settings, "kb", model="letters", dimension=32, create=True)
    generation = await store.begin("acme")
    await store.stage("acme", generation, await points([chunk("a.md", "never published")]))
    await store.aclose()
    await (await open_store(settings, "kb", model="letters", dimension=32)).aclose()

    async with open_catalogue(settings, "kb").reading("kb__v1_letters") as kept:
        [record] = [row.payload async for row in kept.rows((), ["settled", "text"])]
    assert record == {"settled": True}


async def test_a_live_version_whose_folder_is_gone_says_what_to_do(tmp_path: Path) -> None:
    async with embedded(tmp_path) as open_:
        store = await open_()
        (tmp_path / "kb.json").write_text('{"collection": "kb__v7_letters"}')
        assert await store.count("acme") == 0  # who has the old one open goes on with it
        with pytest.raises(
            FileNotFoundError, match=r"kb__v7_letters: put that folder back, or delete .*kb\.json"
        ):
            await open_()
        await store.aclose()


async def test_only_what_some_document_says_takes_the_memory_of_an_index(tmp_path: Path) -> None:
    def indexed() -> set[str]:
        made = (tmp_path / "kb__v1_letters").glob("shard/segments/*/payload_index/*-null")
        return {folder.name.split("-")[1] for folder in made}

    async with embedded(tmp_path) as open_:
        store = await open_()
        await ingest(store, {"a.md": "says nothing of itself"})
        assert indexed() == {"tenant", "document", "since", "until", "generati"}
        [point] = await points([chunk("b.md", "says what it is about")])
        generation = await store.begin("acme")
        about = About(tags=("x",))
        await store.stage("acme", generation, [msgspec.structs.replace(point, about=about)])
        assert indexed() == {"tenant", "document", "since", "until", "generati", "tags"}
        await store.aclose()


async def test_by_default_the_index_is_in_the_var_folder(tmp_path: Path) -> None:
    store = await open_store(Settings(var=tmp_path), "kb", model="letters", dimension=32, create=True)
    await store.aclose()

    assert (tmp_path / "index" / "kb__v1_letters").is_dir()


async def test_a_hit_of_another_tenant_is_never_turned_into_a_passage() -> None:
    [point] = await points([chunk("a.md", "secret")])
    row = Row("x", chunk_point("acme", 1, point).payload)

    assert [found.text for found in visible_chunks([row], "acme", 1).values()] == ["secret"]
    assert visible_chunks([row], "acme", 0) == {}
    with pytest.raises(ForeignHit):
        visible_chunks([row], "evil", 1)
