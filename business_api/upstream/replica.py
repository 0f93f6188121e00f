"""One LLM server of the pool: what it carries now, whether it is in or out, what it serves."""

import asyncio
import logging
import time
from collections.abc import Callable

from business_api.transport import Transport
from business_api.waiting import Waiting

log = logging.getLogger(__name__)


class Load:
    """What one answer puts on a replica, in tokens, until it is put down. Putting down twice is harmless."""

    __slots__ = ("_carried", "_expected", "_prompt", "_replica")

    def __init__(self, replica: "Replica", prompt: float, expected: float) -> None:
        self._replica, self._prompt, self._expected = replica, prompt, expected
        self._carried = True
        replica.running += 1
        replica.emptied.clear()
        replica.outstanding += prompt + expected

    def prefilled(self) -> None:
        """The prompt has been read: what is left is what will be said."""
        self._replica.outstanding -= self._prompt
        self._prompt = 0.0

    def put_down(self) -> None:
        """The answer has ended, or was given up."""
        if not self._carried:
            return
        self._carried = False
        self._replica.running -= 1
        self._replica.outstanding -= self._prompt + self._expected
        if not self._replica.running:
            self._replica.outstanding = 0.0  # so that rounding never adds up
            self._replica.emptied.set()


class Replica:
    """A server and its circuit breaker: out after `strikes_out` strikes, in again after a success or a probe.

    `outstanding` are the tokens of the answers it runs; `busy_until` is when it wants to be asked again.
    `out` says why it gets nothing, None while it is in; `out_since` when it left, `tried_at` when it was last
    seen whether it works, `looked_at` when it was last looked after. `leaving` ones are no longer in the
    pool. `counts_tokens`: it may be asked to.
    """

    def __init__(
        self,
        name: str,
        transport: Transport,
        *,
        weight: float = 1.0,
        root: Transport | None = None,
        model: str | None = None,
        counts_tokens: bool = False,
        strikes_out: float = 3.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.name, self.transport, self.weight, self.root = name, transport, weight, root
        self.model = model
        self.maker = ""
        self.counts_tokens = counts_tokens
        self.outstanding = 0.0
        self.running = 0
        self.out: str | None = None
        self.out_since = self.tried_at = self.looked_at = clock()
        self.leaving = False
        self.busy_until = 0.0
        self.heard_at = clock()
        self.emptied = asyncio.Event()
        self.emptied.set()
        self.waits: set[Waiting] = set()
        self._strikes = 0.0
        self._strikes_out = strikes_out
        self.clock = clock

    @property
    def burden(self) -> float:
        """Outstanding tokens for its weight."""
        return self.outstanding / self.weight

    @property
    def busy(self) -> bool:
        """Whether it has asked to be left alone for now."""
        return self.busy_until > 0 and self.clock() < self.busy_until

    def carry(self, prompt: float, expected: float) -> Load:
        """Take an answer of so many tokens upon it."""
        if not self.running:
            self.heard_at = self.clock()
        if self.out is not None:
            self.tried_at = self.clock()
        return Load(self, prompt, expected)

    def succeeded(self) -> None:
        """It began to answer: one strike less, and it is in."""
        self._strikes = max(0.0, self._strikes - 1)
        if self.out is not None:
            self.readmit()

    def failed(self, why: str, strikes: float) -> None:
        """It did not answer."""
        self._strikes += strikes
        if self._strikes >= self._strikes_out and self.out is None:
            self.eject(why)

    def eject(self, why: str) -> None:
        """Give it nothing until it is readmitted."""
        self.out = why
        self.out_since = self.tried_at = self.looked_at = self.clock()
        log.warning("the LLM server %s is out: %s", self.name, why)

    async def idle(self) -> None:
        """Wait until it runs no answer."""
        await self.emptied.wait()

    def cut_off(self) -> None:
        """End every wait for it now: those who wait go elsewhere."""
        for waiting in list(self.waits):
            waiting.run_out()

    def readmit(self) -> None:
        """It works again."""
        log.warning("the LLM server %s is in again", self.name)
        self.out = None
        self._strikes = 0.0
        self.busy_until = 0.0
        self.heard_at = self.clock()
