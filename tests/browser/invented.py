"""Invented answers, passages and exchanges for the pages, in the shapes of the protocol."""

from dataclasses import dataclass, field
from typing import Any

SUGGESTIONS = [
    "Which port does the LLM server listen on?",
    "How do I ingest my own documents?",
    "What is in the tandem object?",
]
QUESTION = SUGGESTIONS[0]
CONFIGURATION = (
    "## The two services\n\n"
    "The business API listens on `127.0.0.1:8000`. The LLM server listens on `127.0.0.1:8001`. "
    "Both bind to loopback unless told otherwise, so nothing outside this machine can reach them.\n\n"
    "Set `BUSINESS_API_PORT` and `LLM_SERVER_PORT` to change them; a port that is in use is an error that "
    "names the port and the setting."
)
OPERATING = (
    "The LLM server speaks the OpenAI REST API under `/v1`. The business API finds it through "
    "`BUSINESS_API_LLM__URL`, which may also name a hosted API.\n\n"
    "When the server restarts, the business API answers again without a restart of its own."
)
STARTED = (
    "`make run` prepares everything once, starts both services, ingests the sample knowledge base and prints "
    "the address of the chat page."
)


def passage(marker: int, title: str, heading: list[str], text: str, start: int) -> dict[str, Any]:
    """A passage as the `passages` event has it."""
    document = f"docs/{title.lower().replace(' ', '-')}.md"
    place = {"start": start, "end": start + len(text), "text": text, "score": round(0.93 - marker / 10, 2)}
    named = {"marker": marker, "document": document, "title": title, "heading": heading}
    return named | {"chunk": f"{document}#1"} | place


PASSAGES = [
    passage(1, "Configuration", ["Services", "Ports and addresses"], CONFIGURATION, 1200),
    passage(2, "Operating the LLM tier", ["Where it is found"], OPERATING, 310),
    passage(3, "Getting started", ["Run it"], STARTED, 0),
]


def citation(marker: int, quote: str, by: str = "model") -> dict[str, Any]:
    """A citation of one of PASSAGES, with offsets in characters of the document."""
    found = PASSAGES[marker - 1]
    start = found["start"] + found["text"].index(quote)
    named = {name: found[name] for name in ("document", "title", "chunk", "score")}
    return named | {"marker": marker, "start": start, "end": start + len(quote), "quote": quote, "by": by}


def words(text: str) -> list[str]:
    """The text as deltas, about a word each."""
    *parts, last = text.split(" ")
    return [*(f"{part} " for part in parts), last]


ANSWER = (
    "The LLM server listens on **127.0.0.1:8001**, and only this machine can reach it.[1] The business API "
    "finds it through `BUSINESS_API_LLM__URL`, which may also name a hosted API.[2]\n\n"
    "To use another port:\n\n"
    "1. Set `LLM_SERVER_PORT` for the server.[1]\n"
    "2. Point the business API at it:\n\n"
    "```sh\nexport LLM_SERVER_PORT=9001\nexport BUSINESS_API_LLM__URL=http://127.0.0.1:9001/v1\n```"
)
CITATIONS = [
    citation(1, "The LLM server listens on `127.0.0.1:8001`."),
    citation(
        2, "The business API finds it through `BUSINESS_API_LLM__URL`, which may also name a hosted API."
    ),
    citation(1, "Set `BUSINESS_API_PORT` and `LLM_SERVER_PORT` to change them", by="match"),
]
TIMINGS = {
    "embed": 7.9,
    "search": 4.1,
    "rerank": 38.2,
    "prompt": 0.4,
    "queue": 12.0,
    "ttft": 310.0,
    "total": 1905.0,
}
VERSIONS = {
    "assistant": "tandem@5d1f6c0e2a91",
    "prompt": "answer_from_passages/v1@77ab01c3",
    "index": "kb__v3_minilm",
    "model": "smollm2-135m-instruct-q8_0@a91c04be",
    "fingerprint": "b4837",
}
ATTEMPTS = [
    {"replica": "gpu-1", "outcome": "unreachable", "ms": 1.2},
    {"replica": "gpu-2", "outcome": "answered", "ms": 1840.0},
]
USAGE = {"prompt_tokens": 812, "completion_tokens": 131, "total_tokens": 943}


