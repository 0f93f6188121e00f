"""What going through the business API costs, keeps and saves, beside the LLM tier alone and beside others.

    python -m loadtests.bench                             # all groups, about 45 minutes with peers
    python -m loadtests.bench --quick                     # about five, one short round of each
    python -m loadtests.bench --only goodput,cost         # some groups

Prints a table and writes loadtests/results/bench.json. LLM servers, load generators and the business API are
processes of their own. Ways take turns in every round; a figure is the median of its rounds.
"""

import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated, NamedTuple

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from loadtests.bench_batch import batch
from loadtests.bench_cost import cost, process
from loadtests.bench_faults import frozen, killed, outage
from loadtests.bench_figures import FIGURES
from loadtests.bench_goodput import goodput
from loadtests.bench_hangups import hangups
from loadtests.bench_plan import Plan
from loadtests.bench_rolling import rolling
from loadtests.bench_table import compared
from loadtests.figures import loop_ms, write
from loadtests.rows import Rounds, rows_of
from loadtests.running import ROOT
from loadtests.stack import business_command


class Group(NamedTuple):
    """A part of the benchmark: yields what it does next. How many seconds it takes, quick and full."""

    run: Callable[[Plan], Iterator[str]]
    quick: float
    full: float


GROUPS = {
    "cost": Group(cost, 75, 420),
    "batch": Group(batch, 35, 110),
    "goodput": Group(goodput, 100, 420),
    "outage": Group(outage, 12, 45),
    "killed": Group(killed, 22, 170),
    "frozen": Group(frozen, 12, 45),
    "hangups": Group(hangups, 12, 40),
    "rolling": Group(rolling, 25, 190),
    "process": Group(process, 22, 100),
}


def main(
    *,
    quick: Annotated[bool, typer.Option(help="One short round of each.")] = False,
    only: Annotated[str, typer.Option(help=f"Groups, by comma: {', '.join(GROUPS)}.")] = "",
    rounds: Annotated[int, typer.Option(help="Rounds of each measurement; 0: 1 if quick, else 3.")] = 0,
    command: Annotated[str, typer.Option(help="The business-api to measure.")] = business_command(),
    models: Annotated[Path, typer.Option(help="Prepared models; without them retrieval stays off.")] = ROOT
    / "var/models",
    peers: Annotated[bool, typer.Option(help="Measure the peers too, if they are installed.")] = True,
    soak: Annotated[
        float, typer.Option(help="Minutes of full load to see memory grow, and 100,000 hang-ups; 0: short.")
    ] = 0.0,
) -> None:
    """Run the groups, print the table, write loadtests/results/bench.json."""
    chosen = [name for name in only.replace(" ", "").split(",") if name] or list(GROUPS)
    unknown = set(chosen) - set(GROUPS)
    if unknown:
        raise typer.BadParameter(f"no such group: {', '.join(sorted(unknown))}", param_hint="--only")
    with tempfile.TemporaryDirectory() as var:
        plan = Plan(quick, rounds or (1 if quick else 3), Path(var), command, models, peers, soak, Rounds())
        loops_ms: list[float] = []
        failed = run(plan, chosen, loops_ms)
    rows = rows_of(plan.found, FIGURES)
    if rows:
        write("bench", rows, drawn=compared(rows), loops_ms=loops_ms)
    for name, why in failed.items():
        Console(stderr=True).print(f"{name} did not finish: {why}", style="red", markup=False)
    raise typer.Exit(1 if failed else 0)


def run(plan: Plan, chosen: list[str], loops_ms: list[float]) -> dict[str, str]:
    """Run these groups; those that did not finish, and why. What they found before is in the plan.

    `loops_ms` gets the speed of the machine before each step.
    """
    failed = {}
    lasts = {name: plan.either(GROUPS[name].quick, GROUPS[name].full) for name in chosen}
    columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn(), TimeRemainingColumn())
    with Progress(*columns) as progress:
        task = progress.add_task("", total=sum(lasts.values()))
        for place, name in enumerate(chosen):
            before, began = sum(list(lasts.values())[:place]), time.monotonic()
            try:
                for step in GROUPS[name].run(plan):
                    loops_ms.append(loop_ms())
                    spent = min(time.monotonic() - began, lasts[name])
                    progress.update(task, description=f"{name}: {step}".ljust(44), completed=before + spent)
            except Exception as exc:  # noqa: BLE001 - what the other groups found is not to be lost
                failed[name] = f"{type(exc).__name__}: {exc}"
    return failed


if __name__ == "__main__":
    typer.run(main)
