"""The domain's words, and the ports that the story of a request is told with.

A *document* is cut into *chunks*; a chunk found by a question is a *passage* (`passages`). An *exchange* is
one question with all that happened to it: the only mutable thing here, with one owner, `answering`.
"""

import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from enum import StrEnum
from typing import Any, Literal, Protocol

import msgspec

from business_api.arrivals import Take
from business_api.assistants import Assistant
from business_api.passages import Candidate, Citation, Narrowing, Passage, Query
from business_api.usage import Attempt, Usage

CONTRACT = "1"
"""Version of the `tandem` object and of the exchange record; raised when a field changes its meaning."""


Priority = Literal["high", "normal", "low"]
"""Classes of questions; the first is served first."""


class Outcome(StrEnum):
    """How an exchange ended."""

    ANSWERED = "answered"
    ABSTAINED = "abstained"
    REFUSED = "refused"
    FAILED = "failed"
    ABANDONED = "abandoned"


class Degradation(StrEnum):
    """What an answer had to do without."""

    CONDENSE_FAILED = "condense_failed"
    REWORDING_FAILED = "rewording_failed"
    NARROWING_FAILED = "narrowing_failed"
    DENSE_UNAVAILABLE = "dense_unavailable"
    RETRIEVAL_UNAVAILABLE = "retrieval_unavailable"
    RERANK_TIMEOUT = "rerank_timeout"
    RERANK_UNAVAILABLE = "rerank_unavailable"
    LOW_CONFIDENCE = "low_confidence"
    EXTRACTIVE_ANSWER = "extractive_answer"
    PASSAGES_CUT = "passages_cut"
    HISTORY_CUT = "history_cut"
    UNKNOWN_MARKER = "unknown_marker"
    UNSUPPORTED_CITATION = "unsupported_citation"
    RESUMED = "resumed"
    FALLBACK_MODEL = "fallback_model"


class Message(msgspec.Struct, frozen=True, omit_defaults=True, gc=False):
    """One turn of a conversation, as the LLM will see it. Tool fields are OpenAI's, passed through."""

    role: str
    content: str | None = None
    name: str | None = None
    tool_calls: list[dict[str, Any]] | None = None
    tool_call_id: str | None = None


class Question(msgspec.Struct, frozen=True, kw_only=True):
    """What a caller asks: the conversation so far, whose last message is the question.

    `sampling` holds OpenAI's sampling fields as they go to the LLM (`temperature`, `stop`, `tools` ...).
    Without `cache` it is answered anew, whatever is kept.
    """

    id: str
    tenant: str
    assistant: str
    messages: tuple[Message, ...]
    sampling: Mapping[str, Any] = {}
    max_tokens: int | None = None
    conversation: str | None = None
    key: str | None = None
    priority: Priority | None = None
    narrowing: Narrowing | None = None
    explain: bool = False
    cache: bool = True

    @property
    def text(self) -> str:
        """The last user message: what is searched for."""
        return next((m.content or "" for m in reversed(self.messages) if m.role == "user"), "")

    @property
    def wants_prose(self) -> bool:
        """Whether the answer is free text, in which markers may stand (no tools, no JSON format)."""
        format_ = self.sampling.get("response_format") or {"type": "text"}
        return "tools" not in self.sampling and format_.get("type") == "text"


class Rewritten(msgspec.Struct, frozen=True, kw_only=True):
    """What a question became before retrieval, milliseconds per stage."""

    query: Query
    timings_ms: dict[str, float] = {}
    degraded: tuple[Degradation, ...] = ()


class Found(msgspec.Struct, frozen=True, kw_only=True):
    """What retrieval brings: passages best first, all `candidates` as they ended up, ms per stage."""

    passages: tuple[Passage, ...]
    index: str
    timings_ms: dict[str, float]
    candidates: tuple[Candidate, ...] = ()
    degraded: tuple[Degradation, ...] = ()


