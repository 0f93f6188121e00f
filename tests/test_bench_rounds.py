"""What a benchmark found before something broke is kept and shown."""

import io
from collections.abc import Iterator
from pathlib import Path

import pytest
from rich.console import Console

from loadtests import bench
from loadtests.bench import Group, run
from loadtests.bench_figures import FIGURES
from loadtests.bench_plan import Plan
from loadtests.bench_table import compared
from loadtests.rows import DIRECT, OURS, Rounds, rows_of


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
