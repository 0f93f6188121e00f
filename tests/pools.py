"""Pools of scripted LLM servers over real sockets, for the tests of what happens when one of them fails."""

import socket
from collections.abc import AsyncIterator
from contextlib import ExitStack, asynccontextmanager
from typing import Any

from business_api.exchange import Message, Prompt
from business_api.pool_settings import ReplicaSettings
from business_api.settings import LlmSettings
from business_api.upstream import Running, Upstream
from business_api.upstream.chain import Chain
from tests.fakes import FakeLlm, serving
from tests.reading import text_of

PROMPT = Prompt(messages=(Message(role="user", content="Where?"),), max_tokens=20)
PIECES = ["The ", "port ", "is ", "8001."]
SAID = "".join(PIECES)
NOBODY = object()
"""In the place of a server: an address where nobody listens."""


@asynccontextmanager
async def pool_of(*servers: Any, **knobs: Any) -> AsyncIterator[Upstream]:
    """A pool of these servers, called a, b, c ...; they are asked in turn, a first."""
    with ExitStack() as stack:
        urls = [nowhere() if one is NOBODY else stack.enter_context(serving(one)) for one in servers]
        replicas = tuple(
            ReplicaSettings(url=f"{url}/v1", name=name) for url, name in zip(urls, "abcdefgh", strict=False)
        )
        async with Upstream.open(settings_of(replicas=replicas, **knobs)) as upstream:
            yield upstream


def settings_of(**knobs: Any) -> LlmSettings:
    """Settings with short pauses, replicas taken in turn."""
    quick = {"choice": "round_robin", "backoff": 0.01, "first_delta_deadline": 5.0, "probe_seconds": 60.0}
    return LlmSettings(**quick | knobs)


def llm(**knobs: Any) -> FakeLlm:
    """A server that says PIECES and goes on with what was begun."""
    said: dict[str, Any] = {"pieces": PIECES, "continues": True}
    return FakeLlm(**said | knobs)


async def heard(upstream: Upstream | Chain, **sampling: Any) -> tuple[str, Running]:
    """What was said to the end, and the answer, which is closed."""
    running = await upstream.generate(PROMPT, sampling, "id-1")
    try:
        return await text_of(running), running
    finally:
        await running.aclose()


def trail(attempts: Any) -> list[tuple[str, str]]:
    """Which replica, and how it went."""
    return [(attempt.replica, attempt.outcome) for attempt in attempts]


def nowhere() -> str:
    """An address where nobody listens."""
    with socket.socket() as trial:
        trial.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{trial.getsockname()[1]}"
