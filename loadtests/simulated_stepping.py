"""The model's loop: one timer a step, which writes to all answers of the batch. Says how late it is."""

import asyncio
from collections.abc import Callable
from typing import cast

from loadtests.simulated_answering import Answering
from loadtests.simulated_batching import Batching, Preset, Step
from loadtests.simulated_metrics import Meters

STALL_SECONDS = 0.25
"""Who was stopped for longer than this does not catch up on the steps that were missed: nor does a GPU."""


class Stepping:
    """Runs the batch. `slow` multiplies the time of a step, `frozen` stops it. `clock` in seconds."""

    def __init__(self, preset: Preset, clock: Callable[[], float]) -> None:
        self.batching = Batching(preset)
        self.meters = Meters(preset.model)
        self.slow = 1.0
        self.frozen = False
        self.unfinished: set[Answering] = set()
        self._clock = clock
        self._timer: asyncio.TimerHandle | None = None
        self._last = 0.0

    def submit(self, answering: Answering) -> None:
        """Queue it and begin to answer."""
        counts = self.meters.counts
        counts.prompt_tokens += answering.prompt
        counts.foreign += answering.answer.foreign
        self.unfinished.add(answering)
        self.batching.submit(answering)
        answering.connection.on_gone = lambda: self._hung_up(answering)
        answering.begin()
        self.wake()

    def wake(self) -> None:
        """Go on, if there is something to do and no step under way."""
        if self._timer is None and not self.frozen:
            self._last = 0.0
            self._begin(self._clock())

    def stop(self) -> None:
        """Take no further step."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def fail_all(self, message: str) -> None:
        """End every answer with an error."""
        for answering in list(self.unfinished):
            answering.fail(message)
            self._over(answering)

    def _begin(self, start: float) -> None:
        step = None if self.frozen else self.batching.step()
        if step is None:
            self._timer = None
            return
        for one in cast(list[Answering], step.admitted):
            self._started(one, start)
        due = start + step.seconds * self.slow
        wait = max(0.0, due - self._clock())
        self._timer = asyncio.get_running_loop().call_later(wait, self._end, step, due)

    def _started(self, one: Answering, now: float) -> None:
        if not one.started:
            one.started = now
            self.meters.counts.cached_tokens += one.cached
            self.meters.observe("request_queue_time", max(0.0, now - one.arrived))

    def _end(self, step: Step, due: float) -> None:
        now = self._clock()
        firsts = 0
        for one in cast(list[Answering], step.speakers):
            if not one.first:
                firsts += 1
                self._begun(one, now)
            one.speak()
            if one.ended:
                self._over(one)
        self.meters.stepped(step, now - due, now - self._last if self._last else 0.0, firsts)
        self._last = now
        self._begin(now if now - due > STALL_SECONDS else due)

    def _begun(self, one: Answering, now: float) -> None:
        one.first = now
        self.meters.observe("time_to_first_token", now - one.arrived)
        self.meters.observe("request_prefill_time", now - one.started)

    def _over(self, answering: Answering) -> None:
        """It is answered, or given up."""
        if answering not in self.unfinished:
            return
        self.unfinished.remove(answering)
        self.batching.leave(answering)
        meters, now = self.meters, self._clock()
        meters.counts.finished += answering.ended != "error"
        meters.reasons[answering.ended] += 1
        meters.observe("e2e_request_latency", now - answering.arrived)
        if answering.first:
            decode = now - answering.first
            meters.observe("request_decode_time", decode)
            meters.observe("request_time_per_output_token", decode / max(1, answering.said - 1))

    def _hung_up(self, answering: Answering) -> None:
        answering.ended = "abort"
        self.meters.counts.left += 1
        self.meters.reasons["abort"] += 1
        self.unfinished.discard(answering)
        self.batching.leave(answering)
