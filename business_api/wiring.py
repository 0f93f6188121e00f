"""What is wired to what: the parts of the story, opened from the settings and closed in reverse."""

from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field, replace

from business_api.abstaining import CalibratedJudge, Calibration, shipped_calibration
from business_api.admission import Admission
from business_api.answer_cache import AnswerCache
from business_api.answering import Parts
from business_api.assistants import Assistants
from business_api.embedding import CachedEmbedder, Embedder, open_embedder
from business_api.errors import ServiceError
from business_api.exchange import Judge
from business_api.extracting import extract
from business_api.fencing import kept_secret
from business_api.guard import Guard
from business_api.metrics import Metrics
from business_api.narrowing import looking_in
from business_api.openai_api import Embed
from business_api.ops_api import Problem
from business_api.prompting import Prompting, Template
from business_api.reranking import open_reranker
from business_api.retrieval import Retriever
from business_api.rewriting import TEMPLATES, Rewriting
from business_api.settings import Settings
from business_api.sink import Sink
from business_api.supporting import similarity_of
from business_api.upstream.tier import Tier
from business_api.vector_store import VectorStore, open_store


@dataclass(frozen=True)
class Wired:
    """Everything the routes are made of."""

    parts: Parts
    guard: Guard
    sink: Sink
    metrics: Metrics
    problems: Mapping[str, Problem]
    embed: Embed
    embedder: str
    out: Callable[[], Mapping[str, str]] = dict
    lacking: Mapping[str, Problem] = field(default_factory=dict)


@asynccontextmanager
async def wired(settings: Settings) -> AsyncIterator[Wired]:
    """Open every client, lend them out, close them in reverse.

    Raises ValueError and OSError with a message for the operator when a setting, a file or a lock is wrong.
    """
    async with AsyncExitStack() as opened:
        assistants = Assistants.load(settings.assistants)
        sink = Sink.open(settings)
        opened.callback(sink.close)
        embedder = CachedEmbedder(await open_embedder(settings), settings.embedding.cache)
        opened.push_async_callback(embedder.aclose)
        stores = await _stores(settings, assistants, embedder, opened)
        admission = Admission(settings.llm, settings.guard.priorities)
        tier = await opened.enter_async_context(Tier.open(settings, assistants, admission.observe))
        guard = Guard.open(settings)
        opened.push_async_callback(guard.aclose)
        metrics = watching(admission, sink, guard)
        _watch_replicas(metrics, tier)
        chosen, prompting = settings.embedding, _prompting(settings, assistants)
        parts = Parts(
            assistants=assistants,
            check=guard.check,
            admit=admission.admit,
            room=admission.room,
            rewrite=_rewriting(settings, tier, stores).rewrite,
            retrieve=(await _retriever(settings, assistants, stores, embedder, opened)).retrieve,
            judge=_judge(settings, assistants, embedder.name),
            fill=prompting.fill,
            generate=tier.primary.generate,
            extract=extract,
            record=metrics.counted(guard.settling(sink.record), frozenset(a.name for a in assistants)),
            similarity=similarity_of(embedder, chosen.deadline) if chosen.support else None,
            reserve=guard.reserve,
            chains=tier.generates,
        )
        parts = remembering(parts, _answer_cache(settings, assistants, prompting, stores, tier), metrics)
        problems, lacking = _problems(settings, assistants, stores, tier)
        yield Wired(parts, guard, sink, metrics, problems, embedder.embed, embedder.name, tier.out, lacking)


async def _stores(
    settings: Settings, assistants: Assistants, embedder: Embedder, opened: AsyncExitStack
) -> dict[str, VectorStore]:
    """The collections that the assistants name."""
    stores = {}
    for collection in dict.fromkeys(a.collection for a in assistants if a.collection):
        store = await open_store(
            settings, collection, model=embedder.name, dimension=embedder.dimension, create=True
        )
        opened.push_async_callback(store.aclose)
        stores[collection] = store
    return stores


def _rewriting(settings: Settings, tier: Tier, stores: Mapping[str, VectorStore]) -> Rewriting:
    templates = {name: Template.load(settings.prompts, name) for name in TEMPLATES}
    said = tier.primary.generate
    return Rewriting(said, templates, settings.rewriting, looking_in(stores), chains=tier.generates)


async def _retriever(
    settings: Settings,
    assistants: Assistants,
    stores: Mapping[str, VectorStore],
    embedder: Embedder,
    opened: AsyncExitStack,
) -> Retriever:
    reranker = await open_reranker(settings)
    if reranker is not None:
        opened.push_async_callback(reranker.aclose)
    elif wanting := [a.name for a in assistants if a.rerank]:
        raise ValueError(
            f"assistant {wanting[0]!r} reranks, but there is no reranker: set BUSINESS_API_RERANK__KIND"
        )
    return Retriever(
        stores,
        embedder,
        settings.embedding.deadline,
        settings.store.deadline,
        reranker,
        settings.rerank.deadline,
    )


