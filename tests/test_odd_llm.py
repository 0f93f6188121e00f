"""LLM servers that send what no LLM server should: the caller gets a clear error, the exchange its record."""

from pathlib import Path
from typing import Any

import aiohttp
import msgspec
import pytest

from business_api.exchange import Outcome
from tests.asgi_wire import Receive, Scope, Send, read
from tests.stack import running_stack

USAGE = {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2}


def frame(delta: Any = None, finish: str | None = None, **more: Any) -> bytes:
    choice = {"index": 0, "delta": delta or {}, "finish_reason": finish}
    return b"data: " + msgspec.json.encode({"choices": [choice], **more}) + b"\n\n"


SAID = frame({"content": "The "})
END = (
    frame(finish="stop")
    + b"data: "
    + msgspec.json.encode({"choices": [], "usage": USAGE})
    + b"\n\ndata: [DONE]\n\n"
)


class RawLlm:
    """An LLM server that answers every question with these bytes."""

    def __init__(self, *pieces: bytes) -> None:
        self.pieces = pieces

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await read(receive)
        if scope["path"].endswith("/models"):
            self_listed = b'{"data": [{"id": "odd"}]}'
            await send({"type": "http.response.start", "status": 200, "headers": []})
            await send({"type": "http.response.body", "body": self_listed})
            return
        await send({"type": "http.response.start", "status": 200, "headers": []})
        for piece in self.pieces:
            await send({"type": "http.response.body", "body": piece, "more_body": True})
        await send({"type": "http.response.body", "body": b""})


async def ask(tmp_path: Path, llm: RawLlm, *, stream: bool) -> tuple[int, str, Any, Any]:
    """Status, body, headers, and the one exchange that was recorded."""
    asked = {"model": "tandem", "messages": [{"role": "user", "content": "Which port?"}], "stream": stream}
    with running_stack(tmp_path, llm) as stack:  # type: ignore[arg-type]
        async with (
            aiohttp.ClientSession() as session,
            session.post(f"{stack.url}/v1/chat/completions", json=asked) as reply,
        ):
            text = await reply.text()
        (exchange,) = stack.recorded()
    return reply.status, text, reply.headers, exchange


BROKEN = {
    "invalid UTF-8": b'data: {"choices": [{"delta": {"content": "\xff"}}]}\n\n',
    "usage beyond any number": frame(usage=USAGE | {"total_tokens": 10**25}),
    "negative usage": frame(usage=USAGE | {"total_tokens": -5}),
    "a tool call of the wrong type": frame({"tool_calls": [{"index": "a"}]}),
    "a function that is a string": frame({"tool_calls": [{"index": 0, "function": "f"}]}),
    "logprobs of the wrong type": b'data: {"choices": [{"logprobs": {"content": 5}}]}\n\n',
    "nesting without end": b'data: {"choices": [{"logprobs": {"content": ' + b"[" * 100_000 + b"\n\n",
}


@pytest.mark.parametrize("broken", BROKEN.values(), ids=BROKEN.keys())
@pytest.mark.parametrize("stream", [True, False], ids=["stream", "whole"])
async def test_a_broken_frame_is_an_error_of_the_llm_whose_id_finds_the_exchange(
    tmp_path: Path, broken: bytes, stream: bool
) -> None:
    status, text, headers, exchange = await ask(tmp_path, RawLlm(SAID, broken, END), stream=stream)
    assert '"code":"upstream_unavailable"' in text
    assert status == (200 if stream else 503)
    assert "[DONE]" not in text
    assert headers["X-Request-Id"] == exchange.id
    assert exchange.outcome is Outcome.FAILED
    assert exchange.answer.strip() == "The"


ODD_BUT_COMPLETE = {
    "pings and empty data": (b": ping\n\n", b"data:\n\n", SAID, END),
    "CRLF and no space": (
        SAID.replace(b"data: ", b"data:").replace(b"\n", b"\r\n"),
        END.replace(b"\n", b"\r\n"),
    ),
    "choices and delta null": (
        b'data: {"choices": null}\n\n',
        b'data: {"choices": [{"delta": null}]}\n\n',
        SAID,
        END,
    ),
    "another choice first": (b'data: {"choices": [{"index": 1, "delta": {"content": "No"}}]}\n\n', SAID, END),
    "cut anywhere": tuple((SAID + END)[i : i + 1] for i in range(len(SAID + END))),
}


@pytest.mark.parametrize("pieces", ODD_BUT_COMPLETE.values(), ids=ODD_BUT_COMPLETE.keys())
async def test_what_is_odd_but_complete_is_an_answer(tmp_path: Path, pieces: tuple[bytes, ...]) -> None:
    status, text, _, exchange = await ask(tmp_path, RawLlm(*pieces), stream=False)
    assert status == 200
    assert msgspec.json.decode(text)["choices"][0]["message"]["content"] == "The "
    assert exchange.outcome is Outcome.ANSWERED


async def test_a_refusal_of_the_model_reaches_the_caller(tmp_path: Path) -> None:
    refused = frame({"refusal": "I cannot do that."})
    _, text, _, _ = await ask(tmp_path, RawLlm(refused, END), stream=False)
    assert msgspec.json.decode(text)["choices"][0]["message"]["refusal"] == "I cannot do that."
