"""HTTP in and out, whatever the protocol: read JSON once, notice that the caller hung up, send events."""

import asyncio
import logging
import math
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import TypeVar

import msgspec
from starlette.requests import ClientDisconnect, Request
from starlette.responses import FileResponse, JSONResponse, Response
from starlette.types import Receive, Scope, Send

from business_api.answering import Answer
from business_api.arrivals import Rest, Take
from business_api.deadlines import HEADER, honour
from business_api.errors import (
    STOPS,
    BodyTooLarge,
    CallerGone,
    InvalidRequest,
    ServiceError,
    Unavailable,
    UnsupportedMediaType,
)
from business_api.exchange import Delta, Exchange
from business_api.guard import Caller, Guard
from business_api.ids import new_id
from business_api.listening import CallerListens
from business_api.one_write import writes_at_once, wrote_whole
from business_api.wrong_field import wrong_field

T = TypeVar("T")
log = logging.getLogger(__name__)

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

DEADLINE = HEADER.lower().encode()
LISTENS_TO = 32 * 1024 * 1024
"""Bytes of a body over the limit that are read and thrown away before the connection is cut."""
READER_SECONDS = 60
"""Longest time that a caller may leave a full buffer unread; then the LLM is stopped."""


async def read_json(request: Request, decoder: "msgspec.json.Decoder[T]", limit: int) -> T:
    """The request body as the decoder's type.

    Raises UnsupportedMediaType, BodyTooLarge (over `limit` bytes), InvalidRequest with
    the field in `param`. `NaN`, `Infinity`, lone surrogates and invalid UTF-8 are refused: they are not JSON.
    """
    media = _headers(request).get(b"content-type", b"").partition(b";")[0].strip().lower()
    if media != b"application/json":
        raise UnsupportedMediaType("send the body as JSON, with Content-Type: application/json")
    body = await _read(request, limit)
    try:
        return decoder.decode(body)
    except msgspec.ValidationError as exc:
        told, field = wrong_field(str(exc), decoder.type)
        raise InvalidRequest(told, param=field) from exc
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


class EventStream(Response):
    """Server-sent events of an answer that has begun. A caller who hangs up ends the answer at once.

    `tell` writes them, and returns the last; a reader who lets one lie for READER_SECONDS counts as gone.
    """

    media_type = "text/event-stream"

    def __init__(
        self, answer: Answer, tell: Callable[[Take[bytes]], Awaitable[bytes]], headers: Mapping[str, str]
    ) -> None:
        super().__init__(headers={**headers, "Cache-Control": "no-store", "X-Accel-Buffering": "no"})
        del self.headers["content-length"]
        self._answer, self._tell = answer, tell

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the events; the answer is ended and recorded whatever happens."""
        with suppress(CallerGone):
            async with self._answer, CallerListens(receive):
                await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
                last = await self._tell(writes_at_once(send, _read_in_time) or _sending(send))
                await _read_in_time(partial(send, {"type": "http.response.body", "body": last}))


async def written(
    started: Answer, opening: bytes, encode: Callable[[Sequence[Delta]], bytes], write: Take[bytes]
) -> tuple[bytes, ServiceError | None]:
    """Write the opening with the first deltas, then the others; those that arrived together are one write.

    Gives what is left unsent, and what broke the answer off. Raises CallerGone.
    """
    unsent = opening

    def take(deltas: Sequence[Delta]) -> Rest | None:
        nonlocal unsent
        body, unsent = unsent + encode(deltas), b""
        return write(body) if body else None

    try:
        await started.relay(take)
    except CallerGone:
        raise
    except ServiceError as exc:
        return unsent, exc
    return unsent, None


def _sending(send: Send) -> Take[bytes]:
    """Sends a piece of the body, for servers that do not write at once."""

    def write(body: bytes) -> Rest:
        event = {"type": "http.response.body", "body": body, "more_body": True}
        return partial(_read_in_time, partial(send, event))

    return write


async def _read_in_time(sent: Rest) -> None:
    try:
        async with asyncio.timeout(READER_SECONDS):
            await sent()
    except TimeoutError as exc:
        raise CallerGone("the caller does not read") from exc


async def served(
    route: Callable[[Request], Awaitable[Response]], scope: Scope, receive: Receive, send: Send
) -> None:
    """Answer a request by `route`; errors become their envelope."""
    try:
        response = await route(Request(scope, receive))
    except ServiceError as exc:
        response = error_response(exc)
    except asyncio.CancelledError:  # who hangs up is CallerGone: we are stopping
        response = error_response(Unavailable(STOPS), {"Connection": "close"})
    except Exception:
        log.exception("%s %s failed", scope["method"], scope["path"])
        response = error_response(ServiceError("internal error"))
    if not (_is_whole(response) and wrote_whole(send, response)):
        await response(scope, receive, send)


def _is_whole(response: Response) -> bool:
    """Whether it is a status, headers and a body, and nothing more."""
    return type(response) in (Response, JSONResponse) and response.background is None


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
    headers = _headers(request)
    honour(_text(headers.get(DEADLINE)))
    return await guard.admit(_text(headers.get(b"authorization")), _text(headers.get(b"host")))


def _headers(request: Request) -> dict[bytes, bytes]:
    """By their names in lower case, as ASGI has them; of those that come twice the first."""
    return dict(reversed([*request.scope["headers"]]))


def _text(value: bytes | None) -> str | None:
    return None if value is None else value.decode("latin-1")


def json_response(content: object, headers: Mapping[str, str] | None = None) -> Response:
    """Anything msgspec knows, as JSON."""
    return Response(msgspec.json.encode(content), media_type="application/json", headers=dict(headers or {}))


def page(name: str) -> FileResponse:
    """A page of `web/`, with headers that let it load nothing from elsewhere."""
    return FileResponse(WEB / name, headers=PAGE_HEADERS | {"Vary": "Accept"})
