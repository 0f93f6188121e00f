"""Starts and stops the processes of a benchmark, and reads their CPU time."""

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from urllib.parse import urlsplit

import msgspec
import psutil

from loadtests.fast_llm import Pace
from loadtests.generator import Load, Seen

ROOT = Path(__file__).resolve().parent.parent


@dataclass(frozen=True)
class Server:
    """A running server process; `url` has no path."""

    url: str
    process: psutil.Process

    @property
    def family(self) -> list[psutil.Process]:
        """The process and its children."""
        return [self.process, *self.process.children(recursive=True)]

    @property
    def cpu_seconds(self) -> float:
        """CPU time so far, user and system, of the family."""
        return sum(sum(one.cpu_times()[:2]) for one in self.family)

    @property
    def rss_mb(self) -> float:
        """Resident memory in MB (10^6 bytes)."""
        return float(self.process.memory_info().rss) / 1e6

    @property
    def own_mb(self) -> float:
        """The part of it (10^6 bytes) that is no page of a file, which processes share."""
        memory = self.process.memory_info()
        return float(memory.rss - memory.shared) / 1e6


@contextmanager
def printing_its_port(*command: str) -> Iterator[Server]:
    """A server of ours that prints its port on the first line."""
    with (
        subprocess.Popen([sys.executable, "-m", *command], stdout=subprocess.PIPE, cwd=ROOT) as child,
        _ending(child),
    ):
        assert child.stdout is not None
        port = child.stdout.readline().strip().decode()
        yield Server(f"http://127.0.0.1:{port}", psutil.Process(child.pid))


@contextmanager
def listening(command: list[str], url: str, env: Mapping[str, str], log: Path) -> Iterator[Server]:
    """A server that will listen at `url`; not waited for. Output goes to `log`."""
    with (
        log.open("ab") as out,
        subprocess.Popen(command, env=dict(env), stdout=out, stderr=out, cwd=ROOT) as child,
        _ending(child),
    ):
        yield Server(url, psutil.Process(child.pid))


@contextmanager
def _ending(child: "subprocess.Popen[bytes]") -> Iterator[None]:
    try:
        yield
    finally:
        child.terminate()
        try:
            child.wait(10)
        except subprocess.TimeoutExpired:
            child.kill()


@contextmanager
def on_one_cpu(*servers: Server) -> Iterator[None]:
    """The servers, and what is started inside, on one CPU (on Linux): the others have nothing to do.

    Two CPUs of a virtual machine may be two threads of one core, each slower while the other one works.
    """
    before = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else set()
    try:
        _place(servers, {max(before)} if before else before)
        yield
    finally:
        _place(servers, before)


def _place(servers: Sequence[Server], cpus: set[int]) -> None:
    if not cpus:
        return
    os.sched_setaffinity(0, cpus)  # what is started next inherits it
    for server in servers:
        with suppress(psutil.NoSuchProcess):
            for one in server.family:
                _move(one, cpus)


def _move(process: psutil.Process, cpus: set[int]) -> None:
    with suppress(psutil.NoSuchProcess):
        for thread in process.threads():
            with suppress(ProcessLookupError):
                os.sched_setaffinity(thread.id, cpus)


@contextmanager
def going_first(server: Server) -> Iterator[bool]:
    """The server's main thread before all that wants its CPU; False where that is not allowed, or not Linux.

    What else runs stands for other machines, and would not take turns with it there.
    """
    try:
        os.sched_setscheduler(server.process.pid, os.SCHED_RR, os.sched_param(1))
    except (AttributeError, PermissionError):
        yield False
        return
    try:
        yield True
    finally:
        with suppress(ProcessLookupError):
            os.sched_setscheduler(server.process.pid, os.SCHED_OTHER, os.sched_param(0))


def status_of(url: str, path: str) -> int:
    """The status of a GET; 0 when nobody answers."""
    try:
        return fetched("GET", url, path)[0]
    except (OSError, HTTPException):
        return 0


def fetched(method: str, url: str, path: str, body: bytes = b"") -> tuple[int, bytes]:
    """Status and body. Raises OSError or HTTPException when nobody answers."""
    parts = urlsplit(url)
    connection = HTTPConnection(parts.hostname or "127.0.0.1", parts.port, timeout=10)
    try:
        connection.request(method, path, body, {"Accept": "application/json"})
        response = connection.getresponse()
        return response.status, response.read()
    finally:
        connection.close()


def waited_for(holds: Callable[[], bool], seconds: float = 60.0, step: float = 0.01) -> float:
    """Seconds until `holds()`. Raises TimeoutError."""
    began = time.perf_counter()
    while not holds():
        if time.perf_counter() - began > seconds:
            raise TimeoutError(f"waited {seconds} s in vain")
        time.sleep(step)
    return time.perf_counter() - began


def set_pace(llm: Server, pace: Pace) -> None:
    """Tell the lean LLM server how to answer."""
    status, _ = fetched("PUT", llm.url, "/pace", msgspec.json.encode(pace))
    assert status == 200


def put_on(load: Load) -> Seen:
    """Run a load in a process of its own. Raises RuntimeError if anything was not answered in full."""
    run = subprocess.run(
        [sys.executable, "-m", "loadtests.generator"],
        input=msgspec.json.encode(load),
        stdout=subprocess.PIPE,
        cwd=ROOT,
        check=True,
    )
    seen = msgspec.json.decode(run.stdout, type=Seen)
    if seen.failed or seen.short or not seen.answers:
        raise RuntimeError(
            f"{load.url}: {seen.answers} answers, {seen.failed} failed, {seen.short} cut short"
        )
    return seen
