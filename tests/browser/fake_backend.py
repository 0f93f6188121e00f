"""A business API for the pages: speaks its protocol, answers by script, and remembers what it was asked."""

import asyncio
import json
import threading
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import FileResponse, JSONResponse, Response, StreamingResponse
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from tests.browser.invented import (
    DEFAULT,
    SUGGESTIONS,
    Script,
    answer_event,
    exchange_record,
    summary,
)

WEB = Path(__file__).resolve().parents[2] / "business_api" / "web"
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
    "font-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
)
PACE = 0.01
"""Seconds between two deltas: long enough for the page to draw some of them."""


@dataclass
class FakeBackend:
    """`app` is the ASGI app; `scripts` says how a question is answered, others get `DEFAULT`.

    A script that is `held` waits before its last delta until `release()`. With `key` set, calls need it.
    """

    scripts: dict[str, Script] = field(default_factory=dict)
    key: str | None = None
    asked: list[dict[str, Any]] = field(default_factory=list)
    ratings: list[tuple[str, dict[str, Any]]] = field(default_factory=list)
    records: list[dict[str, Any]] = field(default_factory=list)
    hung_up: threading.Event = field(default_factory=threading.Event)
    app: ASGIApp = field(init=False)

    def __post_init__(self) -> None:
        self._released: list[tuple[asyncio.AbstractEventLoop, asyncio.Event]] = []
        self._open = False
        routes = [
            Route("/", lambda _: FileResponse(WEB / "chat.html")),
            Route("/chat", self._chat, methods=["POST"]),
            Route("/v1/models", self._models),
            Route("/exchanges", self._exchanges),
            Route("/exchanges/{id}", self._exchange),
            Route("/exchanges/{id}/feedback", self._feedback, methods=["POST"]),
            Mount("/web", StaticFiles(directory=WEB)),
        ]
        self.app = _with_policy(Starlette(routes=routes))

    def release(self) -> None:
        """Let every held answer end, and hold no more."""
        self._open = True
        for loop, event in self._released:
            loop.call_soon_threadsafe(event.set)

    def _refused(self, request: Request) -> Response | None:
        if self.key is None or request.headers.get("authorization") == f"Bearer {self.key}":
            return None
        return _error(401, "no valid API key", "unauthenticated")

    async def _models(self, request: Request) -> Response:
        tandem = {"description": "Answers from the ingested documents and cites them", "retrieval": True}
        plain = {"description": "The LLM itself, without documents", "retrieval": False, "suggestions": []}
        models = [
            {"id": "tandem", "object": "model", "tandem": tandem | {"suggestions": SUGGESTIONS}},
            {"id": "plain", "object": "model", "tandem": plain},
        ]
        return self._refused(request) or JSONResponse({"object": "list", "data": models})

    async def _chat(self, request: Request) -> Response:
        refused = self._refused(request)
        if refused is not None:
            return refused
        asked = await request.json()
        self.asked.append(asked)
        script = self.scripts.get(asked["message"], DEFAULT)
        if script.status != 200:
            return _error(script.status, script.message, script.code, script.retry_after)
        return StreamingResponse(self._stream(asked, script), media_type="text/event-stream")

    async def _stream(self, asked: dict[str, Any], script: Script) -> AsyncIterator[str]:
        identity = f"x-{len(self.asked):04d}"
        conversation = asked.get("conversation") or "c-0001"
        passages = {"exchange": identity, "conversation": conversation, "passages": script.passages}
        try:
            yield _event("passages", passages | {"degraded": script.degraded})
            for number, delta in enumerate(script.deltas):
                if script.held and number == len(script.deltas) - 1:
                    await self._until_released()
                await asyncio.sleep(PACE)
                yield _event("delta", {"text": delta})
            if script.cut:
                return
            if script.breaks:
                yield _event("error", json.loads(bytes(_error(503, script.message, script.code).body)))
                return
            self.records.append(exchange_record(identity, asked, script))
            explained = (asked.get("tandem") or {}).get("explain", False)
            yield _event("answer", answer_event(identity, conversation, script, explained=explained))
        except (asyncio.CancelledError, GeneratorExit, ClientDisconnect):
            self.hung_up.set()
            raise

    async def _until_released(self) -> None:
        event = asyncio.Event()
        self._released.append((asyncio.get_running_loop(), event))
        if not self._open:
            await event.wait()

    async def _exchanges(self, request: Request) -> Response:
        if "application/json" not in request.headers.get("accept", ""):
            return FileResponse(WEB / "exchanges.html")
        wanted = request.query_params
        text = wanted.get("text", "").lower()
        found = [record for record in reversed(self.records) if text in json.dumps(record).lower()]
        found = [r for r in found if wanted.get("outcome") in {None, "", r["outcome"]}]
        begin = int(wanted.get("before") or 0)
        end = begin + int(wanted.get("limit", 50))
        page = [summary(record) for record in found[begin:end]]
        following = str(end) if end < len(found) else None
        return self._refused(request) or JSONResponse({"exchanges": page, "next": following})

    async def _exchange(self, request: Request) -> Response:
        if "application/json" not in request.headers.get("accept", ""):
            return FileResponse(WEB / "exchanges.html")
        wanted = request.path_params["id"]
        found = next((record for record in self.records if record["id"] == wanted), None)
        missing = _error(404, f"no exchange {wanted!r}", "not_found")
        return self._refused(request) or (JSONResponse(found) if found else missing)

    async def _feedback(self, request: Request) -> Response:
        refused = self._refused(request)
        if refused is None:
            self.ratings.append((request.path_params["id"], await request.json()))
        return refused or Response(status_code=204)


def _event(name: str, fields: dict[str, Any]) -> str:
    return f"event: {name}\ndata: {json.dumps(fields)}\n\n"


def _error(status: int, message: str, code: str | None, retry_after: float | None = None) -> Response:
    envelope = {"error": {"message": message, "type": "server_error", "code": code, "param": None}}
    headers = {"X-Request-Id": "x-refused"}
    if retry_after is not None:
        headers["Retry-After"] = f"{retry_after:g}"
    return JSONResponse(envelope, status_code=status, headers=headers)


def _with_policy(app: ASGIApp) -> ASGIApp:
    """The app, with the strict content policy on every response."""

    async def guarded(scope: Scope, receive: Receive, send: Send) -> None:
        async def marked(message: Message) -> None:
            if message["type"] == "http.response.start":
                added = [(b"content-security-policy", POLICY.encode()), (b"vary", b"Accept")]
                message["headers"] = [*message["headers"], *added]
            await send(message)

        await app(scope, receive, marked)

    return guarded
