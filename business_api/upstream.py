"""Talks to the LLM server: queue, deadlines, the first-delta gate, the true success test, cancellation.

`generate` returns once the first real content has arrived. Up to there every refusal and outage is an
exception with an HTTP status; nothing was sent to the caller yet. `[DONE]` is not success: vLLM sends it
after aborts and errors too. Success is a known finish_reason and usage.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

import msgspec

from business_api.deltas import Deltas
from business_api.errors import (
    InvalidRequest,
    Overloaded,
    PromptTooLong,
    Unavailable,
    UpstreamTimeout,
    UpstreamUnavailable,
)
from business_api.exchange import Delta, Prompt, Usage
from business_api.patience import Patience
from business_api.settings import LlmSettings
from business_api.slots import Slots
from business_api.transport import Reply, Transport


class Running:
    """A running answer (the `Generation` of exchange.py). Made by Upstream.generate."""

    def __init__(
        self, reply: Reply, slots: Slots, settings: LlmSettings, queue_ms: float, began: float
    ) -> None:
        self._reply, self._slots = reply, slots
        self._deltas = Deltas(reply)
        until = time.monotonic() + settings.total_deadline - (time.perf_counter() - began)
        self._patience = Patience(settings.delta_deadline, until)
        self._began = began
        self._first: Delta | None = None
        self._open = True
        self.queue_ms = queue_ms
        self.ttft_ms = 0.0
        self.model = ""
        self.fingerprint: str | None = None
        self.finish_reason: str | None = None
        self.usage: Usage | None = None

    @property
    def ready(self) -> bool:
        """Whether the next delta has arrived: reading on will not wait."""
        return bool(self._deltas.arrived)

    async def begin(self) -> None:
        """Read up to the first content, or to the end of an empty answer."""
        self._first = await self._next_delta()
        self.ttft_ms = (time.perf_counter() - self._began) * 1000

    async def __aiter__(self) -> AsyncIterator[Delta]:
        delta, arrived = self._first, self._deltas.arrived
        try:
            with self._patience as patience:
                while delta is not None:
                    yield delta
                    while arrived:
                        yield arrived.popleft()
                    patience.waits()
                    delta = await self._next_delta()
                    patience.rests()
        except TimeoutError as exc:
            raise UpstreamTimeout("the LLM server stopped in the middle of the answer") from exc

    async def _next_delta(self) -> Delta | None:
        try:
            return await self._deltas.next()
        finally:
            self.model, self.fingerprint = self._deltas.model, self._deltas.fingerprint
            self.finish_reason, self.usage = self._deltas.finish_reason, self._deltas.usage

    async def aclose(self) -> None:
        """Hang up if the answer has not ended, so that the LLM stops; frees the slot. Idempotent."""
        if self._open:
            self._open = False
            self._slots.give_back()
            self._patience.close()
            await self._reply.aclose()


class Upstream:
    """An OpenAI-compatible LLM server."""

    def __init__(self, transport: Transport, settings: LlmSettings) -> None:
        self._transport = transport
        self._settings = settings
        self._model = settings.model
        self.slots = Slots(settings)

    async def generate(self, prompt: Prompt, sampling: Mapping[str, Any], request_id: str) -> Running:
        """Start answering (the `Generate` port). The caller must close what it gets."""
        queued = await self.slots.take()
        try:
            return await self._begin(prompt, sampling, request_id, queued)
        except BaseException:
            self.slots.give_back()
            raise

    async def _begin(
        self, prompt: Prompt, sampling: Mapping[str, Any], request_id: str, queued: float
    ) -> Running:
        began = time.perf_counter()
        try:
            async with asyncio.timeout(self._settings.first_delta_deadline):
                body = await self._body(prompt, sampling)
                async with self._accepted(body, request_id) as reply:
                    running = Running(reply, self.slots, self._settings, queued, began)
                    await running.begin()
                    return running
        except TimeoutError as exc:
            raise UpstreamTimeout("the LLM server did not begin to answer in time") from exc

    @asynccontextmanager
    async def _accepted(self, body: bytes, request_id: str) -> AsyncIterator[Reply]:
        """A reply with status 200, hung up if anything goes wrong before the first content."""
        headers = self._headers() | {"Content-Type": "application/json", "X-Request-Id": request_id}
        reply = await self._transport.send("POST", "/chat/completions", body, headers)
        try:
            if reply.status != 200:
                raise await self._refusal(reply)
            yield reply
        except BaseException:
            await reply.aclose()
            raise

    async def _body(self, prompt: Prompt, sampling: Mapping[str, Any]) -> bytes:
        return msgspec.json.encode(
            {
                "model": self._model or await self.served_model(),
                "messages": prompt.messages,
                "max_tokens": prompt.max_tokens,
                **sampling,
                "stream": True,
                "stream_options": {"include_usage": True},
            }
        )

    async def served_model(self) -> str:
        """The served name asked for. Raises UpstreamUnavailable when the server does not list it."""
        async with asyncio.timeout(self._settings.connect_deadline + 3):
            reply = await self._transport.send("GET", "/models", b"", self._headers())
            raw = b"".join([piece async for piece in reply])
        try:
            names = [model["id"] for model in msgspec.json.decode(raw)["data"]]
        except (msgspec.DecodeError, UnicodeError, KeyError, TypeError) as exc:
            raise UpstreamUnavailable("the LLM server does not list its models") from exc
        if not names or (self._settings.model or names[0]) not in names:
            raise UpstreamUnavailable(f"the LLM server does not serve {self._settings.model or 'any model'}")
        self._model = self._settings.model or names[0]
        return self._model

    async def problem(self) -> str | None:
        """Why no answer could be had now, or None when the server answers."""
        try:
            await self.served_model()
        except TimeoutError:
            return "the LLM server does not answer in time"
        except Unavailable as exc:
            return exc.message
        return None

    def _headers(self) -> dict[str, str]:
        key = self._settings.api_key
        return {"Authorization": f"Bearer {key.get_secret_value()}"} if key else {}

    async def _refusal(self, reply: Reply) -> Exception:
        """Our error for a status that is not 200; what was said of the caller's fields is passed on."""
        said = _error_text(b"".join([piece async for piece in reply]))
        if reply.status in (400, 422):
            if "context length" in said or "context size" in said or "maximum context" in said:
                return PromptTooLong("the messages do not fit the model's context", param="messages")
            return InvalidRequest(f"the LLM server refused the request: {said[:300]}")
        if reply.status in (429, 503):
            wait = reply.headers.get("Retry-After", "")
            seconds = min(60.0, float(wait)) if wait.isascii() and wait.isdigit() else 2.0
            return Overloaded("the LLM server is busy", retry_after=seconds)
        if reply.status in (401, 403):
            return UpstreamUnavailable("the LLM server refused our credentials", retry_after=30)
        if reply.status == 404:
            self._model = self._settings.model
            return UpstreamUnavailable("the LLM server does not serve this model")
        return UpstreamUnavailable("the LLM server failed")


def _error_text(raw: bytes) -> str:
    try:
        found = msgspec.json.decode(raw)
        found = found.get("error", found)
        return str(found.get("message", "")) if isinstance(found, dict) else str(found)
    except (msgspec.DecodeError, UnicodeError, RecursionError, AttributeError):
        return ""
