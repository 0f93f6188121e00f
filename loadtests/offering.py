"""Runs open-loop loads in processes of their own, while the benchmark does something to the servers."""

import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import msgspec

from loadtests.offered import Asked, Flow, Offered, Outcome, lag
from loadtests.running import ROOT
from loadtests.traffic import asked

LAG_MS = 20.0
"""A generator whose 99th percentile is later than this says little about others."""
WORDS = "Case {serial}: how is the LLM server started, and which port does it listen on?"
COMPLETIONS = "/v1/chat/completions"


def body_of(model: str, tokens: int, *, stream: bool = True) -> dict[str, Any]:
    """A question that is another one each time, with answers of so many tokens."""
    return asked(model, WORDS, stream=stream, max_tokens=tokens)


def offered(url: str, body: dict[str, Any], rate: float, seconds: float, **more: Any) -> Offered:
    """A load of one flow of callers without a key, unless `more` says otherwise."""
    flows = {"flows": (Flow(rate=rate),)}
    raw = msgspec.Raw(msgspec.json.encode(body))
    return Offered(url=url + COMPLETIONS, body=raw, seconds=seconds, **(flows | more))


class Offering:
    """A load that runs."""

    def __init__(self, child: "subprocess.Popen[bytes]") -> None:
        self._child = child
        self.began = time.time()

    def wait_until(self, second: float) -> None:
        """Until so many seconds after the beginning."""
        time.sleep(max(0.0, self.began + second - time.time()))

    def ended(self) -> Outcome:
        """Wait for the end. Raises RuntimeError when the generator failed."""
        said, _ = self._child.communicate()
        if self._child.returncode:
            raise RuntimeError("the load generator failed")
        return msgspec.json.decode(said, type=Outcome)


@contextmanager
def offering(load: Offered) -> Iterator[Offering]:
    """The load, begun."""
    command = [sys.executable, "-m", "loadtests.open_loop"]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, cwd=ROOT) as child:
        assert child.stdin is not None
        assert child.stdout is not None
        try:
            child.stdin.write(msgspec.json.encode(load))
            child.stdin.close()
            child.stdin = None
            child.stdout.readline()
            yield Offering(child)
        finally:
            child.kill()


def offer(load: Offered) -> Outcome:
    """Run it to its end."""
    with offering(load) as run:
        return run.ended()


def checked(outcome: Outcome, bound: float = LAG_MS) -> tuple[list[Asked], str]:
    """What was asked, and why that says nothing if the generator lagged."""
    late = lag(outcome)
    void = f"the load generator was up to {late:.0f} ms late (99th percentile)" if late > bound else ""
    return outcome.asked, void
