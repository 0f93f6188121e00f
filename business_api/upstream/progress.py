"""Whether an LLM server makes progress, by its own counters: one that hangs still answers `/health`."""

import asyncio
import re
from typing import NamedTuple

from business_api.errors import UpstreamTimeout
from business_api.transport import Transport, whole

COUNTERS = ("vllm:iteration_tokens_total_count", "vllm:iteration_tokens_total_sum", "llamacpp:n_decode_total")
"""Counters that move with every step of the model, whatever it works at."""
RUNNING = ("vllm:num_requests_running", "llamacpp:requests_processing")
LINE = re.compile(rb"^([a-zA-Z_:]+)(?:\{[^}]*\})? ([0-9.eE+]+)\s*$", re.MULTILINE)


class Counters(NamedTuple):
    """Steps of the model so far, and answers that it works at now."""

    steps: float
    running: float


async def counters(root: Transport, deadline: float) -> Counters | None:
    """What `/metrics` says, None when it has no such counters. Raises Unavailable when it does not answer."""
    try:
        async with asyncio.timeout(deadline):
            page = await whole(await root.send("GET", "/metrics", b"", {}))
    except TimeoutError as exc:
        raise UpstreamTimeout("the LLM server does not answer in time") from exc
    return read_counters(page)


def read_counters(page: bytes) -> Counters | None:
    """The counters of a Prometheus page, summed over its engines."""
    found: dict[str, float] = {}
    for name, value in LINE.findall(page):
        found[name.decode()] = found.get(name.decode(), 0.0) + float(value)
    if not any(name in found for name in COUNTERS):
        return None
    return Counters(sum(found.get(n, 0.0) for n in COUNTERS), sum(found.get(n, 0.0) for n in RUNNING))
