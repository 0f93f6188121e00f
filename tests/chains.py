"""An LLM tier with fallbacks, over real sockets or in this process, for the tests of the fallback chain."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import ExitStack, asynccontextmanager
from typing import Any

from business_api.assistants import Assistant
from business_api.settings import LlmSettings, Settings
from business_api.upstream import Running
from business_api.upstream.chain import Chain
from business_api.upstream.tier import Tier
from tests.fakes import FakeLlm, serving
from tests.pools import NOBODY, PROMPT, llm, nowhere, settings_of, trail

NAMES = ("small", "hosted")


@asynccontextmanager
async def tier_of(
    primary: Any, *fallbacks: Any, knobs: Mapping[str, Any] | None = None, **own: Any
) -> AsyncIterator[Tier]:
    """These servers, each a tier of its own: the first one asked, then `small`, then `hosted`.

    `own` are settings of the LLM tier, `knobs` those of its fallbacks.
    """
    with ExitStack() as stack:
        url, *urls = [
            nowhere() if one is NOBODY else stack.enter_context(serving(one)) for one in (primary, *fallbacks)
        ]
        known: dict[str, LlmSettings] = {
            name: settings_of(url=f"{at}/v1", **knobs or {}) for name, at in zip(NAMES, urls, strict=False)
        }
        settings = Settings(llm=settings_of(url=f"{url}/v1", **own), llm_fallbacks=known)
        assistant = Assistant(name="backed", fallbacks=tuple(known))
        async with Tier.open(settings, [assistant], lambda ttft_ms, tokens: None) as tier:
            yield tier


@asynccontextmanager
async def chain_of(primary: Any, *fallbacks: Any, **settings: Any) -> AsyncIterator[Chain]:
    """The chain over these servers."""
    async with tier_of(primary, *fallbacks, **settings) as tier:
        yield tier.chains["backed"]


def carried(chain: Chain) -> float:
    """All that is still counted as under way."""
    replicas = [one for tier in (chain.primary, *chain.fallbacks.values()) for one in tier.pool.replicas]
    return sum(one.outstanding + one.running + len(one.waits) for one in replicas)


def small(**knobs: Any) -> FakeLlm:
    """A server that says something else than `tests.pools.llm`, by another model."""
    return llm(pieces=["Small ", "talk."], model="tiny", **knobs)


def outcomes(running: Any) -> list[tuple[str, str]]:
    """Who was asked, without addresses, and how it went."""
    return [(name.partition("127")[0], how) for name, how in trail(running.attempts)]


async def asked(chain: Chain) -> Running:
    """An answer that has begun; close it."""
    return await chain.generate(PROMPT, {}, "id-1")


async def burst(chain: Chain, number: int) -> tuple[list[Running], list[BaseException]]:
    """What so many that come at once get: answers that have begun, and errors."""
    found = await asyncio.gather(*(asked(chain) for _ in range(number)), return_exceptions=True)
    begun = [one for one in found if isinstance(one, Running)]
    return begun, [one for one in found if isinstance(one, BaseException)]


async def close(begun: list[Running]) -> None:
    """All of them."""
    for one in begun:
        await one.aclose()
