"""`serve --workers` as people run it, before a fake LLM, and what can be seen of its workers from outside."""

import sqlite3
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil

from tests.fakes import FakeLlm, serving
from tests.programs import Program, serving_program

PLAIN = "[plain]\nmax_tokens = 256\n"
WORDS = ["word "] * 12
ANSWER = "".join(WORDS)


@contextmanager
def fleet(var: Path, llm: FakeLlm | None = None, workers: int = 2, **more: str) -> Iterator[Program]:
    """`serve --workers` before a fake LLM; all workers serve when it begins."""
    var.mkdir(exist_ok=True)
    (var / "assistants.toml").write_text(PLAIN)
    own = {
        "BUSINESS_API_ASSISTANTS": str(var / "assistants.toml"),
        "BUSINESS_API_WORKERS": str(workers),
        "BUSINESS_API_GUARD__REQUESTS_PER_MINUTE": "1000000",
    }
    with (
        serving(llm or FakeLlm(pieces=WORDS, delay=0.01)) as url,
        serving_program(var, f"{url}/v1", **(own | more)) as service,
    ):
        until(lambda: metrics(service)["tandem_workers"] == workers)
        yield service


def until(holds: Callable[[], bool], seconds: float = 60.0) -> None:
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, "it did not come true"
        time.sleep(0.05)


def metrics(service: Program) -> dict[str, float]:
    """Every sample of /metrics, over a connection of its own."""
    with urllib.request.urlopen(f"{service.url}/metrics", timeout=30) as reply:
        lines = reply.read().decode().splitlines()
    return {name: float(value) for name, value in (x.rsplit(" ", 1) for x in lines if x[0] != "#")}


def pids(service: Program) -> list[int]:
    return sorted(child.pid for child in psutil.Process(service.process.pid).children())


def callers_of(pid: int) -> set[int]:
    """The ports of those who have a connection to this worker."""
    return {one.raddr.port for one in psutil.Process(pid).net_connections("tcp4") if one.raddr}


def recorded(var: Path) -> list[str]:
    """Ids of all exchanges in the store."""
    store = sqlite3.connect(var / "exchanges.sqlite")
    try:
        return [row[0] for row in store.execute("SELECT id FROM exchanges")]
    finally:
        store.close()


def exchanges_counted(service: Program) -> float:
    return sum(value for name, value in metrics(service).items() if name.startswith("tandem_exchanges_total"))
