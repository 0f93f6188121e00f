"""The shapes of vLLM's chat answers: whole JSON and SSE frames, usage, logprobs, tool calls."""

import re
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import msgspec

WORDS = re.compile(r"\s*\S+\s*\Z|\s*\S+")
FINGERPRINT = "vllm-fake"
STATUS_NAMES = {
    400: "BadRequestError",
    404: "NotFoundError",
    429: "RateLimitError",
    503: "ServiceUnavailableError",
}


@dataclass(frozen=True)
class Pace:
    """Seconds before the first delta, and between two deltas."""

    delay: float
    first_delay: float


@dataclass(frozen=True)
class Answer:
    """One answer, ready to be sent whole or in frames. `tool` is the called function's name."""

    body: dict[str, Any]
    pieces: list[str]
    model: str
    finish_reason: str
    tool: str | None = None

    def ending(self, finish_reason: str) -> "Answer":
        """The same answer with another finish_reason."""
        return replace(self, finish_reason=finish_reason)

    @property
    def usage(self) -> dict[str, int]:
        """Words of the prompt and deltas of the answer, counted as tokens."""
        asked = sum(len(str(message.get("content") or "").split()) for message in self.body["messages"])
        return {
            "prompt_tokens": asked,
            "completion_tokens": len(self.pieces),
            "total_tokens": asked + len(self.pieces),
        }

    def logprobs(self, pieces: list[str]) -> dict[str, Any] | None:
        """OpenAI's logprobs of these deltas, None if not asked for."""
        if not self.body.get("logprobs"):
            return None
        tokens = [
            {"token": piece, "logprob": -0.1, "bytes": list(piece.encode()), "top_logprobs": []}
            for piece in pieces
        ]
        return {"content": tokens}

    def deltas(self) -> Iterator[dict[str, Any]]:
        """The `delta` objects with content."""
        if self.tool is None:
            yield from ({"content": piece} for piece in self.pieces)
            return
        yield {"tool_calls": [_call(self.tool, "")]}
        for piece in self.pieces:
            yield {"tool_calls": [{"index": 0, "function": {"arguments": piece}}]}

    def frame(self, choices: list[dict[str, Any]], **more: Any) -> bytes:
        """One SSE frame."""
        return b"data: " + msgspec.json.encode(self._head("chat.completion.chunk", choices) | more) + b"\n\n"

    def last_frames(self) -> Iterator[bytes]:
        """The frame with finish_reason, and the one with usage if it was asked for."""
        yield self.frame([{"index": 0, "delta": {}, "logprobs": None, "finish_reason": self.finish_reason}])
        if (self.body.get("stream_options") or {}).get("include_usage"):
            yield self.frame([], usage=self.usage)

    def _head(self, kind: str, choices: list[dict[str, Any]]) -> dict[str, Any]:
        return {
            "id": "chatcmpl-fake",
            "object": kind,
            "created": int(time.time()),
            "model": self.model,
            "system_fingerprint": FINGERPRINT,
            "choices": choices,
        }

    def whole(self, *, finished: bool = True) -> bytes:
        """The answer as one JSON document; not `finished` leaves finish_reason null."""
        text = "".join(self.pieces)
        message: dict[str, Any] = {"role": "assistant", "content": text}
        if self.tool is not None:
            message = {"role": "assistant", "content": None, "tool_calls": [_call(self.tool, text)]}
        choice = {
            "index": 0,
            "message": message,
            "logprobs": self.logprobs(self.pieces),
            "finish_reason": self.finish_reason if finished else None,
        }
        return msgspec.json.encode(self._head("chat.completion", [choice]) | {"usage": self.usage})


def written(body: dict[str, Any], said: str, pieces: list[str] | None, model: str) -> Answer:
    """The answer to a request: a call of its first tool, JSON if asked for, else what is said."""
    tool = _called_tool(body)
    if tool is not None:
        said, pieces = msgspec.json.encode({"text": _last_question(body)}).decode(), None
    elif (body.get("response_format") or {}).get("type", "text") != "text":
        said, pieces = _as_json(said), None
    if pieces is None:
        pieces = WORDS.findall(said)
    if body.get("continue_final_message"):
        pieces = _continuation(pieces, body["messages"][-1]["content"])
    most = body.get("max_completion_tokens") or body.get("max_tokens") or len(pieces)
    reason = "length" if len(pieces) > most else "stop" if tool is None else "tool_calls"
    return Answer(body, pieces[:most], model, reason, tool)


def _continuation(pieces: list[str], said: str) -> list[str]:
    """What is left of the answer after its beginning `said`. ValueError: it does not begin so."""
    whole = "".join(pieces)
    if not whole.startswith(said):
        raise ValueError(f"{said!r} is not the beginning of {whole!r}")
    left = len(whole) - len(said)
    kept: list[str] = []
    for piece in reversed(pieces):
        if left > 0:
            kept.append(piece[-left:])
            left -= len(piece)
    return kept[::-1]


def content_frames(answer: Answer, pace: Pace, stop_at: int | None) -> Iterator[tuple[float, bytes]]:
    """Seconds to wait and the frame, up to the last content; only `stop_at` deltas if it is given."""
    if stop_at == 0:
        return
    role = {"role": "assistant", "content": ""}
    yield pace.first_delay, answer.frame([{"index": 0, "delta": role, "finish_reason": None}])
    for number, delta in enumerate(answer.deltas()):
        if number == stop_at:
            return
        logprobs = answer.logprobs([delta["content"]]) if "content" in delta else None
        choice = {"index": 0, "delta": delta, "logprobs": logprobs, "finish_reason": None}
        yield pace.delay if number else 0.0, answer.frame([choice])


def error_body(status: int, message: str) -> bytes:
    """vLLM's error envelope."""
    kind = STATUS_NAMES.get(status, "InternalServerError")
    return msgspec.json.encode({"error": {"message": message, "type": kind, "param": None, "code": status}})


def _call(tool: str, arguments: str) -> dict[str, Any]:
    function = {"name": tool, "arguments": arguments}
    return {"index": 0, "id": "call_fake", "type": "function", "function": function}


def _called_tool(body: dict[str, Any]) -> str | None:
    tools = body.get("tools")
    if not tools or body.get("tool_choice") == "none" or body["messages"][-1]["role"] == "tool":
        return None
    chosen = body.get("tool_choice")
    name = chosen["function"]["name"] if isinstance(chosen, dict) else tools[0]["function"]["name"]
    return str(name)


def _last_question(body: dict[str, Any]) -> str:
    return next((str(m.get("content")) for m in reversed(body["messages"]) if m["role"] == "user"), "")


def _as_json(said: str) -> str:
    try:
        msgspec.json.decode(said)
    except msgspec.DecodeError:
        return msgspec.json.encode({"answer": said}).decode()
    return said
