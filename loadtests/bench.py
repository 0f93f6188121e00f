"""What going through the business API costs, against asking the LLM tier directly.

    python -m loadtests.bench            # about five minutes; table, and loadtests/results/bench.json
    python -m loadtests.bench --quick    # under a minute, wider spread

The LLM tier is a lean server that answers at once; load generator, LLM server and business API are processes
of their own. Direct and ours take turns in every round; a figure is the median of the rounds.
"""

import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import msgspec
import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from loadtests.fast_llm import Pace
from loadtests.figures import write
from loadtests.generator import Load, Seen
from loadtests.rows import Rounds, rows_of
from loadtests.running import ROOT, Server, printing_its_port, put_on, set_pace
from loadtests.stack import Business, business_command

QUESTION = "How is the LLM server started, and which port does it listen on? Case {serial}."
AT_ONCE = Pace(deltas=16)
PACED = Pace(deltas=100, gap_ms=20)
CALLERS = 16
STREAMS = 40
VOID_ABOVE = 0.85
"""CPU share of the LLM server beyond which a figure is not ours."""


class Bench:
    """One run: who is asked, for how long, and what came out so far."""

    def __init__(self, llm: Server, ours: Server, assistants: list[str], seconds: float) -> None:
        self._llm, self._ours, self._assistants = llm, ours, assistants
        self._seconds = seconds
        self.found = Rounds()

    @property
    def steps(self) -> list[Callable[[], None]]:
        """The measurements of one round; in each, direct and ours take turns."""
        return [self._whole, self._first, self._throughput, self._streams]

    def _ways(self) -> list[tuple[str, Server]]:
        return [("direct", self._llm), *((name, self._ours) for name in self._assistants)]

    def _load(self, way: str, server: Server, *, stream: bool, callers: int, pace: Pace) -> Seen:
        set_pace(self._llm, pace)
        asked = {
            "model": "fast" if way == "direct" else way,
            "stream": stream,
            "messages": [{"role": "user", "content": QUESTION}],
        }
        load = Load(
            url=f"{server.url}/v1/chat/completions",
            body=msgspec.Raw(msgspec.json.encode(asked)),
            callers=callers,
            seconds=self._seconds,
            warm_seconds=self._seconds * 0.15,
            spread_seconds=0.5 if pace.gap_ms else 0.0,
            deltas=pace.deltas if stream else 0,
        )
        return put_on(load)

    def _whole(self) -> None:
        for way, server in self._ways():
            seen = self._load(way, server, stream=False, callers=1, pace=AT_ONCE)
            self.found.note(way, whole_p50=seen.whole_ms.p50, whole_p99=seen.whole_ms.p99)

    def _first(self) -> None:
        for way, server in self._ways():
            seen = self._load(way, server, stream=True, callers=1, pace=AT_ONCE)
            self.found.note(way, ttft_p50=seen.ttft_ms.p50, ttft_p99=seen.ttft_ms.p99)

    def _throughput(self) -> None:
        for way, server in self._ways():
            began, before, llm_before = time.perf_counter(), server.cpu_seconds, self._llm.cpu_seconds
            seen = self._load(way, server, stream=False, callers=CALLERS, pace=AT_ONCE)
            spent = server.cpu_seconds - before
            self.found.note(way, per_core=seen.all_answers / spent, rate=seen.all_answers / seen.seconds)
            share = (self._llm.cpu_seconds - llm_before) / (time.perf_counter() - began)
            if way != "direct" and share > VOID_ABOVE:
                raise RuntimeError(f"void: the lean LLM server was busy for {share:.0%} of the time")

    def _streams(self) -> None:
        for way, server in self._ways():
            before = server.cpu_seconds
            seen = self._load(way, server, stream=True, callers=STREAMS, pace=PACED)
            per_frame = (server.cpu_seconds - before) / seen.frames
            pace = 1000 / PACED.gap_ms
            self.found.note(way, streams=1 / (per_frame * pace), gap_p99=seen.gap_ms.p99)


def cold_starts(business: Business, times: int, found: Rounds) -> None:
    """Seconds and CPU seconds to /healthz, and memory before the first question."""
    for _ in range(times):
        with business.started() as (server, seconds):
            spent = server.cpu_seconds
            time.sleep(1.0)
            found.note("ours", cold_start=seconds, cold_cpu=spent, idle_mb=server.rss_mb)


def main(
    quick: Annotated[bool, typer.Option(help="Two short rounds.")] = False,
    rounds: Annotated[int, typer.Option(help="Rounds of each measurement.")] = 5,
    command: Annotated[str, typer.Option(help="The business-api to measure.")] = business_command(),
    models: Annotated[Path, typer.Option(help="Prepared models; without them retrieval stays off.")] = ROOT
    / "var/models",
) -> None:
    """Run all, print the table, write loadtests/results/bench.json."""
    rounds, seconds = (2, 1.0) if quick else (rounds, 3.0)
    try:
        run(rounds, seconds, command, models)
    except RuntimeError as exc:
        Console(stderr=True).print(f"bench: {exc}", style="red", markup=False)
        raise typer.Exit(1) from exc


def run(rounds: int, seconds: float, command: str, models: Path) -> None:
    """Start what is measured, measure, write. Raises RuntimeError when the run says nothing."""
    with tempfile.TemporaryDirectory() as var, printing_its_port("loadtests.fast_llm") as llm:
        business = Business(llm.url, Path(var), command)
        with_documents = business.prepare(models)
        assistants = ["plain", "tandem"] if with_documents else ["plain"]
        found = measured(business, llm, assistants, rounds, seconds)
    if not with_documents:
        Console().print("no prepared models: run `make models` to measure with retrieval", style="yellow")
    write("bench", rows_of(found, assistants, STREAMS))


def measured(business: Business, llm: Server, assistants: list[str], rounds: int, seconds: float) -> Rounds:
    """All rounds."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns) as progress:
        task = progress.add_task("cold starts", total=rounds * 4 + 1)
        starts = Rounds()
        cold_starts(business, min(rounds, 3), starts)
        progress.advance(task)
        with business.started() as (ours, _):
            bench = Bench(llm, ours, assistants, seconds)
            for _ in range(rounds):
                for step in bench.steps:
                    progress.update(task, description=step.__name__.strip("_").ljust(11))
                    step()
                    progress.advance(task)
            bench.found.note("ours", loaded_mb=ours.rss_mb)
    bench.found.add(starts)
    return bench.found


if __name__ == "__main__":
    typer.run(main)
