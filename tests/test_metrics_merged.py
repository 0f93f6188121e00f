"""One /metrics for several workers: sums that never go back, whoever has ended."""

import asyncio
import os
from contextlib import AsyncExitStack
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from business_api.metrics_merged import Tally, exposition, families_of, fold, summed


def a_worker(folder: Path, owner: str, asked: int, running: int = 0) -> Tally:
    """A tally whose registry has counted `asked` requests of 0.25 s and has `running` ones."""
    registry = CollectorRegistry()
    counter = Counter("asked", "Asked", ["kind"], registry=registry)
    seconds = Histogram("seconds", "Time", buckets=(0.1, 1), registry=registry)
    for _ in range(asked):
        counter.labels("x").inc()
        seconds.observe(0.25)
    Gauge("running", "Running", registry=registry).set(running)
    return Tally(folder, registry, owner)


async def scraped(tally: Tally) -> dict[str, float]:
    lines = (await tally.scrape()).decode().splitlines()
    return {name: float(value) for name, value in (x.rsplit(" ", 1) for x in lines if x[0] != "#")}


async def test_any_worker_tells_the_sum_of_all(tmp_path: Path) -> None:
    first, second = a_worker(tmp_path, "0-1", 3, running=1), a_worker(tmp_path, "1-2", 4, running=2)
    async with first.told(), second.told():
        for tally in (first, second):
            said = await scraped(tally)
            assert said['asked_total{kind="x"}'] == 7
            assert said['seconds_bucket{le="1.0"}'] == said["seconds_count"] == 7
            assert said['seconds_bucket{le="0.1"}'] == 0
            assert said["running"] == 3


async def test_counts_of_ended_workers_stay_and_their_gauges_go(tmp_path: Path) -> None:
    gone, left = a_worker(tmp_path, "0-1", 3, running=1), a_worker(tmp_path, "1-2", 4, running=2)
    async with AsyncExitStack() as opened:
        await opened.enter_async_context(left.told())
        async with gone.told():
            assert (await scraped(left))["running"] == 3
        for folded in (False, True):
            if folded:
                fold(tmp_path, "0-1")
                assert {path.name for path in os.scandir(tmp_path)} == {"1-2", "1-2.samples", "ended.samples"}
            said = await scraped(left)
            assert said['asked_total{kind="x"}'] == 7
            assert said["running"] == 2


async def test_a_worker_that_does_not_answer_is_counted_by_what_it_wrote_last(tmp_path: Path) -> None:
    asked, silent = a_worker(tmp_path, "0-1", 3, running=1), a_worker(tmp_path, "1-2", 4, running=2)
    silent.keep()
    ended = asyncio.Event()

    async def wait(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await ended.wait()
        writer.close()

    server = await asyncio.start_unix_server(wait, tmp_path / "1-2")
    said = await scraped(asked)
    assert said['asked_total{kind="x"}'] == 7
    assert said["running"] == 3
    ended.set()
    server.close()


async def test_a_disk_that_takes_no_counts_costs_no_scrape(tmp_path: Path) -> None:
    tally = a_worker(tmp_path / "vanished", "0-1", 3)
    assert (await scraped(tally))['asked_total{kind="x"}'] == 3


def test_one_worker_alone_says_what_it_would_say_by_itself(tmp_path: Path) -> None:
    registry = a_worker(tmp_path, "0-1", 3, running=1).registry
    assert exposition(families_of(registry)) == generate_latest(registry)


@given(st.lists(st.integers(0, 5), min_size=1, max_size=5))
def test_the_order_in_which_workers_end_changes_no_sum(counts: list[int]) -> None:
    parts = [families_of(a_worker(Path(), str(n), n, running=n).registry) for n in counts]
    assert lines_of(summed(parts)) == lines_of(summed([summed(parts[1:]), parts[0]]))


def lines_of(families: object) -> list[bytes]:
    said = exposition(families).splitlines()  # type: ignore[arg-type]
    return sorted(line for line in said if b"_created" not in line)