def _judge(settings: Settings, assistants: Assistants, embedder: str) -> Judge:
    """By the calibration that the settings name, or the one that came with the program."""
    named = settings.calibration
    calibration = Calibration.load(named, embedder) if named else shipped_calibration(embedder)
    if calibration is not None:
        return CalibratedJudge(calibration).judge
    if wanting := [a.name for a in assistants if a.abstain != "never"]:
        raise ValueError(
            f"assistant {wanting[0]!r} abstains, but there is no calibration for the embedder {embedder!r}: "
            "make one with business-api eval calibrate and name it in BUSINESS_API_CALIBRATION"
        )
    return lambda question, found, assistant: None


def _prompting(settings: Settings, assistants: Assistants) -> Prompting:
    names = {a.template for a in assistants if a.template}
    return Prompting(
        {name: Template.load(settings.prompts, name) for name in names},
        settings.llm.context_tokens,
        settings.llm.bytes_per_token,
        kept_secret(settings.var / "fence.secret"),
    )


def watching(admission: Admission, sink: Sink, guard: Guard) -> Metrics:
    """The counters, with those of the queue and the sink that are read when they are asked for."""
    metrics, gate = Metrics(), admission.gate
    metrics.watch("tandem_generations_running", "Questions being answered", lambda: gate.running)
    metrics.watch("tandem_generations_waiting", "Questions in our queue", lambda: gate.waiting)
    metrics.watch("tandem_generations_limit", "Questions that may be answered at once", lambda: gate.places)
    metrics.watch_counts("tandem_shed", "Questions refused under overload, by reason", "reason", gate.shed)
    metrics.watch_counts("tandem_recorded", "Exchanges in the sink, by state", "state", sink.counts)
    metrics.watch_counts("tandem_dropped", "Exchanges that were not kept, by reason", "reason", sink.dropped)
    metrics.watch_counts(
        "tandem_limits_uncounted", "Spending that Redis did not count", "by", guard.uncounted
    )
    return metrics


def _answer_cache(
    settings: Settings,
    assistants: Assistants,
    prompting: Prompting,
    stores: Mapping[str, VectorStore],
    tier: Tier,
) -> AnswerCache:
    return AnswerCache(
        settings.answer_cache_bytes,
        assistants=assistants,
        templates={name: template.version for name, template in prompting.templates.items()},
        stores=stores,
        served=tier.primary.pool.models,
    )


def remembering(parts: Parts, cache: AnswerCache, metrics: Metrics) -> Parts:
    """The parts with kept answers, counted; the same ones where no assistant wants it."""
    if not any(assistant.cache_seconds for assistant in parts.assistants):
        return parts
    metrics.watch("tandem_answer_cache_bytes", "Memory of kept answers", lambda: cache.bytes)
    metrics.watch_counts(
        "tandem_answer_cache", "Questions that may have a kept answer", "found", lambda: cache.counts
    )
    return replace(parts, recall=cache.recall, record=cache.keeping(parts.record))


def _watch_replicas(metrics: Metrics, tier: Tier) -> None:
    metrics.watch_levels(
        "tandem_replica_outstanding_tokens",
        "Tokens an LLM server has still to read or to say",
        "replica",
        tier.outstanding,
    )
    metrics.watch_levels(
        "tandem_replica_ejected",
        "Workers that give an LLM server nothing now",
        "replica",
        tier.ejected,
    )
    metrics.watch_counts(
        "tandem_fallback_generations",
        "Texts that a fallback began in place of the LLM tier",
        "fallback",
        lambda: tier.stood_in,
    )
    metrics.watch_counts(
        "tandem_fallback_full",
        "Texts that a fallback had no room for while it was needed",
        "fallback",
        lambda: tier.full,
    )


def _problems(
    settings: Settings, assistants: Assistants, stores: Mapping[str, VectorStore], tier: Tier
) -> tuple[dict[str, Problem], dict[str, Problem]]:
    """Why the default assistant cannot answer, and what it has to do without."""
    store = stores.get(assistants.get(assistants.default).collection or "")
    chain = tier.chains.get(assistants.default)
    problems = {"llm": (chain or tier.primary).problem, "documents": _documents(store, settings.tenant)}
    return problems, {"llm": chain.problem_of_primary} if chain else {}


def _documents(store: VectorStore | None, tenant: str) -> Problem:
    """Whether the default assistant has documents; another one's concern only its callers."""

    async def problem() -> str | None:
        try:
            if store is None or await store.count(tenant):
                return None
        except ServiceError as exc:
            return exc.message
        name = store.collection
        return f"nothing is ingested into {name}: run business-api ingest --collection {name} PATH"

    return problem
