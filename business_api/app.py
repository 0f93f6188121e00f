"""The composition root: what is wired to what. Nothing happens at import."""

from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.staticfiles import StaticFiles

from business_api.answering import Parts
from business_api.assistants import Assistants
from business_api.chatbot_api import ChatbotApi
from business_api.embedding import CachedEmbedder, Embedder, open_embedder
from business_api.errors import InvalidRequest, NotFound, ServiceError
from business_api.exchanges_api import ExchangesApi
from business_api.extracting import extract
from business_api.guard import Guard
from business_api.metrics import Metrics
from business_api.openai_api import Embed, OpenAiApi
from business_api.ops_api import OpsApi, Problem
from business_api.prompting import Prompting, Template
from business_api.reranking import open_reranker
from business_api.retrieval import Retriever
from business_api.rewriting import rewrite
from business_api.settings import Settings
from business_api.sink import Sink
from business_api.transport import open_transport
from business_api.upstream import Upstream
from business_api.vector_store import VectorStore, open_store
from business_api.wire import WEB, error_response


@dataclass(frozen=True)
class Wired:
    """Everything the routes are made of."""

    parts: Parts
    guard: Guard
    sink: Sink
    metrics: Metrics
    problems: Mapping[str, Problem]
    embed: Embed
    embedder: str


@asynccontextmanager
async def wired(settings: Settings) -> AsyncIterator[Wired]:
    """Open every client, lend them out, close them in reverse.

    Raises ValueError and OSError with a message for the operator when a setting, a file or a lock is wrong.
    """
    async with AsyncExitStack() as opened:
        assistants = Assistants.load(settings.assistants)
        sink = Sink.open(settings)
        opened.callback(sink.close)
        embedder = CachedEmbedder(await open_embedder(settings), settings.embedding.cache)
        opened.push_async_callback(embedder.aclose)
        stores = await _stores(settings, assistants, embedder, opened)
        transport = open_transport(settings.llm.url, settings.llm.connect_deadline)
        opened.push_async_callback(transport.aclose)
        upstream = Upstream(transport, settings.llm)
        guard = Guard.open(settings)
        opened.callback(guard.close)
        metrics = watching(upstream, sink)
        retriever = await _retriever(settings, stores, embedder, opened)
        parts = Parts(
            assistants=assistants,
            check=guard.check,
            rewrite=rewrite,
            retrieve=retriever.retrieve,
            judge=lambda question, found, assistant: None,
            fill=_prompting(settings, assistants).fill,
            generate=upstream.generate,
            extract=extract,
            record=metrics.counted(sink.record, frozenset(a.name for a in assistants)),
        )
        default = stores.get(assistants.get(assistants.default).collection or "")
        problems = {"llm": upstream.problem, "documents": _documents(default, settings.tenant)}
        yield Wired(parts, guard, sink, metrics, problems, embedder.embed, embedder.name)


async def _stores(
    settings: Settings, assistants: Assistants, embedder: Embedder, opened: AsyncExitStack
) -> dict[str, VectorStore]:
    """The collections that the assistants name."""
    stores = {}
    for collection in dict.fromkeys(a.collection for a in assistants if a.collection):
        store = await open_store(
            settings, collection, model=embedder.name, dimension=embedder.dimension, create=True
        )
        opened.push_async_callback(store.aclose)
        stores[collection] = store
    return stores


async def _retriever(
    settings: Settings, stores: Mapping[str, VectorStore], embedder: Embedder, opened: AsyncExitStack
) -> Retriever:
    reranker = await open_reranker(settings)
    if reranker is not None:
        opened.push_async_callback(reranker.aclose)
    return Retriever(
        stores,
        embedder,
        settings.embedding.deadline,
        settings.store.deadline,
        reranker,
        settings.rerank.deadline,
    )


def _prompting(settings: Settings, assistants: Assistants) -> Prompting:
    names = {a.template for a in assistants if a.template}
    templates = {name: Template.load(settings.prompts, name) for name in names}
    return Prompting(templates, settings.llm.context_tokens, settings.llm.bytes_per_token)


def watching(upstream: Upstream, sink: Sink) -> Metrics:
    """The counters, with those of the queue and the sink that are read when they are asked for."""
    metrics = Metrics()
    metrics.watch(
        "tandem_generations_running", "Generations on the LLM server", lambda: upstream.slots.running
    )
    metrics.watch("tandem_generations_waiting", "Requests in our queue", lambda: upstream.slots.waiting)
    metrics.watch_counts("tandem_recorded", "Exchanges in the sink, by state", "state", sink.counts)
    metrics.watch_counts("tandem_dropped", "Exchanges that were not kept, by reason", "reason", sink.dropped)
    return metrics


def _documents(store: VectorStore | None, tenant: str) -> Problem:
    """Whether the default assistant has documents; another one's concern only its callers."""

    async def problem() -> str | None:
        try:
            if store is None or await store.count(tenant):
                return None
        except ServiceError as exc:
            return exc.message
        name = store.collection
        return f"nothing is ingested into {name}: run business-api ingest --collection {name} PATH"

    return problem


def create_app(wires: Wired | None = None, settings: Settings | None = None) -> FastAPI:
    """The ASGI app. Without `wires` everything is opened from the settings when the app starts."""
    settings = settings or Settings()

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        if wires is not None:
            _mount(app, wires, settings)
            yield
            return
        async with wired(settings) as opened:
            _mount(app, opened, settings)
            yield

    app = FastAPI(title="Tandem", lifespan=lifespan, docs_url=None, redoc_url=None, redirect_slashes=False)
    app.mount("/web", _Assets(directory=WEB), name="web")
    app.add_exception_handler(ServiceError, _service_error)
    app.add_exception_handler(RequestValidationError, _bad_query)
    app.add_exception_handler(HTTPException, _http_error)
    app.add_exception_handler(Exception, _bug)
    return app


class _Assets(StaticFiles):
    """Files of the pages; browsers ask whether theirs is still the newest."""

    def file_response(self, *args: Any, **kwargs: Any) -> Response:
        response = super().file_response(*args, **kwargs)
        response.headers["Cache-Control"] = "no-cache"
        response.headers["X-Content-Type-Options"] = "nosniff"
        return response


def _mount(app: FastAPI, wires: Wired, settings: Settings) -> None:
    limit = settings.guard.max_body_bytes
    app.include_router(OpenAiApi(wires.parts, wires.guard, wires.embed, wires.embedder, limit).router())
    app.include_router(ChatbotApi(wires.parts, wires.guard, wires.sink, limit).router())
    app.include_router(ExchangesApi(wires.guard, wires.sink, limit).router())
    app.include_router(OpsApi(wires.problems, wires.metrics.registry).router())


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
    what = "this method is not for" if exc.status_code == 405 else "nothing at"
    said = NotFound(f"{what} {request.method} {request.url.path[:200]}")
    response = error_response(said, dict(exc.headers or {}))
    response.status_code = exc.status_code
    return response


async def _bug(request: Request, exc: Exception) -> Response:
    return error_response(ServiceError("internal error"))
