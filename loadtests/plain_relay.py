"""A relay as most teams write it: FastAPI, pydantic bodies, the openai SDK, one re-encoded event per chunk.

It stands beside ours in the benchmarks: no queue, no deadlines, no retries, no record. Run by `peers`.
"""

import os
from collections.abc import AsyncIterator
from typing import Any

import openai
import uvicorn
from fastapi import FastAPI
from pydantic import BaseModel
from starlette.responses import Response, StreamingResponse


class Message(BaseModel):
    """One turn of a conversation."""

    role: str
    content: str


class ChatBody(BaseModel):
    """The body of a chat completion request."""

    model: str
    messages: list[Message]
    stream: bool = False


def create_app(llm_url: str) -> FastAPI:
    """The app before the OpenAI base URL `llm_url`."""
    app = FastAPI()
    client = openai.AsyncOpenAI(base_url=llm_url, api_key="unused", max_retries=0)

    async def events(asked: dict[str, Any]) -> AsyncIterator[str]:
        stream = await client.chat.completions.create(**asked)
        async for chunk in stream:
            yield f"data: {chunk.model_dump_json(exclude_unset=True)}\n\n"
        yield "data: [DONE]\n\n"

    @app.post("/v1/chat/completions")
    async def chat_completions(body: ChatBody) -> Response:
        asked = body.model_dump()
        if body.stream:
            return StreamingResponse(events(asked), media_type="text/event-stream")
        answered = await client.chat.completions.create(**asked)
        return Response(answered.model_dump_json(exclude_unset=True), media_type="application/json")

    return app


if __name__ == "__main__":
    uvicorn.run(
        create_app(os.environ["LLM_URL"]),
        port=int(os.environ["PORT"]),
        log_level="warning",
        access_log=False,
    )
