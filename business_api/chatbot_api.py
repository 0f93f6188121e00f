"""The chatbot: `POST /chat` and its page."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Annotated, Any

import msgspec
from fastapi import APIRouter, Request, Response

from business_api.answering import Answer, Parts, answer
from business_api.arrivals import Take
from business_api.chat_request import TandemFields
from business_api.conversations import Conversations
from business_api.exchange import Delta, Exchange, Message, Question
from business_api.guard import Guard
from business_api.ids import new_id
from business_api.listening import CallerListens
from business_api.passages import Passage
from business_api.tandem_object import tandem_object
from business_api.wire import (
    EventStream,
    admitted,
    event,
    headers_of,
    json_response,
    page,
    read_json,
    written,
)


class ChatMessage(msgspec.Struct, forbid_unknown_fields=True):
    """The body of a chat request."""

    message: str
    conversation: Annotated[str, msgspec.Meta(pattern=r"\A[A-Za-z0-9_-]{1,64}\Z")] | None = None
    assistant: str | None = None
    stream: bool = False
    tandem: TandemFields = TandemFields()


_chat_messages = msgspec.json.Decoder(ChatMessage)


@dataclass(frozen=True)
class ChatbotApi:
    """Handlers over the story and what was said before."""

    parts: Parts
    guard: Guard
    conversations: Conversations
    max_body_bytes: int

    def router(self) -> APIRouter:
        """The chat endpoint and its page."""
        router = APIRouter()
        router.post("/chat")(self.chat)
        router.api_route("/", methods=["GET", "HEAD"], include_in_schema=False)(self.chat_page)
        return router

    async def chat(self, request: Request) -> Response:
        """Answer one message of a conversation, as one JSON body or as server-sent events."""
        caller = await admitted(self.guard, request)
        asked = await read_json(request, _chat_messages, self.max_body_bytes)
        conversation = asked.conversation or new_id()
        earlier = partial(self.conversations.earlier, caller.tenant, conversation)
        question = Question(
            id=new_id(),
            tenant=caller.tenant,
            key=caller.key_id,
            priority=asked.tandem.priority,
            assistant=asked.assistant or self.parts.assistants.default,
            messages=(Message(role="user", content=asked.message),),
            conversation=conversation,
            narrowing=asked.tandem.narrowing,
            explain=asked.tandem.explain,
            cache=asked.tandem.cache,
        )
        async with CallerListens(request.receive):
            started = await answer(question, self.parts, earlier if asked.conversation else None)
            if not asked.stream:
                async with started:
                    body = await _whole(started)
                return json_response(body, headers_of(started.exchange) | self.guard.limit_headers(caller))
        headers = headers_of(started.exchange) | self.guard.limit_headers(caller)
        return EventStream(started, partial(_stream, started), headers)

    async def chat_page(self) -> Response:
        """The chat page."""
        return page("chat.html")


async def _stream(started: Answer, write: Take[bytes]) -> bytes:
    """Write the passages and the deltas; what is left to write is the whole answer, or why there is none."""
    exchange = started.exchange
    unsent, failure = await written(started, event(_opening(exchange), "passages"), _deltas, write)
    if failure is not None:
        return unsent + event({**failure.envelope(), "tandem": tandem_object(exchange)}, "error")
    return unsent + event(_closing(exchange), "answer")


def _deltas(deltas: Sequence[Delta]) -> bytes:
    return b"".join([event({"text": one.text}, "delta") for one in deltas if one.text])


async def _whole(started: Answer) -> dict[str, Any]:
    await started.whole()
    return {**_opening(started.exchange), **_closing(started.exchange)}


def _opening(exchange: Exchange) -> dict[str, Any]:
    passages = exchange.prompt.passages if exchange.prompt else exchange.passages
    return {
        "exchange": exchange.id,
        "conversation": exchange.question.conversation,
        "passages": [_passage(number, passage) for number, passage in enumerate(passages, 1)],
        "degraded": exchange.degraded,
    }


def _passage(number: int, passage: Passage) -> dict[str, Any]:
    return {
        "marker": number,
        **msgspec.to_builtins(passage.chunk),
        "chunk": passage.chunk.id,
        "score": passage.score,
    }


def _closing(exchange: Exchange) -> dict[str, Any]:
    return {
        "answer": exchange.answer,
        "conversation": exchange.question.conversation,
        "finish_reason": exchange.finish_reason,
        "usage": exchange.usage,
        "tandem": tandem_object(exchange),
    }