class Judgement(msgspec.Struct, frozen=True):
    """How probable it is that the passages answer the question, and from where on we say that they do."""

    probability: float
    threshold: float

    @property
    def answerable(self) -> bool:
        """Whether the passages are taken to answer the question."""
        return self.probability >= self.threshold


class Earlier(msgspec.Struct, frozen=True):
    """The exchange in which an answer was first given, and seconds since then."""

    exchange: str
    age_s: float


class Prompt(msgspec.Struct, frozen=True, kw_only=True):
    """What is sent to the LLM. `template` is `name/version@digest`; `passages` are those that fitted."""

    messages: tuple[Message, ...]
    template: str | None = None
    passages: tuple[Passage, ...] = ()
    max_tokens: int
    degraded: tuple[Degradation, ...] = ()


class Delta(msgspec.Struct, frozen=True, gc=False):
    """One streamed unit. `tool_calls` and `logprobs` are the LLM server's own JSON, passed through.

    `reasoning` is what the model thinks before it answers.
    """

    text: str = ""
    tool_calls: list[dict[str, Any]] | None = None
    logprobs: dict[str, Any] | None = None
    refusal: str | None = None
    reasoning: str | None = None


class Generation(Protocol):
    """A running answer of the LLM, whose first content has arrived. Relay it once; close it however it ends.

    After the last delta `finish_reason` and `usage` are set.
    """

    model: str
    fingerprint: str | None
    finish_reason: str | None
    usage: Usage | None
    ttft_ms: float
    degraded: tuple[Degradation, ...]

    @property
    def attempts(self) -> tuple[Attempt, ...]:
        """The trail so far: every try to have the LLM answer."""

    async def relay(self, take: Take[Sequence[Delta]]) -> None:
        """Hand the deltas on to `take` as they arrive, those that arrive together at once.

        Raises UpstreamUnavailable or UpstreamTimeout when the answer breaks off, and what `take` raises.
        """

    async def aclose(self) -> None:
        """Stop the LLM if it is still running. Harmless when it has ended."""


Rewrite = Callable[[Question, Assistant], Awaitable[Rewritten]]
"""(question, assistant) -> Rewritten. What fails is left out and named in `degraded`: nothing is raised."""

Reserve = Callable[[Question, Assistant], Awaitable[None]]
"""Reserves the tokens it may take until it is recorded. Raises RateLimited, Unavailable, InvalidRequest."""

Retrieve = Callable[[Query, str, Assistant], Awaitable[Found]]
"""(query, tenant, assistant) -> Found. Raises RetrievalUnavailable."""

Judge = Callable[[str, Found, Assistant], Judgement | None]
"""(question by itself, found, assistant) -> Judgement, None when the assistant never abstains."""

Extract = Callable[[str, Sequence[Passage]], str]
"""(question by itself, passages) -> the sentences that answer best, verbatim with markers; "" for none."""

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
    query: Query | None = None
    passages: tuple[Passage, ...] = ()
    explained: tuple[Candidate, ...] = ()
    judgement: Judgement | None = None
    prompt: Prompt | None = None
    answer: str = ""
    tool_calls: list[dict[str, Any]] = []
    thought: int = 0  # characters that the model thought before it answered
    citations: list[Citation] = []
    support_rate: float | None = None
    degraded: list[Degradation] = []
    versions: dict[str, str] = {}
    timings_ms: dict[str, float] = {}
    finish_reason: str | None = None
    usage: Usage | None = None
    attempts: tuple[Attempt, ...] = ()
    cached: Earlier | None = None
    error: dict[str, str | None] | None = None

    @property
    def id(self) -> str:
        """The request id."""
        return self.question.id

    def degrade(self, *names: Degradation) -> None:
        """Note what the answer had to do without, each once."""
        self.degraded.extend(name for name in names if name not in self.degraded)


Recall = Callable[[Exchange, Assistant], Awaitable[Generation | None]]
"""(exchange, assistant) -> an answer that was given before, the exchange then told what it rests on."""

Record = Callable[[Exchange], None]
"""Keeps an exchange for good: synchronous, waits for nothing, never raises. The exchange has ended."""
