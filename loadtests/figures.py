"""Result rows, the table a person reads, and the JSON file a program reads. One form for all results."""

import os
import platform
import statistics
import sys
import time
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Literal

import msgspec
import psutil
from rich.console import Console
from rich.table import Table

RESULTS = Path(__file__).resolve().parent / "results"
PACKAGES = (
    "tandem",
    "fastapi",
    "starlette",
    "uvicorn",
    "uvloop",
    "httptools",
    "aiohttp",
    "msgspec",
    "onnxruntime",
)


class Row(msgspec.Struct, kw_only=True):
    """One figure: `value` is the median of the rounds, `low` and `high` their extremes.

    `baseline` is the direct or naive figure of the same run, `peers` those of others by name,
    `floor` what must be reached and `aim` what is aimed at. `note` says what a reader must know.
    """

    name: str
    unit: str
    better: Literal["lower", "higher"]
    value: float
    low: float
    high: float
    baseline: float | None = None
    peers: dict[str, float] = {}
    floor: float | None = None
    aim: float | None = None
    note: str = ""

    @classmethod
    def of(
        cls,
        name: str,
        unit: str,
        better: Literal["lower", "higher"],
        rounds: Sequence[float],
        **more: Any,
    ) -> "Row":
        """A row of one figure a round. Raises StatisticsError if there is none."""
        middle = statistics.median(rounds)
        return cls(
            name=name, unit=unit, better=better, value=middle, low=min(rounds), high=max(rounds), **more
        )

    @property
    def verdict(self) -> str:
        """How the value stands to floor and aim."""
        if self._reaches(self.aim):
            return "[green]aim[/]"
        if self._reaches(self.floor):
            return "[green]floor[/]"
        return "" if self.floor is None else "[red]below[/]"

    def _reaches(self, target: float | None) -> bool:
        if target is None:
            return False
        return self.value <= target if self.better == "lower" else self.value >= target


class Results(msgspec.Struct, kw_only=True):
    """A result file."""

    machine: dict[str, Any]
    versions: dict[str, str]
    rows: list[Row]


def loop_ms() -> float:
    """Milliseconds that a loop of 200,000 steps takes now: a shared core is not as fast in every hour."""
    began, total = time.process_time(), 0
    for step in range(200_000):
        total += step & 7
    return (time.process_time() - began) * 1000


def machine(loops_ms: Sequence[float] = ()) -> dict[str, Any]:
    """The machine that the figures come from, how busy it was, and how fast: `loop_ms` now and then."""
    ordered = sorted(loops_ms) or [loop_ms()]
    return {
        "cpu": _cpu_model(),
        "cores": os.cpu_count(),
        "memory_gb": round(psutil.virtual_memory().total / 1e9, 1),
        "system": platform.platform(),
        "load_average": [round(load, 2) for load in os.getloadavg()],
        "loop_ms": [round(ms, 1) for ms in (ordered[0], statistics.median(ordered), ordered[-1])],
        "at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    }


def _cpu_model() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    named = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(named, platform.machine())


def versions(packages: Sequence[str] = PACKAGES) -> dict[str, str]:
    """Python and the packages that matter here; those not installed are left out."""
    found = {"python": platform.python_version()}
    for package in packages:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def write(
    name: str,
    rows: list[Row],
    packages: Sequence[str] = PACKAGES,
    *,
    drawn: Table | None = None,
    loops_ms: Sequence[float] = (),
) -> Path:
    """Print the table (`drawn`, if it is given) and write `results/NAME.json`; returns its path."""
    results = Results(machine=machine(loops_ms), versions=versions(packages), rows=rows)
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{name}.json"
    path.write_bytes(msgspec.json.format(msgspec.json.encode(results), indent=1) + b"\n")
    console = Console(width=None if sys.stdout.isatty() else 150)
    console.print(drawn or table(name, rows))
    about = results.machine
    low, middle, high = about["loop_ms"]
    console.print(
        f"{about['cpu']}, {about['cores']} cores, load {about['load_average'][0]}, a loop of 200,000 steps "
        f"took {middle} ms ({low} to {high}); written to {path}"
    )
    return path


def table(title: str, rows: list[Row]) -> Table:
    """Median, spread, and what it is compared with."""
    drawn = Table(title=title, title_justify="left")
    drawn.add_column("figure", no_wrap=True)
    for heading in ("median", "low", "high", "direct", "floor", "aim"):
        drawn.add_column(heading, justify="right")
    drawn.add_column("unit")
    drawn.add_column("reached")
    for row in rows:
        numbers = (row.value, row.low, row.high, row.baseline, row.floor, row.aim)
        drawn.add_row(row.name, *map(short, numbers), row.unit, row.verdict)
    for row in rows:
        if row.note:
            drawn.caption = "\n".join(filter(None, [str(drawn.caption or ""), f"{row.name}: {row.note}"]))
    return drawn


def short(number: float | None) -> str:
    """As a table shows it."""
    if number is None:
        return ""
    return f"{number:,.0f}" if abs(number) >= 100 else f"{number:.3g}"
