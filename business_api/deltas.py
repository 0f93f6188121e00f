"""Reads a streamed answer of an LLM server: bytes, lines, frames, deltas. Success is told here.

`[DONE]` is not success: vLLM sends it after aborts and errors too. Success is a known finish_reason and a
usage.
"""

import re
from collections.abc import Callable, Sequence
from functools import partial

import msgspec

from business_api.arrivals import Rest, Take
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
    """The deltas of one reply: `begin`, then `relay`. After the last `finish_reason` and `usage` are set.

    `only_text`: so far there was nothing but text in them.
    """

    def __init__(self, reply: Reply) -> None:
        self._reply = reply
        self._rest = b""
        self._over = False
        self._failure: UpstreamUnavailable | None = None
        self._arrived: list[Delta] = []
        self._said = False
        self.only_text = True
        self.model = ""
        self.fingerprint: str | None = None
        self.finish_reason: str | None = None
        self.usage: Usage | None = None

    async def begin(self, thinks: Callable[[], None] = lambda: None) -> None:
        """Wait until something has been said, or all. Raises UpstreamUnavailable if it breaks off before.

        `thinks` is called while the model thinks, which is handed on with what is said: till then another
        server can answer.
        """
        while not self._said and not self._ended():
            before = len(self._arrived)
            piece = await self._reply.read()
            self._over = not piece
            self._read(piece)
            if len(self._arrived) > before:
                thinks()

    async def relay(self, take: Take[Sequence[Delta]]) -> None:
        """Hand the deltas on to `take`, those that arrive together at once.

        Raises UpstreamUnavailable behind the last one when the answer breaks off.
        """

        def arrive(piece: bytes) -> Rest | None:
            self._read(piece)
            return hand_on()

        def hand_on() -> Rest | None:
            batch, self._arrived = self._arrived, []
            rest = take(batch) if batch else None
            return rest if self._failure is None else partial(self._break_off, rest)

        if (rest := hand_on()) is not None:
            await rest()
        if not self._ended():
            await self._reply.relay(arrive)
            self._over = True
            self._ended()

    async def _break_off(self, rest: Rest | None) -> None:
        if rest is not None:
            await rest()
        self._ended()

    def _ended(self) -> bool:
        """Whether the answer is complete. Raises UpstreamUnavailable if it never will be."""
        if self._failure is not None:
            raise self._failure
        if self._over and (self.finish_reason not in FINISHED or self.usage is None):
            raise UpstreamUnavailable("the LLM server broke off before the answer was complete")
        return self._over

    def _read(self, piece: bytes) -> None:
        """Read what arrived together. What is wrong with it is told behind the deltas before it."""
        text = self._rest + piece
        end = text.rfind(b"\n") + 1
        self._rest = text[end:]
        try:
            for payload in _PAYLOADS(text, 0, end):
                if len(payload) > LONGEST_SHORT:
                    self._note(_decode(payload))
                elif (short := payload.strip()) == b"[DONE]":
                    self._over = True
                    self._reply.release()
                    return
                elif short:
                    self._note(_decode(short))
            if len(self._rest) > MAX_FRAME:
                raise UpstreamUnavailable("the LLM server sent a frame without end")
        except UpstreamUnavailable as exc:
            self._failure = exc
        except (msgspec.DecodeError, UnicodeError, RecursionError) as exc:
            self._failure = UpstreamUnavailable("the LLM server sent something that is not an answer")
            self._failure.__cause__ = exc

    def _note(self, frame: Frame) -> None:
        if frame.error is not None:
            raise UpstreamUnavailable("the LLM server failed in the middle of the answer")
        self.model = frame.model or self.model
        self.fingerprint = frame.system_fingerprint or self.fingerprint
        self.usage = frame.usage or self.usage
        for choice in frame.choices or ():
            if choice.index == 0:
                self.finish_reason = choice.finish_reason or self.finish_reason
                said = choice.delta or NOTHING
                more = said.tool_calls or said.refusal or choice.logprobs
                if more or said.reasoning or said.reasoning_content:
                    self.only_text = False
                    self._arrived.append(_with_more_than_text(choice, said))
                    self._said |= bool(more or said.content)
                elif said.content:
                    self._arrived.append(Delta(said.content))
                    self._said = True
                return


def _with_more_than_text(choice: Choice, said: Content) -> Delta:
    logprobs = {"content": choice.logprobs.content} if choice.logprobs else None
    calls = [msgspec.to_builtins(call) for call in said.tool_calls or ()]
    return Delta(said.content or "", calls or None, logprobs, said.refusal, said.thought)
