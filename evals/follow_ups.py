"""Is the right document found for a follow-up? `python -m evals.follow_ups --llm http://127.0.0.1:8001/v1`.

The conversations of `follow_ups.jsonl` are about this project's own documentation, which is what is searched.
Some refer to the turn before, the others switch to another subject. Without `--llm` only what costs no call
is measured.
"""

import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
import typer

from business_api.assistants import Assistant
from business_api.exchange import Generate, Message, Question
from business_api.narrowing import Facets
from business_api.passages import Query
from business_api.prompting import Template
from business_api.rewriting import TEMPLATES, Rewriting, as_asked
from business_api.settings import ROOT, RewritingSettings, Settings
from business_api.terminal import read_settings, run
from business_api.transport import open_transport
from business_api.upstream import Upstream
from evals.indexes import COLLECTION, TENANT, as_served, indexed
from evals.measures import interval
from evals.parts import kept_folder, opened
from evals.report import Report, write
from evals.sets import Document
from evals.showing import shown
from evals.trials import retriever_of
from loadtests.figures import Row

RESULTS = Path(__file__).resolve().parent / "results"
CONVERSATIONS = Path(__file__).with_suffix(".jsonl")
ASSISTANT = Assistant(name="follow-ups", collection=COLLECTION, passages=20, condense=False)
WITH_LLM: dict[str, dict[str, Any]] = {
    "condensed": {"condense": True},
    "2 rewordings": {"rewordings": 2},
    "HyDE": {"hypothetical": True},
}
PATIENCE = 120.0
"""Seconds a call may take: quality is measured, not what is late on this machine."""


class Conversation(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Turns of user and assistant, the last one the follow-up; any of `documents` answers it."""

    kind: Literal["refers", "switches"]
    turns: tuple[str, ...]
    documents: tuple[str, ...]

    @property
    def question(self) -> Question:
        """What is asked last, with all that was said before."""
        said = zip(("user", "assistant") * len(self.turns), self.turns, strict=False)
        messages = tuple(Message(role=role, content=text) for role, text in said)
        return Question(id="follow-up", tenant=TENANT, assistant=ASSISTANT.name, messages=messages)


Way = Callable[[Question], Awaitable[Query]]


def ways_without_llm() -> dict[str, Way]:
    """What costs no call."""

    def way(texts: Callable[[Question], tuple[str, ...]]) -> Way:
        async def query(question: Question) -> Query:
            return Query(texts(question))

        return query

    return {
        "last message": way(lambda question: (question.text,)),
        "last two joined": way(lambda question: as_asked(question)[:1]),
        "both (without an LLM)": way(as_asked),
    }


def ways_with_llm(generate: Generate, settings: Settings) -> dict[str, Way]:
    """One rewriting each; what is discarded is searched as without it."""
    templates = {name: Template.load(settings.prompts, name) for name in TEMPLATES}
    patient = RewritingSettings(deadline=PATIENCE, max_tokens=settings.rewriting.max_tokens)

    async def nothing_known(tenant: str, assistant: Assistant) -> Facets:
        return Facets()

    rewriting = Rewriting(generate, templates, patient, nothing_known)

    def way(assistant: Assistant) -> Way:
        async def query(question: Question) -> Query:
            return (await rewriting.rewrite(question, assistant)).query

        return query

    return {name: way(msgspec.structs.replace(ASSISTANT, **fields)) for name, fields in WITH_LLM.items()}


async def measure(conversations: Sequence[Conversation], settings: Settings, llm: str | None) -> list[Row]:
    """All rows: reciprocal ranks by way and kind of conversation, and what each way takes."""
    ways = ways_without_llm()
    rows: list[Row] = []
    async with AsyncExitStack() as opening:
        if llm is not None:
            transport = open_transport(llm, settings.llm.connect_deadline)
            opening.push_async_callback(transport.aclose)
            ways |= ways_with_llm(Upstream(transport, settings.llm).generate, settings)
        parts = await opening.enter_async_context(opened(settings, ASSISTANT))
        pages = [
            Document(id=str(path.relative_to(ROOT)), text=path.read_text(), markdown=True)
            for path in (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")))
        ]
        folder = kept_folder(settings) / "follow_ups"
        cutting = as_served(parts.embedder)
        store = await opening.enter_async_context(indexed(pages, cutting, parts.embedder, settings, folder))
        retriever = retriever_of(store, parts.embedder)
        for name, way in ways.items():
            ranks, ms = [], []
            for one in shown(conversations, name):
                began = time.perf_counter()
                query = await way(one.question)
                ms.append((time.perf_counter() - began) * 1000)
                found = await retriever.retrieve(query, TENANT, ASSISTANT)
                ranks.append(_reciprocal([p.chunk.document for p in found.passages], one))
            rows += _rows(name, conversations, ranks)
            rows.append(Row.of(f"{name}: rewriting", "ms", "lower", ms))
    return rows


def _reciprocal(documents: Sequence[str], asked: Conversation) -> float:
    return next((1 / place for place, one in enumerate(documents, 1) if one in asked.documents), 0.0)


def _rows(name: str, conversations: Sequence[Conversation], ranks: Sequence[float]) -> list[Row]:
    rows = []
    for kind in ("refers", "switches", ""):
        these = [rank for one, rank in zip(conversations, ranks, strict=True) if kind in ("", one.kind)]
        mean = interval(these)
        title = f"{name}: MRR, {kind or 'all'}"
        rows.append(Row(name=title, unit="", better="higher", value=mean.mean, low=mean.low, high=mean.high))
    return rows


cli = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@cli.command()
def follow_ups(
    *,
    llm: Annotated[str | None, typer.Option(help="OpenAI base URL of an LLM server.")] = None,
    out: Annotated[Path, typer.Option(help="Where results are written.")] = RESULTS,
) -> None:
    """Measure what rewriting brings to follow-ups about this project's documentation.

    Example: python -m evals.follow_ups --llm http://127.0.0.1:8001/v1
    """
    conversations = [
        msgspec.json.decode(line, type=Conversation) for line in CONVERSATIONS.read_bytes().splitlines()
    ]
    rows = run(measure(conversations, read_settings(), llm))
    said = f"{len(conversations)} conversations about this documentation"
    report = Report(name="follow_ups", kind="rewriting", rows=rows, said=said)
    write(report, out, assistant=ASSISTANT.name, split="all")


if __name__ == "__main__":
    cli(prog_name="python -m evals.follow_ups")
