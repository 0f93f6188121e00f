"""One attempt: a request to one replica, and its answer read delta by delta."""

import time

from business_api.deltas import Deltas
from business_api.errors import ServiceError, Unavailable, UpstreamTimeout, UpstreamUnavailable
from business_api.settings import LlmSettings
from business_api.transport import Reply
from business_api.upstream.asked import Asked
from business_api.upstream.counting import tokens_in
from business_api.upstream.failing import BROKE_OFF, UNREACHABLE, Failed, refusal
from business_api.upstream.replica import Replica
from business_api.upstream.serving import headers, served_model
from business_api.usage import Attempt
from business_api.waiting import Waiting

CONTINUING = frozenset({"vllm", "llamacpp"})
"""Makers of servers that go on with a last message of the assistant, by what `/models` says of the owner."""
OVER = "the time for the whole answer was over"


class Stream:
    """An answer of one replica. `begin` it, read it, close it however it ends.

    Who reads calls `taken_up` once, then `waits` before each delta, and `rests` when it waits for something
    else. `told` reads the deltas and has what the server says of the answer as a whole, once it has begun.
    """

    def __init__(self, replica: Replica, asked: Asked, settings: LlmSettings) -> None:
        self.replica, self._asked, self._settings = replica, asked, settings
        self._load = replica.carry(asked.prompt_tokens, asked.expected_tokens)
        self._patience, self._until = settings.delta_deadline, asked.until
        self._waiting = Waiting(self._patience)
        self.taken_up, self.rests = self._waiting.taken_up, self._waiting.ends
        self._began = time.perf_counter()
        self._reply: Reply | None = None
        self._outcome: str | None = None
        self.told: Deltas
        self.ttft_ms = 0.0
        replica.waits.add(self._waiting)

    async def begin(self) -> None:
        """Send the request and read up to the first content. Raises Failed; it is closed then."""
        try:
            await self._begin()
        except BaseException as exc:
            self.ended(exc.outcome if isinstance(exc, Failed) else "cancelled")
            await self.aclose()
            raise
        self.ttft_ms = (time.perf_counter() - self._began) * 1000
        self._load.prefilled()
        self.replica.succeeded()

    async def _begin(self) -> None:
        asked = self._asked
        deadline = min(asked.until, time.monotonic() + self._settings.first_delta_deadline)
        if asked.leaving is not None:
            asked.leaving.may_end(self._waiting)
        if asked.taken:  # a moment ago, when this attempt was about to begin
            raise self._late()
        try:
            with self._waiting.until(deadline):
                await self._send()
                await self.told.begin(self._thinks)
        except TimeoutError as exc:
            raise self._late() from exc
        except Failed as failed:
            self._blame(failed)
            raise
        except ServiceError as exc:
            raise self._blame(Failed("broke_off", exc, again=True, strikes=BROKE_OFF)) from exc

    async def _send(self) -> None:
        """A reply with status 200. Raises Failed."""
        replica, settings = self.replica, self._settings
        try:
            model = replica.model
            if model is None or (self._asked.continues and not replica.maker):
                model = await served_model(replica, settings)
            if self._asked.continues and replica.maker not in CONTINUING:
                unable = UpstreamUnavailable("the LLM server does not go on with an answer")
                raise Failed("cannot_continue", unable, again=True)
            if self._asked.continues and replica.counts_tokens:
                said = self._asked.prompt.messages[-1].content or ""
                self._asked = self._asked.counted(await tokens_in(said, replica, settings))
            sent = headers(settings, self._asked)
            transport = replica.transport
            self._reply = await transport.send("POST", "/chat/completions", self._asked.body(model), sent)
        except ServiceError as exc:
            raise Failed("unreachable", exc, again=True, strikes=UNREACHABLE) from exc
        if self._reply.status == 404:
            replica.model = settings.model  # it may have been started anew, with another model
        if self._reply.status != 200:
            raise await refusal(self._reply)
        self.told = Deltas(self._reply)

    def _thinks(self) -> None:
        """Who thinks is not late."""
        if self._asked.leaving is not None:
            self._asked.leaving.not_yet(self._waiting)
        self.waits()

    def _late(self) -> Failed:
        if self._asked.left <= 0:
            return Failed("deadline", UpstreamTimeout(OVER), again=False)
        if self.replica.out is not None:
            return Failed("stalled", UpstreamTimeout("the LLM server makes no progress"), again=True)
        error = UpstreamTimeout("the LLM server did not begin to answer in time")
        if self._asked.taken:  # it may be slow only for those who can ask another one
            return Failed("late", error, again=False)
        return self._blame(Failed("late", error, again=True, strikes=BROKE_OFF))

    def _blame(self, failed: Failed) -> Failed:
        self.replica.failed(failed.outcome, failed.strikes)
        if failed.retry_after is not None:
            self.replica.busy_until = self.replica.clock() + failed.retry_after
        return failed

    def waits(self) -> None:
        """The next delta is about to be waited for."""
        now = self.replica.heard_at = time.monotonic()
        due = now + self._patience
        self._waiting.begins(due if due < self._until else self._until)

    def ended_by(self, exc: BaseException) -> Unavailable | None:
        """What ended the wait, as the caller is told it; None when it was cancelled by somebody else."""
        if isinstance(exc, Unavailable):
            self._waiting.ends()
            self._broke_off("broke_off")
            return exc
        if not self._waiting.ran_out():
            return None
        self._broke_off("stalled")
        over = self._asked.left <= 0
        told = UpstreamTimeout(OVER if over else "the LLM server stopped in the middle of the answer")
        told.__cause__ = exc
        return told

    def _broke_off(self, outcome: str) -> None:
        if self._asked.left <= 0:
            self.ended("deadline")
            return
        self.ended(outcome)
        self.replica.failed(outcome, BROKE_OFF)

    @property
    def continues_tokens(self) -> int:
        """Tokens of the beginning that it goes on with."""
        return self._asked.said_tokens

    @property
    def under_way(self) -> bool:
        """Whether it has not ended yet."""
        return self._outcome is None

    def attempt(self, outcome: str) -> Attempt:
        """This attempt as it would be told if it ended now."""
        return Attempt(self.replica.name, outcome, (time.perf_counter() - self._began) * 1000)

    def ended(self, outcome: str) -> None:
        """Note how it ended, once."""
        if self._outcome is None:
            self._outcome = outcome
            self._asked.trail.append(self.attempt(outcome))

    async def aclose(self) -> None:
        """Hang up if the answer has not ended, so that the LLM stops; its load is put down. Idempotent."""
        self.ended("abandoned")
        self._load.put_down()
        self._waiting.close()
        self.replica.waits.discard(self._waiting)
        if self._asked.leaving is not None:
            self._asked.leaving.over(self._waiting)
        reply, self._reply = self._reply, None
        if reply is not None:
            await reply.aclose()
