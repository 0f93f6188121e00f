"""The real app, guard and sink over a socket, with a scripted LLM and a fixed shelf behind them."""

import asyncio
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import msgspec

from business_api.admission import Admission
from business_api.answer_cache import AnswerCache
from business_api.answering import Parts
from business_api.app import create_app
from business_api.assistants import Assistant, Assistants
from business_api.exchange import Exchange
from business_api.extracting import extract
from business_api.gate import Gate
from business_api.guard import Guard
from business_api.prompting import Prompting, Template
from business_api.rewriting import rewrite
from business_api.settings import ROOT, GuardSettings, LlmSettings, Settings
from business_api.sink import Sink
from business_api.transport import InProcess
from business_api.upstream import Upstream
from business_api.upstream.tier import Tier
from business_api.wiring import Wired, remembering, watching
from tests.fakes import FakeLlm, FixedJudge, FixedShelf, LetterEmbedder, passage, serving

PORTS = passage("The LLM server listens on 127.0.0.1:8001 by default.", "docs/ports.md")
TEMPLATE = "answer_with_markers/v1"
RELEASED = Template.load(ROOT / "prompts", TEMPLATE)
ASSISTANTS = Assistants(
    [
        Assistant(name="tandem", collection="kb", template=TEMPLATE, suggestions=("Which port?",)),
        Assistant(name="plain", max_tokens=256),
        Assistant(name="careful", collection="kb", template=TEMPLATE, abstain="refuse"),
    ]
)


@dataclass
class Stack:
    """A running business API at `url`, and what is behind it."""

    url: str
    llm: FakeLlm
    shelf: FixedShelf
    sink: Sink
    guard: Guard
    gate: Gate

    def recorded(self) -> list[Exchange]:
        """Every exchange in the store, oldest first."""
        assert self.sink.drain_now()
        rows = self.sink.store.list("default", limit=500)
        found = [self.sink.store.get("default", row.id) for row in rows]
        return [exchange for exchange in reversed(found) if exchange is not None]


class ShelfIndex:
    """Says which index a shelf stands for; raises `error` if there is one, or says nothing for ever."""

    def __init__(self, shelf: FixedShelf) -> None:
        self.shelf = shelf
        self.error: Exception | None = None
        self.hangs = False
        self.asked: list[str] = []

    async def index(self, tenant: str) -> str:
        """The shelf's index, the same for all tenants."""
        self.asked.append(tenant)
        if self.hangs:
            await asyncio.Event().wait()
        if self.error is not None:
            raise self.error
        return self.shelf.index


def answer_cache(assistants: Assistants, shelf: FixedShelf, upstream: Upstream) -> AnswerCache:
    """Answers that were made from what the shelf holds."""
    cache = AnswerCache(
        10**6,
        assistants=assistants,
        templates={TEMPLATE: RELEASED.version},
        stores={"kb": ShelfIndex(shelf)},
        served=upstream.pool.models,
    )
    cache.patience = 60.0
    return cache


@contextmanager
def running_stack(
    var: Path,
    llm: FakeLlm | None = None,
    shelf: FixedShelf | None = None,
    llm_settings: LlmSettings | None = None,
    judge: FixedJudge | None = None,
    *,
    assistants: Assistants = ASSISTANTS,
    fallbacks: Mapping[str, Upstream] = MappingProxyType({}),
    **guard_fields: Any,
) -> Iterator[Stack]:
    """Serve it; everything is closed at the end. `guard_fields` are GuardSettings'."""
    settings = Settings(var=var, guard=GuardSettings(**guard_fields))
    llm, shelf = llm or FakeLlm("It listens on port 8001 [1]."), shelf or FixedShelf((PORTS,))
    sink, guard, llm_settings = Sink.open(settings), Guard.open(settings), llm_settings or settings.llm
    admission = Admission(llm_settings, settings.guard.priorities)
    upstream = Upstream(InProcess(llm), llm_settings, admission.observe)
    metrics = watching(admission, sink, guard)
    assistants = Assistants([*assistants, *_backed(fallbacks)])
    parts = Parts(
        assistants=assistants,
        check=guard.check,
        admit=admission.admit,
        room=admission.room,
        rewrite=rewrite,
        retrieve=shelf.retrieve,
        judge=(judge or FixedJudge()).judge,
        fill=Prompting({TEMPLATE: RELEASED}, 2048, 3.0).fill,
        generate=upstream.generate,
        extract=extract,
        record=metrics.counted(guard.settling(sink.record), frozenset(a.name for a in assistants)),
        reserve=guard.reserve,
        chains=Tier.of(upstream, fallbacks, assistants).generates,
    )
    parts = remembering(parts, answer_cache(assistants, shelf, upstream), metrics)
    wires = Wired(parts, guard, sink, metrics, {"llm": upstream.problem}, LetterEmbedder().embed, "letters")
    with closing(guard), closing(sink), serving(create_app(wires, settings)) as url:
        yield Stack(url, llm, shelf, sink, guard, admission.gate)


def _backed(fallbacks: Mapping[str, Upstream]) -> list[Assistant]:
    """`backed` and `backed_kb`, which fall back on all of these in their order."""
    names = tuple(fallbacks)
    if not names:
        return []
    plain = Assistant(name="backed", max_tokens=256, fallbacks=names)
    kb = {"name": "backed_kb", "collection": "kb", "template": TEMPLATE, "when_llm_fails": "extract"}
    return [plain, msgspec.structs.replace(plain, **kb)]
