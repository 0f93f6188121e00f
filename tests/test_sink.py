"""The sink: what was recorded is in the store, exactly once, or counted."""

import logging
import os
import random
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from business_api.passages import Candidate, Query
from business_api.settings import ROOT, Settings, SinkSettings
from business_api.sink import ExchangeStore, Sink
from business_api.sink.spool import Spool
from tests.exchanges import CHUNK, exchange


@contextmanager
def a_sink(folder: Path, *, limit_bytes: int = 1 << 20, segment_bytes: int = 1 << 16) -> Iterator[Sink]:
    """A sink that gives up on a locked store at once, and drains when it is told to."""
    store = ExchangeStore(folder / "exchanges.sqlite", patience=0.01)
    spool = Spool(folder / "spool", segment_bytes=segment_bytes, limit_bytes=limit_bytes)
    sink = Sink(spool, store, content="on", drain_seconds=60)
    with closing(sink):
        yield sink


@contextmanager
def a_locked_store(folder: Path) -> Iterator[None]:
    with closing(sqlite3.connect(folder / "exchanges.sqlite", isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        yield


def conserved(counts: dict[str, int]) -> bool:
    return counts["made"] == counts["stored"] + counts["waiting"] + counts["dropped"]


def killed_after(var: Path, acknowledged: int, drain_seconds: float) -> list[str]:
    """Ids that a process said it had recorded before it was killed in the middle of its work."""
    environment = os.environ | {"BUSINESS_API_SINK__DRAIN_SECONDS": str(drain_seconds)}
    environment |= {"BUSINESS_API_SINK__SEGMENT_BYTES": "50000"}
    command = [sys.executable, "-m", "tests.exchanges", str(var)]
    with subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        said = [process.stdout.readline() for _ in range(acknowledged)]
        process.kill()
        said += process.stdout.readlines()
    return [line.strip() for line in said if line.endswith("\n")]


@pytest.mark.parametrize("drain_seconds", [0.0, 60.0])
def test_what_was_recorded_before_a_kill_is_in_the_store_exactly_once(
    tmp_path: Path, drain_seconds: float
) -> None:
    chance = random.Random(7)
    told: list[str] = []
    for _ in range(3):
        told += killed_after(tmp_path, chance.randrange(1, 600), drain_seconds)
    with closing(Sink.open(Settings(var=tmp_path))) as sink:
        assert sink.drain_now()
        missing = [one for one in told if sink.store.get_json("default", one) is None]
        stored = sum(sink.store.outcomes("default").values())
    assert missing == []
    # Of each killed process at most one more was on disk when it could no longer say so.
    assert len(told) <= stored <= len(told) + 3
    assert not list((tmp_path / "spool").iterdir())


def test_two_processes_record_into_one_store(tmp_path: Path) -> None:
    with a_sink(tmp_path) as one, a_sink(tmp_path) as two:
        for number in range(20):
            one.record(exchange(f"one-{number}"))
            two.record(exchange(f"two-{number}"))
        assert one.drain_now()
        assert two.drain_now()
        assert one.store.outcomes("default") == {"answered": 40}
        assert one.counts()["stored"] == two.counts()["stored"] == 20


def test_a_full_spool_drops_counts_and_takes_again_when_there_is_room(tmp_path: Path) -> None:
    with a_sink(tmp_path, limit_bytes=8192) as sink:
        with a_locked_store(tmp_path):
            for _ in range(50):
                sink.record(exchange())
            assert not sink.drain_now()
            full = sink.counts()
        assert conserved(full)
        assert full["dropped"] == sink.dropped()["full"] > 0
        assert full["waiting"] > 0
        assert sum(path.stat().st_size for path in (tmp_path / "spool").iterdir()) <= 8192
        assert sink.drain_now()
        sink.record(exchange("after"))
        assert sink.drain_now()
        assert sink.store.get("default", "after")
        assert sink.counts()["dropped"] == full["dropped"]
        assert conserved(sink.counts())


def test_a_store_that_is_locked_for_a_while_loses_nothing(tmp_path: Path) -> None:
    with a_sink(tmp_path) as sink:
        with a_locked_store(tmp_path):
            sink.record(exchange("patient"))
            assert not sink.drain_now()
            assert sink.counts()["waiting"] == 1
        assert sink.drain_now()
        assert sink.store.get("default", "patient")
        assert sink.counts()["waiting"] == 0


def test_at_the_end_everything_is_drained_and_the_spool_is_empty(tmp_path: Path) -> None:
    with a_sink(tmp_path) as sink:
        sink.record(exchange("last"))
    with closing(ExchangeStore(tmp_path / "exchanges.sqlite")) as store:
        assert store.get("default", "last")
    assert not list((tmp_path / "spool").iterdir())


def test_what_cannot_be_drained_at_the_end_is_drained_at_the_next_start(tmp_path: Path) -> None:
    store = ExchangeStore(tmp_path / "exchanges.sqlite")
    store.close()
    with a_locked_store(tmp_path), a_sink(tmp_path) as sink:
        sink.record(exchange("late"))
    with a_sink(tmp_path) as sink:
        assert sink.drain_now()
        assert sink.store.get("default", "late")
        assert sink.counts()["replayed"] == 1


def test_a_record_that_cannot_be_encoded_is_counted_and_does_not_raise(tmp_path: Path) -> None:
    with a_sink(tmp_path) as sink:
        sink.record(exchange(sampling={"seed": object()}))
        sink.record(exchange("good"))
        assert sink.drain_now()
        assert sink.dropped()["unencodable"] == 1
        assert sink.store.get("default", "good")
        assert conserved(sink.counts())


def test_recording_after_the_end_is_counted_and_does_not_raise(tmp_path: Path) -> None:
    with a_sink(tmp_path) as sink:
        pass
    sink.record(exchange())
    assert sink.dropped()["closed"] == 1


def test_half_a_surrogate_pair_does_not_cost_the_record(tmp_path: Path) -> None:
    with a_sink(tmp_path) as sink:
        sink.record(exchange("odd", answer="a\ud800b \U0001f642 ünï"))
        assert sink.drain_now()
        found = sink.store.get("default", "odd")
        assert found
        assert found.answer == "a?b \U0001f642 ünï"


def test_a_record_that_is_no_exchange_is_counted_and_the_rest_goes_on(tmp_path: Path) -> None:
    store = ExchangeStore(tmp_path / "exchanges.sqlite")
    spool = Spool(tmp_path / "spool", segment_bytes=1 << 16, limit_bytes=1 << 20)
    with closing(Sink(spool, store, content="on", drain_seconds=60)) as sink:
        for body in (b"{}", b"not JSON", b"[" * 100_000, b'{"question":{"id":1}}'):
            spool.append(body)
        sink.record(exchange("good"))
        assert sink.drain_now()
        assert sink.dropped()["damaged"] == 4
        assert sink.store.get("default", "good")
        assert conserved(sink.counts())


def test_counts_are_exact_at_every_moment_with_many_threads(tmp_path: Path) -> None:
    with a_sink(tmp_path, limit_bytes=60_000, segment_bytes=5000) as sink:

        def work() -> None:
            for _ in range(100):
                sink.record(exchange())

        threads = [threading.Thread(target=work) for _ in range(4)]
        for thread in threads:
            thread.start()
        seen = []
        while any(thread.is_alive() for thread in threads):
            seen.append(sink.counts())
            sink.drain_now()
        sink.drain_now()
        last = sink.counts()
        assert all(conserved(counts) for counts in seen)
        assert (last["made"], last["waiting"]) == (400, 0)
        assert last["stored"] == sum(sink.store.outcomes("default").values()) == 400 - last["dropped"]


def test_trouble_is_logged_once_a_minute_and_without_content(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING), a_sink(tmp_path) as sink:
        for _ in range(10):
            sink.record(exchange(question="my secret", sampling={"seed": object()}))
    assert len(caplog.messages) == 1
    assert "unencodable" in caplog.text
    assert "secret" not in caplog.text


def test_what_is_off_or_redacted_never_reaches_the_disk(tmp_path: Path) -> None:
    private = exchange(
        question="I am ann@example.org, card 4111 1111 1111 1111",
        answer="Call +49 30 901820 with tdm_abcdefghijklmnopqrstuvwxyz.",
        tool_calls=[{"function": {"arguments": '{"to": "ann@example.org"}'}}],
        query=Query(("Who is ann@example.org?",), hypothetical="Her card is 4111 1111 1111 1111."),
        explained=(Candidate(chunk=CHUNK),),
    )
    for content in ("redacted", "off"):
        var = tmp_path / content
        settings = Settings(var=var, sink=SinkSettings.model_validate({"content": content}))
        with closing(Sink.open(settings)) as sink:
            sink.record(private)
            assert sink.drain_now()
            (found,) = sink.store.list("default")
        written = b"".join(path.read_bytes() for path in var.rglob("*") if path.is_file())
        for secret in (b"ann@", b"4111", b"901820", b"tdm_", b"Port 80"):
            assert secret not in written or (content, secret) == ("redacted", b"Port 80")
        assert found.question == ("" if content == "off" else "I am [redacted], card [redacted]")


def test_nobody_else_on_the_machine_may_read_what_is_kept(tmp_path: Path) -> None:
    with a_sink(tmp_path) as sink:
        sink.record(exchange())
        sink.drain_now()
        files = [path for path in tmp_path.rglob("*") if path.is_file()]
        assert len(files) > 2
        assert {path.stat().st_mode & 0o077 for path in files} == {0}
