"""Real vLLM servers (CPU build) that are killed, drained, frozen and started again on their ports."""

import os
import signal
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Self

import psutil
import pytest

from tests.llm_fixtures import READY_SECONDS, ROOT, free_port, started_llm, stop, wait_until_ready


class VllmServers:
    """So many servers of one model, started at the same time, each on a core of its own if there is one."""

    def __init__(self, number: int, folder: Path) -> None:
        self._ports = [free_port() for _ in range(number)]
        self._logs = [folder / f"server{place}.log" for place in range(number)]
        self._processes: list[subprocess.Popen[bytes]] = []

    @property
    def urls(self) -> list[str]:
        """Base URLs, ending in /v1; they stay the same."""
        return [f"http://127.0.0.1:{port}/v1" for port in self._ports]

    def __enter__(self) -> Self:
        self._processes = [self._started(number) for number in range(len(self._ports))]
        for number in range(len(self._ports)):
            self._wait(number)
        return self

    def __exit__(self, *exc: object) -> None:
        with ThreadPoolExecutor(len(self._processes)) as pool:
            list(pool.map(stop, self._processes))

    def _started(self, number: int) -> "subprocess.Popen[bytes]":
        cores = sorted(os.sched_getaffinity(0))
        core = str(cores[number % len(cores)])
        return started_llm("vllm", self._ports[number], self._logs[number], VLLM_CPU_OMP_THREADS_BIND=core)

    def _wait(self, number: int) -> None:
        wait_until_ready(
            self._processes[number], self._ports[number], READY_SECONDS["vllm"], self._logs[number]
        )

    def kill(self, number: int) -> None:
        """SIGKILL to all its processes, as when its machine dies."""
        self._signal(number, signal.SIGKILL)
        self._processes[number].wait()

    def kill_model(self, number: int) -> None:
        """SIGKILL to what computes, as when memory runs out: its HTTP side lives on for some seconds."""
        for child in psutil.Process(self._processes[number].pid).children(recursive=True):
            if child.name().startswith("VLLM::"):
                child.kill()

    def drain(self, number: int) -> None:
        """SIGTERM, as a rolling update sends it; not waited for."""
        self._processes[number].terminate()

    def ended(self, number: int) -> int:
        """Wait for its end after `drain`; its exit status."""
        return stop(self._processes[number])

    def runs(self, number: int) -> bool:
        """Whether it has not ended."""
        return self._processes[number].poll() is None

    def start(self, number: int) -> None:
        """Again, on the same port; it is healthy when this returns."""
        self._processes[number] = self._started(number)
        self._wait(number)

    @contextmanager
    def stopped(self, number: int) -> Iterator[None]:
        """SIGSTOP to all its processes: connections stay open, nobody answers. SIGCONT at the end."""
        self._signal(number, signal.SIGSTOP)
        try:
            yield
        finally:
            self._signal(number, signal.SIGCONT)

    def _signal(self, number: int, which: int) -> None:
        os.killpg(self._processes[number].pid, which)


@pytest.fixture(scope="session")
def vllm_servers(
    tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest
) -> Iterator[VllmServers]:
    """As many as the tests of this session need, one or two. They start in one to three minutes."""
    if not (ROOT / ".venv/vllm/bin/vllm").is_file():
        said = "vLLM's CPU build is not installed: `make .venv/vllm/.ready`"
        if os.environ.get("TANDEM_REQUIRE_VLLM") == "1":
            pytest.fail(said, pytrace=False)
        pytest.skip(said)
    asked_for = {name for item in request.session.items for name in getattr(item, "fixturenames", ())}
    with VllmServers(2 if "two_vllms" in asked_for else 1, tmp_path_factory.mktemp("vllm")) as servers:
        yield servers


@pytest.fixture(scope="session")
def vllm_server(vllm_servers: VllmServers) -> str:
    """Base URL (ending in /v1) of a real vLLM server that no test disturbs."""
    return vllm_servers.urls[0]


@pytest.fixture(scope="session")
def two_vllms(vllm_servers: VllmServers) -> VllmServers:
    """Two of them with the same model. Only the second one may be disturbed."""
    return vllm_servers
