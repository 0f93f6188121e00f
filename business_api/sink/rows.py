"""What the store shows of an exchange without opening it: columns of the table, lines of a list."""

import json
from typing import Any

import msgspec

from business_api.usage import Usage

COLUMNS = (
    "id",
    "at",
    "tenant",
    "key",
    "assistant",
    "conversation",
    "outcome",
    "degraded",
    "finish_reason",
    "error",
    "passages",
    "citations",
    "prompt_tokens",
    "completion_tokens",
    "timings_ms",
    "question",
    "answer",
    "record",
)


class Summary(msgspec.Struct, frozen=True, kw_only=True):
    """One line of a list. `question` and `answer` are cut to 200 characters, `error` is the error's code."""

    id: str
    at: float
    tenant: str
    key: str | None
    assistant: str
    conversation: str | None
    outcome: str | None
    degraded: tuple[str, ...]
    finish_reason: str | None
    error: str | None
    passages: int
    citations: int
    prompt_tokens: int | None
    completion_tokens: int | None
    timings_ms: dict[str, float]
    question: str
    answer: str
    rating: str | None


class _Message(msgspec.Struct, gc=False):
    role: str
    content: str | None = None


class _Question(msgspec.Struct, gc=False):
    id: str
    tenant: str
    assistant: str
    messages: list[_Message]
    conversation: str | None = None
    key: str | None = None

    @property
    def text(self) -> str:
        """The last thing that the user said."""
        return next((said.content or "" for said in reversed(self.messages) if said.role == "user"), "")


class _Record(msgspec.Struct, gc=False):
    """As much of a record as the columns need: less to decode, and fit for records of other versions."""

    question: _Question
    at: float
    outcome: str | None = None
    answer: str = ""
    passages: list[msgspec.Raw] = []
    citations: list[msgspec.Raw] = []
    degraded: list[str] = []
    timings_ms: dict[str, float | None] = {}
    finish_reason: str | None = None
    usage: Usage | None = None
    error: dict[str, str | None] | None = None


_decode = msgspec.json.Decoder(_Record).decode
_encode = msgspec.json.Encoder().encode


def row(record: bytes) -> tuple[Any, ...]:
    """The values of all columns. Raises ValueError if the record is no exchange."""
    kept = _decode(record)
    question, usage = kept.question, kept.usage
    return (
        question.id,
        kept.at,
        question.tenant,
        question.key,
        question.assistant,
        question.conversation,
        kept.outcome,
        ",".join(kept.degraded),
        kept.finish_reason,
        (kept.error or {}).get("code"),
        len(kept.passages),
        len(kept.citations),
        usage.prompt_tokens if usage else None,
        usage.completion_tokens if usage else None,
        _encode({stage: ms for stage, ms in kept.timings_ms.items() if ms is not None}).decode(),
        question.text,
        kept.answer,
        record,
    )


def summary(found: tuple[Any, ...]) -> Summary:
    """The line of a list from a row of the same columns, with the rating in place of the record."""
    fields = dict(zip((*COLUMNS[:-1], "rating"), found, strict=True))
    degraded = fields["degraded"]
    fields |= {"degraded": tuple(degraded.split(",")) if degraded else ()}
    fields |= {"timings_ms": json.loads(fields["timings_ms"])}
    return Summary(**fields)
