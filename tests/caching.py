"""The story with kept answers: a scripted LLM, a clock, and an index that is fixed or real."""

from typing import Any

from business_api.admission import Admission
from business_api.answer_cache import AnswerCache
from business_api.answering import Answer, Parts, answer
from business_api.assistants import Assistant, Assistants
from business_api.exchange import Exchange, Message, Question
from business_api.extracting import extract
from business_api.ids import new_id
from business_api.metrics import Metrics
from business_api.prompting import Prompting
from business_api.retrieval import Retriever
from business_api.rewriting import rewrite
from business_api.settings import LlmSettings
from business_api.transport import InProcess
from business_api.upstream import Upstream
from business_api.vector_store import Generations
from business_api.wiring import remembering
from tests.clocks import Clock
from tests.fakes import FakeLlm, FixedJudge, FixedShelf, LetterEmbedder, Notebook
from tests.reading import text_of
from tests.stack import PORTS, RELEASED, TEMPLATE, ShelfIndex

SECONDS = 60


def question(text: str = "Which port?", **fields: Any) -> Question:
    """A question of the tenant `t` to the assistant `tandem`, unless `fields` say otherwise."""
    asked = {"id": new_id(), "tenant": "t", "assistant": "tandem", **fields}
    return Question(**{"messages": (Message(role="user", content=text),), **asked})


async def read(started: Answer) -> str:
    """The whole answer."""
    async with started:
        return await text_of(started)


def _assistants(fields: dict[str, Any]) -> Assistants:
    searching = {"collection": "kb", "template": TEMPLATE, "cache_seconds": SECONDS, **fields}
    return Assistants(
        [
            Assistant(name="tandem", **searching),
            Assistant(name="other", **searching),
            Assistant(name="plain", cache_seconds=SECONDS),
            Assistant(name="never"),
        ]
    )


class CachedStory:
    """Assistants `tandem` and `other`, with documents, and `plain` keep answers; `never` does not.

    `asked()` counts what the LLM was asked; `exchanges` are those that were recorded.
    """

    def __init__(
        self,
        llm: FakeLlm | None = None,
        *,
        shelf: FixedShelf | None = None,
        store: Generations | None = None,
        limit: int = 10**6,
        judge: FixedJudge | None = None,
        settings: LlmSettings = LlmSettings(),  # noqa: B008 - frozen
        **assistant: Any,
    ) -> None:
        self.llm = llm or FakeLlm("It listens on port 8001 [1].")
        self.clock, self.shelf, self.notebook = Clock(), shelf or FixedShelf((PORTS,)), Notebook()
        self.store, self.judge, self.metrics = ShelfIndex(self.shelf), judge or FixedJudge(), Metrics()
        self.upstream, self.admission = Upstream(InProcess(self.llm), settings), Admission(settings, {})
        searching = Retriever({"kb": store}, LetterEmbedder(), 9.0, 9.0) if store else self.shelf
        self.assistants = _assistants(assistant)
        self.cache = AnswerCache(
            limit,
            assistants=self.assistants,
            templates={TEMPLATE: RELEASED.version},
            stores={"kb": store or self.store},
            served=self.upstream.pool.models,
            clock=self.clock,
        )
        self.cache.patience = 60.0
        parts = Parts(
            assistants=self.assistants,
            check=lambda question: None,
            admit=self.admission.admit,
            room=self.admission.room,
            rewrite=rewrite,
            retrieve=searching.retrieve,
            judge=self.judge.judge,
            fill=Prompting({TEMPLATE: RELEASED}, 2048, 3.0).fill,
            generate=self.upstream.generate,
            extract=extract,
            record=self.metrics.counted(self.notebook.record, frozenset({"tandem", "plain"})),
        )
        self.parts = remembering(parts, self.cache, self.metrics)

    async def ask(self, asked: Question | None = None, **fields: Any) -> Exchange:
        """The exchange of a question that was answered to its end."""
        text = await read(await answer(asked or question(**fields), self.parts))
        assert self.exchanges[-1].answer == text
        return self.exchanges[-1]

    @property
    def exchanges(self) -> list[Exchange]:
        """All that were recorded."""
        return self.notebook.exchanges

    def asked(self) -> int:
        """How often the LLM was asked."""
        return len(self.llm.requests)
