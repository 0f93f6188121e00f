"""Replicas of the simulated LLM server that are killed, frozen, drained and started again on their ports."""

import signal
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Self
from urllib.parse import urlsplit

import msgspec
import psutil

from loadtests.running import Server
from loadtests.simulated_control import counts_of
from loadtests.simulated_llm import replicas
from loadtests.simulated_metrics import Counts

DRAIN_SECONDS = 30


class Fleet:
    """So many replicas, processes of their own; `arguments` as on the command line."""

    def __init__(self, number: int, *arguments: str) -> None:
        self._arguments = (*arguments, "--shutdown-timeout", str(DRAIN_SECONDS))
        self._started = [ExitStack() for _ in range(number)]
        self._before: list[Counts] = []
        self.servers: list[Server] = []

    def __enter__(self) -> Self:
        for stack in self._started:
            self.servers += stack.enter_context(replicas(1, *self._arguments))
        return self

    def __exit__(self, *exc: object) -> None:
        for stack in self._started:
            stack.close()

    def kill(self, number: int) -> None:
        """SIGKILL: its connections are reset, its port is closed."""
        self._before.append(counts_of(self.servers[number]))
        self.servers[number].process.kill()

    def start(self, number: int) -> None:
        """Again, on the same port. Its counts begin at zero."""
        port = str(urlsplit(self.servers[number].url).port)
        self._started[number].close()
        (self.servers[number],) = self._started[number].enter_context(
            replicas(1, *self._arguments, "--port", port)
        )

    def renew(self, number: int) -> None:
        """SIGTERM, as a rolling update has it: wait until what runs has finished, then start it again."""
        self.servers[number].process.terminate()
        psutil.wait_procs([self.servers[number].process], timeout=DRAIN_SECONDS + 5)
        self.start(number)

    @contextmanager
    def stopped(self, number: int) -> Iterator[None]:
        """SIGSTOP: connections stay open, nobody answers. SIGCONT at the end."""
        process = self.servers[number].process
        process.send_signal(signal.SIGSTOP)
        try:
            yield
        finally:
            process.send_signal(signal.SIGCONT)

    def counts(self) -> Counts:
        """What all replicas did, those too that were killed."""
        told = [msgspec.structs.asdict(one) for one in (*self._before, *map(counts_of, self.servers))]
        return Counts(**{name: sum(one[name] for one in told) for name in told[0]})
