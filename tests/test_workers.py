"""Several workers on one port, as processes: nothing is lost when one is killed, renewed or stopped."""

import asyncio
import os
import signal
import sqlite3
from pathlib import Path
from tempfile import TemporaryDirectory

import psutil

from tests.callers import Broken, Caller, ask_once, asking
from tests.fakes import FakeLlm, eventually
from tests.fleet import (
    ANSWER,
    PLAIN,
    WORDS,
    callers_of,
    exchanges_counted,
    fleet,
    metrics,
    pids,
    recorded,
    until,
)


async def test_connections_spread_over_the_workers_and_any_of_them_tells_the_counts_of_all(
    tmp_path: Path,
) -> None:
    with fleet(tmp_path) as service:
        callers = [Caller(service.url, ANSWER) for _ in range(40)]
        await asyncio.gather(*(caller.ask() for caller in callers))
        assert all(callers_of(pid) & {caller.port for caller in callers} for pid in pids(service))
        for _ in range(8):
            counted = await asyncio.to_thread(metrics, service)
            assert counted['tandem_exchanges_total{assistant="plain",outcome="answered"}'] == 40
            assert counted['tandem_recorded_total{state="made"}'] == 40
            assert counted['tandem_stage_seconds_count{stage="ttft"}'] == 40
            assert counted["tandem_workers"] == 2
            assert counted["tandem_worker_deaths_total"] == 0
        for caller in callers:
            caller.close()


async def test_a_killed_worker_takes_only_its_own_streams_with_it_and_comes_back(tmp_path: Path) -> None:
    with fleet(tmp_path) as service:
        async with asking(service.url, 16, ANSWER) as heard:
            await eventually(lambda: len(heard.whole) > 50, 30)
            victim, survivor = pids(service)
            own = callers_of(victim)
            os.kill(victim, signal.SIGKILL)
            await eventually(lambda: len(set(pids(service)) - {victim, survivor}) == 1, 30)
            before = len(heard.whole)
            await eventually(lambda: len(heard.whole) > before + 50, 30)
        assert heard.broken
        assert {port for port, _ in heard.broken} <= own
        assert survivor in pids(service)
        until(lambda: metrics(service)["tandem_workers"] == 2)
        assert metrics(service)["tandem_worker_deaths_total"] == 1
        assert service.stop() == 0
    kept = recorded(tmp_path)
    assert set(heard.whole) <= set(kept)
    assert len(kept) == len(set(kept))


async def test_no_count_goes_back_when_a_worker_is_killed(tmp_path: Path) -> None:
    with fleet(tmp_path) as service:
        await ask_once(service.url, 20, ANSWER)
        counted = await asyncio.to_thread(metrics, service)
        for pid in pids(service):
            os.kill(pid, signal.SIGKILL)
        await eventually(lambda: len(pids(service)) == 2, 30)
        await asyncio.to_thread(until, lambda: metrics(service)["tandem_workers"] == 2)
        after = await asyncio.to_thread(metrics, service)
        waiting = 'tandem_recorded_total{state="waiting"}'
        assert [n for n, v in counted.items() if "_total" in n and n != waiting and after[n] < v] == []
        assert after['tandem_exchanges_total{assistant="plain",outcome="answered"}'] == 20
        assert after[waiting] == 0


async def test_what_a_killed_worker_could_not_store_is_stored_once_by_another(tmp_path: Path) -> None:
    with fleet(tmp_path) as service:
        store = sqlite3.connect(tmp_path / "exchanges.sqlite", isolation_level=None)
        store.execute("BEGIN IMMEDIATE")
        whole = await ask_once(service.url, 20, ANSWER)
        for pid in pids(service):
            os.kill(pid, signal.SIGKILL)
        store.execute("ROLLBACK")
        store.close()
        await eventually(lambda: set(whole) <= set(recorded(tmp_path)), 30)
        assert service.stop() == 0
    assert sorted(recorded(tmp_path)) == sorted(whole)
    assert list((tmp_path / "spool").iterdir()) == []


async def test_a_stop_under_load_cuts_no_answer_that_began(tmp_path: Path) -> None:
    slow = FakeLlm(pieces=WORDS, delay=0.1)
    with fleet(tmp_path, slow) as service:
        asked = asyncio.create_task(ask_once(service.url, 24, ANSWER))
        await eventually(lambda: slow.running == 24, 30)
        assert await asyncio.to_thread(service.stop) == 0
        whole = await asked
    assert sorted(recorded(tmp_path)) == sorted(whole)
    assert list((tmp_path / "spool").iterdir()) == []


