"""Exchanges to record; as a program (`python -m tests.exchanges VAR`) it records until it is killed."""

import sys
from pathlib import Path
from typing import Any

from business_api.exchange import Exchange, Message, Outcome, Prompt, Question
from business_api.ids import new_id
from business_api.passages import Chunk, Passage
from business_api.settings import Settings
from business_api.sink import Sink
from business_api.usage import Usage

CHUNK = Chunk(id="c1", document="docs/a.md", title="Ports", number=0, start=0, end=7, text="Port 80")


def exchange(
    exchange_id: str | None = None,
    *,
    tenant: str = "default",
    question: str = "Which port?",
    conversation: str | None = None,
    key: str | None = None,
    sampling: dict[str, Any] | None = None,
    **fields: Any,
) -> Exchange:
    """An exchange that has ended well, unless `fields` say otherwise."""
    asked = Question(
        id=exchange_id or new_id(),
        tenant=tenant,
        assistant="tandem",
        messages=(Message("user", question),),
        conversation=conversation,
        key=key,
        sampling=sampling or {},
    )
    passages = (Passage(CHUNK, 0.5),)
    prompt = Prompt(messages=asked.messages, template="t/v1@1", passages=passages, max_tokens=16)
    ended: dict[str, Any] = {
        "outcome": Outcome.ANSWERED,
        "answer": "Port 80 [1].",
        "passages": passages,
        "prompt": prompt,
        "timings_ms": {"ttft": 1.5, "total": 2.5},
        "usage": Usage(3, 4, 7),
        "finish_reason": "stop",
    }
    return Exchange(question=asked, **(ended | fields))


def main() -> None:
    """Record for ever; say the id of each exchange once it is recorded."""
    sink = Sink.open(Settings(var=Path(sys.argv[1])))
    while True:
        made = exchange(question="x" * 500)
        sink.record(made)
        sys.stdout.write(f"{made.id}\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
