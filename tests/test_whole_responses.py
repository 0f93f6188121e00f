"""A whole response is written past `send`, and is the one that `send` would have written."""

import asyncio
import re
from collections.abc import Callable
from typing import Any

import pytest
from starlette.background import BackgroundTask
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from business_api.errors import Unavailable
from business_api.wire import served
from tests.asgi_wire import Receive, Scope, Send, read
from tests.test_one_write import App, Notebook, asked, connected, protocol, request

SAID = {"X-Request-Id": "1", "Retry-After": "2"}


def app(answer: Callable[[], Response]) -> App:
    async def route(asked: Request) -> Response:
        await asked.body()
        return answer()

    async def serve(scope: Scope, receive: Receive, send: Send) -> None:
        await served(route, scope, receive, send)

    return serve


def sent(answer: Callable[[], Response]) -> App:
    async def serve(scope: Scope, receive: Receive, send: Send) -> None:
        await read(receive)
        await answer()(scope, receive, send)

    return serve


def refused() -> Response:
    raise Unavailable("later", retry_after=2)


def undated(written: list[bytes]) -> bytes:
    return re.sub(rb"date: [^\r]*", b"", b"".join(written))


@pytest.mark.parametrize("headers", [(), ("Connection: close",), ("Expect: 100-continue",)])
@pytest.mark.parametrize("status", [200, 400, 503])
async def test_it_is_the_one_that_send_makes(status: int, headers: tuple[str, ...]) -> None:
    def answer() -> Response:
        return JSONResponse({"said": "é"}, status, headers=SAID)

    (ours,), our_end = await asked(app(answer), request("POST", *headers, body="x"))
    (theirs,), their_end = await asked(sent(answer), request("POST", *headers, body="x"))
    assert undated(ours) == undated(theirs) != b""
    assert our_end.closed == their_end.closed


@pytest.mark.parametrize("headers", [(), ("Connection: close",)])
async def test_a_server_that_is_stopping_says_so_once_and_closes(headers: tuple[str, ...]) -> None:
    transport, found = Notebook(), protocol(app(lambda: Response("said")))
    found.server_state.default_headers = [(b"connection", b"close")]
    found.connection_made(transport)
    found.data_received(request("POST", *headers))
    await asyncio.gather(*found.server_state.tasks)
    assert b"".join(transport.written).count(b"\r\nconnection: close\r\n") == 1
    assert transport.closed
    assert found.timeout_keep_alive_task is None


async def test_what_is_to_be_done_behind_a_response_is_done() -> None:
    done: list[str] = []
    task = BackgroundTask(done.append, "done")
    (written,), _ = await asked(app(lambda: Response("said", background=task)), request("POST"))
    assert (b"".join(written)[-4:], done) == (b"said", ["done"])


async def test_it_goes_past_send(monkeypatch: pytest.MonkeyPatch) -> None:
    async def never(*_: object) -> None:
        raise AssertionError

    monkeypatch.setattr(JSONResponse, "__call__", never)
    (first, second), _ = await asked(app(lambda: JSONResponse({})), request("POST"), request("POST"))
    assert [len(first), len(second)] == [1, 1]
    assert first[0].startswith(b"HTTP/1.1 200 OK\r\n")
    assert first[0].endswith(b"\r\n\r\n{}")


async def test_an_error_is_written_with_its_envelope() -> None:
    (written,), _ = await asked(app(refused), request("POST"))
    assert written[0].startswith(b"HTTP/1.1 503")
    assert b"\r\nretry-after: 2\r\n" in written[0]
    assert b'"message":"later"' in written[0]


@pytest.mark.parametrize("value", ["a\r\nx-forged: 1", "a\nb", "a\rb", "a\0b"])
async def test_a_header_that_would_end_its_line_is_not_written(value: str) -> None:
    bad = app(lambda: Response("said", headers={"x-said": value}))
    (written,), transport = await asked(bad, request("POST"))
    assert b"".join(written) == b""
    assert transport.closed


async def test_requests_sent_ahead_are_answered_in_turn() -> None:
    async with connected(app(lambda: Response("said"))) as (reader, writer):
        writer.write(request("POST") * 2 + request("POST", "Connection: close"))
        assert (await reader.read()).count(b"\r\n\r\nsaid") == 3


async def test_another_server_is_sent_the_same() -> None:
    events: list[dict[str, object]] = []

    async def send(event: Any) -> None:
        events.append(event)

    async def receive() -> dict[str, object]:
        return {"type": "http.request", "body": b""}

    scope = {"type": "http", "method": "POST", "path": "/", "headers": []}
    await app(lambda: Response("said"))(scope, receive, send)
    assert [event.get("status") or event.get("body") for event in events] == [200, b"said"]
