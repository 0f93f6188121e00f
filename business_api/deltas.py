"""Reads a streamed answer of an LLM server: bytes, lines, frames, deltas. Success is told here.

`[DONE]` is not success: vLLM sends it after aborts and errors too. Success is a known finish_reason and a
usage.
"""

from collections import deque

import msgspec

from business_api.errors import UpstreamUnavailable
from business_api.exchange import Delta, Usage
from business_api.frames import Choice, Frame
from business_api.transport import MAX_FRAME, Reply

FINISHED = frozenset({"stop", "length", "tool_calls", "content_filter", "function_call"})
"""finish_reasons of an answer that is complete; vLLM's `abort` is not one."""

_decode = msgspec.json.Decoder(Frame).decode


class Deltas:
    """The deltas of one reply. After the last one `finish_reason` and `usage` are set."""

    def __init__(self, reply: Reply) -> None:
        self._reply = reply
        self._arrived: deque[Delta] = deque()
        self._rest = b""
        self._over = False
        self._failure: UpstreamUnavailable | None = None
        self.model = ""
        self.fingerprint: str | None = None
        self.finish_reason: str | None = None
        self.usage: Usage | None = None

    @property
    def ready(self) -> bool:
        """Whether the next delta has arrived."""
        return bool(self._arrived)

    async def next(self) -> Delta | None:
        """The next delta, None behind the last one. Raises UpstreamUnavailable when the answer breaks off."""
        while not self._arrived and not self._over:
            self._take(await self._reply.read())
        if self._arrived:
            return self._arrived.popleft()
        if self._failure is not None:
            raise self._failure
        if self.finish_reason not in FINISHED or self.usage is None:
            raise UpstreamUnavailable("the LLM server broke off before the answer was complete")
        return None

    def _take(self, piece: bytes) -> None:
        """Read what arrived together. What is wrong with it is told behind the deltas before it."""
        *lines, self._rest = (self._rest + piece).split(b"\n")
        self._over = not piece
        try:
            if len(self._rest) > MAX_FRAME:
                raise UpstreamUnavailable("the LLM server sent a frame without end")
            for line in lines:
                if line.startswith(b"data:") and (payload := line[5:].strip()):
                    if payload == b"[DONE]":
                        self._over = True
                        return
                    self._read(payload)
        except UpstreamUnavailable as exc:
            self._over, self._failure = True, exc

    def _read(self, payload: bytes) -> None:
        try:
            frame = _decode(payload)
        except (msgspec.DecodeError, UnicodeError, RecursionError) as exc:
            raise UpstreamUnavailable("the LLM server sent something that is not an answer") from exc
        if frame.error is not None:
            raise UpstreamUnavailable("the LLM server failed in the middle of the answer")
        self.model = frame.model or self.model
        self.fingerprint = frame.system_fingerprint or self.fingerprint
        self.usage = frame.usage or self.usage
        for choice in frame.choices or ():
            if choice.index == 0:
                self._add(choice)
                return

    def _add(self, choice: Choice) -> None:
        self.finish_reason = choice.finish_reason or self.finish_reason
        said, logprobs = choice.delta, choice.logprobs
        if said is None:
            if logprobs is not None:
                self._arrived.append(Delta("", None, {"content": logprobs.content}))
        elif said.tool_calls or said.refusal or logprobs is not None:
            calls = [msgspec.to_builtins(call) for call in said.tool_calls or ()]
            odds = {"content": logprobs.content} if logprobs is not None else None
            self._arrived.append(Delta(said.content or "", calls or None, odds, said.refusal))
        elif said.content:
            self._arrived.append(Delta(said.content))
