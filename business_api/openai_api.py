"""The OpenAI-compatible API: `/v1/chat/completions`, `/v1/models`, `/v1/embeddings`."""

import base64
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Literal

import msgspec
import numpy as np
from fastapi import APIRouter, Request, Response
from starlette.responses import JSONResponse

from business_api.answering import Answer, Parts, answer
from business_api.assistants import Assistant
from business_api.chat_request import ChatRequest
from business_api.errors import InvalidRequest
from business_api.exchange import Delta, Exchange, Question
from business_api.guard import Guard
from business_api.ids import new_id
from business_api.listening import CallerListens
from business_api.openai_stream import stream, wire_reason
from business_api.tandem_object import tandem_object
from business_api.wire import (
    EventStream,
    admitted,
    headers_of,
    json_response,
    read_json,
)

Embed = Callable[[Sequence[str]], Awaitable[np.ndarray]]


class EmbeddingRequest(msgspec.Struct, forbid_unknown_fields=True):
    """The body of an embeddings request; token arrays are not supported."""

    input: str | list[str]
    model: str
    encoding_format: Literal["float", "base64"] = "float"
    dimensions: int | None = None
    user: str | None = None


_chat_requests = msgspec.json.Decoder(ChatRequest)
_embedding_requests = msgspec.json.Decoder(EmbeddingRequest)


@dataclass(frozen=True)
class OpenAiApi:
    """Handlers over the story. `embed` maps texts to float32 vectors (n, dimension) of model `embedder`."""

    parts: Parts
    guard: Guard
    embed: Embed
    embedder: str
    max_body_bytes: int
    started: int = field(default_factory=lambda: int(time.time()))

    def router(self) -> APIRouter:
        """The routes below /v1."""
        router = APIRouter(prefix="/v1")
        router.post("/chat/completions")(self.chat_completions)
        router.get("/models")(self.models)
        router.get("/models/{name}")(self.model)
        router.post("/embeddings")(self.embeddings)
        return router

    async def chat_completions(self, request: Request) -> Response:
        """Answer a conversation, as one JSON body or as a stream of chunks."""
        caller = await admitted(self.guard, request)
        asked = await read_json(request, _chat_requests, self.max_body_bytes)
        question = Question(
            id=new_id(),
            tenant=caller.tenant,
            key=caller.key_id,
            priority=asked.tandem.priority,
            assistant=asked.model,
            messages=asked.question_messages(),
            sampling=asked.sampling(),
            max_tokens=asked.max_completion_tokens or asked.max_tokens,
            narrowing=asked.tandem.narrowing,
            explain=asked.tandem.explain,
            cache=asked.tandem.cache,
        )
        async with CallerListens(request.receive):
            started = await answer(question, self.parts)
            if not asked.stream:
                async with started:
                    body = await _completion(started)
                return json_response(body, headers_of(started.exchange) | self.guard.limit_headers(caller))
        usage = asked.stream_options is not None and asked.stream_options.include_usage
        headers = headers_of(started.exchange) | self.guard.limit_headers(caller)
        return EventStream(started, partial(stream, started, usage), headers)

    async def models(self, request: Request) -> Response:
        """List the assistants."""
        await admitted(self.guard, request)
        return JSONResponse({"object": "list", "data": [self._model(a) for a in self.parts.assistants]})

    async def model(self, name: str, request: Request) -> Response:
        """One assistant."""
        await admitted(self.guard, request)
        return JSONResponse(self._model(self.parts.assistants.get(name)))

    async def embeddings(self, request: Request) -> Response:
        """Vectors of the model that the index is made with."""
        await admitted(self.guard, request)
        asked = await read_json(request, _embedding_requests, self.max_body_bytes)
        texts = [asked.input] if isinstance(asked.input, str) else asked.input
        self._check_embedding(asked, texts)
        vectors = await self.embed(texts)
        if asked.dimensions not in (None, vectors.shape[1]):
            raise InvalidRequest(f"this model has {vectors.shape[1]} dimensions only", param="dimensions")
        rows = [
            {"object": "embedding", "index": i, "embedding": _encoded(vector, asked.encoding_format)}
            for i, vector in enumerate(vectors)
        ]
        size = sum(len(text.split()) for text in texts)
        usage = {"prompt_tokens": size, "total_tokens": size}
        content = {"object": "list", "data": rows, "model": self.embedder, "usage": usage}
        return json_response(content)

    def _check_embedding(self, asked: EmbeddingRequest, texts: list[str]) -> None:
        if asked.model != self.embedder:
            raise InvalidRequest(f"the embedding model is {self.embedder}", param="model")
        if not texts or len(texts) > 256 or not all(texts):
            raise InvalidRequest("input takes 1 to 256 texts, none of them empty", param="input")

    def _model(self, assistant: Assistant) -> dict[str, Any]:
        return {
            "id": assistant.name,
            "object": "model",
            "created": self.started,
            "owned_by": "tandem",
            "tandem": {
                "description": assistant.description,
                "retrieval": assistant.collection is not None,
                "suggestions": assistant.suggestions,
                "version": assistant.version,
            },
        }


async def _completion(started: Answer) -> dict[str, Any]:
    deltas = await started.whole()
    exchange = started.exchange
    return {
        "id": f"chatcmpl-{exchange.id}",
        "object": "chat.completion",
        "created": int(exchange.at),
        "model": exchange.question.assistant,
        "system_fingerprint": exchange.versions.get("fingerprint"),
        "choices": [_choice(exchange, deltas)],
        "usage": exchange.usage or {"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0},
        "tandem": tandem_object(exchange),
    }


def _choice(exchange: Exchange, deltas: list[Delta]) -> dict[str, Any]:
    calls = whole_tool_calls(exchange.tool_calls)
    logprobs = [entry for d in deltas if d.logprobs for entry in d.logprobs.get("content") or ()]
    message: dict[str, Any] = {
        "role": "assistant",
        "content": exchange.answer or (None if calls else ""),
        "refusal": "".join(d.refusal for d in deltas if d.refusal) or None,
    }
    if calls:
        message["tool_calls"] = calls
    if reasoning := "".join(d.reasoning for d in deltas if d.reasoning):
        message["reasoning_content"] = reasoning
    return {
        "index": 0,
        "message": message,
        "logprobs": {"content": logprobs} if logprobs else None,
        "finish_reason": wire_reason(exchange),
    }


def whole_tool_calls(parts: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Streamed tool call parts put together: by `index`, names and arguments concatenated."""
    calls: dict[int, dict[str, Any]] = {}
    for part in parts:
        function = part.get("function") or {}
        call = calls.setdefault(
            part.get("index", 0), {"id": "", "type": "function", "function": {"name": "", "arguments": ""}}
        )
        call["id"] = part.get("id") or call["id"]
        call["function"]["name"] += function.get("name") or ""
        call["function"]["arguments"] += function.get("arguments") or ""
    return [calls[index] for index in sorted(calls)]


def _encoded(vector: np.ndarray, encoding: str) -> list[float] | str:
    if encoding == "base64":
        return base64.b64encode(vector.astype("<f4").tobytes()).decode()
    found: list[float] = vector.tolist()
    return found
