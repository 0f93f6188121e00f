"""HTTP in and out, whatever the protocol: read JSON once, notice that the caller hung up, send events."""

import asyncio
import math
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Mapping
from pathlib import Path
from typing import Any, TypeVar

import msgspec
from starlette.requests import ClientDisconnect, Request
from starlette.responses import FileResponse, JSONResponse, Response
from starlette.types import Receive, Scope, Send

from business_api.answering import Answer
from business_api.deadlines import HEADER, honour
from business_api.errors import BodyTooLarge, CallerGone, InvalidRequest, ServiceError, UnsupportedMediaType
from business_api.exchange import Exchange
from business_api.guard import Caller, Guard
from business_api.ids import new_id

T = TypeVar("T")

WEB = Path(__file__).parent / "web"
PAGE_HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
        "font-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-cache",
}

LISTENS_TO = 32 * 1024 * 1024
"""Bytes of a body over the limit that are read and thrown away before the connection is cut."""
READER_SECONDS = 60
"""Longest time that a caller may leave a full buffer unread; then the LLM is stopped."""
DONE = b"data: [DONE]\n\n"
UNKNOWN_FIELD = re.compile(r"Object contains unknown field `(.+?)`(?: - at `\$\.?(.*)`)?")
MISSING_FIELD = re.compile(r"Object missing required field `(.+?)`(?: - at `\$\.?(.*)`)?")
AT_FIELD = re.compile(r" - at `\$\.?(.*)`")


async def read_json(request: Request, decoder: "msgspec.json.Decoder[T]", limit: int) -> T:
    """The request body as the decoder's type.

    Raises UnsupportedMediaType, BodyTooLarge (over `limit` bytes), InvalidRequest with
    the field in `param`. `NaN`, `Infinity`, lone surrogates and invalid UTF-8 are refused: they are not JSON.
    """
    media = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if media != "application/json":
        raise UnsupportedMediaType("send the body as JSON, with Content-Type: application/json")
    body = await _read(request, limit)
    try:
        return decoder.decode(body)
    except msgspec.ValidationError as exc:
        raise _invalid(str(exc)) from exc
    except RecursionError as exc:
        raise InvalidRequest("the body is nested too deeply") from exc
    except (msgspec.DecodeError, UnicodeError) as exc:
        raise InvalidRequest(f"the body is not valid JSON: {exc}") from exc


async def _read(request: Request, limit: int) -> bytes:
    """The body. One that is too large is read on for a while, so that its sender gets to read the answer."""
    pieces, size = [], 0
    try:
        async for piece in request.stream():
            size += len(piece)
            if size <= limit:
                pieces.append(piece)
            elif size > limit + LISTENS_TO:
                break
    except ClientDisconnect as exc:
        raise CallerGone("the caller hung up in the middle of the body") from exc
    if size > limit:
        raise BodyTooLarge(f"the body is over {limit} bytes")
    return b"".join(pieces)


def _invalid(said: str) -> InvalidRequest:
    """The validator's finding in OpenAI's terms: which field, and what is wrong with it."""
    if unknown := UNKNOWN_FIELD.match(said):
        name = f"{unknown[2]}.{unknown[1]}" if unknown[2] else unknown[1]
        return InvalidRequest(f"unsupported field: {name}", param=name)
    if missing := MISSING_FIELD.match(said):
        name = f"{missing[2]}.{missing[1]}" if missing[2] else missing[1]
        return InvalidRequest(f"missing field: {name}", param=name)
    field = AT_FIELD.search(said)
    return InvalidRequest(said.replace(" - at `$", " - at `"), param=field[1] if field else None)


async def unless_hung_up(request: Request, work: Coroutine[Any, Any, T]) -> T:
    """Await `work`, cancelling it when the caller hangs up. Raises CallerGone then.

    The body must have been read: what is received after it is the end of the connection.
    """
    task = asyncio.ensure_future(work)
    watcher = asyncio.ensure_future(_hung_up(request.receive))
    try:
        await asyncio.wait((task, watcher), return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            raise CallerGone("the caller hung up")
        return task.result()
    finally:
        watcher.cancel()
        if not task.done():
            task.cancel()
            await asyncio.wait((task,))


async def _hung_up(receive: Callable[[], Awaitable[Any]]) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


class EventStream(Response):
    """Server-sent events of an answer that has begun. A caller who hangs up ends the answer at once."""

    media_type = "text/event-stream"

    def __init__(self, answer: Answer, frames: AsyncIterator[bytes], headers: Mapping[str, str]) -> None:
        super().__init__(headers={**headers, "Cache-Control": "no-store", "X-Accel-Buffering": "no"})
        del self.headers["content-length"]
        self._answer, self._frames = answer, frames

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the frames; the answer is ended and recorded whatever happens."""
        async with self._answer:
            task = asyncio.ensure_future(self._send(send))
            watcher = asyncio.ensure_future(_hung_up(receive))
            try:
                await asyncio.wait((task, watcher), return_when=asyncio.FIRST_COMPLETED)
            finally:
                watcher.cancel()
                if not task.done():
                    task.cancel()
                await asyncio.wait((task,))
        gone = watcher.done() and not watcher.cancelled()
        if not task.cancelled() and not gone and not isinstance(task.exception(), CallerGone):
            task.result()

    async def _send(self, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
        async for frame in self._frames:
            try:
                async with asyncio.timeout(READER_SECONDS):
                    await send({"type": "http.response.body", "body": frame, "more_body": True})
            except TimeoutError as exc:
                raise CallerGone("the caller does not read") from exc
        await send({"type": "http.response.body", "body": b"", "more_body": False})


def event(content: object, name: str | None = None) -> bytes:
    """One server-sent event with a JSON payload."""
    head = f"event: {name}\n".encode() if name else b""
    return head + b"data: " + msgspec.json.encode(content) + b"\n\n"


def error_response(exc: ServiceError, headers: Mapping[str, str] | None = None) -> JSONResponse:
    """The OpenAI error envelope with its status and request id, and Retry-After when waiting helps."""
    named = {"X-Request-Id": exc.request_id or new_id(), **exc.headers, **(headers or {})}
    response = JSONResponse(exc.envelope(), exc.status, headers=named)
    if exc.retry_after is not None:
        response.headers["Retry-After"] = str(max(1, math.ceil(exc.retry_after)))
    return response


def headers_of(exchange: Exchange) -> dict[str, str]:
    """What each answer says in its headers: request id, stages in ms, what it had to do without."""
    stages = ", ".join(f"{name};dur={ms:.1f}" for name, ms in exchange.timings_ms.items())
    headers = {"X-Request-Id": exchange.id}
    if stages:
        headers["Server-Timing"] = stages
    if exchange.degraded:
        headers["X-Degraded"] = ",".join(exchange.degraded)
    return headers


async def admitted(guard: Guard, request: Request) -> Caller:
    """Who asks, by the request's headers; takes the caller's deadline. Raises what Guard.admit raises."""
    honour(request.headers.get(HEADER))
    return await guard.admit(request.headers.get("authorization"), request.headers.get("host"))


def json_response(content: object, headers: Mapping[str, str] | None = None) -> Response:
    """Anything msgspec knows, as JSON."""
    return Response(msgspec.json.encode(content), media_type="application/json", headers=dict(headers or {}))


def page(name: str) -> FileResponse:
    """A page of `web/`, with headers that let it load nothing from elsewhere."""
    return FileResponse(WEB / name, headers=PAGE_HEADERS | {"Vary": "Accept"})