@dataclass(frozen=True)
class Script:
    """How one question is answered. `held`: the last delta waits; `breaks`: an error event ends the stream;
    `cut`: it ends without a word.
    """

    deltas: list[str] = field(default_factory=lambda: words(ANSWER))
    passages: list[dict[str, Any]] = field(default_factory=lambda: list(PASSAGES))
    citations: list[dict[str, Any]] = field(default_factory=lambda: list(CITATIONS))
    degraded: list[str] = field(default_factory=list)
    outcome: str = "answered"
    answerable: float | None = None
    explain: dict[str, Any] | None = None
    cached: dict[str, Any] | None = None
    finish_reason: str = "stop"
    held: bool = False
    breaks: bool = False
    cut: bool = False
    status: int = 200
    message: str = "the LLM server cannot be reached"
    code: str = "upstream_unavailable"
    retry_after: float | None = None


DEFAULT = Script()


def saying(text: str, **changes: Any) -> Script:
    """A script that answers with this text, without citations."""
    return Script(deltas=words(text), citations=[], **changes)


def answer_event(
    identity: str, conversation: str, script: Script, *, explained: bool = False
) -> dict[str, Any]:
    """The `answer` event; `explained`: the question asked for an explanation."""
    judged = {} if script.answerable is None else {"answerable": script.answerable}
    chosen = {"explain": script.explain} if explained else {}
    before = {"cached": script.cached} if script.cached else {}
    return {
        "answer": "".join(script.deltas),
        "conversation": conversation,
        "finish_reason": script.finish_reason,
        "usage": USAGE,
        "tandem": {
            "exchange": identity,
            "contract": "1",
            "outcome": script.outcome,
            "degraded": script.degraded,
            "versions": VERSIONS,
            "citations": script.citations,
            "timings_ms": TIMINGS,
            "attempts": ATTEMPTS,
            **judged,
            **chosen,
            **before,
        },
    }


def exchange_record(
    identity: str, asked: dict[str, Any], script: Script, at: float = 1_790_000_000.0
) -> dict[str, Any]:
    """A recorded exchange, as `GET /exchanges/{id}` gives it."""
    passages = [
        {"chunk": {k: v for k, v in p.items() if k != "score"} | {"id": p["chunk"]}, "score": p["score"]}
        for p in script.passages
    ]
    system = "Answer from the passages only, and cite them as [1].\n\n" + "\n\n".join(
        p["text"] for p in script.passages
    )
    question = {"role": "user", "content": asked["message"]}
    prompt = {
        "messages": [{"role": "system", "content": system}, question],
        "template": VERSIONS["prompt"],
        "max_tokens": 160,
    }
    return {
        "id": identity,
        "at": at,
        "outcome": script.outcome,
        "question": {
            "messages": [question],
            "assistant": asked.get("assistant", "tandem"),
            "conversation": "c-0001",
        },
        "passages": passages,
        "prompt": prompt | {"passages": passages},
        "answer": "".join(script.deltas),
        "citations": script.citations,
        "degraded": script.degraded,
        "versions": VERSIONS,
        "timings_ms": TIMINGS,
        "usage": USAGE,
        "attempts": ATTEMPTS,
        "finish_reason": script.finish_reason,
        "error": None,
        "cached": script.cached,
    }


def failed_record(identity: str, question: str, at: float) -> dict[str, Any]:
    """An exchange that failed before there was a prompt."""
    error = {
        "message": "the LLM server cannot be reached",
        "type": "server_error",
        "code": "upstream_unavailable",
        "param": None,
    }
    whole = exchange_record(identity, {"message": question}, DEFAULT, at)
    absent: dict[str, Any] = {
        "prompt": None,
        "answer": "",
        "citations": [],
        "usage": None,
        "finish_reason": None,
    }
    timings = {"embed": 7.2, "search": 3.0, "total": 2011.0}
    return whole | absent | {"outcome": "failed", "error": error, "timings_ms": timings}


def history(count: int) -> list[dict[str, Any]]:
    """Recorded exchanges, oldest first: every fifth failed, every seventh abstained."""
    return [_old(number) for number in range(count)]


def _old(number: int) -> dict[str, Any]:
    identity, at = f"old-{number:03d}", 1_789_000_000.0 + 977 * number
    question = SUGGESTIONS[number % 3].replace("?", f" (no. {number})?")
    if number % 5 == 0:
        return failed_record(identity, question, at)
    nothing = Script(deltas=["The documents do not say."], passages=[], citations=[], outcome="abstained")
    return exchange_record(identity, {"message": question}, nothing if number % 7 == 0 else DEFAULT, at)


def summary(record: dict[str, Any]) -> dict[str, Any]:
    """A row of the list of exchanges."""
    kept = {name: record[name] for name in ("id", "at", "outcome", "degraded", "timings_ms")}
    question = record["question"]
    named = {"assistant": question["assistant"], "conversation": question["conversation"]}
    return kept | named | {"question": question["messages"][-1]["content"], "answer": record["answer"][:120]}
