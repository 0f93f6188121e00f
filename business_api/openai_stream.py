"""An answer as OpenAI's stream of chunks: what does not change from chunk to chunk is encoded once."""

from collections.abc import Sequence
from typing import Any

import msgspec

from business_api.answering import Answer
from business_api.arrivals import Take
from business_api.exchange import Delta, Exchange
from business_api.tandem_object import tandem_object
from business_api.wire import event, written

DONE = b"data: [DONE]\n\n"
_encode = msgspec.json.Encoder().encode


class Chunks:
    """Encodes the chunks of one answer. With `include_usage` each has a `usage`, null but for the last."""

    def __init__(self, exchange: Exchange, *, include_usage: bool) -> None:
        self._head = {
            "id": f"chatcmpl-{exchange.id}",
            "object": "chat.completion.chunk",
            "created": int(exchange.at),
            "model": exchange.question.assistant,
        }
        self._usage = {"usage": None} if include_usage else {}
        around = self.chunk({"content": ""}).rpartition(b'{"content":""}')
        self._before, self._behind = around[0] + b'{"content":', b"}" + around[2]

    def of(self, delta: Delta) -> bytes:
        """The chunk of a delta; nothing for an empty one."""
        calls, refusal, reasoning = delta.tool_calls, delta.refusal, delta.reasoning
        if calls is None and delta.logprobs is None and refusal is None and reasoning is None:
            return self._before + _encode(delta.text) + self._behind if delta.text else b""
        said = {
            name: value
            for name, value in (
                ("content", delta.text or None),
                ("tool_calls", calls),
                ("refusal", refusal),
                ("reasoning_content", reasoning),
            )
            if value is not None
        }
        return self.chunk(said, logprobs=delta.logprobs)

    def of_all(self, deltas: Sequence[Delta]) -> bytes:
        """The chunks of deltas."""
        return self.of(deltas[0]) if len(deltas) == 1 else b"".join(map(self.of, deltas))

    def chunk(
        self,
        delta: dict[str, Any],
        finish_reason: str | None = None,
        logprobs: dict[str, Any] | None = None,
        **more: Any,
    ) -> bytes:
        """A chunk with one choice."""
        choice = {"index": 0, "delta": delta, "logprobs": logprobs, "finish_reason": finish_reason}
        return event({**self._head, "choices": [choice], **self._usage, **more})

    def without_choice(self, **more: Any) -> bytes:
        """A chunk that only says something about the answer."""
        return event({**self._head, "choices": [], **more})


async def stream(started: Answer, include_usage: bool, write: Take[bytes]) -> bytes:
    """Write a role and the deltas; what is left to write is the finish, the `tandem` object, and `[DONE]`."""
    exchange = started.exchange
    chunks = Chunks(exchange, include_usage=include_usage)
    role = chunks.chunk({"role": "assistant", "content": ""})
    unsent, failure = await written(started, role, chunks.of_all, write)
    if failure is not None:
        return unsent + event({**failure.envelope(), "tandem": tandem_object(exchange)})
    tandem = tandem_object(exchange)
    if include_usage:
        unsent += chunks.chunk({}, wire_reason(exchange))
        return unsent + chunks.without_choice(usage=exchange.usage, tandem=tandem) + DONE
    return unsent + chunks.chunk({}, wire_reason(exchange), tandem=tandem) + DONE


def wire_reason(exchange: Exchange) -> str | None:
    """The finish_reason as OpenAI's clients know it."""
    return "stop" if exchange.finish_reason == "abstained" else exchange.finish_reason
