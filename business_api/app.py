"""The ASGI app: routes over what `wiring` opened, and one handler for errors. Nothing happens at import."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.staticfiles import StaticFiles
from starlette.types import Receive, Scope, Send

from business_api.chatbot_api import ChatbotApi
from business_api.conversations import Conversations
from business_api.errors import InvalidRequest, NotFound, ServiceError
from business_api.exchanges_api import ExchangesApi
from business_api.openai_api import OpenAiApi
from business_api.ops_api import OpsApi, Scrape
from business_api.settings import Settings
from business_api.wire import WEB, error_response, served
from business_api.wiring import Wired, wired


def create_app(
    wires: Wired | None = None, settings: Settings | None = None, scrape: Scrape | None = None
) -> FastAPI:
    """The ASGI app. Without `wires` everything is opened from the settings when the app starts.

    `scrape` stands in for the metrics of this process alone.
    """
    settings = settings or Settings()

    @asynccontextmanager
    async def lifespan(app: _App) -> AsyncIterator[None]:
        if wires is not None:
            _mount(app, wires, settings, scrape)
            yield
            return
        async with wired(settings) as opened:
            _mount(app, opened, settings, scrape)
            yield

    app = _App(title="Tandem", lifespan=lifespan, docs_url=None, redoc_url=None, redirect_slashes=False)
    app.mount("/web", _Assets(directory=WEB), name="web")
    app.add_exception_handler(ServiceError, _service_error)
    app.add_exception_handler(RequestValidationError, _bad_query)
    app.add_exception_handler(HTTPException, _http_error)
    app.add_exception_handler(Exception, _bug)
    return app


Route = Callable[[Request], Awaitable[Response]]


class _App(FastAPI):
    """FastAPI, but that the routes of answers go past it: its way to a route costs more than an answer."""

    def __init__(self, **fields: Any) -> None:
        super().__init__(**fields)
        self.answering: dict[str, Route] = {}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request, or the app's start and stop."""
        route = self.answering.get(scope["path"]) if scope.get("method") == "POST" else None
        if route is None:
            await super().__call__(scope, receive, send)
        else:
            await served(route, scope, receive, send)


class _Assets(StaticFiles):
    """Files of the pages; browsers ask whether theirs is still the newest."""

    def file_response(self, *args: Any, **kwargs: Any) -> Response:
        response = super().file_response(*args, **kwargs)
        response.headers["Cache-Control"] = "no-cache"
        response.headers["X-Content-Type-Options"] = "nosniff"
        return response


def _mount(app: _App, wires: Wired, settings: Settings, scrape: Scrape | None) -> None:
    limit = settings.guard.max_body_bytes
    openai = OpenAiApi(wires.parts, wires.guard, wires.embed, wires.embedder, limit)
    chatbot = ChatbotApi(wires.parts, wires.guard, Conversations(wires.sink), limit)
    app.answering = {"/v1/chat/completions": openai.chat_completions, "/chat": chatbot.chat}
    app.include_router(openai.router())
    app.include_router(chatbot.router())
    app.include_router(ExchangesApi(wires.guard, wires.sink, limit).router())
    app.include_router(
        OpsApi(wires.problems, scrape or wires.metrics.scrape, wires.out, wires.lacking).router()
    )


async def _service_error(request: Request, exc: Exception) -> Response:
    assert isinstance(exc, ServiceError)
    return error_response(exc)


async def _bad_query(request: Request, exc: Exception) -> Response:
    assert isinstance(exc, RequestValidationError)
    first = exc.errors()[0]
    name = str(first["loc"][-1])
    return error_response(InvalidRequest(f"{name}: {first['msg']}", param=name))


async def _http_error(request: Request, exc: Exception) -> Response:
    """No such route, or not with this method."""
    assert isinstance(exc, HTTPException)
    method, path = request.method, request.url.path[:200]
    said = NotFound(f"{path} takes no {method}" if exc.status_code == 405 else f"nothing at {method} {path}")
    response = error_response(said, dict(exc.headers or {}))
    response.status_code = exc.status_code
    return response


async def _bug(request: Request, exc: Exception) -> Response:
    return error_response(ServiceError("internal error"))
