"""A scripted LLM server: speaks vLLM's OpenAI API, remembers every request, breaks on demand. No model."""

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing, suppress
from dataclasses import dataclass
from typing import Any

import msgspec

from tests.asgi_wire import JSON, SSE, Receive, Scope, Send, hang_up, lifespan, read, respond, start
from tests.fake_answers import Answer, Pace, content_frames, error_body, written
from tests.fake_faults import Fault, Faults

Body = dict[str, Any]


class Died(Exception):
    """Raised into the web server so that it cuts the connection in the middle of a response."""


@dataclass(frozen=True)
class Heard:
    """A request as it came in: parsed JSON body (empty for GET), headers with lower-case names."""

    path: str
    body: Body
    headers: dict[str, str]


class FakeLlm(Faults):
    """An ASGI app in the place of vLLM. Counts what it runs; `requests` holds every POST, oldest first.

    The answer is, first that is given: `answer_for(body)`, `pieces` (one delta each), `answer` cut at words.
    One that `continues` goes on with a last message of the assistant when it is told to, as vLLM does.
    `delay` seconds pass between deltas, `first_delay` before the first one (the headers are out by then).
    Faults are told by method; each holds for the next `times` requests, or until `recover()`.
    """

    def __init__(
        self,
        answer: str = "Hello from the fake model.",
        *,
        pieces: list[str] | None = None,
        answer_for: Callable[[Body], str] | None = None,
        delay: float = 0.0,
        first_delay: float = 0.0,
        model: str = "fake",
        continues: bool = False,
    ) -> None:
        self.answer = answer
        self.pieces = pieces
        self.answer_for = answer_for
        self.delay = delay
        self.first_delay = first_delay
        self.model = model
        self.continues = continues
        self.requests: list[Heard] = []
        self.running = 0
        self.finished = 0
        self.aborted = 0
        super().__init__()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection's request, or the server's start and stop."""
        if scope["type"] == "lifespan":
            await lifespan(receive, send)
        elif scope["path"] in ("/v1/chat/completions", "/chat/completions"):
            await self._chat(scope, receive, send)
        else:
            await self._get(scope["path"], send)

    async def _get(self, path: str, send: Send) -> None:
        if path == "/health":
            await respond(send, 200, b"")
        elif path in ("/v1/models", "/models"):
            listed = {"id": self.model, "object": "model", "owned_by": self._owner, "max_model_len": 2048}
            await respond(send, 200, msgspec.json.encode({"object": "list", "data": [listed]}))
        elif path == "/metrics":
            await respond(send, 200, self._metrics(), content_type=b"text/plain; version=0.0.4")
        else:
            await respond(send, 404, error_body(404, "Not Found"))

    @property
    def _owner(self) -> str:
        return "vllm" if self.continues else "fake"

    def _metrics(self) -> bytes:
        label = f'{{engine="0",model_name="{self.model}"}}'
        values = {
            "vllm:num_requests_running": self.running,
            "vllm:num_requests_waiting": 0,
            "vllm:request_success_total": self.finished,
        }
        return "".join(f"{name}{label} {float(value)}\n" for name, value in values.items()).encode()

    async def _chat(self, scope: Scope, receive: Receive, send: Send) -> None:
        body = msgspec.json.decode(await read(receive))
        headers = {k.decode("latin-1").lower(): v.decode("latin-1") for k, v in scope["headers"]}
        self.requests.append(Heard(scope["path"], body, headers))
        fault = self.next_fault()
        self.running += 1
        answering = asyncio.ensure_future(self._reply(body, fault, send))
        leaving = asyncio.ensure_future(hang_up(receive))
        try:
            await asyncio.wait({answering, leaving}, return_when=asyncio.FIRST_COMPLETED)
            if answering.done():
                await answering
                self.finished += 1
            else:
                self.aborted += 1
        finally:
            self.running -= 1
            for task in (answering, leaving):
                task.cancel()
            with suppress(asyncio.CancelledError, Died):
                await answering

    async def _reply(self, body: Body, fault: Fault, send: Send) -> None:
        if fault.kind == "status":
            await respond(send, fault.status, error_body(fault.status, fault.message), fault.headers)
        elif body.get("model") not in (self.model, None):
            await respond(send, 404, error_body(404, f"The model `{body['model']}` does not exist."))
        elif body.get("stream"):
            await start(send, 200, SSE, {"x-request-id": "fake"})
            async with aclosing(self._frames(body, fault)) as frames:
                async for frame in frames:
                    await send({"type": "http.response.body", "body": frame, "more_body": True})
            await send({"type": "http.response.body", "body": b""})
        else:
            await self._whole(body, fault, send)

    def _answer(self, body: Body, fault: Fault) -> Answer:
        said = self.answer_for(body) if self.answer_for else self.answer
        pieces = self.pieces if self.answer_for is None else None
        answer = written(body, said, pieces, self.model)
        return answer.ending(fault.finish_reason) if fault.kind == "finish" else answer

    async def _frames(self, body: Body, fault: Fault) -> AsyncGenerator[bytes, None]:
        pace = Pace(self.delay, self.first_delay)
        answer = self._answer(body, fault)
        for seconds, frame in content_frames(answer, pace, stop_at=fault.after if fault.cuts else None):
            await asyncio.sleep(seconds)
            yield frame
        if fault.kind == "die":
            raise Died
        if fault.kind == "hang":
            await asyncio.Event().wait()
        if fault.kind == "error":
            yield b"data: " + error_body(500, fault.message) + b"\n\n"
        elif fault.kind == "malformed":
            yield b'data: {"choices": [{"index": 0, "delta": {"cont\n\n'
        if fault.kind not in ("error", "unfinished"):
            for frame in answer.last_frames():
                yield frame
        yield b"data: [DONE]\n\n"

    async def _whole(self, body: Body, fault: Fault, send: Send) -> None:
        answer = self._answer(body, fault)
        if fault.kind == "hang":
            await asyncio.Event().wait()
        await asyncio.sleep(self.first_delay + self.delay * (len(answer.pieces) - 1))
        if fault.kind == "error":
            await respond(send, 500, error_body(500, fault.message))
            return
        sent = answer.whole(finished=fault.kind != "unfinished")
        if fault.kind == "malformed":
            sent = sent[: len(sent) // 2]
        if fault.kind == "die":
            await start(send, 200, JSON, {"content-length": str(len(sent))})
            await send({"type": "http.response.body", "body": sent[:10], "more_body": True})
            raise Died
        await respond(send, 200, sent)
