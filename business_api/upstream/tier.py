"""All models that answer: the LLM tier of the settings, and the fallbacks that assistants name."""

from collections import Counter
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass

from business_api.assistants import Assistant
from business_api.exchange import Generate
from business_api.settings import LlmSettings, QueueSettings, Settings
from business_api.upstream import Observe, Upstream
from business_api.upstream.chain import Chain
from business_api.upstream.pool import Pool


@dataclass(frozen=True)
class Tier:
    """`primary` answers, `chains` do for assistants with fallbacks; `stood_in`, `full` count by fallback."""

    primary: Upstream
    fallbacks: Mapping[str, Upstream]
    chains: Mapping[str, Chain]
    stood_in: Counter[str]
    full: Counter[str]

    @classmethod
    def of(
        cls, primary: Upstream, fallbacks: Mapping[str, Upstream], assistants: Iterable[Assistant]
    ) -> "Tier":
        """These models, chained as the assistants want it; the models belong to the caller."""
        stood_in, full = (Counter(dict.fromkeys(fallbacks, 0)) for _ in range(2))
        chains = {
            one.name: Chain(primary, {name: fallbacks[name] for name in one.fallbacks}, stood_in, full)
            for one in assistants
            if one.fallbacks
        }
        return cls(primary, fallbacks, chains, stood_in, full)

    @classmethod
    @asynccontextmanager
    async def open(
        cls, settings: Settings, assistants: Iterable[Assistant], observe: Observe
    ) -> AsyncIterator["Tier"]:
        """Every model that is asked for, watched and probed until it is closed.

        Raises ValueError for a fallback that is not set or wrongly set, UpstreamUnavailable when the name of
        servers cannot be resolved.
        """
        used = _used(settings.llm_fallbacks, assistants)
        async with AsyncExitStack() as opened:
            primary = Upstream.open(settings.llm, observe, elsewhere=bool(used))
            others = {
                name: Upstream.open(own, prefix=f"{name}/", elsewhere=True) for name, own in used.items()
            }
            yield cls.of(
                await opened.enter_async_context(primary),
                {name: await opened.enter_async_context(one) for name, one in others.items()},
                assistants,
            )

    @property
    def generates(self) -> Mapping[str, Generate]:
        """The `Generate` port of each assistant that has fallbacks, by its name."""
        return {name: chain.generate for name, chain in self.chains.items()}

    @property
    def pools(self) -> list[Pool]:
        """Those of the LLM tier and of the fallbacks."""
        return [upstream.pool for upstream in (self.primary, *self.fallbacks.values())]

    def out(self) -> Mapping[str, str]:
        """Servers that get nothing now, and why."""
        return {name: why for pool in self.pools for name, why in pool.out().items()}

    def ejected(self) -> Mapping[str, float]:
        """1 for each server that is out, 0 for one that is in."""
        return {name: level for pool in self.pools for name, level in pool.ejected().items()}

    def outstanding(self) -> Mapping[str, float]:
        """Tokens that each server has still to read or to say, by our estimate."""
        return {name: tokens for pool in self.pools for name, tokens in pool.outstanding().items()}


def _used(known: Mapping[str, LlmSettings], assistants: Iterable[Assistant]) -> dict[str, LlmSettings]:
    """The fallbacks that some assistant names. Raises ValueError when one is missing or wrongly set."""
    for name, settings in known.items():
        told = settings.model_fields_set
        if not told & {"url", "replicas"}:  # the default is the address of the LLM tier itself
            raise ValueError(f"the fallback {name!r} (BUSINESS_API_LLM_FALLBACKS) needs a url, or replicas")
        if unused := told.intersection(QueueSettings.model_fields) - {"max_in_flight"}:
            raise ValueError(
                f"the fallback {name!r} (BUSINESS_API_LLM_FALLBACKS) has no queue of its own: "
                f"take {', '.join(sorted(unused))} out"
            )
    for assistant in assistants:
        if missing := [name for name in assistant.fallbacks if name not in known]:
            raise ValueError(
                f"assistant {assistant.name!r} falls back on {missing[0]!r}, which is not set: add it to "
                f"BUSINESS_API_LLM_FALLBACKS, which has {', '.join(known) or 'nothing'}"
            )
    named = {name for assistant in assistants for name in assistant.fallbacks}
    return {name: settings for name, settings in known.items() if name in named}
