"""What all groups of a benchmark share: how long, where to write, and the ways to the LLM."""

import json
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from loadtests.peers import PEERS, installed
from loadtests.rows import DIRECT, OURS, WITH_RETRIEVAL, Rounds
from loadtests.running import Server
from loadtests.stack import Business, emptied

Chosen = TypeVar("Chosen")
MODEL = "fast"
"""What every LLM server of the benchmark calls its model."""


@dataclass(frozen=True)
class Plan:
    """One run of the benchmark. `var` is where everything is written."""

    quick: bool
    rounds: int
    var: Path
    command: str
    models: Path
    peers: bool
    soak: float
    found: Rounds

    def either(self, quick: Chosen, full: Chosen) -> Chosen:
        """What holds in a quick run, or in a full one."""
        return quick if self.quick else full

    def business(self, llms: Sequence[Server], name: str, **settings: str) -> Business:
        """The business API before these LLM servers, with a folder of its own."""
        more = {f"BUSINESS_API_{key}": value for key, value in settings.items()}
        if len(llms) > 1:
            more["BUSINESS_API_LLM__REPLICAS"] = json.dumps([{"url": f"{llm.url}/v1"} for llm in llms])
        business = Business(llms[0].url, emptied(self.var / name), self.command, more)
        business.lend(self.models)
        return business

    @contextmanager
    def ways(self, llm: Server, business: Business, *, peers: bool = True) -> Iterator[dict[str, Server]]:
        """Direct, ours, and the peers if they are there, all before one LLM server."""
        with ExitStack() as stack:
            ours, _ = stack.enter_context(business.started())
            yield {DIRECT: llm, OURS: ours} | (self.others(llm, stack) if peers else {})

    @contextmanager
    def peer_may_fail(self, way: str, *keys: str) -> Iterator[None]:
        """A peer that does not answer all is told of, and ends nothing. Errors of other ways pass."""
        try:
            yield
        except (RuntimeError, TimeoutError) as exc:
            if way in (DIRECT, OURS, WITH_RETRIEVAL):
                raise
            for key in keys:
                self.found.tell(key, f"{way}: {str(exc).partition(': ')[2] or exc}")

    def others(self, llm: Server, stack: ExitStack) -> dict[str, Server]:
        """The peers before an LLM server, if they are wanted and there."""
        if not self.peers or not installed():
            return {}
        return {peer: stack.enter_context(start(llm.url, self.var)) for peer, start in PEERS.items()}


def model_of(way: str) -> str:
    """What to ask for on this way."""
    return way if way in (OURS, "tandem") else MODEL
