"""The domain's words, and the three ports that the story of a request is told with.

A *document* is cut into *chunks*; a chunk found by a question is a *passage*. An *exchange* is one question
with all that happened to it: the only mutable thing here, with one owner, `answering`.
"""

import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from enum import StrEnum
from typing import Annotated, Any, Protocol

import msgspec

from business_api.assistants import Assistant

CONTRACT = "1"
"""Version of the `tandem` object and of the exchange record; raised when a field changes its meaning."""


class Outcome(StrEnum):
    """How an exchange ended."""

    ANSWERED = "answered"
    ABSTAINED = "abstained"
    REFUSED = "refused"
    FAILED = "failed"
    ABANDONED = "abandoned"


class Degradation(StrEnum):
    """What an answer had to do without."""

    DENSE_UNAVAILABLE = "dense_unavailable"
    RETRIEVAL_UNAVAILABLE = "retrieval_unavailable"
    PASSAGES_CUT = "passages_cut"
    HISTORY_CUT = "history_cut"
    UNKNOWN_MARKER = "unknown_marker"


class Message(msgspec.Struct, frozen=True, omit_defaults=True):
    """One turn of a conversation, as the LLM will see it. Tool fields are OpenAI's, passed through."""

    role: str
    content: str | None = None
    name: str | None = None
    tool_calls: list[dict[str, Any]] | None = None
    tool_call_id: str | None = None


class Question(msgspec.Struct, frozen=True, kw_only=True):
    """What a caller asks: the conversation so far, whose last message is the question.

    `sampling` holds OpenAI's sampling fields as they go to the LLM (`temperature`, `stop`, `tools` ...).
    """

    id: str
    tenant: str
    assistant: str
    messages: tuple[Message, ...]
    sampling: Mapping[str, Any] = {}
    max_tokens: int | None = None
    conversation: str | None = None
    key: str | None = None

    @property
    def text(self) -> str:
        """The last user message: what is searched for."""
        return next((m.content or "" for m in reversed(self.messages) if m.role == "user"), "")

    @property
    def wants_prose(self) -> bool:
        """Whether the answer is free text, in which markers may stand (no tools, no JSON format)."""
        format_ = self.sampling.get("response_format") or {"type": "text"}
        return "tools" not in self.sampling and format_.get("type") == "text"


class Chunk(msgspec.Struct, frozen=True, kw_only=True):
    """A stored piece of a document: `document_text[start:end] == text`, offsets in characters.

    `document` is the document's stable id (its path relative to the ingested folder), `heading` the path of
    headings above the chunk, `number` its position in the document from 0.
    """

    id: str
    document: str
    title: str
    heading: tuple[str, ...] = ()
    number: int
    start: int
    end: int
    text: str


class Passage(msgspec.Struct, frozen=True):
    """A chunk as one question found it; `score` is the fusion's, comparable only within one answer."""

    chunk: Chunk
    score: float


class Found(msgspec.Struct, frozen=True, kw_only=True):
    """What retrieval brings: passages best first, the index they came from, milliseconds per stage."""

    passages: tuple[Passage, ...]
    index: str
    timings_ms: dict[str, float]
    degraded: tuple[Degradation, ...] = ()


class Prompt(msgspec.Struct, frozen=True, kw_only=True):
    """What is sent to the LLM. `template` is `name/version@digest`; `passages` are those that fitted."""

    messages: tuple[Message, ...]
    template: str | None = None
    passages: tuple[Passage, ...] = ()
    max_tokens: int
    degraded: tuple[Degradation, ...] = ()


Tokens = Annotated[int, msgspec.Meta(ge=0, le=2**53)]


class Usage(msgspec.Struct, frozen=True):
    """Tokens as the LLM server counted them."""

    prompt_tokens: Tokens
    completion_tokens: Tokens
    total_tokens: Tokens


class Delta(msgspec.Struct, frozen=True):
    """One streamed unit. `tool_calls` and `logprobs` are the LLM server's own JSON, passed through."""

    text: str = ""
    tool_calls: list[dict[str, Any]] | None = None
    logprobs: dict[str, Any] | None = None
    refusal: str | None = None


class Citation(msgspec.Struct, frozen=True, kw_only=True):
    """A marker of the answer tied to a verbatim quote: `document_text[start:end] == quote`.

    `by` says who set the marker: the `model`, or our own `match` of the sentence with the passage.
    """

    marker: int
    document: str
    title: str
    chunk: str
    start: int
    end: int
    quote: str
    score: float
    by: str = "model"


class Generation(Protocol):
    """A running answer of the LLM, whose first content has arrived. Iterate once; close it however it ends.

    Iterating raises UpstreamUnavailable or UpstreamTimeout when the answer breaks off. After the last
    delta `finish_reason` and `usage` are set.
    """

    model: str
    fingerprint: str | None
    finish_reason: str | None
    usage: Usage | None
    queue_ms: float
    ttft_ms: float

    def __aiter__(self) -> AsyncIterator[Delta]: ...

    async def aclose(self) -> None:
        """Stop the LLM if it is still running. Harmless when it has ended."""


Retrieve = Callable[[str, str, Assistant], Awaitable[Found]]
"""(text, tenant, assistant) -> Found. Raises RetrievalUnavailable."""

Generate = Callable[[Prompt, Mapping[str, Any], str], Awaitable[Generation]]
"""(prompt, sampling, request id) -> Generation, once the first content is there.

Raises Overloaded, UpstreamUnavailable, UpstreamTimeout, PromptTooLong, InvalidRequest.
"""


class Exchange(msgspec.Struct, kw_only=True, omit_defaults=True):
    """One question with all that happened to it: the logbook of a request, and the record that is kept."""

    question: Question
    at: float = msgspec.field(default_factory=time.time)
    contract: str = msgspec.field(default_factory=lambda: CONTRACT)  # a default would be left out of records
    outcome: Outcome | None = None
    passages: tuple[Passage, ...] = ()
    prompt: Prompt | None = None
    answer: str = ""
    tool_calls: list[dict[str, Any]] = []
    citations: list[Citation] = []
    degraded: list[Degradation] = []
    versions: dict[str, str] = {}
    timings_ms: dict[str, float] = {}
    finish_reason: str | None = None
    usage: Usage | None = None
    error: dict[str, str | None] | None = None

    @property
    def id(self) -> str:
        """The request id."""
        return self.question.id

    def degrade(self, *names: Degradation) -> None:
        """Note what the answer had to do without, each once."""
        self.degraded.extend(name for name in names if name not in self.degraded)


Record = Callable[[Exchange], None]
"""Keeps an exchange for good: synchronous, waits for nothing, never raises. The exchange has ended."""
