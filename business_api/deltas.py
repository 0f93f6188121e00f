"""Reads a streamed answer of an LLM server: bytes, lines, frames, deltas. Success is told here.

`[DONE]` is not success: vLLM sends it after aborts and errors too. Success is a known finish_reason and a
usage.
"""

import re
from collections import deque

import msgspec

from business_api.errors import UpstreamUnavailable
from business_api.exchange import Delta
from business_api.frames import Choice, Content, Frame
from business_api.transport import MAX_FRAME, Reply
from business_api.usage import Usage

FINISHED = frozenset({"stop", "length", "tool_calls", "content_filter", "function_call"})
"""finish_reasons of an answer that is complete; vLLM's `abort` is not one."""

LONGEST_SHORT = 16
"""Bytes of payload within which there may be no frame; JSON itself does not mind the spaces around it."""
NOTHING = Content()
_PAYLOADS = re.compile(rb"^data:(.*)$", re.MULTILINE).findall
_decode = msgspec.json.Decoder(Frame).decode


class Deltas:
    """The deltas of one reply. After the last one `finish_reason` and `usage` are set.

    `arrived` holds those that need not be waited for: take them from its left, or by `next`.
    """

    def __init__(self, reply: Reply) -> None:
        self._reply = reply
        self._rest = b""
        self._over = False
        self._failure: UpstreamUnavailable | None = None
        self.arrived: deque[Delta] = deque()
        self.model = ""
        self.fingerprint: str | None = None
        self.finish_reason: str | None = None
        self.usage: Usage | None = None

    async def next(self) -> Delta | None:
        """The next delta, None behind the last one. Raises UpstreamUnavailable when the answer breaks off."""
        while not self.arrived:
            if self._failure is not None:
                raise self._failure
            if self._over and self.finish_reason in FINISHED and self.usage is not None:
                return None
            if self._over:
                raise UpstreamUnavailable("the LLM server broke off before the answer was complete")
            self._take(await self._reply.read())
        return self.arrived.popleft()

    def _take(self, piece: bytes) -> None:
        """Read what arrived together. What is wrong with it is told behind the deltas before it."""
        text = self._rest + piece
        end = text.rfind(b"\n") + 1
        self._rest = text[end:]
        self._over = not piece
        try:
            for payload in _PAYLOADS(text, 0, end):
                if len(payload) > LONGEST_SHORT:
                    self._read(_decode(payload))
                elif (short := payload.strip()) == b"[DONE]":
                    self._over = True
                    self._reply.release()
                    return
                elif short:
                    self._read(_decode(short))
            if len(self._rest) > MAX_FRAME:
                raise UpstreamUnavailable("the LLM server sent a frame without end")
        except UpstreamUnavailable as exc:
            self._failure = exc
        except (msgspec.DecodeError, UnicodeError, RecursionError) as exc:
            self._failure = UpstreamUnavailable("the LLM server sent something that is not an answer")
            self._failure.__cause__ = exc

    def _read(self, frame: Frame) -> None:
        if frame.error is not None:
            raise UpstreamUnavailable("the LLM server failed in the middle of the answer")
        self.model = frame.model or self.model
        self.fingerprint = frame.system_fingerprint or self.fingerprint
        self.usage = frame.usage or self.usage
        for choice in frame.choices or ():
            if choice.index == 0:
                self.finish_reason = choice.finish_reason or self.finish_reason
                self._add(choice)
                return

    def _add(self, choice: Choice) -> None:
        said = choice.delta or NOTHING
        if not (said.tool_calls or said.refusal or choice.logprobs):
            if said.content:
                self.arrived.append(Delta(said.content))
            return
        logprobs = {"content": choice.logprobs.content} if choice.logprobs else None
        calls = [msgspec.to_builtins(call) for call in said.tool_calls or ()]
        self.arrived.append(Delta(said.content or "", calls or None, logprobs, said.refusal))
