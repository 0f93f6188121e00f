"""What an evaluation found: a JSON file, the scores of each question beside it, a table for people."""

import sys
import time
from pathlib import Path

import msgspec
from rich.console import Console
from rich.table import Table

from evals.trials import Scores
from loadtests.figures import Results, Row, machine, versions

PACKAGES = (
    "tandem",
    "qdrant-edge-py",
    "onnxruntime",
    "tokenizers",
    "semantic-text-splitter",
    "numpy",
    "scipy",
    "pytrec-eval-terrier",
)
COLUMNS = ("value", "low", "high", "baseline", "floor", "aim")


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """The rows of one set and one kind of evaluation; `scores` by system, measure and question."""

    name: str
    kind: str
    rows: list[Row]
    scores: dict[str, Scores] = {}
    said: str = ""
    drawn: Table | None = None
    """Shown in place of the rows."""


class Kept(msgspec.Struct, kw_only=True):
    """The file of scores that stands beside a result file."""

    assistant: str
    split: str
    scores: dict[str, Scores]


def write(report: Report, out: Path, *, assistant: str, split: str) -> Path:
    """Write `<set>-<kind>-<time>.json` and its `.scores.json`, print the table; the path of the first."""
    out.mkdir(parents=True, exist_ok=True)
    path = out / f"{report.name}-{report.kind}-{time.strftime('%Y%m%d-%H%M%S')}.json"
    results = Results(machine=machine(), versions=versions(PACKAGES), rows=report.rows)
    path.write_bytes(msgspec.json.format(msgspec.json.encode(results), indent=1) + b"\n")
    kept = Kept(assistant=assistant, split=split, scores=report.scores)
    scores_of(path).write_bytes(msgspec.json.encode(kept))
    console = Console(width=None if sys.stdout.isatty() else 140)
    console.print(report.drawn or table(report))
    about = results.machine
    console.print(
        f"{about['cpu']}, {about['cores']} cores, load {about['load_average'][0]}; written to {path}\n"
    )
    return path


def scores_of(path: Path) -> Path:
    """Where the scores of each question are, given the result file."""
    return path.with_suffix(".scores.json")


def table(report: Report) -> Table:
    """The rows with their interval, what they are compared with, and the peers."""
    drawn = Table(title=f"{report.name}: {report.said}", title_justify="left")
    drawn.add_column("figure")
    for heading in COLUMNS:
        drawn.add_column(heading, justify="right")
    peers = list(dict.fromkeys(peer for row in report.rows for peer in row.peers))
    for peer in peers:
        drawn.add_column(peer, justify="right", style="dim")
    drawn.add_column("")
    for row in report.rows:
        name = f"{row.name} ({row.unit})" if row.unit else row.name
        numbers = [getattr(row, heading) for heading in COLUMNS]
        numbers += [row.peers.get(peer) for peer in peers]
        drawn.add_row(name, *map(_short, numbers), row.verdict)
    drawn.caption = "\n".join(f"{row.name}: {row.note}" for row in report.rows if row.note)
    return drawn


def _short(number: float | None) -> str:
    if number is None:
        return ""
    return f"{number:.3f}" if abs(number) < 10 else f"{number:,.1f}"