async def test_workers_are_renewed_under_load_without_a_failed_or_cut_answer(tmp_path: Path) -> None:
    with fleet(tmp_path) as service:
        async with asking(service.url, 16, ANSWER) as heard:
            for _ in range(2):
                old = pids(service)
                service.process.send_signal(signal.SIGHUP)
                await eventually(lambda old=old: not {*old} & {*pids(service)}, 60)  # type: ignore[misc]
                before = len(heard.whole)
                await eventually(lambda before=before: len(heard.whole) > before + 50, 30)  # type: ignore[misc]
        assert heard.broken == []
        assert exchanges_counted(service) == len(heard.whole)
        assert metrics(service)["tandem_worker_deaths_total"] == 0
        assert service.stop() == 0
    assert sorted(recorded(tmp_path)) == sorted(heard.whole)


async def test_a_renewal_takes_new_settings_and_keeps_the_old_workers_if_these_do_not_work(
    tmp_path: Path,
) -> None:
    with fleet(tmp_path) as service:
        old, assistants = pids(service), tmp_path / "assistants.toml"
        assistants.write_text("[plain\n")
        service.process.send_signal(signal.SIGHUP)
        await eventually(lambda: "those that run go on" in service.log.read_text(), 30)
        await eventually(lambda: pids(service) == old, 30)
        await ask_once(service.url, 1, ANSWER)
        assistants.write_text(PLAIN + "[other]\nmax_tokens = 8\n")
        service.process.send_signal(signal.SIGHUP)
        await eventually(lambda: not {*old} & {*pids(service)}, 60)
        _, listed = await asyncio.to_thread(service.get, "/v1/models")
        assert [one["id"] for one in listed["data"]] == ["plain", "other"]


async def test_a_second_signal_cuts_answers_off_and_records_them(tmp_path: Path) -> None:
    endless = FakeLlm(pieces=["word "] * 10_000, delay=0.05)
    with fleet(tmp_path, endless) as service:
        asked = [asyncio.create_task(ask_once(service.url, 1, "")) for _ in range(6)]
        await eventually(lambda: endless.running == 6, 30)
        service.process.send_signal(signal.SIGTERM)
        await asyncio.sleep(0.5)
        assert service.process.poll() is None
        assert await asyncio.to_thread(service.stop) == 0
        cut = await asyncio.gather(*asked, return_exceptions=True)
        assert [type(one) for one in cut] == [Broken] * 6
    assert len(recorded(tmp_path)) == 6


async def test_what_does_not_end_in_time_is_cut_off_and_recorded(tmp_path: Path) -> None:
    endless = FakeLlm(pieces=["word "] * 10_000, delay=0.05)
    with fleet(tmp_path, endless, BUSINESS_API_STOP_DEADLINE="0.5") as service:
        asked = [asyncio.create_task(ask_once(service.url, 1, "")) for _ in range(6)]
        await eventually(lambda: endless.running == 6, 30)
        assert await asyncio.to_thread(service.stop) == 0
        cut = await asyncio.gather(*asked, return_exceptions=True)
        assert [type(one) for one in cut] == [Broken] * 6
        await eventually(lambda: endless.running == 0, 30)
    assert len(recorded(tmp_path)) == 6


def test_workers_whose_supervisor_was_killed_end_too_and_leave_nothing_behind(tmp_path: Path) -> None:
    with TemporaryDirectory() as folder, fleet(tmp_path, TMPDIR=folder) as service:
        workers = [psutil.Process(pid) for pid in pids(service)]
        service.stop(signal.SIGKILL)
        assert psutil.wait_procs(workers, timeout=30)[1] == []
        assert os.listdir(folder) == []  # noqa: PTH208


def test_workers_that_cannot_start_any_more_are_given_up(tmp_path: Path) -> None:
    with fleet(tmp_path) as service:
        (tmp_path / "assistants.toml").write_text("[plain\n")
        for pid in pids(service):
            os.kill(pid, signal.SIGKILL)
        assert service.process.wait(60) == 1
    assert "gives up: 5 workers in a row ended before they could serve" in service.log.read_text()
