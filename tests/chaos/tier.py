"""The business API as people run it, before simulated LLM servers that fail when they are told to."""

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.client import HTTPConnection
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from loadtests.answer_text import expected, said_of
from loadtests.offered import ending_of
from loadtests.replica_fleet import Fleet
from loadtests.simulated_control import order
from loadtests.simulated_faults import Fault, Order
from tests.programs import Program, serving_program

TOKENS = 60
QUIET = {
    "LLM__CHOICE": "round_robin",
    "LLM__BACKOFF": "0.01",
    "LLM__EJECT_AFTER": "1000",
    "LLM__RETRY_FLOOR": "1000",
    "LLM__FIRST_DELTA_DEADLINE": "1",
    "LLM__DELTA_DEADLINE": "1",
    "GUARD__REQUESTS_PER_MINUTE": "1000000",
}
"""Replicas in turn, none left out, no bound on retries but their number: what one fault does, no more."""


@dataclass(frozen=True)
class Heard:
    """One answer: `ended` as `loadtests.offered` says it, and its exchange as it was recorded."""

    status: int
    ended: str
    text: str
    error: str | None
    exchange: dict[str, Any]
    done: bool = False
    """Whether `[DONE]` was sent."""

    @property
    def trail(self) -> list[str]:
        """Outcomes of the attempts."""
        return [attempt["outcome"] for attempt in self.exchange.get("attempts", ())]

    @property
    def resumed(self) -> bool:
        return "resumed" in self.exchange.get("degraded", ())


@dataclass(frozen=True)
class Tier:
    """Both tiers, running."""

    program: Program
    fleet: Fleet

    def spoil(self, fault: Fault, replicas: int) -> None:
        """So many of the replicas fail like this from now on, those that did not are well."""
        for number, replica in enumerate(self.fleet.servers):
            order(replica, Order(clear=True, fault=fault if number < replicas else None))

    def ask(self, serial: int, *, stream: bool) -> Heard:
        """One question, on a connection of its own."""
        return heard_of(self.program, asked(serial, stream=stream))


def heard_of(program: Program, body: dict[str, Any], arrived: list[float] | None = None) -> Heard:
    """The answer to `body`, on a connection of its own; when its frames came is added to `arrived`."""
    parts = urlsplit(program.url)
    connection = HTTPConnection(parts.hostname or "", parts.port, timeout=300)
    connection.request("POST", "/v1/chat/completions", json.dumps(body), {"Content-Type": "application/json"})
    reply = connection.getresponse()
    lines = []
    for line in reply:
        lines.append(line)
        if arrived is not None and line.startswith(b"data: {"):
            arrived.append(time.perf_counter())
    connection.close()
    said = b"".join(lines)
    exchange = recorded(program, reply.headers["X-Request-Id"])
    return Heard(
        reply.status,
        ending_of(reply.status, said),
        said_of(said)[0],
        _error_of(said),
        exchange,
        done=b"data: [DONE]" in said,
    )


def recorded(program: Program, exchange: str) -> dict[str, Any]:
    """The exchange, once it is in the store."""
    until = time.monotonic() + 30
    while time.monotonic() < until:
        status, found = program.get(f"/exchanges/{exchange}")
        if status == 200:
            assert isinstance(found, dict)
            return found
        time.sleep(0.02)
    raise AssertionError(f"{exchange} was not recorded")


@contextmanager
def tier(var: Path, replicas: int, *preset: str, **settings: str) -> Iterator[Tier]:
    """Run both."""
    with Fleet(replicas, "--preset", "quick", "--set", "answer_tokens=200", *preset) as fleet:
        urls = json.dumps([{"url": f"{one.url}/v1"} for one in fleet.servers])
        more = {f"BUSINESS_API_{name}": value for name, value in settings.items()}
        with serving_program(
            var, f"{fleet.servers[0].url}/v1", BUSINESS_API_LLM__REPLICAS=urls, **more
        ) as program:
            yield Tier(program, fleet)


def asked(serial: int, *, stream: bool, tokens: int = TOKENS) -> dict[str, Any]:
    content = f"Question {serial}: which port?"
    return {
        "model": "plain",
        "stream": stream,
        "max_tokens": tokens,
        "messages": [{"role": "user", "content": content}],
    }


def said_to(serial: int) -> str:
    """What an unbroken answer says."""
    return expected(asked(serial, stream=False), 0)


def _error_of(said: bytes) -> str | None:
    for line in said.removeprefix(b"data: ").split(b"\n\ndata: "):
        if line.startswith(b'{"error"'):
            return str(json.loads(line)["error"]["code"])
    return None
