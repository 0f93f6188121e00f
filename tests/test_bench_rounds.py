"""What a benchmark found before something broke is kept and shown."""

import io
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from rich.console import Console

from loadtests import bench
from loadtests.bench import Group, run
from loadtests.bench_figures import FIGURES
from loadtests.bench_plan import Plan
from loadtests.bench_table import compared
from loadtests.rows import DIRECT, OURS, Rounds, rows_of
from loadtests.running import Server, going_first, on_one_cpu


def plan(tmp_path: Path) -> Plan:
    return Plan(True, 1, tmp_path, "none", tmp_path, False, 0.0, Rounds())


def breaks(plan: Plan) -> Iterator[str]:
    yield "the first round"
    plan.found.note(DIRECT, whole_p50=1.0)
    plan.found.note(OURS, whole_p50=2.5)
    yield "the second round"
    plan.found.note(DIRECT, whole_p50=1.0)
    raise ZeroDivisionError("nobody answered")


def goes_on(plan: Plan) -> Iterator[str]:
    yield "another group"
    plan.found.note(OURS, idle_mb=174.0)


def test_a_group_that_breaks_off_is_named_and_costs_no_figure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bench, "GROUPS", {"a": Group(breaks, 1, 1), "b": Group(goes_on, 1, 1)})
    broken, loops_ms = plan(tmp_path), list[float]()
    assert run(broken, ["a", "b"], loops_ms) == {"a": "ZeroDivisionError: nobody answered"}
    assert len(loops_ms) == 3
    rows = rows_of(broken.found, FIGURES)
    assert [(row.name, row.value) for row in rows] == [
        ("added latency p50, one at a time", 2.5 - 1.0),
        ("memory of one worker, idle", 174.0),
    ]
    shown = io.StringIO()
    Console(width=200, file=shown).print(compared(rows))
    assert "1.5" in shown.getvalue()


def test_an_interrupt_is_not_taken_for_a_group_that_broke_off(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(plan: Plan) -> Iterator[str]:
        yield "a step"
        raise KeyboardInterrupt

    monkeypatch.setattr(bench, "GROUPS", {"a": Group(interrupted, 1, 1)})
    with pytest.raises(KeyboardInterrupt):
        run(plan(tmp_path), ["a"], [])


def fail(seen: Plan, way: str, broke: Exception) -> None:
    with seen.peer_may_fail(way, "peak"):
        raise broke


@pytest.mark.parametrize("broke", [RuntimeError("url: 3 answers, 2 failed"), TimeoutError("waited in vain")])
def test_a_peer_may_fail_and_is_told_of_and_we_may_not(tmp_path: Path, broke: Exception) -> None:
    seen = plan(tmp_path)
    fail(seen, "a relay", broke)
    assert seen.found.notes(OURS, "peak").startswith("a relay: ")
    with pytest.raises(type(broke)):
        fail(seen, OURS, broke)


@pytest.mark.skipif(not hasattr(os, "sched_getaffinity"), reason="Linux only")
def test_servers_and_what_is_started_beside_them_share_one_cpu_until_the_end() -> None:
    cpus, asks = os.sched_getaffinity(0), "import os; print(os.sched_getaffinity(0))"
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as child:
        server = Server("", psutil.Process(child.pid))
        with on_one_cpu(server):
            assert os.sched_getaffinity(child.pid) == {max(cpus)}
            said = subprocess.run([sys.executable, "-c", asks], capture_output=True, check=True)
            assert said.stdout.decode().strip() == str({max(cpus)})
        assert os.sched_getaffinity(child.pid) == os.sched_getaffinity(0) == cpus
        child.communicate(b"\n")


@pytest.mark.skipif(not hasattr(os, "sched_setscheduler"), reason="Linux only")
def test_a_server_that_is_measured_goes_first_and_then_no_more() -> None:
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as child:
        before = os.sched_getscheduler(child.pid)
        with going_first(Server("", psutil.Process(child.pid))) as first:
            assert os.sched_getscheduler(child.pid) == (os.SCHED_RR if first else before)
        assert os.sched_getscheduler(child.pid) == before
        child.communicate(b"\n")
