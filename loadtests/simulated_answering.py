"""One answer on its way to one caller: frames or one JSON document, and what goes wrong with it."""

from dataclasses import dataclass
from typing import Any

from loadtests.simulated_batching import Generation
from loadtests.simulated_faults import Fault
from loadtests.simulated_http import Connection
from loadtests.simulated_wire import (
    DONE,
    Answer,
    chunk_head,
    document,
    error_payload,
    framed,
    last_frame,
    role_frame,
    stream_head,
    text_frame,
    usage_frame,
    usage_of,
    whole_body,
)

NEVER = 1 << 60
LOST = "EngineCore encountered an issue. See stack trace (above) for the root cause."
CUT_BODY = b'HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 4096\r\n\r\n{"id":"chatcmpl'


@dataclass(frozen=True, slots=True)
class Form:
    """How the caller wants the answer: `counted` with usage in the stream, `interval` tokens to a frame."""

    request_id: str
    model: str
    streamed: bool
    counted: bool
    interval: int


@dataclass(eq=False, slots=True, kw_only=True)
class Answering(Generation):
    """A generation with somebody listening.

    `arrived`, `started` and `first` are times of the clock. `ended` says how it ended: a finish_reason, or
    `error` when the caller got no whole answer.
    """

    connection: Connection
    answer: Answer
    form: Form
    fault: Fault | None
    arrived: float
    started: float = 0.0
    first: float = 0.0
    ended: str = ""
    _told: int = 0
    _head: bytes = b""
    _breaks_at: int = NEVER
    _plain_until: int = 0

    def begin(self) -> None:
        """Send the status: a stream is 200 before the first token is made."""
        if self.fault is not None:
            self._breaks_at = self.fault.after + 1
        if self.form.streamed:
            self._plain_until = min(self.most, self._breaks_at) if self.form.interval == 1 else 0
            self._head = chunk_head(self.form.request_id, self.form.model)
            self.connection.write(stream_head(self.form.request_id))

    def speak(self) -> None:
        """Send the tokens that are said and not yet told, when it is time to."""
        said = self.said
        if self.gone or self.ended:
            return
        if 1 < said < self._plain_until:  # nearly always
            self._told = said
            self.connection.write(text_frame(self._head, self.answer.tokens[said - 1]))
        elif said >= self._breaks_at:
            self._break()
        elif said >= self.most:
            self._finish(self.answer.finish_reason, self.said)
        elif self.form.streamed and (said == 1 or said - self._told >= self.form.interval):
            self.connection.write(self._opening() + text_frame(self._head, self._untold(said)))

    def _opening(self) -> bytes:
        return b"" if self._told else role_frame(self._head)

    def _untold(self, said: int) -> str:
        start, self._told = self._told, said
        tokens = self.answer.tokens
        return tokens[start] if said - start == 1 else "".join(tokens[start:said])

    def _usage(self, said: int) -> dict[str, Any]:
        return usage_of(self.prompt, said, self.cached)

    def _finish(self, reason: str, said: int, *, garbled: bool = False) -> None:
        """The end, in good order; or with a piece of the JSON missing."""
        self.ended = reason
        if self.form.streamed:
            last = self._opening() + last_frame(self._head, self._untold(said), reason)
            if garbled:
                last = framed(self._head + b'{"index":0,"delta":{"cont') + last
            usage = usage_frame(self._head, self._usage(said)) if self.form.counted else b""
            self.connection.send(last + usage + DONE)
            return
        text = "".join(self.answer.tokens[:said])
        body = whole_body(self.form.request_id, self.form.model, text, reason, self._usage(said))
        self._send(200, body[: len(body) // 2] if garbled else body)

    def _send(self, status: int, body: bytes) -> None:
        self.connection.send(document(status, body, f"x-request-id: {self.form.request_id}\r\n"))

    def fail(self, message: str) -> None:
        """End with vLLM's error: in a stream it comes under status 200, and [DONE] follows."""
        self.ended = "error"
        body = error_payload(500, message)
        if self.form.streamed:
            self.connection.send(framed(b"data: " + body) + DONE)
        else:
            self._send(500, body)

    def _break(self) -> None:
        """The fault, once `after` frames are out."""
        assert self.fault is not None
        kind, after = self.fault.kind, self.fault.after
        if kind == "abort":
            self._finish("abort", after)
        elif kind == "malformed":
            self._finish("stop", after, garbled=True)
        elif kind == "error":
            self.fail(LOST)
        else:
            self.ended = "error"
            self.connection.on_gone = None
            self._break_off(kind)

    def _break_off(self, kind: str) -> None:
        if kind == "reset":
            self.connection.reset()
        elif kind == "cut":
            self.connection.write(b"" if self.form.streamed else CUT_BODY)
            self.connection.close()
