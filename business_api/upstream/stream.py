"""One attempt: a request to one replica, and its answer read delta by delta."""

import time
from collections.abc import AsyncGenerator

import msgspec

from business_api.errors import ServiceError, UpstreamTimeout, UpstreamUnavailable
from business_api.exchange import Delta
from business_api.frames import Choice, Content, Frame
from business_api.settings import LlmSettings
from business_api.transport import Reply, payloads
from business_api.upstream.asked import Asked
from business_api.upstream.failing import BROKE_OFF, UNREACHABLE, Failed, refusal
from business_api.upstream.replica import Replica
from business_api.upstream.serving import headers, served_model
from business_api.upstream.waiting import Waiting
from business_api.usage import Attempt, Usage

FINISHED = frozenset({"stop", "length", "tool_calls", "content_filter", "function_call"})
"""finish_reasons of an answer that is complete; vLLM's `abort` is not one."""

CONTINUING = frozenset({"vllm", "llamacpp"})
"""Makers of servers that go on with a last message of the assistant, by what `/models` says of the owner."""

_frames = msgspec.json.Decoder(Frame)


class Stream:
    """An answer of one replica. `begin` it, read it with `next`, close it however it ends.

    `first` is the first delta, None of an empty answer. `deltas` counts those that were read.
    """

    def __init__(self, replica: Replica, asked: Asked, settings: LlmSettings) -> None:
        self.replica, self._asked, self._settings = replica, asked, settings
        self._load = replica.carry(asked.prompt_tokens, asked.expected_tokens)
        self._waiting = Waiting()
        self._began = time.perf_counter()
        self._reply: Reply | None = None
        self._payloads: AsyncGenerator[bytes] | None = None
        self._outcome: str | None = None
        self.first: Delta | None = None
        self.deltas = 0
        self.ttft_ms = 0.0
        self.model = ""
        self.fingerprint: str | None = None
        self.finish_reason: str | None = None
        self.usage: Usage | None = None
        replica.waits.add(self._waiting)

    async def begin(self) -> None:
        """Send the request and read up to the first content. Raises Failed; it is closed then."""
        try:
            self.first = await self._begin()
        except BaseException as exc:
            self.ended(exc.outcome if isinstance(exc, Failed) else "cancelled")
            await self.aclose()
            raise
        self.ttft_ms = (time.perf_counter() - self._began) * 1000
        self._load.prefilled()
        self.replica.succeeded()

    async def _begin(self) -> Delta | None:
        deadline = min(self._asked.until, time.monotonic() + self._settings.first_delta_deadline)
        try:
            with self._waiting.until(deadline):
                await self._send()
                return await self._read_on()
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
            sent = headers(settings, self._asked)
            transport = replica.transport
            self._reply = await transport.send("POST", "/chat/completions", self._asked.body(model), sent)
        except ServiceError as exc:
            raise Failed("unreachable", exc, again=True, strikes=UNREACHABLE) from exc
        if self._reply.status == 404:
            replica.model = settings.model  # it may have been started anew, with another model
        if self._reply.status != 200:
            raise await refusal(self._reply)
        self._payloads = payloads(self._reply)

    def _late(self) -> Failed:
        if self._asked.left <= 0:
            return Failed("deadline", UpstreamTimeout("the time for the whole answer was over"), again=False)
        if self.replica.out is not None:
            return Failed("stalled", UpstreamTimeout("the LLM server makes no progress"), again=True)
        error = UpstreamTimeout("the LLM server did not begin to answer in time")
        return self._blame(Failed("late", error, again=True, strikes=BROKE_OFF))

    def _blame(self, failed: Failed) -> Failed:
        self.replica.failed(failed.outcome, failed.strikes)
        if failed.retry_after is not None:
            self.replica.busy_until = self.replica.clock() + failed.retry_after
        return failed

    async def next(self) -> Delta | None:
        """The next delta, None at the end. Raises UpstreamTimeout, UpstreamUnavailable when it breaks off."""
        now = time.monotonic()
        try:
            with self._waiting.until(min(self._asked.until, now + self._settings.delta_deadline)):
                return await self._read_on()
        except TimeoutError as exc:
            self._broke_off("stalled")
            raise UpstreamTimeout("the LLM server stopped in the middle of the answer") from exc
        except UpstreamUnavailable:
            self._broke_off("broke_off")
            raise

    def _broke_off(self, outcome: str) -> None:
        if self._asked.left <= 0:
            self.ended("deadline")
            return
        self.ended(outcome)
        self.replica.failed(outcome, BROKE_OFF)

    async def _read_on(self) -> Delta | None:
        assert self._payloads is not None
        async for payload in self._payloads:
            delta = self._read(payload)
            if delta is not None:
                self.deltas += 1
                return delta
        if self.finish_reason not in FINISHED or self.usage is None:
            raise UpstreamUnavailable("the LLM server broke off before the answer was complete")
        self.ended("answered")
        return None

    def _read(self, payload: bytes) -> Delta | None:
        try:
            frame = _frames.decode(payload)
        except (msgspec.DecodeError, UnicodeError, RecursionError) as exc:
            raise UpstreamUnavailable("the LLM server sent something that is not an answer") from exc
        if frame.error is not None:
            raise UpstreamUnavailable("the LLM server failed in the middle of the answer")
        self.replica.heard_at = time.monotonic()
        self.model = frame.model or self.model
        self.fingerprint = frame.system_fingerprint or self.fingerprint
        self.usage = frame.usage or self.usage
        choice = next((one for one in frame.choices or () if one.index == 0), None)
        return self._delta(choice) if choice else None

    def _delta(self, choice: Choice) -> Delta | None:
        self.finish_reason = choice.finish_reason or self.finish_reason
        said = choice.delta or Content()
        logprobs = {"content": choice.logprobs.content} if choice.logprobs else None
        if not (said.content or said.tool_calls or said.refusal or logprobs):
            return None
        calls = [msgspec.to_builtins(call) for call in said.tool_calls or ()]
        return Delta(said.content or "", calls or None, logprobs, said.refusal)

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
        reply, self._reply = self._reply, None
        try:
            if self._payloads is not None:
                await self._payloads.aclose()
        finally:
            if reply is not None:
                await reply.aclose()
